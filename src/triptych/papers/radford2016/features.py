"""Section 5.1 (CIFAR-10): a linear SVM on what a critic's convolutions have learned, each max-pooled to 4 x 4.

The paper's critic was trained on ImageNet. Differs: it is trained on the images themselves, without their labels; fewer labels at the smaller
scales; beside it a critic with random weights, and the pixels, by the same SVM.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.row import Metrics
from triptych.bench.sections import Section
from triptych.bench.table import Column, Line, compare

if TYPE_CHECKING:
    from torch import nn

    from triptych.gan.recipe import Recipe
    from triptych.images import Images

PAPER = "Radford, Metz & Chintala, Unsupervised Representation Learning with DCGANs, ICLR 2016"
FEATURES = {"critic": "DCGAN's critic", "random": "the same critic, random weights", "pixels": "pixels"}
PUBLISHED = {"critic": 82.8}
BESIDE = {"one layer of k-means (in the paper)": 80.6, "three layers of k-means, labels used (in the paper)": 82.0}
PLACES = 4
GRID = (1e-5, 1e-4, 1e-3, 1e-2)  # C, by a fifth of the training images


@dataclass(frozen=True)
class Size:
    """Filters of the first layer, generator steps, labelled images, test images."""

    width: int
    steps: int
    labelled: int
    tested: int


SIZES = {
    Scale.SMOKE: Size(4, 20, 400, 300),
    Scale.LAPTOP: Size(32, 2_000, 10_000, 5_000),
    Scale.PAPER: Size(128, 10_000, 50_000, 10_000),
}


@dataclass(frozen=True)
class Cell:
    """What the SVM sees."""

    features: str


def cells(scale: Scale) -> list[Cell]:
    """All three."""
    del scale
    return [Cell(name) for name in FEATURES]


def published(cell: Cell) -> Metrics | None:
    """The paper's accuracy in percent, of a critic that ImageNet trained."""
    return {"accuracy_percent": PUBLISHED[cell.features]} if cell.features in PUBLISHED else None


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train a GAN without labels where that is asked for; then an SVM on the labelled images."""
    from triptych.papers.radford2016._sets import sets

    size = SIZES[context.scale]
    train, test = sets(context, size.tested)
    seconds, steps = 0.0, 0
    if cell.features == "pixels":
        x, x_test = (part.floats().flatten(1).numpy() for part in (train, test))
    else:
        recipe, critic, steps, seconds = _critic(train, size, context, trained=cell.features == "critic")
        x, x_test = (maps_of(recipe, critic, part) for part in (train, test))
    assert train.labels is not None
    assert test.labels is not None
    n = size.labelled
    accuracy, C = svm(x[:n], train.labels[:n].numpy(), x_test, test.labels.numpy())
    return {
        "accuracy_percent": accuracy,
        "C": C,
        "features": x.shape[1],
        "labels": min(n, len(x)),
        "steps": steps,
        "train_cpu_seconds": seconds,
    }, {}


def _critic(train: "Images", size: Size, context: Context, trained: bool) -> "tuple[Recipe, nn.Module, int, float]":
    """The recipe, its critic, generator steps, and seconds of training."""
    import torch

    from triptych.engine import Engine
    from triptych.gan.recipes import dcgan
    from triptych.papers._generators import course

    recipe = dcgan(train.shape[1:], width=size.width, images=len(train)).changed(steps=size.steps)
    players = recipe.players(context.seed, Engine(device=torch.device(context.device)))
    if not trained:
        return recipe, players.critic, 0, 0.0
    *_, last = course(recipe, players, train, context, size.steps, size.steps)
    return recipe, players.critic, players.step, last.cpu_seconds


def maps_of(recipe: "Recipe", critic: "nn.Module", images: "Images") -> Any:
    """Every convolution's maps, max-pooled to at most 4 x 4, side by side: float32 (n, features). BatchNorm takes its running statistics."""
    import torch
    import torch.nn.functional as F

    from triptych.gan.draw import Draw

    critic.eval()
    like, found = next(critic.parameters()), []
    with torch.no_grad():
        for part in images.pixels.split(500):
            x = recipe.scaled(part.to(like.device), Draw(0, 0, 0, len(part)))
            maps = critic.maps(x)[1:]  # pyright: ignore[reportCallIssue]
            pooled = [
                F.adaptive_max_pool2d(m, (min(PLACES, m.shape[2]), min(PLACES, m.shape[3]))).flatten(1) for m in maps
            ]
            found.append(torch.cat(pooled, 1).cpu())
    return torch.cat(found).numpy()


def svm(x: Any, y: Any, x_test: Any, y_test: Any) -> tuple[float, float]:
    """Test accuracy in percent of a linear SVM on standardised features, and its C, chosen on a fifth of the training images."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    scaler = StandardScaler().fit(x)
    x, x_test, cut = scaler.transform(x), scaler.transform(x_test), len(y) * 4 // 5
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # of a C that is too large to be chosen; the last fit says it
        right = {C: LinearSVC(C=C, max_iter=200).fit(x[:cut], y[:cut]).score(x[cut:], y[cut:]) for C in GRID}
    C = max(right, key=lambda c: right[c])
    return 100 * float(LinearSVC(C=C, max_iter=2000).fit(x, y).score(x_test, y_test)), C


def render(rows: Sequence[Row]) -> list[Section]:
    """One table."""
    columns = [
        Column("accuracy_percent", "accuracy, %", ".1f"),
        Column("features", "numbers", ",.0f"),
        Column("labels", "labels", ",.0f"),
        Column("steps", "steps of the GAN", ",.0f"),
        Column("train_cpu_seconds", "its training, CPU s", ",.0f"),
    ]
    lines = [Line(label, {"features": name}) for name, label in FEATURES.items()]
    lines += [Line(name, None, {"accuracy_percent": value}) for name, value in BESIDE.items()]
    note = (
        "Published: a critic that ImageNet trained at 32 pixels, 28,672 numbers, all 50,000 labels. Here the critic is trained on the images "
        "themselves, without labels."
    )
    return [compare(rows, lines, columns, title="A linear SVM on a critic's features", note=note)]


EXPERIMENT = Experiment(
    name="radford2016.features",
    paper=PAPER,
    shows="section 5.1: a linear SVM on what a critic has learned without labels",
    version=2,
    cells=cells,
    measure=measure,
    render=render,
    published=published,
    data="cifar10",
)
