"""What a penalty on the critic's gradient is worth where it is known, and the derivative of ours, however it is computed."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.check import Case
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, scorer
from triptych.gan.networks.bottleneck import Bottleneck
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.deep import Deep
from triptych.gan.networks.fused import conv_pool, upsample_conv
from triptych.gan.networks.mlp import MLP
from triptych.gan.networks.resnet import ResNet
from triptych.gan.networks.target import Architecture, Target
from triptych.gan.objectives import Minimax, Regularised
from triptych.gan.penalty import gradient_penalty
from triptych.gan.truths.small import F64, Slope, normal

ROUNDING = "float64 rounding"


def known_penalties() -> Iterator[Case]:
    """A 1-Lipschitz critic pays nothing, whatever the number of images; a flat one pays 1 and stays finite."""
    w = normal("w", 1, 48)[0]
    steep = Slope(w / w.norm())
    for n in (1, 4, 64):
        penalty = gradient_penalty(scorer(steep), images("real", n), images("fake", n), Draw(0, count=n))
        yield Case(f"penalty of a critic of slope 1, {n} images", 0.0, penalty.item(), 1e-28, f"{ROUNDING}, squared")
    flat = Slope(F64.new_zeros(48))
    penalty = gradient_penalty(scorer(flat), images("real", 4), images("fake", 4), Draw(0, count=4))
    (gradient,) = torch.autograd.grad(penalty, flat.w)
    yield Case("penalty of a critic of slope 0", 1.0, penalty.item(), 0.0, "no rounding: the norm is 0")
    yield Case(
        "gradient of the penalty at a slope of 0: entries that are not finite",
        0.0,
        float((~gradient.isfinite()).sum()),
        0.0,
        "a count",
    )
    yield from regularised()


class Square(nn.Module):
    """D(x) = ‖x‖² / 2, whose gradient is x."""

    def forward(self, x: Tensor) -> Tensor:
        """Values (n,)."""
        return x.flatten(1).square().sum(1) / 2


def regularised() -> Iterator[Case]:
    """R1 and R2 of D(x) = ‖x‖² / 2 are half the weight times E ‖x‖², of data and of what is generated."""
    real, fake, inner = images("real", 5), images("fake", 5), Minimax()
    lengths = [batch.images.square().sum((1, 2, 3)).mean().item() for batch in (real, fake)]
    for name, objective, theory in (
        ("R1 with weight 3 of D = ‖x‖²/2: 3/2 E ‖x‖²", Regularised(inner, r1=3), 1.5 * lengths[0]),
        ("R2 with weight 3 of D = ‖x‖²/2: 3/2 E ‖x̃‖²", Regularised(inner, r2=3), 1.5 * lengths[1]),
    ):
        totals = [
            o.critic_loss(scorer(Square()), real, fake, Draw(0, count=5)).total.item() for o in (objective, inner)
        ]
        yield Case(name, theory, totals[0] - totals[1], 1e-12, f"{ROUNDING} of squares of about 50")


ARCHITECTURES: dict[str, tuple[Architecture, int]] = {
    "perceptron, ReLU": (MLP(critic_widths=(16, 16)), 8),
    "perceptron, maxout": (MLP(critic_widths=(16, 16), critic_activation="maxout"), 8),
    "perceptron, tanh": (MLP(critic_widths=(16, 16), critic_activation="tanh"), 8),
    "DCGAN": (DCGAN(width=4, scale=0.2, critic_norm="none"), 16),
    "DCGAN, layer norms": (DCGAN(width=4, scale=0.2, critic_norm="layer"), 16),
    "DCGAN, gated": (DCGAN(width=4, scale=0.2, critic_norm="none", activation="gated"), 16),
    "ResNet": (ResNet(width=4), 16),
    "deep, softplus": (Deep(width=4, depth=6, norm="layer", activation="softplus"), 16),
    "bottleneck ResNet": (Bottleneck(width=8, outer=1, inner=1), 16),
}


def derivatives() -> Iterator[Case]:
    """The derivative of the penalty by all weights along a random direction, against differences of the plain formula.

    Masks, adjoints and fused convolutions are ways to compute it faster; whatever the way, this is the number.
    """
    why = "central differences of 1e-6 in float64: rounding leaves 1e-10 of it, as long as no unit changes sides"
    for name, (architecture, side) in ARCHITECTURES.items():
        critic = started(architecture, side)
        real, fake, draw = images("real", 2, side), images("fake", 2, side), Draw(0, count=2)
        parameters = list(critic.parameters())
        along = [normal(f"along {i}", 1, p.numel())[0].view_as(p) for i, p in enumerate(parameters)]
        gradients = torch.autograd.grad(
            gradient_penalty(scorer(critic), real, fake, draw), parameters, allow_unused=True, materialize_grads=True
        )
        ours = sum((g * a).sum().item() for g, a in zip(gradients, along))
        small, values = 1e-6, []
        for sign in (1, -1):
            move(parameters, along, sign * small)
            values.append(plain(critic, real, fake, draw))
            move(parameters, along, -sign * small)
        theory = (values[0] - values[1]) / (2 * small)
        yield Case(f"derivative of the penalty, {name}", theory, ours, 1e-7 * max(0.1, abs(theory)), why)


def started(architecture: Architecture, side: int) -> nn.Module:
    """A critic of images (3, side, side) in float64, with the weights of seed 0 and random biases.

    With biases of 0, units whose inputs are all off sit on their own kink, where there is no derivative.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        critic = architecture.critic(Target((3, side, side))).double()
    with torch.no_grad():
        for name, parameter in critic.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(0.1 * normal(name, 1, parameter.numel())[0])
    return critic


def plain(critic: nn.Module, real: Batch, fake: Batch, draw: Draw) -> float:
    """The penalty by one gradient of the whole critic, image by image: nothing of it is ours but the critic's forward pass."""
    alpha = draw.uniform("alpha", (), F64)
    total = 0.0
    for i in range(len(alpha)):
        x_hat = (real.images[i] + alpha[i] * (fake.images[i] - real.images[i]))[None].requires_grad_()
        (gradient,) = torch.autograd.grad(scorer(critic)(Batch(x_hat)).value.sum(), x_hat)
        total += (gradient.norm().item() - 1) ** 2
    return total / len(alpha)


@torch.no_grad()
def move(parameters: list[nn.Parameter], along: list[Tensor], size: float) -> None:
    """Move parameters along a direction."""
    for parameter, direction in zip(parameters, along):
        parameter.add_(direction, alpha=size)


def fused() -> Iterator[Case]:
    """A convolution and a change of side at once are the two one after the other."""
    x, weight = normal("x", 2, 4 * 32 * 32).view(2, 4, 32, 32), normal("weight", 4, 36).view(4, 4, 3, 3)
    pooled = F.avg_pool2d(F.conv2d(x, weight, padding=1), 2)
    large = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    pairs: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
        "3 x 3 and mean over 2 x 2": (conv_pool, pooled),
        "doubling and 3 x 3": (upsample_conv, large),
    }
    for name, (function, theory) in pairs.items():
        apart = (function(x, weight) - theory).abs().max().item()
        yield Case(f"fused convolution, {name}: largest difference", 0.0, apart, 1e-13, f"{ROUNDING} of sums of 36")


def images(name: str, n: int, side: int = 4) -> Batch:
    """Random images (n, 3, side, side)."""
    return Batch(normal(name, n, 3 * side**2).view(n, 3, side, side))
