"""Figure 3: scores over generator iterations and over the clock, for clipping, the penalty with two optimisers, and DCGAN.

The paper has CIFAR-10, networks of width 128 and 200,000 iterations, and the inception score. Differs at the smaller scales: narrower
networks, fewer iterations; the classifier behind the score is a certified network of this package, so that no number is comparable with the
paper's, only the order of the curves is. At all scales the score is that of the generator's moving average, which the paper's code does not
have.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.sections import Curves, Gallery, Picture, Section, Series
from triptych.bench.table import Column, Line, compare

if TYPE_CHECKING:
    from triptych.gan.recipe import Recipe

PAPER = "Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017"
METHODS = {
    "clipping": "weight clipping, RMSProp",
    "gp-rmsprop": "gradient penalty, RMSProp",
    "gp-adam": "gradient penalty, Adam",
    "dcgan": "DCGAN",
}


@dataclass(frozen=True)
class Size:
    """Filters of the first layer, generator iterations, iterations from one score to the next, images a score."""

    width: int
    steps: int
    every: int
    images: int
    side: int | None = None


SIZES = {
    Scale.SMOKE: Size(2, 4, 2, 64),
    Scale.LAPTOP: Size(32, 4_000, 250, 2_000),
    Scale.PAPER: Size(128, 200_000, 1_000, 10_000),
}


@dataclass(frozen=True)
class Cell:
    """A method."""

    method: str


def cells(scale: Scale) -> list[Cell]:
    """All four."""
    del scale
    return [Cell(method) for method in METHODS]


def recipe_of(method: str, shape: tuple[int, ...], width: int) -> "Recipe":
    """gan_cifar.py in its three modes, and the penalty with clipping's optimiser; for small images gan_mnist.py's networks."""
    from triptych.gan.networks.dcgan import DCGAN
    from triptych.gan.objectives import NonSaturating, Wasserstein
    from triptych.gan.optimiser import Optimiser
    from triptych.gan.recipes import TF_RMSPROP, wgan_gp

    base = wgan_gp(shape, width=width)
    if method == "gp-adam":
        return base
    if method == "gp-rmsprop":
        return base.changed(generator_optimiser=TF_RMSPROP, critic_optimiser=TF_RMSPROP)
    assert isinstance(base.generator, DCGAN)
    normalised = replace(base.generator, norm="batch", critic_norm="batch")
    if method == "clipping":
        game = Wasserstein(clip=0.01, steps=5, long_until=0, long_every=0, clip_when="after")
        return base.changed(
            objective=game,
            generator=normalised,
            critic=normalised,
            generator_optimiser=TF_RMSPROP,
            critic_optimiser=TF_RMSPROP,
        )
    critic = normalised if base.generator.norm == "batch" else base.generator  # gan_mnist.py has it for clipping alone
    adam = Optimiser("adam", 2e-4, beta1=0.5)
    game = NonSaturating(halved=True)
    return base.changed(objective=game, critic=critic, generator_optimiser=adam, critic_optimiser=adam)


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train, and score the generator's average on the way; what is not finite ends it, and has no last score."""
    import torch

    from triptych.engine import Engine
    from triptych.papers._generators import Yardstick, course, drawn, finite, pictures

    size = SIZES[context.scale]
    images = pictures(context)
    recipe = recipe_of(cell.method, images.shape[1:], size.width).changed(steps=size.steps)
    players = recipe.players(context.seed, Engine(device=torch.device(context.device)))
    yardstick = Yardstick.of(images, size.images, context)
    curve: dict[str, list[float]] = {name: [] for name in ("step", "seconds", "cpu_seconds", "is", "kid")}
    ended = True
    for moment in course(recipe, players, images, context, size.steps, size.every):
        if not (ended := moment.finite and finite(players)):
            break
        scores = yardstick.scores(drawn(recipe, players, size.images))
        line = {"step": moment.step, "seconds": moment.seconds, "cpu_seconds": moment.cpu_seconds, **scores}
        for name, value in line.items():
            curve.setdefault(name, []).append(value)
    last = {name: values[-1] if values and ended else None for name, values in curve.items()}
    metrics = {
        "best_is": max(curve["is"], default=None),
        "last_is": last["is"],
        "area_is": sum(curve["is"]) / len(curve["is"]) if ended else None,
        "best_kid": min(curve["kid"], default=None),
        "last_kid": last["kid"],
        "steps": players.step,
        "train_seconds": last["seconds"],
        "train_cpu_seconds": last["cpu_seconds"],
    }
    said = {"curve": curve, "extractor": yardstick.extractor.name, "width": size.width, "n": yardstick.count}
    return metrics, {"course": said, "pictures": {"samples": drawn(recipe, players, 64)}}


def render(rows: Sequence[Row]) -> list[Section]:
    """A table, the two panels of the figure, and samples."""
    columns = [
        Column("best_is", "best score"),
        Column("last_is", "last score"),
        Column("area_is", "mean over the course"),
        Column("last_kid", "last KID", ".4f"),
        Column("steps", "iterations", ",.0f"),
        Column("train_seconds", "training, s", ",.0f"),
        Column("train_cpu_seconds", "training, CPU s", ",.0f"),
    ]
    lines = [Line(label, {"method": name}) for name, label in METHODS.items()]
    sections: list[Section] = [compare(rows, lines, columns, title="Figure 3, in numbers", note=_note(rows))]
    first = {row.cell["method"]: row for row in sorted(rows, key=lambda row: -row.seed)}
    chosen = [(label, first[name]) for name, label in METHODS.items() if name in first]
    if chosen:
        gpu = str(chosen[0][1].provenance.get("device", "")).startswith("cuda")
        clock = ("seconds", "seconds of training") if gpu else ("cpu_seconds", "seconds of training on one core")
        if scored := [(label, row) for label, row in chosen if row.artefact("course")["curve"]["is"]]:
            sections.append(_figure(scored, (("step", "generator iterations"), clock)))
        sections.append(_samples(chosen))
    return sections


def _figure(chosen: Sequence[tuple[str, Row]], over: Sequence[tuple[str, str]]) -> Picture:
    """Both panels as one picture."""
    from triptych.bench import figure

    panels = []
    for x, label in over:
        courses = [(name, row.artefact("course")["curve"]) for name, row in chosen]
        series = [Series(name, course[x], course["is"]) for name, course in courses]
        panels.append(Curves(series, f"Score over {label}", label, "score"))
    alt = "; ".join(panel.alt for panel in panels)
    return Picture(figure.panels(panels), alt, "Figure 3: score over iterations, and over the clock")


def _samples(chosen: Sequence[tuple[str, Row]]) -> Gallery:
    from triptych.bench import figure

    tiles = [
        Picture(
            figure.images(row.artefact("pictures")["samples"].numpy(), columns=8), f"samples of {name}", caption=name
        )
        for name, row in chosen
    ]
    return Gallery(tiles, "Samples at the end, not chosen by hand", large=True)


def _note(rows: Sequence[Row]) -> str:
    told = next((row.artefact("course") for row in rows), None)
    by = "" if told is None else f" Width {told['width']}; {told['n']:,} images a score; features: {told['extractor']}."
    return (
        "Published: the order alone, read from Figure 3 of width 128 and 200,000 iterations: clipping is worst; the penalty with clipping's "
        "optimiser is better, with Adam better still; DCGAN is as good, faster by the clock, and less steady at the end. Score: the "
        f"inception score with the classifier that is named, of the generator's average, in one split.{by}"
    )


EXPERIMENT = Experiment(
    name="gulrajani2017.figure3",
    paper=PAPER,
    shows="Figure 3: score over iterations and over the clock, for four methods",
    version=2,
    cells=cells,
    measure=measure,
    render=render,
    data="cifar10",
)
