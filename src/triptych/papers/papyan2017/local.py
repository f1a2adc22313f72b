"""Working locally: codes inside the conditions are recovered, without exception; and how far beyond them they still are.

Part I (uniqueness, recovery without noise) and part II (recovery by OMP and by basis pursuit with noise). The dictionaries
are made by the program, with correlations pressed down by gradient steps; the authors' own are not public.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.sections import Curves, Section, Series
from triptych.bench.table import Column, Line, compare

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from triptych.sparse import ConvDictionary

PAPER = "Papyan, Sulam & Elad, Working Locally Thinking Globally, Parts I and II, IEEE TSP 2017"
CLAIMS = {"uniqueness": "uniqueness", "omp": "OMP", "basis pursuit": "basis pursuit", "beyond": "beyond the conditions"}


@dataclass(frozen=True)
class Laid:
    """Atoms and where they are laid: number, size, stride, boundary, places."""

    k: int
    size: tuple[int, ...]
    stride: int
    boundary: str
    places: tuple[int, ...]


DICTIONARIES = {
    "line": Laid(2, (64,), 1, "valid", (577,)),
    "circle": Laid(4, (12,), 3, "circular", (60,)),
    "picture": Laid(24, (8, 8), 4, "valid", (9, 9)),
}
SMALL = Laid(3, (8,), 2, "circular", (11,))


@dataclass(frozen=True)
class Cell:
    """One claim, on one dictionary."""

    claim: str
    dictionary: str


TRIALS = {Scale.SMOKE: 8, Scale.LAPTOP: 240, Scale.PAPER: 2400}  # of a claim, over its dictionaries and seeds
MADE = {Scale.SMOKE: 1, Scale.LAPTOP: 4, Scale.PAPER: 20}  # dictionaries of a kind, each from a seed of its own


def cells(scale: Scale) -> list[Cell]:
    """Uniqueness on the small circle, the pursuits on all dictionaries; on the smallest scale on the circle alone."""
    kinds = ["circle"] if scale is Scale.SMOKE else list(DICTIONARIES)
    found = [Cell("uniqueness", "small circle")]
    return found + [Cell(claim, kind) for claim in ("omp", "basis pursuit", "beyond") for kind in kinds]


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random trials inside the condition of a claim, half of them with two non-zeros or more in a stripe; or beyond."""
    start = time.process_time()
    count = TRIALS[context.scale] // (1 if cell.claim == "uniqueness" else len(cells(context.scale)) // 3)
    run = {"uniqueness": _uniqueness, "omp": _omp, "basis pursuit": _basis_pursuit, "beyond": _beyond}[cell.claim]
    metrics, artefacts = run(cell, count, context)
    return {**metrics, "cpu_seconds": time.process_time() - start}, artefacts


def _made(kind: str, number: int, seed: int) -> "tuple[ConvDictionary, float, np.random.Generator]":
    """A dictionary of a kind, its coherence, and the trials' random numbers."""
    import numpy as np

    from triptych.papers.papyan2017._trials import incoherent
    from triptych.sparse.coherence import mutual_coherence

    laid = SMALL if kind == "small circle" else DICTIONARIES[kind]
    D = incoherent(laid.k, laid.size, laid.stride, laid.boundary, 1000 * seed + number)
    return D, mutual_coherence(D), np.random.default_rng([seed, number])


def _stripe(trial: int, bound: float, rng: "np.random.Generator") -> int:
    """A stripe norm inside a bound: 1 in every second trial, otherwise from 2 to the largest."""
    largest = max(1, -int(-bound // 1) - 1)
    return 1 if trial % 2 == 0 or largest < 2 else int(rng.integers(2, largest + 1))


def _summary(mus: list[float], stripes: list[int], violations: int, tightness: list[float]) -> dict[str, Any]:
    return {
        "trials": len(stripes),
        "stripe_two": sum(s >= 2 for s in stripes),
        "largest_stripe": max(stripes),
        "coherence": sum(mus) / len(mus),
        "violations": violations,
        "tightest": max(tightness),
        "typical": sorted(tightness)[len(tightness) // 2],
    }


def _uniqueness(cell: Cell, count: int, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every other code with as few non-zeros a stripe is tried for the signal of a planted one."""
    from triptych.papers.papyan2017._trials import Rivals, planted
    from triptych.sparse.coherence import uniqueness_bound
    from triptych.sparse.norms import l0_stripe

    made = MADE[context.scale]
    mus, stripes, violations, near, rivals = [], [], 0, [], 0
    for number in range(made):
        D, mu, rng = _made(cell.dictionary, number, context.seed)
        bound = uniqueness_bound(mu)
        others = Rivals(D, SMALL.places, max(1, -int(-bound // 1) - 1))
        rivals += len(others)
        mus.append(mu)
        for trial in range(count // made):
            code = planted(D, SMALL.places, _stripe(trial, bound, rng), rng)
            found, nearest = others.judge(code)
            violations += found
            stripes.append(int(l0_stripe(D, code)))
            near.append(1 - nearest)  # how much of the signal the best wrong set explains
    return {**_summary(mus, stripes, violations, near), "rivals": rivals}, {}


def _noisy(D: "ConvDictionary", code: "Tensor", local: float, rng: "np.random.Generator") -> "tuple[Tensor, float]":
    """The signal of a code with noise of which the worst patch has the norm ``local``, and the noise's own norm."""
    import torch

    from triptych.sparse.norms import l2_patch

    clean = D.synthesise(code)
    e = torch.from_numpy(rng.standard_normal(clean.shape))
    e *= local / float(l2_patch(e, D.size, D.boundary))
    return clean + e, float(e.norm())


def _omp(cell: Cell, count: int, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """OMP stopped after ‖x‖₀ atoms, noise within the condition: exactly the atoms of x, the error within its bound."""
    from triptych.papers.papyan2017._trials import planted
    from triptych.sparse import Coding, guarantees, omp
    from triptych.sparse.coherence import uniqueness_bound

    made = MADE[context.scale]
    mus, stripes, violations, tightness = [], [], 0, []
    for number in range(made):
        D, mu, rng = _made(cell.dictionary, number, context.seed)
        mus.append(mu)
        for trial in range(count // made):
            code = planted(D, DICTIONARIES[cell.dictionary].places, _stripe(trial, uniqueness_bound(mu), rng), rng)
            free = guarantees(D, code)[0]
            room = mu * free.smallest * (free.uniqueness_bound - free.stripe)
            signal, norm = _noisy(D, code, float(rng.uniform(0.05, 0.99)) * room, rng)
            promise = guarantees(D, code, _local(D, signal - D.synthesise(code)), norm)[0]
            assert promise.omp
            found = omp(Coding(D, signal), n_nonzero=int((code != 0).sum())).codes.dense()
            error = float((found - code).norm())
            violations += int(bool(((found != 0) != (code != 0)).any()) or error > promise.omp_error)
            stripes.append(promise.stripe)
            tightness.append(error / promise.omp_error)
    return _summary(mus, stripes, violations, tightness), {}


def _basis_pursuit(cell: Cell, count: int, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Basis pursuit at λ = 4 ε: no wrong atom, no coefficient farther off than 7.5 ε, every larger atom found."""
    from triptych.papers.papyan2017._trials import planted
    from triptych.sparse import Coding, guarantees, pursue
    from triptych.sparse.coherence import basis_pursuit_bound

    made = MADE[context.scale]
    mus, stripes, violations, tightness = [], [], 0, []
    for number in range(made):
        D, mu, rng = _made(cell.dictionary, number, context.seed)
        mus.append(mu)
        bound = basis_pursuit_bound(mu) + 1e-9
        for trial in range(count // made):
            code = planted(D, DICTIONARIES[cell.dictionary].places, _stripe(trial, bound, rng), rng)
            signal, norm = _noisy(D, code, float(rng.uniform(0.01, 0.2)), rng)
            promise = guarantees(D, code, _local(D, signal - D.synthesise(code)), norm)[0]
            assert promise.basis_pursuit
            coding = Coding(D, signal, promise.reg, "absolute")
            found = pursue(coding, "working_set", tol=1e-11, max_steps=500).codes.dense()
            error, large = float((found - code).abs().max()), code.abs() > promise.basis_pursuit_error
            broken = (
                bool(found[code == 0].any()) or error >= promise.basis_pursuit_error or not bool(found[large].all())
            )
            violations += int(broken)
            stripes.append(promise.stripe)
            tightness.append(error / promise.basis_pursuit_error)
    return _summary(mus, stripes, violations, tightness), {}


def _beyond(cell: Cell, count: int, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Without noise: the share of codes that OMP and basis pursuit (λ near 0) recover, stripe norm by stripe norm."""
    from triptych.papers.papyan2017._trials import half, levels, planted
    from triptych.sparse import Coding, omp, pursue
    from triptych.sparse.coherence import basis_pursuit_bound, uniqueness_bound

    D, mu, rng = _made(cell.dictionary, 0, context.seed)
    places, bound = DICTIONARIES[cell.dictionary].places, uniqueness_bound(mu)
    each = max(2, count // 12)
    shares: dict[str, dict[int, float]] = {"omp": {}, "basis pursuit": {}}
    for stripe in levels(bound, min(6 * int(bound), 40)):
        right = {"omp": 0, "basis pursuit": 0}
        for _ in range(each):
            code = planted(D, places, stripe, rng)
            signal, atoms = D.synthesise(code), code != 0
            found = omp(Coding(D, signal), n_nonzero=int(atoms.sum())).codes.dense()
            right["omp"] += int(bool(((found != 0) == atoms).all()))
            found = pursue(Coding(D, signal, 1e-4), "working_set", tol=1e-6, max_steps=300).codes.dense()
            right["basis pursuit"] += int(bool(((found.abs() > 0.1) == atoms).all()))
        for name, count_right in right.items():
            shares[name][stripe] = count_right / each
    metrics = {
        "coherence": mu,
        "trials": each * len(shares["omp"]),
        "bound": bound,
        "basis_pursuit_bound": basis_pursuit_bound(mu),
        "half_omp": half(shares["omp"]),
        "half_basis_pursuit": half(shares["basis pursuit"]),
    }
    return metrics, {"shares": {name: sorted(values.items()) for name, values in shares.items()}}


def _local(D: "ConvDictionary", noise: "Tensor") -> float:
    """The largest norm of noise in a patch, rounded up."""
    from triptych.sparse.norms import l2_patch

    return float(l2_patch(noise, D.size, D.boundary)) * (1 + 1e-12)


def render(rows: Sequence[Row]) -> list[Section]:
    """Trials inside the conditions, trials beyond, and the curves of recovery."""
    inside = [row for row in rows if row.cell["claim"] != "beyond"]
    kinds = ["small circle", *DICTIONARIES]
    lines = [
        Line(f"{CLAIMS[claim]}, {kind}", {"claim": claim, "dictionary": kind})
        for claim in ("uniqueness", "omp", "basis pursuit")
        for kind in kinds
        if (kind == "small circle") == (claim == "uniqueness")
    ]
    columns = [
        Column("coherence", "coherence", ".3f"),
        Column("trials", "trials", ".0f"),
        Column("stripe_two", "with stripe >= 2", ".0f"),
        Column("largest_stripe", "largest stripe", ".0f"),
        Column("violations", "violations", ".0f"),
        Column("tightest", "tightest", ".2f"),
        Column("typical", "typical", ".2f"),
        Column("rivals", "other codes tried", ".0f"),
        Column("cpu_seconds", "CPU s", ".0f"),
    ]
    sections: list[Section] = [compare(inside, lines, columns, title="Inside the conditions", note=_INSIDE)]
    beyond = [row for row in rows if row.cell["claim"] == "beyond"]
    if beyond:
        lines = [Line(kind, {"claim": "beyond", "dictionary": kind}) for kind in DICTIONARIES]
        columns = [
            Column("coherence", "coherence", ".3f"),
            Column("bound", "promised below", ".2f"),
            Column("half_omp", "OMP: half at", ".1f", "not reached"),
            Column("basis_pursuit_bound", "BP with noise: promised to", ".2f"),
            Column("half_basis_pursuit", "BP: half at", ".1f", "not reached"),
            Column("trials", "trials", ".0f"),
        ]
        sections.append(compare(beyond, lines, columns, title="Beyond the conditions, stripe norms", note=_BEYOND))
        sections.append(_curves(beyond))
    return sections


def _curves(rows: Sequence[Row]) -> Curves:
    """The share of recovered codes over the stripe norm, first seed of every dictionary."""
    series, seen = [], set()
    for row in sorted(rows, key=lambda row: row.seed):
        kind = row.cell["dictionary"]
        if kind in seen:
            continue
        seen.add(kind)
        for name, values in row.artefact("shares").items():
            x, y = zip(*values)
            series.append(Series(f"{CLAIMS[name]}, {kind} (promised below {row.metrics['bound']:.1f})", x, y))
    return Curves(series, "Recovery without noise", "stripe norm", "share of codes recovered", log_x=True)


_INSIDE = (
    "Codes with as many non-zeros as their stripe norm allows, magnitudes from 1 to 2. Tightest and typical: the largest and the "
    "median of error / bound; for uniqueness, 1 minus the relative residual of the best set of atoms as sparse that does not "
    "hold the code's: at 1 a second code would have the same signal. All sets of atoms with stripe norms inside the bound "
    "are tried for every signal."
)
_BEYOND = (
    "The conditions suffice and are not needed: beyond them nothing is promised. Half at: the stripe norm at which half of "
    "the codes are recovered, between two that were tried."
)

EXPERIMENT = Experiment(
    name="papyan2017.local",
    paper=PAPER,
    shows="stripe norms, and recovery by OMP and basis pursuit inside the theorems' conditions and beyond",
    version=1,
    cells=cells,
    measure=measure,
    render=render,
    data=None,
)
