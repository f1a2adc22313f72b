"""Figures 2, 3 and 4: a DCGAN's images after one pass over the data and after five, a walk between them, and whether they are copies.

The paper has three million LSUN bedrooms of 64 pixels, and argues that what is seen once cannot be learned by heart. Here a tenth of the images
is held out, and the audit of `triptych.metrics.audit` says whether samples are nearer to training images than to those. Differs: other
images and far fewer of them, so that a pass is some hundred steps; smaller batches and narrower networks at the smaller scales; one long
training beside the two of the paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.sections import Entry, Gallery, Picture, Section, Table
from triptych.bench.table import seeds

if TYPE_CHECKING:
    from torch import Tensor

    from triptych.gan.sample import Sampler

PAPER = "Radford, Metz & Chintala, Unsupervised Representation Learning with DCGANs, ICLR 2016"
STOPS, BETWEEN = 9, 8  # Figure 4: nine points of the noise, and images from each to the next


@dataclass(frozen=True)
class Size:
    """Pixels a side, filters of the first layer, images a batch, passes, samples of an audit."""

    side: int | None
    width: int
    batch: int
    passes: tuple[int, ...]
    samples: int


SIZES = {
    Scale.SMOKE: Size(None, 4, 32, (1, 2), 60),
    Scale.LAPTOP: Size(32, 32, 32, (1, 5, 50), 1_000),
    Scale.PAPER: Size(64, 128, 128, (1, 5, 25), 10_000),
}


@dataclass(frozen=True)
class Cell:
    """A training, by how often it saw every image."""

    passes: int


def cells(scale: Scale) -> list[Cell]:
    """One pass, five, and more."""
    return [Cell(passes) for passes in SIZES[scale].passes]


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train on nine tenths, score, audit against the last tenth, draw samples and a walk."""
    import torch

    from triptych.engine import Engine
    from triptych.gan.held_out import HeldOut
    from triptych.gan.recipes import dcgan
    from triptych.gan.sample import Sampler
    from triptych.images import check_apart
    from triptych.metrics.audit import InFeatures, UpToShifts, audit
    from triptych.papers._generators import Yardstick, course, drawn, pictures

    size = SIZES[context.scale]
    images = pictures(context, size.side)
    yardstick = Yardstick.of(images, max(size.samples, 60), context)
    apart = HeldOut.tenth(images, size.batch)
    assert apart is not None
    assert apart.train_index is not None
    assert apart.index is not None
    train, held_out = images.take(apart.train_index), images.take(apart.index)
    check_apart(held_out.pixels, train.pixels)
    steps = max(1, round(cell.passes * len(train) / size.batch))  # the critic sees a batch a step
    recipe = dcgan(images.shape[1:], width=size.width, images=len(train))
    recipe = recipe.changed(batch=size.batch, steps=steps)
    players = recipe.players(context.seed, Engine(device=torch.device(context.device)))
    *_, last = course(recipe, players, train, context, steps, steps)
    samples = drawn(recipe, players, size.samples)
    found = audit(samples, train.pixels, held_out.pixels, [UpToShifts(), InFeatures(yardstick.extractor)])
    by_pixels, by_features = found.spaces
    metrics = {
        **yardstick.scores(samples),
        "p_value": found.p_value,
        "p_pixels": by_pixels.p_value,
        "p_features": by_features.p_value,
        "nearer_pixels": by_pixels.nearer,
        "nearer_features": by_features.nearer,
        "expected": by_pixels.expected,
        "suspicious": len(by_pixels.suspicious()) + len(by_features.suspicious()),
        "train": len(train),
        "held_out": len(held_out),
        "steps": players.step,
        "train_cpu_seconds": last.cpu_seconds,
    }
    worst = by_pixels.ratio.argsort(descending=True)[:8]
    beside = torch.stack(
        [samples[worst], train.pixels[by_pixels.train[worst]], held_out.pixels[by_pixels.held_out[worst]]], 1
    )
    walk = _walk(Sampler(recipe, players.average))
    shown = {"samples": samples[:64], "worst": beside.flatten(0, 1), "walk": walk}
    return metrics, {"pictures": shown, "said": {"extractor": yardstick.extractor.name}}


def _walk(sampler: "Sampler") -> "Tensor":
    """Images on the straight lines between nine points of the noise, a row a line."""
    import torch

    z = sampler.z(7, 0, STOPS)
    t = torch.linspace(0, 1, BETWEEN, dtype=z.dtype)[:, None]
    return sampler.images(torch.cat([(1 - t) * a + t * b for a, b in pairwise(z)]))


def render(rows: Sequence[Row]) -> list[Section]:
    """Scores and p-values by passes; samples, the most suspicious, and the walk of the longest training."""
    from triptych.bench import figure

    known = sorted({row.cell["passes"] for row in rows})
    first = {row.cell["passes"]: row for row in sorted(rows, key=lambda row: -row.seed)}
    names = [
        ("is", "score", ".2f"),
        ("kid", "KID", ".3f"),
        ("recall", "recall", ".3f"),
        ("p_value", "p, memorisation", ".3f"),
    ]
    names += [("nearer_pixels", "nearer to training, pixels", ".3f"), ("nearer_features", "by features", ".3f")]
    names += [("expected", "expected", ".3f"), ("steps", "steps", ",.0f"), ("train_cpu_seconds", "CPU s", ",.0f")]
    body = []
    for passes in known:
        those = [row for row in rows if row.cell["passes"] == passes]
        texts = [" / ".join(format(row.metrics[name], form) for row in those) for name, _, form in names]
        body.append([Entry(f"{passes} pass{'es' if passes > 1 else ''}"), *map(Entry, texts)])
    sections: list[Section] = [
        Table(["", *(label for _, label, _ in names)], body, "After so many passes", _note(rows))
    ]
    tiles = []
    for passes in known:
        samples = first[passes].artefact("pictures")["samples"].numpy()
        title = f"after {passes} pass{'es' if passes > 1 else ''}"
        tiles.append(Picture(figure.images(samples, columns=8), f"samples {title}", caption=title))
    sections.append(Gallery(tiles, "Figures 2 and 3: samples, not chosen by hand", large=True))
    for passes in known:
        worst = first[passes].artefact("pictures")["worst"].numpy()
        title = f"Most like a training image after {passes} pass{'es' if passes > 1 else ''}"
        caption = "Each three: the generated image that is relatively nearest to a training image, that image, the nearest held-out one."
        drawn = figure.images(worst, columns=12)
        sections.append(Picture(drawn, "samples beside their neighbours", title, caption))
    if known:
        walk = first[known[-1]].artefact("pictures")["walk"].numpy()
        title = f"Figure 4: straight lines between {STOPS} points of the noise, after {known[-1]} passes"
        sections.append(Picture(figure.images(walk, columns=BETWEEN), "images along lines of the noise", title))
    return sections


def _note(rows: Sequence[Row]) -> str:
    told = next((row.artefact("said") for row in rows), None)
    by = "" if told is None else f" Features: {told['extractor']}; {seeds(rows)}."
    return (
        "Published: pictures alone, of three million images. p: how often random labels of training and held-out images have samples as much "
        f"nearer to 'training' ones; small says memorised.{by}"
    )


EXPERIMENT = Experiment(
    name="radford2016.passes",
    paper=PAPER,
    shows="Figures 2 to 4: images after one pass and after five, whether they are copies, a walk between them",
    version=2,
    cells=cells,
    measure=measure,
    render=render,
    data="rooms",
)
