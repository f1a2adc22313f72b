"""Layered pursuits: codes of two layers inside the theorems' conditions are recovered, and err by less than is promised.

Deep coding problem, layered thresholding (the forward pass), layered basis pursuit and projection onto the model, each tried on
random signals; then error and bound of the two layered pursuits by the noise, with the theorem's λ and the best of a grid.
Differs: the paper's filters and numbers could not be read again; the first layer here is a cosine basis a little off.
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

    from triptych.sparse.deep.dictionary import MultiLayerDictionary
    from triptych.sparse.deep.guarantees import DeepGuarantees

PAPER = "Papyan, Romano & Elad, Convolutional Neural Networks Analyzed via Convolutional Sparse Coding, JMLR 2017"
CLAIMS = {
    "deep coding": "deep coding problem: how far other codes within the noise are",
    "thresholding": "layered thresholding: the right atoms, error",
    "basis pursuit": "layered basis pursuit: no wrong atom, error",
    "projection": "projection: error",
}
TRIALS = {Scale.SMOKE: 8, Scale.LAPTOP: 240, Scale.PAPER: 2400}
MADE = {Scale.SMOKE: 1, Scale.LAPTOP: 4, Scale.PAPER: 20}
PLACES = 20  # of the deepest code
LEVELS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05)  # of the noise in a patch, of the figure
NEAR = 0.01  # how far off a coefficient may be, of magnitudes of .3 and 1, where λ is not 0
BEYOND = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # stripe norms of the deepest code that are tried without noise
GRID = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # times the theorem's λ


@dataclass(frozen=True)
class Cell:
    """One claim."""

    claim: str


def cells(scale: Scale) -> list[Cell]:
    """The claims, the figure of noise, and what is recovered beyond the conditions."""
    del scale
    return [*(Cell(claim) for claim in CLAIMS), Cell("noise"), Cell("beyond")]


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random trials inside the conditions of a claim, half of them with two non-zeros or more in a stripe; or the figure."""
    start = time.process_time()
    run = {"noise": _noise, "beyond": _beyond}.get(cell.claim, _claim)
    metrics, artefacts = run(cell, context)
    return {**metrics, "cpu_seconds": time.process_time() - start}, artefacts


@dataclass
class _Trial:
    """A signal inside all conditions: codes, noisy signal, guarantees."""

    model: "MultiLayerDictionary"
    codes: "tuple[Tensor, ...]"
    signal: "Tensor"
    promise: "DeepGuarantees"


def _claim(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trials of one claim; error over bound of every layer."""
    import numpy as np

    from triptych.papers.papyan2017._deep import made

    judge = {"deep coding": _deep, "thresholding": _threshold, "basis pursuit": _pursue, "projection": _project}[
        cell.claim
    ]
    count, number = TRIALS[context.scale], MADE[context.scale]
    stripes, violations, ratios = [], 0, []
    for i in range(number):
        model, rng = made(1000 * context.seed + i), np.random.default_rng([context.seed, i])
        for trial in range(count // number):
            one = _inside(model, cell.claim, 1 if trial % 2 == 0 else int(rng.integers(2, 4)), rng)
            ratio, fine = judge(one, rng)
            violations += int(not fine or max(ratio) > 1)
            stripes.append(one.promise.layers[-1].stripe)
            ratios.append(ratio)
    first, second = zip(*ratios)
    return {
        "trials": len(stripes),
        "stripe_two": sum(s >= 2 for s in stripes),
        "largest_stripe": max(stripes),
        "violations": violations,
        "tightest_1": max(first),
        "tightest_2": max(second),
        "typical_1": sorted(first)[len(first) // 2],
        "typical_2": sorted(second)[len(second) // 2],
    }, {}


def _inside(model: "MultiLayerDictionary", claim: str, stripe: int, rng: "np.random.Generator") -> _Trial:
    """A random signal of which the claim's conditions hold."""
    from triptych.papers.papyan2017._deep import drawn, noisy
    from triptych.sparse.deep.guarantees import deep_guarantees

    while True:
        x, *codes = drawn(model, stripe, PLACES, rng)
        y, local, norm = noisy(x, float(rng.uniform(0.002, 0.03)), model.layers[0].size, rng)
        promise = deep_guarantees(model, codes, local, norm)[0]
        holds = {
            "deep coding": promise.unique,
            "thresholding": promise.thresholding,
            "basis pursuit": promise.basis_pursuit,
            "projection": promise.layers[-1].projection < float("inf"),
        }
        if holds[claim]:
            return _Trial(model, tuple(codes), y, promise)


def _deep(one: _Trial, rng: "np.random.Generator") -> tuple[list[float], bool]:
    """The worst noise there is for these atoms: a second code on them is as far from the noisy signal as the true one."""
    import torch

    from triptych.sparse.deep.projection import Fit, project

    del rng
    model, (g1, g2) = one.model, one.codes
    shape = tuple(one.signal.shape[2:])
    support = g2.flatten().nonzero().squeeze(1)
    columns = model.effective().matrix(shape)[:, support]
    direction = torch.linalg.svd(columns, full_matrices=False).Vh[-1]
    norm = one.promise.noise
    delta = torch.zeros_like(g2.flatten())
    delta[support] = direction * (2 * norm / float((columns @ direction).norm()))
    rival = (g2.flatten() + delta).reshape(g2.shape)
    y = model.synthesise((g2 + rival) / 2, shape)
    layers = model.cascade(rival, shape)
    assert float((y - layers[0]).norm()) <= norm * (1 + 1e-9)
    errors = [float((layers[1] - g1).norm()), float((rival - g2).norm())]
    stripes = [layer.stripe for layer in one.promise.layers]
    found = project(model, y, stripes, norm)
    fine = found.ending[0] is Fit.SOLVED
    other = [float((code - true).norm()) for code, true in zip(found.codes, one.codes)]
    bounds = [layer.stability * (1 + 1e-9) for layer in one.promise.layers]
    return [max(a, b) / bound for a, b, bound in zip(errors, other, bounds)], fine


def _threshold(one: _Trial, rng: "np.random.Generator") -> tuple[list[float], bool]:
    """The forward pass at the theorem's thresholds: exactly the right atoms."""
    from triptych.sparse.deep.forward import layered_thresholding

    del rng
    layers = one.promise.layers
    found = layered_thresholding(one.model, one.signal, [layer.threshold for layer in layers], "soft")
    return _errors(one, found, [layer.threshold_error for layer in layers]), _same(found, one.codes)


def _pursue(one: _Trial, rng: "np.random.Generator") -> tuple[list[float], bool]:
    """Layered basis pursuit at λ_i = 4 e_{i-1}: no wrong atom, and every large one."""
    import math

    del rng
    layers = one.promise.layers
    found = _layered(one, [layer.xi for layer in layers])
    fine = True
    for code, true, layer in zip(found, one.codes, layers):
        wrong = (code != 0) & (true == 0)
        missed = (code == 0) & (true.abs() > layer.pursuit_error / math.sqrt(layer.patch))
        fine = fine and not bool(wrong.any()) and not bool(missed.any())
    return _errors(one, found, [layer.pursuit_error for layer in layers]), fine


def _layered(one: _Trial, weights: list[float]) -> "tuple[Tensor, ...]":
    """Layered basis pursuit by working sets, which leave exact zeros."""
    from triptych.sparse import Coding, pursue

    below, found = one.signal, []
    for D, weight in zip(one.model.layers, weights):
        below = pursue(Coding(D, below, weight, "absolute"), "working_set", tol=1e-10, max_steps=500).codes.dense()
        found.append(below)
    return tuple(found)


def _project(one: _Trial, rng: "np.random.Generator") -> tuple[list[float], bool]:
    """The projection onto the codes as sparse in every layer."""
    from triptych.sparse.deep.projection import Fit, project

    del rng
    layers = one.promise.layers
    found = project(one.model, one.signal, [layer.stripe for layer in layers], one.promise.noise)
    errors = [float((code - true).norm()) for code, true in zip(found.codes, one.codes)]
    return [error / layer.projection for error, layer in zip(errors, layers)], found.ending[0] is Fit.SOLVED


def _errors(one: _Trial, found: "Sequence[Tensor]", bounds: list[float]) -> list[float]:
    """‖G^_i - G_i‖_{2,∞} over its bound; of the deepest layer, which has one patch, ‖·‖₂."""
    from triptych.sparse.norms import l2_patch

    size = one.model.layers[1].size
    first = float(l2_patch(found[0] - one.codes[0], size))
    return [first / bounds[0], float((found[1] - one.codes[1]).norm()) / bounds[1]]


def _same(found: "Sequence[Tensor]", true: "Sequence[Tensor]") -> bool:
    """Whether all codes have the same atoms."""
    return all(bool(((a != 0) == (b != 0)).all()) for a, b in zip(found, true))


def _noise(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mean bound and error of both layers by the noise: thresholding and layered basis pursuit, at the theorem's λ and the best."""
    import numpy as np

    from triptych.papers.papyan2017._deep import drawn, made, noisy
    from triptych.sparse.deep.forward import layered_thresholding
    from triptych.sparse.deep.guarantees import deep_guarantees

    del cell
    model, rng = made(1000 * context.seed), np.random.default_rng([context.seed, 99])
    each = 3 if context.scale is Scale.SMOKE else 30
    curves: dict[str, list[list[float]]] = {name: [] for name in SHOWN}
    for level in LEVELS:
        sums: dict[str, list[list[float]]] = {name: [] for name in SHOWN}
        for _ in range(each):
            while True:
                x, *codes = drawn(model, 2, PLACES, rng)
                y, local, norm = noisy(x, level, model.layers[0].size, rng) if level else (x, 0.0, 0.0)
                promise = deep_guarantees(model, codes, local, norm)[0]
                if promise.thresholding and promise.basis_pursuit:
                    break
            one, layers = _Trial(model, tuple(codes), y, promise), promise.layers
            sums["thresholding, bound"].append([layer.threshold_error for layer in layers])
            passed = layered_thresholding(model, y, [layer.threshold for layer in layers], "soft")
            sums["thresholding"].append(_errors(one, passed, [1.0, 1.0]))
            xi = [layer.xi for layer in layers] if level else [1e-4, 1e-4]
            if level:
                sums["basis pursuit, bound"].append([layer.pursuit_error for layer in layers])
            sums["basis pursuit, theorem's λ"].append(_errors(one, _layered(one, xi), [1.0, 1.0]))
            tuned = [_errors(one, _layered(one, [s * x for x in xi]), [1.0, 1.0]) for s in GRID]
            sums["basis pursuit, best λ"].append(min(tuned, key=lambda pair: pair[1]))
        for name, values in sums.items():
            curves[name].append([sum(v) / len(v) for v in zip(*values)] if values else [float("nan")] * 2)
    last = LEVELS.index(0.02)
    numbers = {f"{key}_{i + 1}": curves[name][last][i] for name, key in SHOWN.items() for i in range(2)}
    kept = {name: [[None if v != v else v for v in pair] for pair in values] for name, values in curves.items()}
    return {"trials": each * len(LEVELS), **numbers}, {"curves": kept}


def _beyond(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Without noise: the share of signals of which both layers' atoms are found, by the stripe norm of the deepest code.

    The forward pass with the best threshold there is for each layer, layered basis pursuit with λ near 0, and projection.
    """
    import numpy as np

    from triptych.papers.papyan2017._deep import drawn, made
    from triptych.papers.papyan2017._trials import half
    from triptych.sparse.coherence import basis_pursuit_bound, mutual_coherence, uniqueness_bound
    from triptych.sparse.deep.forward import layered_thresholding
    from triptych.sparse.deep.projection import project

    del cell
    model, rng = made(1000 * context.seed), np.random.default_rng([context.seed, 7])
    mu = mutual_coherence(model.layers[1])
    stripes = (1, 3, 8) if context.scale is Scale.SMOKE else BEYOND
    each = 2 if context.scale is Scale.SMOKE else 20
    right: dict[str, dict[int, float]] = {"thresholding": {}, "basis pursuit": {}, "projection": {}}
    for stripe in stripes:
        found = dict.fromkeys(right, 0)
        for _ in range(each):
            x, *codes = drawn(model, stripe, PLACES, rng)
            one = _Trial(model, tuple(codes), x, None)  # pyright: ignore[reportArgumentType]
            levels, below = [], x
            for i, code in enumerate(codes, 1):
                seen = model.up(i, below).abs()
                levels.append(float(seen[code != 0].min()) * (1 - 1e-9))
                below = layered_thresholding(model, x, [*levels, *(0.0,) * (len(codes) - i)], "hard")[i - 1]
            found["thresholding"] += int(_same(layered_thresholding(model, x, levels, "hard"), codes))
            pursued = _layered(one, [1e-4, 1e-4])
            near = [float((code - true).abs().max()) <= NEAR for code, true in zip(pursued, codes)]
            found["basis pursuit"] += int(all(near))
            projected = project(model, x, [10**6, 10**6], 1e-6)
            found["projection"] += int(_same(projected.codes, codes))
        for name, count in found.items():
            right[name][stripe] = count / each
    metrics: dict[str, Any] = {
        "trials": each * len(stripes),
        "bound": uniqueness_bound(mu),
        "pursuit_bound": basis_pursuit_bound(mu),
    }
    for name, shares in right.items():
        metrics[f"half_{name.replace(' ', '_')}"] = half(shares)
    return metrics, {"shares": {name: sorted(values.items()) for name, values in right.items()}}


SHOWN = {
    "thresholding, bound": "threshold_bound",
    "thresholding": "threshold_error",
    "basis pursuit, bound": "pursuit_bound",
    "basis pursuit, theorem's λ": "pursuit_error",
    "basis pursuit, best λ": "tuned_error",
}


def render(rows: Sequence[Row]) -> list[Section]:
    """Trials inside the conditions; error and bound by the noise."""
    inside = [row for row in rows if row.cell["claim"] in CLAIMS]
    columns = [
        Column("trials", "trials", ".0f"),
        Column("stripe_two", "with stripe >= 2", ".0f"),
        Column("largest_stripe", "largest stripe", ".0f"),
        Column("violations", "violations", ".0f"),
        Column("typical_1", "error / bound, layer 1: typical", ".2f"),
        Column("tightest_1", "largest", ".2f"),
        Column("typical_2", "layer 2: typical", ".2f"),
        Column("tightest_2", "largest", ".2f"),
        Column("cpu_seconds", "CPU s", ".0f"),
    ]
    lines = [Line(name, {"claim": claim}) for claim, name in CLAIMS.items()]
    sections: list[Section] = [compare(inside, lines, columns, title="Inside the conditions, two layers", note=_NOTE)]
    drawn = sorted((row for row in rows if row.cell["claim"] == "noise"), key=lambda row: row.seed)
    if drawn:
        curves = drawn[0].artefact("curves")
        for i in range(2):
            series = [
                Series(name, LEVELS, [pair[i] for pair in values])
                for name, values in curves.items()
                if any(pair[i] is not None for pair in values)
            ]
            title = f"Layer {i + 1}: error and bound by the noise"
            sections.append(Curves(series, title, "noise in a patch", "error in a patch", log_y=True))
    beyond = sorted((row for row in rows if row.cell["claim"] == "beyond"), key=lambda row: row.seed)
    if beyond:
        columns = [
            Column("bound", "promised below", ".2f"),
            Column("pursuit_bound", "with noise to", ".2f"),
            Column("half_thresholding", "forward pass: half at", ".1f", "not reached"),
            Column("half_basis_pursuit", "layered BP: half at", ".1f", "not reached"),
            Column("half_projection", "projection: half at", ".1f", "not reached"),
            Column("trials", "trials", ".0f"),
        ]
        lines = [Line("deepest code", {"claim": "beyond"})]
        sections.append(compare(beyond, lines, columns, title="Beyond the conditions, stripe norms without noise"))
        shares = beyond[0].artefact("shares")
        series = [Series(name, *zip(*values)) for name, values in shares.items()]
        sections.append(Curves(series, "Both layers found, without noise", "stripe norm of the deepest code", "share"))
    return sections


_NOTE = (
    "Signals of codes with one non-zero a stripe of the deepest layer, or with two and three; of the first layer with 3 to 6. The "
    "deep coding problem is tried with the worst noise for the atoms at hand, for which a second code fits as well as the true one. "
    "Error / bound: of a patch, or of all of the code, as the theorem has it."
)

EXPERIMENT = Experiment(
    name="papyan2017.layers",
    paper=PAPER,
    shows="deep coding, forward pass, layered basis pursuit and projection inside the theorems' conditions; error by noise",
    version=1,
    cells=cells,
    measure=measure,
    render=render,
    data=None,
)
