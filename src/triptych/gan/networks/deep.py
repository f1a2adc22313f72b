"""Plain convolutional networks of any depth: the variants of a DCGAN that Gulrajani et al. drew at random."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from triptych.check import InputError, choice, whole
from triptych.gan.draw import Draw
from triptych.gan.game import Scores
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.layers import INITS, NORMS, SLOPE, Head, concatenated, finish, initialise, norm
from triptych.gan.networks.stride import Down, Up
from triptych.gan.networks.target import Target

ACTIVATIONS = ("relu", "leaky", "softplus", "tanh")


class Activation(nn.Module):
    """One of the four entrywise functions of Gulrajani et al., NeurIPS 2017, Table 1; 'softplus' is log(1 + exp(2x + 2)) / 2 - 1."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Entrywise."""
        if self.kind == "softplus":
            return F.softplus(2 * x + 2) / 2 - 1
        if self.kind == "tanh":
            return x.tanh()
        return F.relu(x) if self.kind == "relu" else F.leaky_relu(x, SLOPE)


@dataclass(frozen=True)
class Deep:
    """A DCGAN of ``depth`` layers, for either player: Gulrajani et al., NeurIPS 2017, section 5.1 and Table 1.

    Sides are halved while the smaller one is at least 8, by convolutions of stride 2 and kernel 5, the first with ``width`` filters, each
    other one with twice as many; the generator mirrors it. With the fully connected layer those are log₂ side - 1 layers; the others are
    3 x 3 convolutions of stride 1, dealt evenly to the sizes below the image's own, smallest first. ``norm`` follows every layer but the
    critic's first and the last of both; labels join z and the image.
    Differs: the paper says depths, not where the layers are.
    """

    width: int = 64
    depth: int = 4
    norm: str = "batch"
    activation: str = "relu"
    init: str = "he"

    def __post_init__(self) -> None:
        whole("width", self.width)
        whole("depth", self.depth, low=2)
        for name, known in (("norm", NORMS), ("activation", ACTIVATIONS), ("init", INITS)):
            choice(name, getattr(self, name), known)

    def generator(self, target: Target, latent: int) -> nn.Module:
        """Build the network from z (n, latent) to images. Raises InputError where the sides do not suit it."""
        network = DeepGenerator(self, target, whole("latent", latent))
        initialise(network, self.init, 0.02)
        return network

    def critic(self, target: Target) -> nn.Module:
        """Build the network from images to scores. Raises InputError where the sides do not suit it."""
        network = DeepCritic(self, target)
        initialise(network, self.init, 0.02)
        return network

    def sizes(self, target: Target) -> list[tuple[int, int]]:
        """Heights and widths, from the image's own to the grid's. Raises InputError where they do not suit it, or the depth is too small."""
        sizes = DCGAN().sizes(target)
        if len(sizes) > self.depth:
            h, w = sizes[0]
            raise InputError(f"depth must be at least {len(sizes)} for images of {h} x {w}, got {self.depth}")
        return sizes

    def more(self, levels: int) -> list[int]:
        """How many layers of stride 1 each size has, the smallest first."""
        extra = self.depth - levels - 1
        return [extra // levels + (k < extra % levels) for k in range(levels)]


class DeepGenerator(nn.Module):
    """z (n, latent) and labels (n,) -> images (n, c, h, w)."""

    takes_draw = True

    def __init__(self, settings: Deep, target: Target, latent: int) -> None:
        super().__init__()
        *sizes, self.grid = settings.sizes(target)
        self.target, levels = target, len(sizes)
        self.cells = settings.width * 2 ** (levels - 1)
        self.first = nn.Linear(latent + target.classes, self.cells * self.grid[0] * self.grid[1])
        layers: list[nn.Module] = [norm(settings.norm, self.cells), Activation(settings.activation)]
        width = self.cells
        for more, size in zip(settings.more(levels), reversed(sizes)):
            for _ in range(more):
                layers += _same(width, settings)
            last = size == sizes[0]
            out = target.shape[0] if last else width // 2
            layers.append(Up(width, out, 5, size))
            layers += [] if last else [norm(settings.norm, out), Activation(settings.activation)]
            width = out
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, labels: Tensor | None = None, draw: Draw | None = None) -> Tensor:
        """Images; ``draw`` is not used."""
        del draw
        x = self.first(concatenated(z, labels, self.target.classes))
        x = x.view(-1, *self.grid, self.cells).permute(0, 3, 1, 2)
        return finish(self.layers(x), self.target.output)


class DeepCritic(nn.Module):
    """Images (n, c, h, w) and labels (n,) -> ``Scores``."""

    takes_draw = True

    def __init__(self, settings: Deep, target: Target) -> None:
        super().__init__()
        sizes = settings.sizes(target)
        self.told = target.classes if target.labels == "concatenate" else 0
        levels, width = len(sizes) - 1, target.shape[0] + self.told
        layers: list[nn.Module] = []
        for k, more in enumerate(reversed(settings.more(levels))):
            out = settings.width * 2**k
            layers += [Down(width, out, 5), norm(settings.norm if k else "none", out), Activation(settings.activation)]
            for _ in range(more):
                layers += _same(out, settings)
            width = out
        self.layers = nn.Sequential(*layers)
        self.head = Head(width * sizes[-1][0] * sizes[-1][1], target)

    def forward(self, images: Tensor, labels: Tensor | None = None, draw: Draw | None = None) -> Scores:
        """Scores; ``draw`` is not used."""
        del draw
        return self.head(self.layers(concatenated(images, labels, self.told)).flatten(1), labels)


def _same(width: int, settings: Deep) -> list[nn.Module]:
    """A layer that leaves the size as it is."""
    convolution = nn.Conv2d(width, width, 3, padding=1)
    return [convolution, norm(settings.norm, width), Activation(settings.activation)]
