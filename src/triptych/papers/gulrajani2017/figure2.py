"""Figure 2: seven pairs of architectures under four methods, with pictures, and a rule that says which succeeded.

The paper has LSUN bedrooms of 64 pixels, 200,000 generator iterations, and pictures alone; it says that WGAN-GP trained every pair and every
other method failed on some. The rule here, fixed before any run: a cell succeeds if its kernel distance is at most three times that of the
best cell and its recall is at least 0.1, by one extractor for all. Differs: scored and shown is the moving average of the generator's
weights, which the paper's code does not have, with the running statistics of BatchNorm; and at the smaller scales 32 pixels, narrower
networks, fewer iterations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.sections import Entry, Gallery, Picture, Section, Table
from triptych.bench.table import seeds

PAPER = "Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017"
METHODS = {"dcgan": "DCGAN", "lsgan": "LSGAN", "wgan": "WGAN, clipping", "wgan-gp": "WGAN-GP"}
TIMES, LEAST = 3.0, 0.1  # of the best kernel distance; of recall
FLOOR = 1e-3  # a kernel distance below it counts as this: an unbiased estimate may be negative


@dataclass(frozen=True)
class Size:
    """Pixels a side, filters of the first layer, generator iterations, images a score, rows of the figure."""

    side: int | None
    width: int
    steps: int
    images: int
    rows: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)


SIZES = {
    Scale.SMOKE: Size(None, 2, 3, 64, (1, 3)),
    Scale.LAPTOP: Size(32, 16, 1_500, 2_000),
    Scale.PAPER: Size(64, 64, 200_000, 10_000),
}


@dataclass(frozen=True)
class Cell:
    """A pair of architectures, by the figure's row, under a method."""

    row: int
    method: str


def cells(scale: Scale) -> list[Cell]:
    """All methods on every row; on the smallest scale two rows."""
    return [Cell(row, method) for row in SIZES[scale].rows for method in METHODS]


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train, score the generator's average, and keep pictures; losses that are not finite end the training."""
    from triptych.gan.recipes import figure2
    from triptych.papers._generators import Yardstick, averaged, pictures

    size = SIZES[context.scale]
    images = pictures(context, size.side)
    recipe = figure2(cell.row, cell.method, images.shape[1:], width=size.width).changed(steps=size.steps)
    yardstick = Yardstick.of(images, size.images, context)
    samples, moment, finite = averaged(recipe, images, context, size.steps, size.images)
    scores: dict[str, float | None] = dict(yardstick.scores(samples)) if finite else {}
    metrics = {
        **{name: scores.get(name) for name in ("kid", "fid", "precision", "recall")},
        "steps": moment.step,
        "train_seconds": moment.seconds,
        "train_cpu_seconds": moment.cpu_seconds,
    }
    said = {"extractor": yardstick.extractor.name, "width": size.width}
    return metrics, {"pictures": {"samples": samples[:64]}, "said": said}


def succeeds(kid: float | None, recall: float | None, best: float) -> bool:
    """The rule."""
    return kid is not None and recall is not None and kid <= TIMES * max(best, FLOOR) and recall >= LEAST


def verdicts(rows: Sequence[Row]) -> dict[tuple[int, str], list[bool]]:
    """Of every cell whether it succeeded, seed by seed; the best cell is the seed's."""
    found: dict[tuple[int, str], list[bool]] = {}
    for seed in sorted({row.seed for row in rows}):
        those = [row for row in rows if row.seed == seed]
        best = min((row.metrics["kid"] for row in those if row.metrics["kid"] is not None), default=0.0)
        for row in those:
            key = (row.cell["row"], row.cell["method"])
            found.setdefault(key, []).append(succeeds(row.metrics["kid"], row.metrics["recall"], best))
    return found


def render(rows: Sequence[Row]) -> list[Section]:
    """Which cells succeeded, their kernel distances, and the pictures of the first seed."""
    from triptych.gan.recipes import ROWS

    found, known = verdicts(rows), sorted({row.cell["row"] for row in rows})
    body = [
        [Entry(f"{number}. {ROWS[number]}"), *(_entry(rows, found, number, method) for method in METHODS)]
        for number in known
    ]
    counts = [
        Entry("rows in which it succeeded"),
        *(Entry(_count(found, known, method), strong=True) for method in METHODS),
    ]
    lowest = [nearest_method(rows, number) for number in known]
    nearest = [
        Entry("rows in which its distance is the lowest"),
        *(Entry(f"{lowest.count(method)} of {len(lowest) - lowest.count(None)}") for method in METHODS),
    ]
    table = Table(
        ["", *METHODS.values()],
        [*body, counts, nearest],
        "Figure 2: kernel distance, and whether it succeeded",
        _note(rows),
    )
    return [table, *_pictures(rows, known)]


def nearest_method(rows: Sequence[Row], number: int) -> str | None:
    """The method of the lowest kernel distance in a row of the figure, by the mean over the seeds that all methods have; None without any."""
    those: dict[str, dict[int, float | None]] = {}
    for row in rows:
        if row.cell["row"] == number:
            those.setdefault(row.cell["method"], {})[row.seed] = row.metrics["kid"]
    shared = set.intersection(*(set(found) for found in those.values())) if len(those) == len(METHODS) else set()
    means = {}
    for method, found in those.items():
        values = [found[seed] for seed in shared]
        if values and None not in values:  # what is not finite is no distance
            means[method] = fmean(value for value in values if value is not None)
    return min(means, key=lambda method: means[method]) if means else None


def _entry(rows: Sequence[Row], found: Mapping[tuple[int, str], list[bool]], number: int, method: str) -> Entry:
    those = [row for row in rows if (row.cell["row"], row.cell["method"]) == (number, method)]
    if not those:
        return Entry("not run")
    kids = [row.metrics["kid"] for row in those if row.metrics["kid"] is not None]
    recalls = [row.metrics["recall"] for row in those if row.metrics["recall"] is not None]
    won = found[number, method]
    text = "not finite" if not kids else f"{fmean(kids):.3f}"
    said = "yes" if all(won) else ("no" if not any(won) else f"{sum(won)} of {len(won)}")
    detail = f"{said}; recall {fmean(recalls):.2f}" if recalls else said
    return Entry(text, detail, strong=all(won))


def _count(found: Mapping[tuple[int, str], list[bool]], known: Sequence[int], method: str) -> str:
    """In how many of the rows in which it was run a method succeeded with every seed, and with some."""
    won = [found[number, method] for number in known if (number, method) in found]
    always, ever = sum(all(one) for one in won), sum(any(one) for one in won)
    return f"{always} of {len(won)}" + ("" if always == ever else f" (with some seed {ever})")


def _missing(rows: Sequence[Row]) -> str:
    """What is said of seeds that lack cells: the best of a seed may be among them."""
    lacking = []
    for seed in sorted({row.seed for row in rows}):
        those = [row for row in rows if row.seed == seed]
        if left := len(cells(those[0].scale)) - len(those):
            lacking.append(f"{left} of seed {seed}")
    return f" Not run: {' and '.join(lacking)}; which cells succeed may change with them." if lacking else ""


def _pictures(rows: Sequence[Row], known: Sequence[int]) -> list[Section]:
    """Of the first seed: eight samples a cell as one picture, then 64, a gallery a row of the figure."""
    from triptych.bench import figure
    from triptych.gan.recipes import ROWS

    few: list[Picture] = []
    sections: list[Section] = []
    for number in known:
        tiles = []
        for method, label in METHODS.items():
            those = [row for row in rows if (row.cell["row"], row.cell["method"]) == (number, method)]
            if those:
                first = min(those, key=lambda row: row.seed)
                samples = first.artefact("pictures")["samples"].numpy()
                tiles.append(Picture(figure.images(samples, columns=8), f"samples of {label}", caption=label))
                drawn = figure.images(samples[:8], columns=4)
                few.append(Picture(drawn, f"samples of {label}", caption=f"{number}. {label}"))
        sections.append(Gallery(tiles, f"{number}. {ROWS[number]}", large=True))
    if few:
        sheet = figure.gallery(Gallery(few, large=True), columns=len(METHODS))
        alt = f"Eight samples of each of {len(few)} cells, a row an architecture, a column a method"
        sections.insert(0, Picture(sheet, alt, "Figure 2: eight samples a cell, not chosen by hand"))
    return sections


def _note(rows: Sequence[Row]) -> str:
    told = next((row.artefact("said") for row in rows), None)
    steps = max((row.metrics["steps"] or 0 for row in rows), default=0)
    by = (
        ""
        if told is None
        else f" Width {told['width']}, {steps:,} iterations; features: {told['extractor']}; {seeds(rows)}."
    )
    return (
        "Published: pictures of 64 pixels after 200,000 iterations, of which the paper says that only WGAN-GP trained every architecture "
        f"with one set of settings. A cell succeeds if its kernel distance is at most {TIMES:g} times the best cell's of its seed and its "
        f"recall at least {LEAST:g}. Scored is the moving average of the generator's weights, which the paper does not have.{by}{_missing(rows)}"
    )


EXPERIMENT = Experiment(
    name="gulrajani2017.figure2",
    paper=PAPER,
    shows="Figure 2: seven architectures under four methods, and which succeed",
    version=1,
    cells=cells,
    measure=measure,
    render=render,
    data="rooms",
)
