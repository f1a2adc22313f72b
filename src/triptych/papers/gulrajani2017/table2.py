"""Table 2: architectures drawn at random, trained as a GAN and with the gradient penalty, and how many reach a score.

The paper draws 200 pairs from its Table 1, trains each for 100,000 iterations on ImageNet of 32 x 32 pixels, and counts inception scores above
a least one. Differs: the paper says depths, not where layers are (`triptych.gan.networks.deep`); weights start as its code's for networks
without a recipe of their own do; scored is the moving average of the generator's weights; other images; at the smaller scales fewer pairs, of smaller images, with fewer filters, and lower least
scores, as the classifier behind the score is a certified network of this package and training is short.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.sections import Entry, Section, Table
from triptych.bench.table import seeds

if TYPE_CHECKING:
    from triptych.gan.recipe import Recipe

PAPER = "Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017"
METHODS = {"dcgan": "GAN", "wgan-gp": "WGAN-GP"}
ACTIVATIONS = ("relu", "leaky", "softplus", "tanh")
DEPTHS, NORMALISED, WIDTHS = (4, 8, 12, 20), (True, False), (32, 64, 128)
PUBLISHED = {
    1.0: (0, 8, 192, 0),
    3.0: (1, 88, 110, 1),
    5.0: (0, 147, 42, 11),
    7.0: (1, 104, 5, 90),
    9.0: (0, 0, 0, 200),
}
DECAY = 1e-3  # of a critic that is normalised: Appendix B
ROUNDING = 1e-6  # images that are all alike score 1 to rounding
OUTCOMES = ("only GAN", "only WGAN-GP", "both", "neither")


@dataclass(frozen=True)
class Size:
    """Pairs, pixels a side, what widths are divided by, generator iterations, images a score, least scores."""

    pairs: int
    side: int | None
    narrower: int
    steps: int
    images: int
    least: tuple[float, ...]


SIZES = {
    Scale.SMOKE: Size(2, None, 16, 3, 64, (1.0, 1.1)),
    Scale.LAPTOP: Size(20, 16, 4, 500, 2_000, (1.01, 1.1, 1.2, 1.3, 1.4, 1.6)),
    Scale.PAPER: Size(200, 32, 1, 100_000, 10_000, tuple(PUBLISHED)),
}


@dataclass(frozen=True)
class Cell:
    """A pair of architectures, by its number, under a method."""

    pair: int
    method: str


def cells(scale: Scale) -> list[Cell]:
    """Both methods on every pair."""
    return [Cell(pair, method) for pair in range(SIZES[scale].pairs) for method in METHODS]


@dataclass(frozen=True)
class Player:
    """What Table 1 draws for one player: nonlinearity, depth, whether it is normalised, base filters."""

    activation: str
    depth: int
    normalised: bool
    width: int


def drawn_pair(number: int) -> tuple[Player, Player]:
    """Generator and critic of a number, each setting uniform and independent of the others."""
    rng = random.Random(number)
    generator, critic = (
        Player(rng.choice(ACTIVATIONS), rng.choice(DEPTHS), rng.choice(NORMALISED), rng.choice(WIDTHS))
        for _ in range(2)
    )
    return generator, critic


def recipe_of(cell: Cell, shape: tuple[int, ...], narrower: int) -> "Recipe":
    """The pair under gan_64x64.py's settings of the method; the penalty's critic has LayerNorm in the place of BatchNorm."""
    from triptych.gan.networks.deep import Deep
    from triptych.gan.recipes import figure2

    def network(player: Player, norm: str) -> Deep:
        kind = norm if player.normalised else "none"
        return Deep(player.width // narrower, player.depth, kind, player.activation)

    generator, critic = drawn_pair(cell.pair)
    by = "layer" if cell.method == "wgan-gp" else "batch"
    base = figure2(1, cell.method, shape)
    decay = DECAY if critic.normalised else 0.0
    return base.changed(
        critic_optimiser=replace(base.rules.critic_optimiser, weight_decay=decay),
        name=f"table2-{cell.pair}-{cell.method}",
        generator=network(generator, "batch"),
        critic=network(critic, by),
    )


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train, and score the generator's average; numbers that are not finite end the training."""
    from triptych.papers._generators import Yardstick, averaged, pictures

    size = SIZES[context.scale]
    images = pictures(context, size.side)
    recipe = recipe_of(cell, images.shape[1:], size.narrower).changed(steps=size.steps)
    yardstick = Yardstick.of(images, size.images, context)
    samples, moment, finite = averaged(recipe, images, context, size.steps, size.images)
    scores: dict[str, float | None] = dict(yardstick.scores(samples)) if finite else {}
    metrics = {
        **{name: scores.get(name) for name in ("is", "kid", "recall")},
        "real_is": yardstick.real_score,
        "steps": moment.step,
        "train_cpu_seconds": moment.cpu_seconds,
    }
    return metrics, {"pictures": {"samples": samples[:16]}, "said": {"extractor": yardstick.extractor.name}}


def outcomes(rows: Sequence[Row], least: float) -> list[int]:
    """Of all pairs and seeds: how many reach more than a score with the GAN alone, with the penalty alone, with both, with neither."""
    reached: dict[tuple[int, int], dict[str, bool]] = {}
    for row in rows:
        score = row.metrics["is"]
        reached.setdefault((row.cell["pair"], row.seed), {})[row.cell["method"]] = (
            score is not None and score > least + ROUNDING
        )
    both = [(found["dcgan"], found["wgan-gp"]) for found in reached.values() if len(found) == len(METHODS)]
    return [both.count(outcome) for outcome in ((True, False), (False, True), (True, True), (False, False))]


def one_sided(rows: Sequence[Row], name: str = "is") -> tuple[int, int]:
    """In how many pairs the GAN's score is the better one, and the other way round; what is not finite is worse than all.

    A higher inception score is better, a lower kernel distance.
    """
    sign = -1 if name == "kid" else 1
    scores: dict[tuple[int, int], dict[str, float]] = {}
    for row in rows:
        value = row.metrics[name]
        good = -math.inf if value is None else sign * value
        scores.setdefault((row.cell["pair"], row.seed), {})[row.cell["method"]] = good
    pairs = [found for found in scores.values() if len(found) == len(METHODS)]
    return (
        sum(found["dcgan"] > found["wgan-gp"] for found in pairs),
        sum(found["wgan-gp"] > found["dcgan"] for found in pairs),
    )


def render(rows: Sequence[Row]) -> list[Section]:
    """The table, the pairs with their scores, samples."""
    levels = SIZES[rows[0].scale if rows else Scale.SMOKE].least
    body = []
    for least in levels:
        found = outcomes(rows, least)
        body.append([Entry(f"{least:g}"), *(Entry(str(count)) for count in found)])
    published = [
        [Entry(f"published, {least:g}"), *(Entry(str(count), "of 200") for count in counts)]
        for least, counts in PUBLISHED.items()
    ]
    gan, penalty = one_sided(rows)
    near, nearer = one_sided(rows, "kid")
    each = len({(row.cell["pair"], row.seed) for row in rows})
    note = (
        f"{_note(rows)} The higher score of the two is the GAN's in {gan} and WGAN-GP's in {penalty} of {each} pairs and seeds, the lower kernel "
        f"distance the GAN's in {near} and WGAN-GP's in {nearer}."
    )
    table = Table(["least score", *OUTCOMES], [*body, *published], "Table 2: pairs that reach a score", note)
    return [table, _pairs(rows), *_pictures(rows)]


def _pairs(rows: Sequence[Row]) -> Table:
    """Every pair with both scores."""
    body = []
    for number in sorted({row.cell["pair"] for row in rows}):
        told = [
            f"{p.activation}, {p.depth} layers, {'normalised' if p.normalised else 'plain'}, {p.width}"
            for p in drawn_pair(number)
        ]
        scores = []
        for method in METHODS:
            those = [row for row in rows if (row.cell["pair"], row.cell["method"]) == (number, method)]
            texts = ["not finite" if row.metrics["is"] is None else f"{row.metrics['is']:.3f}" for row in those]
            scores.append(" / ".join(texts) or "not run")
        body.append([Entry(str(number)), *map(Entry, [*told, *scores])])
    headers = ["pair", "generator", "critic", *METHODS.values()]
    return Table(headers, body, "The pairs, and their scores", "Filters are those of the paper's scale.")


def _pictures(rows: Sequence[Row]) -> list[Section]:
    """Sixteen samples of each pair of the first seed, a gallery a method."""
    from triptych.bench import figure
    from triptych.bench.sections import Gallery, Picture

    sections: list[Section] = []
    for method, label in METHODS.items():
        first: dict[int, Row] = {}
        for row in sorted(rows, key=lambda row: -row.seed):
            if row.cell["method"] == method:
                first[row.cell["pair"]] = row
        tiles = [
            Picture(
                figure.images(row.artefact("pictures")["samples"].numpy(), columns=4),
                f"samples of pair {number} under {label}",
                caption=f"pair {number}",
            )
            for number, row in sorted(first.items())
        ]
        if tiles:
            sections.append(Gallery(tiles, f"{label}, not chosen by hand"))
    return sections


def _note(rows: Sequence[Row]) -> str:
    told = next((row.artefact("said") for row in rows), None)
    steps = max((row.metrics["steps"] or 0 for row in rows), default=0)
    real = max((row.metrics["real_is"] or 0.0 for row in rows), default=0.0)
    by = (
        ""
        if told is None
        else f" Here {steps:,} iterations; real images score {real:.2f}; features: {told['extractor']}; {seeds(rows)}."
    )
    return (
        "Published: 200 pairs, ImageNet of 32 x 32, 100,000 iterations, the inception score; levels are not comparable, the order of the "
        f"methods is.{by}"
    )


EXPERIMENT = Experiment(
    name="gulrajani2017.table2",
    paper=PAPER,
    shows="Table 2: random architectures, and which method trains them",
    version=1,
    cells=cells,
    measure=measure,
    render=render,
    data="cifar10",
)
