"""Stability under attack: accuracy of networks whose layers are thresholded or pursued, by the size of an adversarial perturbation.

The networks of sulam2019.mnist, three layers with rounds or without, trained alike without attacks; then projected gradient descent on the
loss, 20 steps, in l2 balls. Beside them for how many digits the condition on stripe norms holds in the first layer, without which
no radius is promised (Romano, Aberdam, Sulam & Elad, JMIV 2020, theorems on L-THR and L-BP). Differs: one attack for all.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.sections import Curves, Section, Series
from triptych.bench.table import Column, Line, compare

if TYPE_CHECKING:
    from torch import Tensor, nn

PAPER = "Romano, Aberdam, Sulam & Elad, Adversarial Noise Attacks of Deep Learning Architectures, JMIV 2020"
NAMES = {
    "feed-forward": "layered thresholding (feed-forward)",
    "layered": "layered basis pursuit",
    "ml-fista": "ML-FISTA",
}
EPSILONS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
STEPS = 20
ATTACKED = {Scale.SMOKE: 40, Scale.LAPTOP: 1000, Scale.PAPER: 10_000}


@dataclass(frozen=True)
class Cell:
    """One kind of network."""

    kind: str


def cells(scale: Scale) -> list[Cell]:
    """Three kinds."""
    del scale
    return [Cell(kind) for kind in NAMES]


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train as for the table of sulam2019, attack."""
    import torch

    from triptych.papers.sulam2019 import mnist
    from triptych.papers.sulam2019._training import Effort, error_percent, train
    from triptych.sparse.coherence import mutual_coherence, uniqueness_bound
    from triptych.sparse.deep.learning import parsed
    from triptych.sparse.deep.networks import MultiLayerNet, NetSpec
    from triptych.sparse.norms import l0_stripe

    scale, seed = context.scale, context.seed
    (x, y), (x_test, y_test) = mnist.sets(context, mnist.IMAGES[scale])
    torch.manual_seed(seed)
    layers = parsed(mnist.LAYERS[scale])
    spec = NetSpec(cell.kind, layers, channels=x.shape[1], rounds=mnist.ROUNDS[scale], unit=cell.kind != "feed-forward")
    net = MultiLayerNet(spec, scale=1.0)
    start = time.process_time()
    train(net, x, y, Effort(mnist.EPOCHS[scale], mnist.BATCH[scale], mnist.RATES[cell.kind]), seed, "cpu")
    clean = 100 - error_percent(net, x_test, y_test, "cpu")
    x_test, y_test = x_test[: ATTACKED[scale]], y_test[: ATTACKED[scale]]
    curve = [100 * float((_attacked(net, x_test, y_test, e) == y_test).double().mean()) for e in EPSILONS]
    with torch.no_grad():
        codes, model = net.codes(x_test[:100]), net.model(x_test.shape[2:])
    mus = [mutual_coherence(D) for D in model.layers]
    stripes = [int(l0_stripe(D, code).max()) for D, code in zip(model.layers, codes)]
    promised = sum(
        int(l0_stripe(model.layers[0], codes[0])[i]) < uniqueness_bound(mus[0]) for i in range(len(codes[0]))
    )
    metrics = {
        "accuracy": clean,
        **{f"at_{e:g}".replace(".", "_"): value for e, value in zip(EPSILONS, curve)},
        "coherence_1": mus[0],
        "bound_1": uniqueness_bound(mus[0]),
        "stripe_1": stripes[0],
        "promised_percent": 100 * promised / len(codes[0]),
        "cpu_seconds": time.process_time() - start,
    }
    return metrics, {"curve": curve}


def _attacked(net: "nn.Module", x: "Tensor", y: "Tensor", radius: float) -> "Tensor":
    """Labels after projected gradient ascent on the cross-entropy in an l2 ball, pixels kept within [0, 1]."""
    import torch
    from torch.nn import functional as F

    found = []
    for image, label in zip(x.split(250), y.split(250)):
        v = torch.zeros_like(image)
        for _ in range(STEPS if radius else 0):
            v.requires_grad_()
            (g,) = torch.autograd.grad(F.cross_entropy(net(image + v), label, reduction="sum"), v)
            flat = (v.detach() + 0.15 * radius * F.normalize(g.flatten(1)).reshape(g.shape)).flatten(1)
            flat = flat * (radius / flat.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
            v = (image + flat.reshape(v.shape)).clamp(0, 1) - image
        with torch.no_grad():
            found.append(net(image + v).argmax(1))
    return torch.cat(found)


def render(rows: Sequence[Row]) -> list[Section]:
    """Accuracy by perturbation."""
    columns = [
        Column("accuracy", "test accuracy, %"),
        *(Column(f"at_{e:g}".replace(".", "_"), f"at {e:g}", ".1f") for e in EPSILONS[1:]),
        Column("coherence_1", "coherence, layer 1"),
        Column("bound_1", "conditions below"),
        Column("stripe_1", "largest stripe norm", ".0f"),
        Column("promised_percent", "digits they hold for, %", ".0f"),
    ]
    lines = [Line(name, {"kind": kind}) for kind, name in NAMES.items()]
    sections: list[Section] = [compare(rows, lines, columns, title="Accuracy under attack, l2", note=_NOTE)]
    first = min(row.seed for row in rows)
    series = [Series(NAMES[row.cell["kind"]], EPSILONS, row.artefact("curve")) for row in rows if row.seed == first]
    return [
        *sections,
        Curves(series, f"Accuracy under attack, seed {first}", "l2 norm of the perturbation", "accuracy, %"),
    ]


_NOTE = (
    "Perturbations found by descent are an upper bound on what holds: a stronger attack may break more. The published radii ask for "
    "stripe norms below (1 + 1/mu) / 2 in every layer; where that fails, as counted for layer 1, they promise nothing."
)

EXPERIMENT = Experiment(
    name="romano2018.attack",
    paper=PAPER,
    shows="accuracy of thresholded and pursued networks under attack, and what the published conditions promise",
    version=1,
    cells=cells,
    measure=measure,
    render=render,
    data="mnist",
)
