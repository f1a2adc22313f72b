"""Classification of CIFAR-10: three layers of a pursuit, three plain ones behind, from labels.

32, 64 and 128 atoms of 4 x 4 at stride 2, six rounds, then convolutions of 256, 512 and 512 filters of 3 x 3, the last two with pooling.
Differs as `triptych.papers.sulam2019.mnist` does, with at most 30 visits in place of 150; crops move by up to 4 pixels. Images that
were stored as JPEG are not those of the paper: accuracies on them are not comparable with the published ones.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.row import Metrics
from triptych.bench.sections import Section
from triptych.bench.table import Column
from triptych.papers.sulam2019 import mnist
from triptych.papers.sulam2019.mnist import PAPER, Cell, cells

if TYPE_CHECKING:
    from torch import nn

PUBLISHED = {
    "feed-forward": 79.00,
    "layered": 80.73,
    "ml-ista": 82.93,
    "ml-fista": 82.79,
    "ml-lista": 82.68,
    "free": 81.48,
}
RATES = {"feed-forward": 2e-3, "layered": 2e-3, "ml-ista": 2e-3, "ml-fista": 2e-3, "ml-lista": 1e-3, "free": 2e-3}
IMAGES = {Scale.SMOKE: 400, Scale.LAPTOP: 10_000, Scale.PAPER: 50_000}
EPOCHS = {Scale.SMOKE: 12, Scale.LAPTOP: 10, Scale.PAPER: 30}
LAYERS = {
    Scale.SMOKE: "4x4s2,8x4s2,12x4s2",
    Scale.LAPTOP: "32x4s2,64x4s2,128x4s2",
    Scale.PAPER: "32x4s2,64x4s2,128x4s2",
}
WIDTHS = {Scale.SMOKE: (32, 32, 32), Scale.LAPTOP: (256, 512, 512), Scale.PAPER: (256, 512, 512)}
SHIFT = {Scale.SMOKE: 0, Scale.LAPTOP: 4, Scale.PAPER: 4}


def published(cell: Cell) -> Metrics:
    """The authors' accuracy, in percent."""
    return {"accuracy": PUBLISHED[cell.kind]}


def built(kind: str, scale: Scale, channels: int) -> "nn.Module":
    """The network: a pursuit of three layers without a head, and plain layers."""
    from torch import nn

    from triptych.sparse.deep.learning import parsed
    from triptych.sparse.deep.networks import MultiLayerNet, NetSpec

    layers, (a, b, c) = parsed(LAYERS[scale]), WIDTHS[scale]
    spec = NetSpec(
        kind,
        layers,
        channels=channels,
        padding=(1,) * len(layers),
        rounds=mnist.ROUNDS[scale],
        unit=kind != "feed-forward",
    )
    plain = [nn.Conv2d(layers[-1].atoms, a, 3, padding=1), nn.ReLU(), nn.Conv2d(a, b, 3, padding=1), nn.ReLU()]
    plain += [_halving(), nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), _halving(), nn.Flatten(), nn.LazyLinear(10)]
    return nn.Sequential(MultiLayerNet(spec, scale=1.0, head=False), *plain)


def _halving() -> "nn.Module":
    """2 x 2 maxima of what is not negative, those at an odd border of fewer; repeatable on a GPU, where torch's pooling may not be."""
    from torch import Tensor, nn
    from torch.nn import functional as F

    class Halving(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
            return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))

    return Halving()


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train on the first images of a seeded permutation; accuracy on all test images."""
    import torch

    from triptych.papers.sulam2019._training import Effort, error_percent, train

    (x, y), (x_test, y_test) = mnist.sets(context, IMAGES[context.scale])
    scale, seed = context.scale, context.seed
    torch.manual_seed(seed)
    net = built(cell.kind, scale, x.shape[1])
    with torch.no_grad():
        net(x[:2])  # the linear layer takes its size
    net = net.to(context.device)
    start = time.process_time()
    effort = Effort(EPOCHS[scale], mnist.BATCH[scale], RATES[cell.kind], SHIFT[scale])
    losses = train(net, x, y, effort, seed, context.device)
    return {
        "accuracy": 100 - error_percent(net, x_test, y_test, context.device),
        "train_loss": losses[-1],
        "train_cpu_seconds": time.process_time() - start,
        "parameters": sum(p.numel() for p in net.parameters()),
    }, {"losses": losses}


def render(rows: Sequence[Row]) -> list[Section]:
    """The table beside the published one, what is paired in it, and the training losses."""
    columns = [
        Column("accuracy", "test accuracy, %"),
        Column("train_loss", "last training loss", ".3f"),
        Column("parameters", "parameters", ",.0f"),
        Column("train_cpu_seconds", "training, CPU s", ".0f"),
    ]
    return mnist.drawn(
        rows, PUBLISHED, columns, "CIFAR-10, labels", mnist.NOTE.format("50,000 training images, 150 epochs")
    )


EXPERIMENT = Experiment(
    name="sulam2019.cifar10",
    paper=PAPER,
    shows="classification of CIFAR-10 by unrolled multi-layer pursuits beside the plain network",
    version=2,
    cells=cells,
    measure=measure,
    render=render,
    published=published,
    data="cifar10",
)
