"""The residual networks with which WGAN-GP makes CIFAR-10, for all sides that can be halved to a small grid."""

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.check import InputError, whole, wrong
from triptych.gan.draw import Draw
from triptych.gan.game import Scores
from triptych.gan.networks.fused import ConvPool, UpsampleConv, spread
from triptych.gan.networks.layers import Head, concatenated, finish, gate, initialise, precise, relu
from triptych.gan.networks.target import Target

SMALLEST, LARGEST = 4, 15  # the smaller side of the generator's first grid


@dataclass(frozen=True)
class ResNet:
    """Residual blocks of two 3 x 3 convolutions of one width, activations first (Gulrajani et al., NeurIPS 2017).

    The generator starts from the image's sides halved as often as they can be while the smaller one stays at least 4,
    and doubles them in every block; it has BatchNorm, whose gain and bias are the class's own where there are classes
    (Dumoulin et al., ICLR 2017). The critic has no normalisation; its blocks halve the sides to twice the generator's
    first ones (at least once), two follow that keep them, then the mean over positions. At 32 x 32 these are the
    networks of the code's gan_cifar_resnet.py.
    Differs: BatchNorm uses running statistics in eval mode, where the code has the batch's always.
    """

    width: int = 128

    def __post_init__(self) -> None:
        whole("width", self.width)

    def generator(self, target: Target, latent: int) -> nn.Module:
        """Build the network from z (n, latent) to images. Raises InputError where the sides do not suit it."""
        return start(ResNetGenerator(target, whole("latent", latent), self.width))

    def critic(self, target: Target) -> nn.Module:
        """Build the network from images to scores. Raises InputError where the sides do not suit it."""
        return start(ResNetCritic(target, self.width))


def halvings(target: Target) -> int:
    """How often both sides can be halved while the smaller one stays at least 4.

    Raises InputError for points, where they cannot be halved at all, and where the smaller one then is above 15.
    """
    if len(target.shape) != 3:
        raise wrong("shape", "(channels, height, width) for a residual network", target.shape, "points take an MLP")
    h, w = target.shape[1:]
    times = 0
    while not (h % 2 or w % 2) and min(h, w) >= 2 * SMALLEST:
        h, w, times = h // 2, w // 2, times + 1
    if not times or min(h, w) > LARGEST:
        raise InputError(
            f"sides must halve evenly until the smaller one is {SMALLEST} to {LARGEST} for a residual network, got "
            f"{target.shape[1]} x {target.shape[2]}; choose sides such as 28, 32, 48 or 64, or a DCGAN"
        )
    return times


class ResNetGenerator(nn.Module):
    """z (n, latent) and labels (n,) -> images (n, c, h, w)."""

    takes_draw = True

    def __init__(self, target: Target, latent: int, width: int) -> None:
        super().__init__()
        self.target, times = target, halvings(target)
        self.grid = (target.shape[1] >> times, target.shape[2] >> times)
        self.first = nn.Linear(latent, self.grid[0] * self.grid[1] * width)
        self.blocks = nn.ModuleList(UpBlock(width, target.classes) for _ in range(times))
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, target.shape[0], 3, padding=1)

    def forward(self, z: Tensor, labels: Tensor | None = None, draw: Draw | None = None) -> Tensor:
        """Images; ``draw`` is not used. Raises InputError where labels are missing."""
        del draw
        x = self.first(z).unflatten(1, (*self.grid, -1)).permute(0, 3, 1, 2)  # channels last
        for block in self.blocks:
            x = block(x, labels)
        return finish(self.last(F.relu(self.norm(x))), self.target.output)


class UpBlock(nn.Module):
    """up(conv(x)) + conv₂(relu(norm₂(conv₁(up(relu(norm₁(x))))))): (n, k, h, w) -> (n, k, 2 h, 2 w).

    The shortcut's 1 x 1 convolution comes before its upsampling, which is the same and a quarter of the work.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = ClassNorm(width, classes), UpsampleConv(width, width)
        self.norm2, self.conv2 = ClassNorm(width, classes), nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """One block."""
        y = self.conv1(F.relu(self.norm1(x, labels)))
        y = self.conv2(F.relu(self.norm2(y, labels)))
        return y + F.interpolate(self.shortcut(x), scale_factor=2, mode="nearest")


class ClassNorm(nn.Module):
    """BatchNorm with a gain and a bias for each class: gain[y] · (x - mean) / deviation + bias[y], x (n, k, h, w).

    Dumoulin et al., ICLR 2017, equation 5. Without classes, BatchNorm.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=not classes)
        self.gain = nn.Parameter(torch.ones(classes, width)) if classes else None
        self.bias = nn.Parameter(torch.zeros(classes, width)) if classes else None

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Normalise x. Raises InputError where labels are missing."""
        x = self.norm(x)
        if self.gain is None or self.bias is None:
            return x
        if labels is None:
            raise InputError("labels must be given to a conditional generator, got None")
        gain, bias = (y[labels][..., None, None].to(x.dtype) for y in (self.gain, self.bias))
        return torch.addcmul(bias, x, gain)


class ResNetCritic(nn.Module):
    """Images (n, c, h, w) and labels (n,) -> ``Scores``."""

    takes_draw = True

    def __init__(self, target: Target, width: int) -> None:
        super().__init__()
        self.told = target.classes if target.labels == "concatenate" else 0
        downs = max(1, halvings(target) - 1)
        self.blocks = nn.ModuleList([DownBlock(target.shape[0] + self.told, width, first=True)])
        self.blocks.extend(DownBlock(width, width, halve=k < downs) for k in range(1, downs + 2))
        self.head = Head(width, target)

    def forward(self, images: Tensor, labels: Tensor | None = None, draw: Draw | None = None) -> Scores:
        """Scores; ``draw`` is not used."""
        del draw
        x = concatenated(images, labels, self.told)
        for block in self.blocks:
            x = block(x)
        return self.head(precise(relu(x)).mean((2, 3)), labels)

    def input_gradient(self, images: Tensor, labels: Tensor | None, draw: Draw | None) -> Tensor:
        """The value's gradient by the images (n, c, h, w), by the blocks' adjoints with the masks of a forward pass.

        Its graph is of first order. Double backward is the same with larger convolutions for the weights' gradients.
        """
        del draw
        x, masks = concatenated(images, labels, self.told), []
        blocks = cast(list[DownBlock], list(self.blocks))
        for (
            block
        ) in blocks:  # detached, not under no_grad: autocast would keep weights that it cast there, without a graph
            a, b = (y.detach() for y in block.hidden(x))
            masks.append((a, b))
            x = block.last(x, b).detach()
        y = relu(x)
        u = self.head.adjoint(precise(y).mean((2, 3)), labels).to(y.dtype) / y[0, 0].numel()
        u = gate(u[..., None, None].expand_as(y), y)
        for block, (a, b) in zip(reversed(blocks), reversed(masks)):
            u = block.adjoint(u, a, b)
        return u[:, : images.shape[1]]


class DownBlock(nn.Module):
    """shortcut(x) + conv₂(relu(conv₁(relu(x)))): (n, c, h, w) -> (n, k, h, w), or its mean over 2 x 2 (``halve``).

    The shortcut is x itself, or a 1 x 1 convolution, after the mean, which is the same and a quarter of the work. The
    ``first`` block has no ReLU before it.
    """

    def __init__(self, channels: int, width: int, halve: bool = True, first: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = ConvPool(width, width) if halve else nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, width, 1) if halve else None
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        return self.last(x, self.hidden(x)[1])

    def hidden(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the two convolutions are given."""
        a = x if self.first else relu(x)
        return a, relu(self.conv1(a))

    def last(self, x: Tensor, b: Tensor) -> Tensor:
        """The second convolution and the shortcut."""
        return self.conv2(b) + (x if self.shortcut is None else self.shortcut(F.avg_pool2d(x, 2)))

    def adjoint(self, u: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The gradient by x, of u by the block's output, with a and b of ``hidden(x)``."""
        if isinstance(self.conv2, ConvPool):
            v = self.conv2.adjoint(u)
        else:
            v = F.conv_transpose2d(u, self.conv2.weight, padding=1)
        v = F.conv_transpose2d(gate(v, b), self.conv1.weight, padding=1)
        v = v if self.first else gate(v, a)
        return v + (u if self.shortcut is None else spread(F.conv_transpose2d(u, self.shortcut.weight)))


@torch.no_grad()
def start(network: nn.Module) -> nn.Module:
    """Draw the weights as the paper's code does: convolutions by He's rule, others by Glorot's, half the variance.

    Those others are linear layers, shortcuts, and convolutions from and to the image outside of the blocks.
    """
    initialise(network, "he", 1.0)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and name.split(".")[-1] in ("shortcut", "first", "last"):
            module.weight.div_(math.sqrt(2))
    return network
