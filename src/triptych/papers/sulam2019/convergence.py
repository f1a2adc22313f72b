"""ML-ISTA and ML-FISTA against the certified optimum of multi-layer basis pursuit, by iteration; and the published weighting.

Three layers learned on MNIST, deeper atoms with 2 % of their entries; test digits. The optimum is solved to a certified gap of
1e-5. Shorter steps of the first layers bring the fixed point nearer to it; the thresholds of the published listing belong to
another problem, whose solution is judged by the objective of this one.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.sections import Curves, Section, Series
from triptych.bench.table import Column, Line, compare
from triptych.papers.sulam2019.mnist import PAPER

DIGITS = {Scale.SMOKE: 200, Scale.LAPTOP: 10_000, Scale.PAPER: 60_000}
VISITS = {Scale.SMOKE: 3, Scale.LAPTOP: 12, Scale.PAPER: 12}
LAYERS = {Scale.SMOKE: "8x3,12x3,16x3", Scale.LAPTOP: "32x6s2,64x6s2,512x4", Scale.PAPER: "32x6s2,64x6s2,512x4"}
DENSITY = {Scale.SMOKE: 0.1, Scale.LAPTOP: 0.02, Scale.PAPER: 0.02}
CODED = {Scale.SMOKE: 4, Scale.LAPTOP: 16, Scale.PAPER: 64}
STEPS = {Scale.SMOKE: 200, Scale.LAPTOP: 2000, Scale.PAPER: 10_000}
SHARES = (0.003, 0.003, 0.03)  # of the mean norm of a digit: λ of the layers
RUNS = {
    "ML-ISTA": ("ista", 1.0, "product"),
    "ML-FISTA": ("fista", 1.0, "product"),
    "ML-FISTA, steps .3": ("fista", 0.3, "product"),
    "ML-FISTA, steps .1": ("fista", 0.1, "product"),
    "ML-FISTA, steps .03": ("fista", 0.03, "product"),
    "ML-FISTA, published weighting": ("fista", 1.0, "published"),
    "ML-FISTA, published, steps .1": ("fista", 0.1, "published"),
}


@dataclass(frozen=True)
class Cell:
    """The one model."""

    model: str


def cells(scale: Scale) -> list[Cell]:
    """One."""
    del scale
    return [Cell("learned")]


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Learn, solve, and follow every run."""
    import torch

    from triptych.data import load, permute_split, splits
    from triptych.sparse.deep import MultiLayerCoding, ml_fista, ml_ista, pursue_layers
    from triptych.sparse.deep.estimator import MultiLayerSparseCoder

    del cell
    scale, source = context.scale, context.data.path or context.data.name
    if "train" in splits(source):
        images, test = load(source, split="train"), load(source, split="test")
    else:
        images, test = permute_split(load(source), (DIGITS[scale], CODED[scale]), context.seed)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(context.seed))[: DIGITS[scale]]
    start = time.process_time()
    coder = MultiLayerSparseCoder(
        LAYERS[scale], density=DENSITY[scale], max_iter=VISITS[scale], random_state=context.seed
    ).fit(images.floats()[order].numpy())
    learned, y = time.process_time() - start, test.floats()[: CODED[scale]].double()
    norm = float(images.floats()[order].flatten(1).norm(dim=1).mean())
    lam = tuple(share * norm for share in SHARES)
    coding = MultiLayerCoding(coder.dictionary_.to(torch.float64), y, lam, "absolute")
    start = time.process_time()
    best = pursue_layers(coding, "exact", tol=1e-5, max_steps=4000)
    exact = time.process_time() - start
    curves: dict[str, list[list[float]]] = {}
    for name, (kind, shorten, weighting) in RUNS.items():
        stream = (ml_ista if kind == "ista" else ml_fista)(coding, shorten, weighting)(coding.problem(), coding.start())
        curves[name], due = [], 1
        for step in range(1, STEPS[scale] + 1):
            g = next(stream).x
            if step in (due, STEPS[scale]):
                away = coding.objective(g) / best.objective - 1
                curves[name].append([float(step), float(away.mean()), float(away.max())])
                due = max(step + 1, int(1.25 * step))
    metrics = {
        "signals": len(y),
        "gap": float((best.gap / best.objective).max()),
        "density_2": coder.dictionary_.density()[1],
        "density_3": coder.dictionary_.density()[-1],
        "learning_cpu_seconds": learned,
        "exact_cpu_seconds": exact,
        "steps": STEPS[scale],
        **{f"away_{i}": values[-1][1] for i, values in enumerate(curves.values())},
        **{f"worst_{i}": values[-1][2] for i, values in enumerate(curves.values())},
    }
    return metrics, {"curves": curves}


def render(rows: Sequence[Row]) -> list[Section]:
    """How far from the optimum each run ends, and by iteration."""
    columns = [Column("away", "above the optimum: mean", ".2e"), Column("worst", "worst signal", ".2e")]
    spread = [
        Row(
            **{
                **vars(row),
                "cell": {"run": name},
                "metrics": {"away": row.metrics[f"away_{i}"], "worst": row.metrics[f"worst_{i}"]},
            }
        )
        for row in rows
        for i, name in enumerate(RUNS)
    ]
    lines = [Line(name, {"run": name}) for name in RUNS]
    row = min(rows, key=lambda row: row.seed)
    note = (
        f"{row.metrics['signals']:.0f} test digits, {row.metrics['steps']:.0f} iterations; the optimum is certified to "
        f"{row.metrics['gap']:.1e}, in {row.metrics['exact_cpu_seconds']:.0f} CPU s. Relative excess of the objective."
    )
    table = compare(spread, lines, columns, title="Distance from the certified optimum", note=note)
    curves = row.artefact("curves")
    series = [Series(name, [v[0] for v in values], [v[1] for v in values]) for name, values in curves.items()]
    drawn = Curves(series, "Above the optimum by iteration", "iteration", "relative excess", log_x=True, log_y=True)
    return [table, drawn]


EXPERIMENT = Experiment(
    name="sulam2019.convergence",
    paper=PAPER,
    shows="ML-ISTA and ML-FISTA against the certified optimum of multi-layer basis pursuit",
    version=1,
    cells=cells,
    measure=measure,
    render=render,
    data="mnist",
)
