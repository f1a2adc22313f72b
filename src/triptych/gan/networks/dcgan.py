"""DCGAN and its variants: convolutions of stride 2 down to a small grid and transposed ones up from it."""

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from triptych.check import InputError, choice, real, whole, wrong
from triptych.gan.draw import Draw
from triptych.gan.game import Scores
from triptych.gan.networks.layers import (
    INITS,
    NORMS,
    Head,
    LeakyReLU,
    activation,
    concatenated,
    finish,
    initialise,
    norm,
)
from triptych.gan.networks.stride import Down, Up
from triptych.gan.networks.target import Target

ACTIVATIONS = ("relu", "tanh", "gated")
GRID = 4  # the smaller side that halving goes down to, at least
Size = tuple[int, int]


@dataclass(frozen=True)
class DCGAN:
    """Radford et al., ICLR 2016, and rows 1, 2, 4, 5 and 6 of Figure 2 of Gulrajani et al., NeurIPS 2017.

    The sides are halved, rounded up, ``doublings`` times, by default while the smaller one is at least 8. The critic has
    ``width`` filters, then twice as many with each halving, up to ``most`` times; the generator mirrors it, or has ``width``
    everywhere (``constant``). ``norm`` is the generator's, ``critic_norm`` the critic's but for its first layer.
    ``activation`` 'relu' means leaky ReLUs in the critic. ``dense``: the width of one more fully connected layer beside the
    grid, in both. Kernel 4 wants even sides. Labels join every layer's input.
    Differs: the 4 x 4 convolutions from and to one pixel that many write are linear layers here, which is the same; samples
    are drawn with BatchNorm's running statistics, where the papers' code takes those of the batch.
    """

    width: int = 64
    kernel: int = 5
    norm: str = "batch"
    critic_norm: str = "none"
    activation: str = "relu"
    constant: bool = False
    doublings: int | None = None
    most: int = 8
    dense: int = 0
    bias: bool = True
    init: str = "normal"
    scale: float = 0.02

    def __post_init__(self) -> None:
        whole("width", self.width)
        whole("most", self.most)
        whole("dense", self.dense, low=0)
        if self.kernel not in (4, 5):
            raise wrong("kernel", "4 or 5", self.kernel)
        for name, known in (("norm", NORMS), ("critic_norm", NORMS), ("activation", ACTIVATIONS), ("init", INITS)):
            choice(name, getattr(self, name), known)
        if self.doublings is not None:
            whole("doublings", self.doublings)
        real("scale", self.scale, above=0)

    def generator(self, target: Target, latent: int) -> nn.Module:
        """Build the network from z (n, latent) to images. Raises InputError where the sides do not suit it."""
        network = DCGANGenerator(self, target, whole("latent", latent))
        initialise(network, self.init, self.scale)
        return network

    def critic(self, target: Target) -> nn.Module:
        """Build the network from images to scores. Raises InputError where the sides do not suit it."""
        network = DCGANCritic(self, target)
        initialise(network, self.init, self.scale)
        return network

    def sizes(self, target: Target) -> list[Size]:
        """Heights and widths, from the image's own to the grid's. Raises InputError where they do not suit it."""
        if len(target.shape) != 3:
            raise wrong("shape", "(channels, height, width) for a DCGAN", target.shape, "points take an MLP")
        sizes: list[Size] = [(target.shape[1], target.shape[2])]
        while min(sizes[-1]) >= 2 * GRID if self.doublings is None else len(sizes) <= self.doublings:
            h, w = sizes[-1]
            if min(h, w) < 2 or (self.kernel == 4 and (h % 2 or w % 2)):
                raise self._refused(target)
            sizes.append((-(-h // 2), -(-w // 2)))
        if len(sizes) == 1:
            raise self._refused(target)
        return sizes

    def _refused(self, target: Target) -> InputError:
        """What is said of sides that do not halve."""
        times = "until the smaller is below 8" if self.doublings is None else f"{self.doublings} times"
        least = f"be at least {2 * GRID} and " if self.doublings is None else ""
        rest = " without a rest for kernel 4" if self.kernel == 4 else ""
        return InputError(
            f"height and width must {least}halve{rest} {times}, got {target.shape[1]} x {target.shape[2]}; "
            "choose other sides, doublings or kernel 5"
        )

    def widths(self, layers: int) -> list[int]:
        """The critic's filters, layer by layer."""
        return [self.width * min(2**k, self.most) for k in range(layers)]


class DCGANGenerator(nn.Module):
    """z (n, latent) and labels (n,) -> images (n, c, h, w)."""

    takes_draw = True

    def __init__(self, settings: DCGAN, target: Target, latent: int) -> None:
        super().__init__()
        self.target, s = target, settings
        *sizes, self.grid = s.sizes(target)
        widths = [s.width] * len(sizes) if s.constant else s.widths(len(sizes))
        act, pieces = activation(s.activation)
        self.act, told = act, target.classes
        self.dense = nn.Linear(latent + told, s.dense * pieces, s.bias) if s.dense else None
        self.dense_norm = norm(s.norm, s.dense * pieces, points=True) if s.dense else nn.Identity()
        self.cells = widths[-1] * pieces
        self.first = nn.Linear((s.dense or latent) + told, self.cells * self.grid[0] * self.grid[1], s.bias)
        outs = [*(pieces * width for width in widths[-2::-1]), target.shape[0]]
        self.layers = nn.ModuleList(
            Up(width + told, out, s.kernel, size, s.bias)
            for width, out, size in zip(widths[::-1], outs, reversed(sizes))
        )
        self.norms = nn.ModuleList(norm(s.norm, width) for width in (self.cells, *outs[:-1]))

    def forward(self, z: Tensor, labels: Tensor | None = None, draw: Draw | None = None) -> Tensor:
        """Images; ``draw`` is not used."""
        del draw
        told = self.target.classes
        if self.dense is not None:
            z = self.act(self.dense_norm(self.dense(concatenated(z, labels, told))))
        x = self.first(concatenated(z, labels, told)).view(-1, *self.grid, self.cells).permute(0, 3, 1, 2)
        for layer, normalise in zip(self.layers, self.norms):
            x = layer(self.act(normalise(x)), labels)
        return finish(x, self.target.output)


class DCGANCritic(nn.Module):
    """Images (n, c, h, w) and labels (n,) -> ``Scores``."""

    takes_draw = True

    def __init__(self, settings: DCGAN, target: Target) -> None:
        super().__init__()
        s, sizes = settings, settings.sizes(target)
        self.told = target.classes if target.labels == "concatenate" else 0
        self.act, pieces = activation("leaky" if s.activation == "relu" else s.activation)
        self.layers, self.norms = nn.ModuleList(), nn.ModuleList()
        width = target.shape[0]
        for k, out in enumerate(s.widths(len(sizes) - 1)):
            self.layers.append(Down(width + self.told, out * pieces, s.kernel, s.bias))
            self.norms.append(norm(s.critic_norm if k else "none", out * pieces))
            width = out
        features = width * sizes[-1][0] * sizes[-1][1] + self.told
        self.dense = nn.Linear(features, s.dense * pieces, s.bias) if s.dense else None
        self.dense_norm = norm(s.critic_norm, s.dense * pieces, points=True) if s.dense else nn.Identity()
        self.head = Head(s.dense + self.told if s.dense else features, target, s.bias)
        self.normalised = s.critic_norm != "none"

    def forward(self, images: Tensor, labels: Tensor | None = None, draw: Draw | None = None) -> Scores:
        """Scores; ``draw`` is not used."""
        del draw
        x = concatenated(self.maps(images, labels)[-1].flatten(1), labels, self.told)
        if self.dense is not None:
            x = concatenated(self.act(self.dense_norm(self.dense(x))), labels, self.told)
        return self.head(x, labels)

    def maps(self, images: Tensor, labels: Tensor | None = None) -> list[Tensor]:
        """The images and what each convolution gives, after its activation."""
        x = [images]
        for layer, normalise in zip(self.layers, self.norms):
            x.append(self.act(normalise(layer(x[-1], labels))))
        return x

    def input_gradient(self, images: Tensor, labels: Tensor | None, draw: Draw | None) -> Tensor | None:
        """The value's gradient by the images, where the network is piecewise linear; else None.

        u <- Wᵀ (mask · u), from the last layer to the first, with the masks of a forward pass.
        """
        del draw
        act, layers = self.act, cast("list[Down]", list(self.layers))
        if not isinstance(act, LeakyReLU) or self.normalised:
            return None
        hidden = [x.detach() for x in self.maps(images, labels)]
        features = concatenated(hidden[-1].flatten(1), labels, self.told)
        if self.dense is None:
            u = self.head.adjoint(features, labels)
        else:
            y = act(self.dense(features)).detach()
            u = self.head.adjoint(concatenated(y, labels, self.told), labels)[:, : y.shape[1]]
            u = nn.functional.linear(act.adjoint(u, y), self.dense.weight.T)
        u = u[:, : hidden[-1][0].numel()].view_as(hidden[-1])
        for layer, x, y in zip(reversed(layers), hidden[-2::-1], hidden[:0:-1]):
            u = layer.adjoint(act.adjoint(u, y), x.shape)
        return u
