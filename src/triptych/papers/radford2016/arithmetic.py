"""Figures 7 and 8: sums of noise vectors that have meanings, and a direction that turns faces, counted instead of looked at.

The paper picks samples by eye (smiling woman - neutral woman + neutral man), says that sums of single samples are unstable and those of means
of three are not, and shows a few. Here a concept is a pair of numbers that a picture has: how light it is, and how much lighter its left half
is than its right; 'light' and 'left' are the upper thirds of generated images, 'dark' and 'right' the lower. Light left - dark left + dark
right should then be light right, by the medians; how often it is is counted over many sums, of samples drawn at random. The same sums of
pixels stand beside: the numbers are linear in pixels, so that they say how much is due to thirds being wide, and single samples being far
from their mean, whatever the generator. What they lack is to look like pictures, of which the kernel distance to real images tells. Differs:
other images, meanings and smaller networks at the smaller scales.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.sections import Entry, Picture, Section, Table
from triptych.bench.table import seeds

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from triptych.gan.sample import Sampler

PAPER = "Radford, Metz & Chintala, Unsupervised Representation Learning with DCGANs, ICLR 2016"
EXEMPLARS = (1, 3, 10)  # of a term; the paper has 1 and 3
SEED, SHOWN = 11, 4  # of samples; sums in a picture
TURNED, TURNS, STOPS = 4, 50, 9  # samples of an end of a turn; turns; images along one
TERMS = (
    (True, True),
    (False, True),
    (False, False),
)  # (light, left) of each; first - second + third must be light and right


@dataclass(frozen=True)
class Size:
    """Pixels a side, filters of the first layer, images a batch, passes, samples to choose from, sums."""

    side: int | None
    width: int
    batch: int
    passes: int
    samples: int
    sums: int


SIZES = {
    Scale.SMOKE: Size(None, 4, 32, 2, 200, 40),
    Scale.LAPTOP: Size(32, 32, 64, 40, 3_000, 1_000),
    Scale.PAPER: Size(64, 128, 128, 25, 10_000, 1_000),
}


@dataclass(frozen=True)
class Cell:
    """A generator."""

    recipe: str


def cells(scale: Scale) -> list[Cell]:
    """One."""
    del scale
    return [Cell("dcgan")]


def meanings(images: "Tensor") -> "Tensor":
    """How light pictures are, and how much lighter their left half is than their right, (n, 2) of any numbers (n, c, h, w)."""
    import torch

    grey = images.double().mean(1)
    half = grey.shape[2] // 2
    return torch.stack([grey.mean((1, 2)), grey[..., :half].mean((1, 2)) - grey[..., -half:].mean((1, 2))], 1)


@dataclass(frozen=True, eq=False)
class Concepts:
    """Samples by meaning: indices of those that are (light, left), (light, right) ..., and the medians of both numbers (2,)."""

    members: "dict[tuple[bool, bool], Tensor]"
    medians: "Tensor"

    @classmethod
    def of(cls, told: "Tensor") -> "Concepts":
        """Those of numbers (n, 2): above the upper third, below the lower."""
        import torch

        low, high = torch.quantile(told, torch.tensor([1 / 3, 2 / 3], dtype=told.dtype), dim=0)
        up, down = told > high, told < low
        kinds = ((True, True), (True, False), (False, True), (False, False))
        members = {(a, b): ((up if a else down)[:, 0] & (up if b else down)[:, 1]).nonzero()[:, 0] for a, b in kinds}
        return cls(members, told.median(0).values)

    def drawn(self, count: int, of: int, rng: "Generator") -> "Tensor":
        """Indices (count, 3, of) of samples of each term, at random; some may be drawn again."""
        import torch

        chosen = [self.members[term] for term in TERMS]
        return torch.stack([m[torch.randint(len(m), (count, of), generator=rng)] for m in chosen], 1)

    def reached(self, images: "Tensor") -> "Tensor":
        """Which images are light and right by the medians, (n,)."""
        told = meanings(images)
        return (told[:, 0] > self.medians[0]) & (told[:, 1] < self.medians[1])


def summed(values: "Tensor", chosen: "Tensor") -> "Tensor":
    """mean - mean + mean of rows (n, ...) at indices (count, 3, of), as (count, ...)."""
    import torch

    return torch.stack([values[a].mean(0) - values[b].mean(0) + values[c].mean(0) for a, b, c in chosen])


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train, take concepts from samples, and count how often sums and turns end where they must."""
    import torch

    from triptych.engine import Engine
    from triptych.gan.recipes import RECIPES
    from triptych.gan.sample import Sampler
    from triptych.papers._generators import Yardstick, course, pictures

    size = SIZES[context.scale]
    images = pictures(context, size.side)
    yardstick = Yardstick.of(images, size.samples, context)
    steps = max(1, round(size.passes * len(images) / size.batch))
    recipe = RECIPES[cell.recipe](images.shape[1:], 0, size.width, len(images)).changed(batch=size.batch, steps=steps)
    players = recipe.players(context.seed, Engine(device=torch.device(context.device)))
    *_, last = course(recipe, players, images, context, steps, steps)
    sampler = Sampler(recipe, players.average)
    z = sampler.z(SEED, 0, size.samples)
    made = sampler.images(z)
    concepts = Concepts.of(meanings(made))
    rng = torch.Generator().manual_seed(context.seed)
    metrics: dict[str, float | None] = {
        "chance": float(concepts.reached(made).double().mean()),
        "kid": yardstick.scores(made[: size.sums])["kid"],
        "smallest": min(len(m) for m in concepts.members.values()),
        "steps": players.step,
        "train_cpu_seconds": last.cpu_seconds,
    }
    shown: dict[str, Tensor] = {"samples": made[:64]}
    empty = not metrics["smallest"]
    for of in EXEMPLARS:
        for name in ("z", "pixels"):
            metrics[f"reached_{name}_{of}"] = metrics[f"kid_{name}_{of}"] = None
        if empty:  # all samples are alike, or one number says the other
            continue
        chosen = concepts.drawn(size.sums, of, rng)
        by_z = sampler.images(summed(z, chosen))
        by_pixels = summed(made.double(), chosen).round().clamp(0, 255).byte()
        for name, sums in (("z", by_z), ("pixels", by_pixels)):
            metrics[f"reached_{name}_{of}"] = float(concepts.reached(sums).double().mean())
            metrics[f"kid_{name}_{of}"] = yardstick.scores(sums)["kid"]
        shown[f"sums_{of}"] = _figure(sampler, chosen[:SHOWN])
    metrics["turned"] = metrics["turned_at_random"] = None
    if not empty:
        sides = [torch.cat([concepts.members[light, left] for light in (True, False)]) for left in (True, False)]
        turns = [_turn(z, sides, rng) for _ in range(TURNS)]
        metrics["turned"] = _share(sampler, turns, size.sums)
        anywhere = [torch.arange(len(z))] * 2
        metrics["turned_at_random"] = _share(sampler, [_turn(z, anywhere, rng) for _ in range(TURNS)], size.sums)
        shown["turn"] = _along(sampler, turns[0])
    return metrics, {"pictures": shown, "said": {"extractor": yardstick.extractor.name}}


def _figure(sampler: "Sampler", chosen: "Tensor") -> "Tensor":
    """A row a sum: the samples of each term, the image of their mean, and last the image of the sum."""
    import torch

    from triptych.gan.walk import arithmetic

    rows = []
    for terms in chosen.tolist():
        *each, sums = arithmetic(sampler, [terms[0], terms[2]], [terms[1]], SEED)
        rows.append(sampler.images(torch.cat([each[0], each[2], each[1], sums[:1]])))
    return torch.cat(rows)


def _turn(z: "Tensor", ends: "Sequence[Tensor]", rng: "Generator") -> "Tensor":
    """The mean of four samples of the first of two sets of indices less that of four of the second, (size,)."""
    import torch

    left, right = (z[end[torch.randperm(len(end), generator=rng)[:TURNED]]].mean(0) for end in ends)
    return left - right


def _share(sampler: "Sampler", turns: "Sequence[Tensor]", count: int) -> float:
    """Of so many samples, dealt to the turns, the share whose left half is lighter with half of the turn added than taken away."""
    import torch

    z = sampler.z(SEED + 1, 0, count)
    turn = torch.stack(list(turns))[torch.arange(count) % len(turns)]
    before, after = (meanings(sampler.images(z + t * turn))[:, 1] for t in (-0.5, 0.5))
    return float((after > before).double().mean())


def _along(sampler: "Sampler", turn: "Tensor") -> "Tensor":
    """Eight rows of images along a turn."""
    import torch

    z, t = sampler.z(SEED + 1, 0, 8), torch.linspace(-0.5, 0.5, STOPS, dtype=torch.float64)
    return sampler.images((z[:, None] + t[:, None] * turn).flatten(0, 1))


def render(rows: Sequence[Row]) -> list[Section]:
    """How often sums end where they must and look like pictures, by space and by samples a term; sums and turns as pictures."""
    from triptych.bench import figure

    body = []
    for name, label in (("z", "sums of noise"), ("pixels", "sums of pixels")):
        for of in EXEMPLARS:
            found = [Entry(_each(rows, f"{kind}_{name}_{of}")) for kind in ("reached", "kid")]
            body.append([Entry(f"{label}, {of} a term"), *found])
    body.append([Entry("samples"), Entry(_each(rows, "chance")), Entry(_each(rows, "kid"))])
    sections: list[Section] = [
        Table(["", "light and right", "KID"], body, "Figure 7, counted", _note(rows)),
        Table(
            ["", "turned to the left"],
            [
                [Entry("along a turn"), Entry(_each(rows, "turned"))],
                [Entry("along the difference of any eight samples"), Entry(_each(rows, "turned_at_random"))],
            ],
            "Figure 8, counted",
            f"Published: pictures, and that the pose is changed reliably. {TURNS} turns, each of other samples.",
        ),
    ]
    if rows:
        kept = min(rows, key=lambda row: row.seed).artefact("pictures")
        for of in [of for of in EXEMPLARS[:2] if f"sums_{of}" in kept]:
            caption = "A row a sum: samples of light left and their mean, less those of dark left, with those of dark right; last the sum."
            drawn = figure.images(kept[f"sums_{of}"].numpy(), columns=3 * (of + 1) + 1)
            title = f"Figure 7: the first sums of {of} a term, not chosen by hand"
            sections.append(Picture(drawn, f"sums of {of} a term", title, caption))
        if "turn" in kept:
            title = "Figure 8: the first samples along the first turn"
            sections.append(
                Picture(figure.images(kept["turn"].numpy(), columns=STOPS), "samples along the turn", title)
            )
    return sections


def _each(rows: Sequence[Row], name: str) -> str:
    values = [row.metrics[name] for row in rows]
    return " / ".join("none to sum" if value is None else f"{value:.3f}" for value in values)


def _note(rows: Sequence[Row]) -> str:
    told = next((row.artefact("said") for row in rows), None)
    by = "" if told is None else f" Features: {told['extractor']}; {seeds(rows)}."
    return (
        "Published: pictures, and that sums of single samples were unstable and sums of means of three were not. 'samples': how many are "
        f"light and right without any sum. KID: the kernel distance to all real images.{by}"
    )


EXPERIMENT = Experiment(
    name="radford2016.arithmetic",
    paper=PAPER,
    shows="Figures 7 and 8: arithmetic of noise vectors, and a turn, counted",
    version=1,
    cells=cells,
    measure=measure,
    render=render,
    data="rooms",
)
