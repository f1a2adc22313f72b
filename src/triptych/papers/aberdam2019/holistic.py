"""Holistic pursuit against projection: the error of the deepest code by how many zeros the middle code has.

Settings of the authors' repository: 50 samples, middle codes of 100, deepest codes of 50 coefficients, Gaussian dictionaries, noise of
deviation 0.1. First, as many non-zeros as at most 10 zeros need, 11, whatever the zeros; then one more than there are zeros.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.sections import Curves, Section, Series
from triptych.bench.table import Column, Line, compare

PAPER = "Aberdam, Sulam & Elad, Multi-Layer Sparse Coding: The Holistic Way, SIAM J. Math. Data Sci. 2019"
ZEROS = {Scale.SMOKE: (1, 5, 10), Scale.LAPTOP: tuple(range(1, 11)), Scale.PAPER: tuple(range(1, 11))}
TRIALS = {Scale.SMOKE: 3, Scale.LAPTOP: 40, Scale.PAPER: 1000}
DECIBELS = (15.0, 25.0)


@dataclass(frozen=True)
class Cell:
    """A level of the signal, and whether the deepest code has 11 non-zeros or one more than there are zeros."""

    decibels: float
    nonzeros: str


def cells(scale: Scale) -> list[Cell]:
    """Two levels, two ways."""
    del scale
    return [Cell(decibels, nonzeros) for decibels in DECIBELS for nonzeros in ("11", "zeros + 1")]


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mean relative squared error of g by projection (no zeros used) and by holistic pursuit, zeros by zeros."""
    import numpy as np

    from triptych.papers.aberdam2019._signals import drawn, model_of
    from triptych.sparse.deep.holistic import holistic

    start = time.process_time()
    model, rng = model_of(context.seed), np.random.default_rng([context.seed, 11])
    curves: dict[str, list[float]] = {"projection": [], "holistic": [], "zeros found": []}
    for zeros in ZEROS[context.scale]:
        errors: dict[str, list[float]] = {"projection": [], "holistic": []}
        right = []
        for _ in range(TRIALS[context.scale]):
            count = 11 if cell.nonzeros == "11" else zeros + 1
            y, middle, g, noise = drawn(model, zeros, count, cell.decibels, rng)
            for name, used in (("projection", 0), ("holistic", zeros)):
                found = holistic(model, y, used, noise)
                off = found.codes[1] - g
                errors[name].append(float(off.square().sum() / g.square().sum()))
                if used:
                    true = middle.flatten().abs() < 1e-9 * float(middle.abs().max())
                    right.append(float(true[found.zeros[0]].double().mean()))
        for name, values in errors.items():
            curves[name].append(float(np.mean(values)))
        curves["zeros found"].append(float(np.mean(right)))
    ratio = [b / a for a, b in zip(curves["projection"], curves["holistic"])]
    return {
        "trials": TRIALS[context.scale] * len(ZEROS[context.scale]),
        "first_ratio": ratio[0],
        "last_ratio": ratio[-1],
        "projection": curves["projection"][-1],
        "holistic": curves["holistic"][-1],
        "zeros_found": curves["zeros found"][-1],
        "cpu_seconds": time.process_time() - start,
    }, {"zeros": list(ZEROS[context.scale]), "curves": curves}


def render(rows: Sequence[Row]) -> list[Section]:
    """Errors at the most zeros, and by zeros."""
    columns = [
        Column("projection", "projection, at 10 zeros", ".4f"),
        Column("holistic", "holistic", ".4f"),
        Column("first_ratio", "holistic / projection at 1 zero", ".2f"),
        Column("last_ratio", "at 10", ".2f"),
        Column("zeros_found", "zeros that are right at 10", ".0%"),
        Column("trials", "trials", ".0f"),
        Column("cpu_seconds", "CPU s", ".0f"),
    ]
    kinds = [(decibels, nonzeros) for decibels in DECIBELS for nonzeros in ("11", "zeros + 1")]
    lines = [Line(f"{d:g} dB, {n} non-zeros", {"decibels": d, "nonzeros": n}) for d, n in kinds]
    sections: list[Section] = [
        compare(rows, lines, columns, title="Relative squared error of the deepest code", note=_NOTE)
    ]
    for decibels, nonzeros in kinds:
        found = sorted(
            (r for r in rows if r.cell["decibels"] == decibels and r.cell["nonzeros"] == nonzeros),
            key=lambda row: row.seed,
        )
        if found:
            zeros, curves = found[0].artefact("zeros"), found[0].artefact("curves")
            series = [Series(name, zeros, curves[name]) for name in ("projection", "holistic")]
            title = f"{decibels:g} dB, {nonzeros} non-zeros"
            sections.append(Curves(series, title, "zeros of the middle code", "relative squared error"))
    return sections


_NOTE = (
    "Decibels as in the authors' repository: the norm of the signal is 10 ** (dB / 10) times that of the noise. Projection is basis "
    "pursuit on D_1 D_2 with λ such that the residual is as large as the noise; holistic pursuit is told how many zeros there are."
)

EXPERIMENT = Experiment(
    name="aberdam2019.holistic",
    paper=PAPER,
    shows="holistic pursuit against projection by the zeros of the middle code",
    version=1,
    cells=cells,
    measure=measure,
    render=render,
    data=None,
)
