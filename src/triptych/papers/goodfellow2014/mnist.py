"""Table 1, MNIST column, and Figure 2: Algorithm 1 with a maxout critic, scored by a Parzen window.

The game is the recipe ``goodfellow``: what the authors' mnist.yaml says. Training images are the first 50,000 of MNIST,
validation images the other 10,000; 10,000 samples in [0, 1] are the kernel's centres, its width is chosen on 1,000 validation
images, as the authors' parzen_ll.py does, and the 10,000 test images are scored. Beside the samples stand training images
and k-means centroids, as Theis, van den Oord & Bethge (ICLR 2016) have them: a score above that of real images shows
what the estimate is worth. Differs: at scale laptop 40 of the 250 epochs. Other data than MNIST are cut by a seeded permutation.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.row import Metrics
from triptych.bench.sections import Curves, Picture, Section, Series
from triptych.bench.table import Column, Line, compare

if TYPE_CHECKING:
    import torch

    from triptych.gan.recipe import Recipe
    from triptych.gan.train import Players
    from triptych.images import Images

PAPER = "Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014"
CENTRES = {"samples": "Adversarial nets", "images": "Training images", "centroids": "k-means centroids"}
PUBLISHED = {"samples": (225.0, 2.0), "images": (243.0, None), "centroids": (313.0, None)}
BESIDE = {"DBN": (138.0, 2.0), "Stacked CAE": (121.0, 1.6), "Deep GSN": (214.0, 1.1)}
SAMPLE_SEED, ROWS, COLUMNS = 999, 6, 10


@dataclass(frozen=True)
class Cell:
    """What the kernel stands on: generated samples, training images or k-means centroids."""

    centres: str


@dataclass(frozen=True)
class Size:
    """Images in each part, hidden units, epochs, samples, centroids; ``starts``: half the widths of both first weights.

    The authors' 0.05 and 0.005 are too narrow for small networks on 64 pixels, which then stand still for thousands of
    steps.
    """

    train: int
    validation: int
    test: int
    width: int
    epochs: int
    samples: int
    centroids: int
    chosen_on: int = 1_000
    starts: tuple[float, float] = (0.05, 0.005)


SIZES = {
    Scale.SMOKE: Size(1_197, 300, 300, 60, 30, 1_000, 100, chosen_on=300, starts=(0.3, 0.2)),
    Scale.LAPTOP: Size(50_000, 10_000, 10_000, 1_200, 40, 10_000, 2_000),
    Scale.PAPER: Size(50_000, 10_000, 10_000, 1_200, 250, 10_000, 10_000),
}


def cells(scale: Scale) -> list[Cell]:
    """The adversarial nets and the two references."""
    del scale
    return [Cell(name) for name in CENTRES]


def published(cell: Cell) -> Metrics:
    """The paper's number, or Theis et al.'s for the references, in nats."""
    return _numbers(*PUBLISHED[cell.centres])


def _numbers(mean: float, error: float | None) -> Metrics:
    return {"log_likelihood": mean, "standard_error": error}


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make the kernel's centres, choose its width on validation images, score the test images."""
    from triptych.metrics.parzen import parzen

    size = SIZES[context.scale]
    train, validation, test = parts(context, size)
    start = time.process_time()
    make = {"samples": _samples, "images": _images, "centroids": _centroids}[cell.centres]
    centres, facts, artefacts = make(train, size, context)
    seconds = time.process_time() - start
    flat = [images.floats().flatten(1) for images in (test, validation)]
    score = parzen(centres, flat[0], validation=flat[1][: size.chosen_on])
    metrics = {
        "log_likelihood": score.mean,
        "standard_error": score.standard_error,
        "sigma": score.sigma,
        "centres": len(centres),
        "train_cpu_seconds": seconds,
        **facts,
    }
    return metrics, artefacts


def parts(context: Context, size: Size) -> "Sequence[Images]":
    """Training, validation and test images: MNIST's own order where there are its splits, else by a seeded permutation."""
    from triptych.data import load, permute_split, splits

    source = context.data.path or context.data.name
    if (
        splits(source) == ("train", "test")
        and len(every := load(source, split="train")) == size.train + size.validation
    ):
        held_out = every.take(slice(size.train, None))
        return [every.take(slice(size.train)), held_out, load(source, split="test", limit=size.test)]
    return permute_split(load(source), [size.train, size.validation, size.test], context.seed)


Made = tuple["torch.Tensor", dict[str, Any], dict[str, Any]]


def _samples(train: "Images", size: Size, context: Context) -> Made:
    """Samples of a trained generator, the first of them as pictures beside the nearest training images."""
    import torch

    from triptych.engine import Engine
    from triptych.gan.draw import Draw
    from triptych.gan.train import generate

    recipe, players, losses = played(train, size, context)
    device = Engine(device=torch.device(context.device)).device
    with torch.no_grad():
        z = recipe.rules.latent.sample(Draw(SAMPLE_SEED, 0, 0, size.samples)).to(device)
        samples = torch.cat([generate(players.generator, part).cpu() for part in z.split(1_000)])
    shown = samples[: ROWS * (COLUMNS - 1)]
    last = shown[COLUMNS - 2 :: COLUMNS - 1]
    nearest = torch.cdist(last.flatten(1), train.floats().flatten(1)).argmin(1)
    facts = {"steps": players.step, "epochs": players.seen / len(train)}
    pictures = {"samples": recipe.pixels(shown), "nearest": train.pixels[nearest]}
    return samples.flatten(1), facts, {"pictures": pictures, "losses": losses}


def played(train: "Images", size: Size, context: Context) -> "tuple[Recipe, Players, dict[str, list[float]]]":
    """Play the recipe for some epochs; the losses are means over each epoch."""
    import torch

    from triptych.engine import Engine
    from triptych.gan.networks.mlp import MLP, start_at_means
    from triptych.gan.recipes import goodfellow
    from triptych.gan.schedule import Constant
    from triptych.gan.train import train as play

    engine = Engine(device=torch.device(context.device))
    recipe = goodfellow(train.shape[1:], width=size.width, images=len(train))
    nets = replace(cast(MLP, recipe.critic), generator_scale=size.starts[0], critic_scale=size.starts[1])
    recipe = recipe.changed(generator=nets, critic=nets)
    epoch = len(train) // recipe.batch
    players = recipe.players(context.seed, engine)
    for network in (players.generator, players.average):
        start_at_means(network, train.floats().mean(0))
    going = play(
        players,
        recipe.objective,
        recipe.batches(train, engine),
        seed=context.seed,
        rules=recipe.rules,
        schedule=Constant(recipe.batch),
        engine=engine,
    )
    losses: dict[str, list[float]] = {"critic_loss": [], "generator_loss": []}
    for _ in range(size.epochs):
        told = [next(going).parts for _ in range(epoch)]
        for name, values in losses.items():
            values.append(float(torch.stack([parts[name] for parts in told]).mean()))
    return recipe, players, losses


def _images(train: "Images", size: Size, context: Context) -> Made:
    """As many training images."""
    from triptych.data import permute_split

    (chosen,) = permute_split(train, [min(size.samples, len(train))], context.seed)
    return chosen.floats().flatten(1), {}, {}


def _centroids(train: "Images", size: Size, context: Context) -> Made:
    """k-means centroids of the training images."""
    import torch
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(size.centroids, batch_size=4_096, max_iter=20, random_state=context.seed)
    means.fit(train.floats().flatten(1).numpy())
    return torch.from_numpy(means.cluster_centers_), {}, {}


def render(rows: Sequence[Row]) -> list[Section]:
    """The table beside the published rows; samples with their nearest training images; the losses."""
    lines = [Line(label, {"centres": name}, _numbers(*PUBLISHED[name])) for name, label in CENTRES.items()]
    lines += [Line(name, None, _numbers(*numbers)) for name, numbers in BESIDE.items()]
    columns = [
        Column("log_likelihood", "log-likelihood, nats", ".1f"),
        Column("standard_error", "standard error", ".1f"),
        Column("sigma", "width of the kernel", ".3f"),
        Column("epochs", "epochs", ".0f"),
        Column("train_cpu_seconds", "training, CPU s", ".0f"),
    ]
    sections: list[Section] = [compare(rows, lines, columns, title="Table 1, column MNIST", note=_NOTE)]
    trained = sorted((row for row in rows if row.cell["centres"] == "samples"), key=lambda row: row.seed)[:1]
    for row in trained:
        sections += [_grid(row), _curves(row)]
    return sections


def _grid(row: Row) -> Picture:
    """Rows of samples, each closed by the training image nearest to its last."""
    import torch

    from triptych.bench import figure

    pictures = row.artefact("pictures")
    rows = pictures["samples"].split(COLUMNS - 1)
    tiles = torch.cat([torch.cat([samples, near[None]]) for samples, near in zip(rows, pictures["nearest"])])
    return Picture(
        figure.images(tiles.numpy(), columns=COLUMNS),
        "rows of generated digits, and at the end of each a training image",
        "Figure 2: samples, not chosen by hand",
        "The last column is the training image nearest, in pixels, to the sample on its left.",
    )


def _curves(row: Row) -> Curves:
    """Both losses by epoch."""
    losses = row.artefact("losses")
    epochs = list(range(1, len(losses["critic_loss"]) + 1))
    series = [
        Series("critic", epochs, losses["critic_loss"]),
        Series("generator", epochs, losses["generator_loss"]),
    ]
    return Curves(series, f"Losses, seed {row.seed}", "epoch", "nats")


_NOTE = (
    "Published: Goodfellow et al. 2014, Table 1, mean log-likelihood of MNIST's test images and its standard error; training "
    "images and centroids: Theis et al. 2016. Measured: under the kernel on the samples of the generator itself. Centroids: "
    f"{SIZES[Scale.LAPTOP].centroids:,} at scale laptop, {SIZES[Scale.PAPER].centroids:,} at scale paper; Theis et al.'s score "
    "is of their own number of them. The estimate ranks no models: a generator that knew k-means centroids alone would win."
)

EXPERIMENT = Experiment(
    name="goodfellow2014.mnist",
    paper=PAPER,
    shows="Table 1, column MNIST: Parzen log-likelihood of Algorithm 1 with maxout; Figure 2: samples",
    version=1,
    cells=cells,
    measure=measure,
    render=render,
    published=published,
    data="mnist",
)
