"""Figure 1: level sets of critics trained to optimality, with weight clipping and with a gradient penalty.

The generator stays what the real points plus N(0, I) are; three laws of points in the plane. The numbers are those of the
authors' gan_toy.py: perceptrons of 3 x 512 ReLUs, 256 points a step, Adam 1e-4 (0.5, 0.9) and penalty weight 0.1, or
RMSProp 5e-5 and weights in [-0.01, 0.01]. Differs: the laws are endless streams of points; at scale laptop fewer steps at
a higher rate that falls to 0.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.sections import Gallery, Picture, Section
from triptych.bench.table import Column, Line, compare

if TYPE_CHECKING:
    from torch import Tensor, nn

    from triptych.engine import Engine
    from triptych.gan.game import BatchSource, Objective
    from triptych.gan.laws import Law
    from triptych.gan.optimiser import Optimiser

PAPER = "Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017"
LAWS = {"ring": "8 Gaussians", "grid": "25 Gaussians", "swiss_roll": "swiss roll"}
METHODS = {"clipping": "weight clipping", "penalty": "gradient penalty"}
HALF_WIDTH, SIDE, SHOWN, HELD_OUT = 2.0, 96, 800, 10_000
NEAR = 0.2  # how far from a point its neighbourhood reaches


@dataclass(frozen=True)
class Cell:
    """One critic on one law."""

    law: str
    method: str


@dataclass(frozen=True)
class Size:
    """How large the critic is and how long it is trained; ``faster`` multiplies the authors' rates."""

    width: int
    batch: int
    steps: int
    faster: float = 1.0
    fall: str = "constant"


SIZES = {
    Scale.SMOKE: Size(32, 64, 60, 20.0, "late"),
    Scale.LAPTOP: Size(512, 256, 2_000, 5.0, "late"),
    Scale.PAPER: Size(512, 256, 100_000),
}


def cells(scale: Scale) -> list[Cell]:
    """All laws under both methods; on the smallest scale the ring alone."""
    laws = ["ring"] if scale is Scale.SMOKE else list(LAWS)
    return [Cell(law, method) for law in laws for method in METHODS]


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train a critic between a law and its blurred copy; measure it on points that it has not seen, draw it on a grid."""
    import torch

    from triptych.engine import Engine
    from triptych.gan.laws import SwissRoll, batches, grid, ring

    law: Law = {"ring": ring(), "grid": grid(), "swiss_roll": SwissRoll()}[cell.law]
    size, engine = SIZES[context.scale], Engine(device=torch.device(context.device))
    objective, optimiser = _method(cell.method, size)
    critic = _critic(size.width, context.seed, engine)
    source = batches(law, engine)
    start = time.process_time()
    train_critic(critic, objective, optimiser, source, size, context.seed)
    seconds = time.process_time() - start
    line = torch.linspace(-HALF_WIDTH, HALF_WIDTH, SIDE)
    plane = torch.stack(torch.meshgrid(line, line, indexing="xy"), 2).view(-1, 2)
    with torch.no_grad():
        values = critic(plane.to(engine.device)).value.cpu()
    held_out = source(context.seed + 1_000_000, 0, HELD_OUT)
    metrics = {
        **judged(critic, held_out.images, context.seed),
        "value_range": float(values.max() - values.min()),
        "steps": size.steps,
        "train_cpu_seconds": seconds,
    }
    return metrics, {"surface": {"values": values.view(SIDE, SIDE), "points": held_out.images[:SHOWN].cpu()}}


def _method(name: str, size: Size) -> "tuple[Objective, Optimiser]":
    """Objective and optimiser of gan_toy.py. TensorFlow's RMSProp has decay 0.9 and epsilon 1e-10 under the root."""
    from triptych.gan.objectives import Wasserstein, WassersteinGP
    from triptych.gan.optimiser import Optimiser

    if name == "penalty":
        return WassersteinGP(0.1, steps=1), Optimiser("adam", 1e-4 * size.faster, 0.5, 0.9, fall=size.fall)
    clipped = Wasserstein(0.01, steps=1, long_steps=1)
    return clipped, Optimiser("rmsprop", 5e-5 * size.faster, alpha=0.9, eps=1e-5, fall=size.fall)


def _critic(width: int, seed: int, engine: "Engine") -> "nn.Module":
    """The perceptron with the weights that a seed gives."""
    import torch

    from triptych.gan.networks.mlp import MLP
    from triptych.gan.networks.target import Target

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return engine.place(MLP(critic_widths=(width,) * 3).critic(Target((2,), output="linear")))


def train_critic(
    critic: "nn.Module",
    objective: "Objective",
    optimiser: "Optimiser",
    source: "BatchSource",
    size: Size,
    seed: int,
) -> None:
    """The critic's half of Algorithm 1: the generator is fixed at the real points plus N(0, I), and never learns."""
    from triptych.gan.draw import Draw
    from triptych.gan.game import scorer
    from triptych.gan.laws import blurred

    walker = optimiser.build(critic.parameters())
    for step in range(size.steps):
        real, draw = source(seed, step * size.batch, size.batch), Draw(seed, step, 0, size.batch)
        objective.constrain(critic, "before")
        walker.zero_grad(set_to_none=True)
        objective.critic_loss(scorer(critic), real, blurred(real, draw), draw).total.backward()
        optimiser.set(walker, step, size.steps, step * size.batch)
        walker.step()
        objective.constrain(critic, "after")
    # Where clipping comes before a step, the last step's weights are yet to be clipped.
    objective.constrain(critic, "before")


def judged(critic: "nn.Module", real: "Tensor", seed: int) -> dict[str, float]:
    """What a critic is like on real points x (n, 2) that it was not trained on.

    The gap E D(x) - E D(x̃); the gradient's norm on the way from x to its blurred copy x̃, mean and deviation; the rise
    (E D(x) - E D(x + δ)) / (that mean · E ‖δ‖) in percent, δ ~ N(0, NEAR² I): 100 if each point is the tip of a cone, 0 if
    the critic is a plane around it.
    """
    from triptych.gan.draw import Draw
    from triptych.gan.game import Batch, scorer
    from triptych.gan.laws import blurred
    from triptych.gan.penalty import gradient_norms

    draw = Draw(seed + 1_000_000, 0, 0, len(real))
    score, fake = scorer(critic), blurred(Batch(real), draw).images
    x_hat = real + draw.uniform("alpha", (1,), like=real) * (fake - real)
    norms = gradient_norms(score, Batch(x_hat)).detach()
    delta = NEAR * draw.normal("delta", (2,), like=real)
    d_real, d_fake, d_near = (score(Batch(x)).value.detach().mean() for x in (real, fake, real + delta))
    rise = (d_real - d_near) / (norms.mean() * delta.norm(dim=1).mean())
    return {
        "gap": float(d_real - d_fake),
        "norm_mean": float(norms.mean()),
        "norm_deviation": float(norms.std()),
        "rise_percent": 100 * float(rise),
    }


def render(rows: Sequence[Row]) -> list[Section]:
    """What the critics are like in numbers, and the level sets of the first seed."""
    lines = [
        Line(f"{LAWS[law]}, {METHODS[method]}", {"law": law, "method": method}) for law in LAWS for method in METHODS
    ]
    columns = [
        Column("gap", "E D(x) - E D(x̃)", ".3g"),
        Column("norm_mean", "gradient norm, mean", ".3g"),
        Column("norm_deviation", "its deviation", ".2g"),
        Column("value_range", "range of values", ".3g"),
        Column("rise_percent", "rise at real points, %", ".0f"),
        Column("steps", "steps", ".0f"),
        Column("train_cpu_seconds", "training, CPU s", ".0f"),
    ]
    first = {}
    for row in sorted(rows, key=lambda row: row.seed):
        first.setdefault((row.cell["law"], row.cell["method"]), row)
    tiles = [_picture(first[key]) for law in LAWS for method in METHODS if (key := (law, method)) in first]
    table = compare(rows, lines, columns, title="Figure 1 in numbers", note=_NOTE)
    return [table, Gallery(tiles, "Figure 1: level sets of the critics", _CAPTION)] if tiles else [table]


def _picture(row: Row) -> Picture:
    from triptych.papers.gulrajani2017._planes import surface

    law, method = LAWS[row.cell["law"]], METHODS[row.cell["method"]]
    shown = row.artefact("surface")
    png = surface(shown["values"].numpy(), shown["points"].numpy(), HALF_WIDTH)
    return Picture(
        png, f"level sets of the critic between the {law} and its blurred copy, {method}", caption=f"{law}, {method}"
    )


_NOTE = (
    "Points are drawn by the program; no data set is read. Gap, gradient norms and rise on 10,000 points that were not "
    "trained on. Norms: on the way from a real point to its blurred copy. Rise: how far the critic falls from a real point to "
    "one at about 0.25, against what its mean slope allows: 100 % where each point is a summit, 0 where the critic is a plane "
    "around it. Range: on the square of the pictures. The paper has the figure alone and prints no numbers."
)
_CAPTION = (
    "Published: under clipping critics see no more than the coarse shape of the law, under the penalty they follow it. Red: "
    "real points. Levels are spread evenly over each critic's own range."
)

EXPERIMENT = Experiment(
    name="gulrajani2017.toy",
    paper=PAPER,
    shows="Figure 1: level sets of critics on 8 Gaussians, 25 Gaussians and the swiss roll, clipped and penalised",
    version=1,
    cells=cells,
    measure=measure,
    render=render,
    data=None,
)
