"""Classification of MNIST: networks whose layers are a pursuit beside the plain one, from labels, with a linear head.

Three layers, 32 of 6 x 6 at stride 2, 64 of 6 x 6 at stride 2 and 512 of 4 x 4, six rounds. Differs: Adam and a falling rate in
place of SGD, ten visits in place of 100; the dictionaries of networks with rounds are divided by their norms, without which rates from 0.003 on
were unstable; the rates were chosen among a few, each kind's own, on 10,000 training images that were not trained on (seed 0).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.row import Metrics
from triptych.bench.sections import Curves, Section, Series, Text
from triptych.bench.table import Column, Line, compare

if TYPE_CHECKING:
    from torch import Tensor

PAPER = "Sulam, Aberdam, Beck & Elad, On Multi-Layer Basis Pursuit, Efficient Algorithms and CNNs, IEEE TPAMI 2020"
PUBLISHED = {
    "feed-forward": 98.74,
    "layered": 99.19,
    "ml-ista": 99.11,
    "ml-fista": 99.16,
    "ml-lista": 98.81,
    "free": 98.89,
}
NAMES = {
    "feed-forward": "feed-forward",
    "layered": "layered basis pursuit",
    "ml-ista": "ML-ISTA",
    "ml-fista": "ML-FISTA",
    "ml-lista": "ML-LISTA",
    "free": "all free",
}
OWN = dict.fromkeys(("ml-lista", "free"), ", with more parameters than the plain network")
RATES = {"feed-forward": 6e-3, "layered": 3e-3, "ml-ista": 2e-2, "ml-fista": 2e-2, "ml-lista": 2e-3, "free": 6e-3}
IMAGES = {Scale.SMOKE: 400, Scale.LAPTOP: 10_000, Scale.PAPER: 60_000}
EPOCHS = {Scale.SMOKE: 8, Scale.LAPTOP: 10, Scale.PAPER: 10}
LAYERS = {Scale.SMOKE: "8x3,12x3", Scale.LAPTOP: "32x6s2,64x6s2,512x4", Scale.PAPER: "32x6s2,64x6s2,512x4"}
ROUNDS = {Scale.SMOKE: 2, Scale.LAPTOP: 6, Scale.PAPER: 6}
BATCH = {Scale.SMOKE: 20, Scale.LAPTOP: 128, Scale.PAPER: 128}


@dataclass(frozen=True)
class Cell:
    """One kind of network."""

    kind: str


def cells(scale: Scale) -> list[Cell]:
    """All kinds."""
    del scale
    return [Cell(kind) for kind in PUBLISHED]


def published(cell: Cell) -> Metrics:
    """The authors' accuracy, in percent, of 60,000 training images."""
    return {"accuracy": PUBLISHED[cell.kind]}


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train on the first images of a seeded permutation; accuracy on all test images."""
    import torch

    from triptych.papers.sulam2019._training import Effort, error_percent, train
    from triptych.sparse.deep.learning import parsed
    from triptych.sparse.deep.networks import MultiLayerNet, NetSpec

    (x, y), (x_test, y_test) = sets(context, IMAGES[context.scale])
    scale, seed = context.scale, context.seed
    torch.manual_seed(seed)
    unit = cell.kind != "feed-forward"
    spec = NetSpec(cell.kind, parsed(LAYERS[scale]), channels=x.shape[1], rounds=ROUNDS[scale], unit=unit)
    net = MultiLayerNet(spec, scale=1.0).to(context.device)
    start = time.process_time()
    losses = train(net, x, y, Effort(EPOCHS[scale], BATCH[scale], RATES[cell.kind]), seed, context.device)
    seconds = time.process_time() - start
    metrics = {
        "accuracy": 100 - error_percent(net, x_test, y_test, context.device),
        "train_loss": losses[-1],
        "train_cpu_seconds": seconds,
        "parameters": sum(p.numel() for p in net.parameters()),
        "positive_biases": float(torch.cat([(b > 0).float() for b in net.bias]).mean()),
    }
    return metrics, {"losses": losses}


def sets(context: Context, n: int) -> "tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]":
    """n training images in [0, 1] in a seeded order, all test images, and labels."""
    import torch

    from triptych.data import load, permute_split, splits

    source = context.data.path or context.data.name
    names = splits(source)
    if "train" in names and "test" in names:
        train, test = load(source, split="train"), load(source, split="test")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(context.seed))[:n]
        return (train.floats()[order], _labels(train)[order]), (test.floats(), _labels(test))
    train, test = permute_split(load(source), (n, n), context.seed)
    return (train.floats(), _labels(train)), (test.floats(), _labels(test))


def _labels(images: Any) -> "Tensor":
    """Labels. Raises InputError where there are none."""
    from triptych.check import InputError

    if images.labels is None:
        raise InputError("data must have labels to train a classifier, got images without; give a labelled set")
    return images.labels.long()


def render(rows: Sequence[Row]) -> list[Section]:
    """The table beside the published one, what is paired in it, and the training losses."""
    columns = [
        Column("accuracy", "test accuracy, %"),
        Column("train_loss", "last training loss", ".4f"),
        Column("positive_biases", "biases above 0", ".0%"),
        Column("parameters", "parameters", ",.0f"),
        Column("train_cpu_seconds", "training, CPU s", ".0f"),
    ]
    return drawn(rows, PUBLISHED, columns, "MNIST, labels", NOTE.format("60,000 training images, 100 epochs"))


def drawn(
    rows: Sequence[Row], published: dict[str, float], columns: Sequence[Column], title: str, note: str
) -> list[Section]:
    """A table of all kinds, what is paired in it, and the losses of the first seed."""
    lines = [Line(NAMES[kind], {"kind": kind}, {"accuracy": value}) for kind, value in published.items()]
    sections: list[Section] = [compare(rows, lines, columns, title=title, note=note)]
    told = paired(rows)
    if told:
        sections.append(Text(told))
    first = min(row.seed for row in rows)
    series = [
        Series(NAMES[row.cell["kind"]], [i + 1.0 for i in range(len(losses))], losses)
        for row in rows
        if row.seed == first and (losses := row.artefact("losses"))
    ]
    return [*sections, Curves(series, f"Training loss, seed {first}", "visit", "cross-entropy", log_y=True)]


def paired(rows: Sequence[Row]) -> str:
    """The best pursuit less the feed-forward network, seed by seed: mean and standard error, in words."""
    from statistics import fmean, stdev

    by = {(row.cell["kind"], row.seed): float(row.metrics["accuracy"] or 0.0) for row in rows}
    seeds = sorted({seed for kind, seed in by if kind == "feed-forward"})
    found = []
    for kind in (kind for kind in NAMES if kind != "feed-forward"):
        both = [by[kind, s] - by["feed-forward", s] for s in seeds if (kind, s) in by]
        if len(both) > 1:
            found.append((fmean(both), stdev(both) / len(both) ** 0.5, len(both), kind))
    if not found:
        return ""
    parts = [f"{NAMES[kind]} {mean:+.2f} (standard error {error:.2f}, {n} seeds)" for mean, error, n, kind in found]
    mean, error, _, kind = max(found)
    if mean >= 2 * error and mean > 0:
        verdict = f"{NAMES[kind]} is ahead by more than two standard errors{OWN.get(kind, '')}."
    elif mean <= -2 * error:
        verdict = (
            "No pursuit is ahead: the feed-forward network is, by more than two standard errors of the best of them."
        )
    else:
        verdict = "No pursuit is ahead by two standard errors."
    return f"Accuracy less that of the feed-forward network, points, paired by seed: {'; '.join(parts)}. {verdict}"


NOTE = "Published: {}, read from the authors' notebooks. Smaller scales train on fewer images, and are to be compared among themselves."

EXPERIMENT = Experiment(
    name="sulam2019.mnist",
    paper=PAPER,
    shows="classification of MNIST by unrolled multi-layer pursuits beside the plain network",
    version=2,
    cells=cells,
    measure=measure,
    render=render,
    published=published,
    data="mnist",
)
