"""The 101-layer residual networks with which WGAN-GP shows that a very deep pair can be trained."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from triptych.check import choice, whole, wrong
from triptych.gan.draw import Draw
from triptych.gan.game import Scores
from triptych.gan.networks.layers import NORMS, Head, concatenated, finish, norm, relu
from triptych.gan.networks.resnet import halvings, start
from triptych.gan.networks.target import Target

RESIDUAL = 0.3  # of a block's output is added to its shortcut
OUTPUT = 5.0  # that the last layer is divided by
MOST = 16  # times as many filters as at the image's own side, at most


@dataclass(frozen=True)
class Bottleneck:
    """Row 7 of Figure 2 of Gulrajani et al., NeurIPS 2017: at 64 x 64, 33 blocks of three convolutions in each network.

    ``width`` / 2 filters at the image's own side, twice as many with each halving, which stop where the smaller side is
    4 to 7. ``outer`` blocks that keep the side stand at the image's own, ``inner`` at each other. ``norm`` is the
    generator's, ``critic_norm`` the critic's, after the last convolution of each block: 'batch', 'layer' or 'none'.
    Labels join z, and the critic's images as constant maps.
    Differs: paddings of strided convolutions are the mirror image of the code's; BatchNorm uses running statistics in
    eval mode.
    """

    width: int = 64
    outer: int = 5
    inner: int = 6
    norm: str = "batch"
    critic_norm: str = "layer"

    def __post_init__(self) -> None:
        if whole("width", self.width) % 4:
            raise wrong("width", "a multiple of 4 for a bottleneck network", self.width)
        for name in ("outer", "inner"):
            whole(name, getattr(self, name), low=0)
        for name in ("norm", "critic_norm"):
            choice(name, getattr(self, name), NORMS)

    def generator(self, target: Target, latent: int) -> nn.Module:
        """Build the network from z (n, latent) to images. Raises InputError where the sides do not suit it."""
        return start(BottleneckGenerator(self, target, whole("latent", latent)))

    def critic(self, target: Target) -> nn.Module:
        """Build the network from images to scores. Raises InputError where the sides do not suit it."""
        return start(BottleneckCritic(self, target))

    def widths(self, target: Target) -> list[int]:
        """Filters at each side, the image's own first. Raises InputError where the sides do not suit it."""
        return [self.width // 2 * min(2**k, MOST) for k in range(halvings(target) + 1)]


class BottleneckGenerator(nn.Module):
    """z (n, latent) and labels (n,) -> images (n, c, h, w)."""

    takes_draw = True

    def __init__(self, settings: Bottleneck, target: Target, latent: int) -> None:
        super().__init__()
        widths, kind = settings.widths(target)[::-1], settings.norm
        self.target, times = target, len(widths) - 1
        self.grid = (target.shape[1] >> times, target.shape[2] >> times)
        self.first = nn.Linear(latent + target.classes, self.grid[0] * self.grid[1] * widths[0])
        blocks = [Block(widths[0], widths[0], kind) for _ in range(settings.inner)]
        for k, width in enumerate(widths[1:], 1):
            blocks.append(Block(widths[k - 1], width, kind, "up"))
            blocks += [Block(width, width, kind) for _ in range(settings.inner if k < times else settings.outer)]
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Conv2d(widths[-1], target.shape[0], 1)

    def forward(self, z: Tensor, labels: Tensor | None = None, draw: Draw | None = None) -> Tensor:
        """Images; ``draw`` is not used."""
        del draw
        x = self.first(concatenated(z, labels, self.target.classes)).unflatten(1, (*self.grid, -1)).permute(0, 3, 1, 2)
        return finish(self.last(self.blocks(x)) / OUTPUT, self.target.output)


class BottleneckCritic(nn.Module):
    """Images (n, c, h, w) and labels (n,) -> ``Scores``."""

    takes_draw = True

    def __init__(self, settings: Bottleneck, target: Target) -> None:
        super().__init__()
        self.told = target.classes if target.labels == "concatenate" else 0
        widths, kind = settings.widths(target), settings.critic_norm
        self.first = nn.Conv2d(target.shape[0] + self.told, widths[0], 1)
        blocks = [Block(widths[0], widths[0], kind) for _ in range(settings.outer)]
        for k, width in enumerate(widths[1:], 1):
            blocks.append(Block(widths[k - 1], width, kind, "down"))
            blocks += [Block(width, width, kind) for _ in range(settings.inner)]
        self.blocks = nn.Sequential(*blocks)
        times = len(widths) - 1
        self.head = Head(widths[-1] * (target.shape[1] >> times) * (target.shape[2] >> times), target)

    def forward(self, images: Tensor, labels: Tensor | None = None, draw: Draw | None = None) -> Scores:
        """Scores; ``draw`` is not used."""
        del draw
        said = self.head(self.blocks(self.first(concatenated(images, labels, self.told))), labels)
        return Scores(said.value / OUTPUT, said.classes)


class Block(nn.Module):
    """shortcut(x) + 0.3 · norm(conv₃(relu(conv₂(relu(conv₁(relu(x))))))): (n, c, h, w) -> (n, out, ...).

    Convolutions of 1 x 1, 3 x 3 and 1 x 1. ``resample`` 'down' strides conv₂ and a 1 x 1 shortcut by 2; 'up' transposes
    conv₂, and the shortcut is a 1 x 1 convolution to the four pixels that each becomes (Shi et al., CVPR 2016).
    """

    def __init__(self, channels: int, out: int, kind: str, resample: str = "") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // 2, 1)
        if resample == "up":
            self.conv2 = nn.ConvTranspose2d(channels // 2, out // 2, 3, 2, padding=1, output_padding=1)
            self.shortcut = nn.Conv2d(channels, 4 * out, 1)
        else:
            stride = 2 if resample == "down" else 1
            self.conv2 = nn.Conv2d(channels // 2, out // 2, 3, stride, padding=1)
            self.shortcut = Halved(channels, out) if resample else nn.Identity()
        self.conv3 = nn.Conv2d(out // 2, out, 1, bias=False)
        self.norm = norm(kind, out)
        self.up = resample == "up"

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        y = self.conv3(relu(self.conv2(relu(self.conv1(relu(x))))))
        shortcut = self.shortcut(x)
        return (F.pixel_shuffle(shortcut, 2) if self.up else shortcut) + RESIDUAL * self.norm(y)


class Halved(nn.Conv2d):
    """A 1 x 1 convolution of every second row and column: (n, c, h, w) -> (n, out, ceil(h / 2), ceil(w / 2)).

    The pixels are dropped here: on processors with AVX2 and without AVX-512 the gradient of torch 2.13's own strided one
    writes beyond its buffer where c < 8 and the channels come last.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 1, stride=2)

    def forward(self, input: Tensor) -> Tensor:
        """Drop, then convolve."""
        return F.conv2d(input[:, :, ::2, ::2], self.weight, self.bias)
