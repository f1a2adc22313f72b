"""The layers of all networks: activations without a second-order pass, norms, dropout, heads."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.check import choice, real, whole, wrong
from triptych.gan.draw import Draw
from triptych.gan.game import Scores
from triptych.gan.networks.target import Target

SLOPE = 0.2  # of every leaky ReLU: Radford et al., ICLR 2016
ACTIVATIONS = ("relu", "leaky", "tanh", "gated", "maxout")
NORMS = ("none", "batch", "layer")
INITS = ("normal", "uniform", "he")


def gate(u: Tensor, y: Tensor, slope: float = 0.0) -> Tensor:
    """u where y > 0, else slope · u: the adjoint of a (leaky) ReLU with output y, whose own gradient is not followed."""
    if u.stride() != y.stride() and y.is_contiguous(memory_format=torch.channels_last):
        u = u.contiguous(memory_format=torch.channels_last)  # the kernel is many times slower on two layouts
    return torch.ops.aten.leaky_relu_backward(u, y.detach(), slope, True)


class _Leaky(torch.autograd.Function):
    """x where x > 0, else slope · x; its gradient's own derivative by x is nothing, rather than a tensor of zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, inplace: bool) -> Tensor:
        y = F.leaky_relu(x, slope, inplace)
        if inplace:
            ctx.mark_dirty(y)
        ctx.save_for_backward(y)
        ctx.slope = slope
        ctx.set_materialize_grads(False)  # else a gradient that is not there arrives as zeros, and goes on as such
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, None, None]:
        (y,) = ctx.saved_tensors
        return None if gradients[0] is None else gate(gradients[0], y, ctx.slope), None, None


def leaky_relu(x: Tensor, slope: float = SLOPE) -> Tensor:
    """max(x, slope · x), entrywise, for 0 ≤ slope < 1.

    Its second derivative is zero, but double backward through PyTorch's own sends that zero back as a tensor; here it sends
    nothing. PyTorch's convolutions and poolings make zeros themselves: a critic of them has ``input_gradient`` instead.
    """
    return _Leaky.apply(x, slope, False)  # pyright: ignore[reportReturnType]


def relu(x: Tensor) -> Tensor:
    """max(x, 0), entrywise, as ``leaky_relu``."""
    return leaky_relu(x, 0.0)


class LeakyReLU(nn.Module):
    """``leaky_relu`` as a layer, a ReLU for slope 0; ``inplace`` writes over its input, which nobody else may need."""

    def __init__(self, slope: float = SLOPE, inplace: bool = False) -> None:
        super().__init__()
        self.slope, self.inplace = slope, inplace

    def forward(self, x: Tensor) -> Tensor:
        """Entrywise."""
        return _Leaky.apply(x, self.slope, self.inplace)  # pyright: ignore[reportReturnType]

    def adjoint(self, u: Tensor, y: Tensor) -> Tensor:
        """The gradient by x, of u by y = forward(x)."""
        return gate(u, y, self.slope)


class Maxout(nn.Module):
    """The largest of ``pieces`` channels that lie side by side: (n, units · pieces, ...) -> (n, units, ...).

    Goodfellow et al., ICML 2013.
    """

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = whole("pieces", pieces)

    def forward(self, x: Tensor) -> Tensor:
        """Over each group of channels."""
        return x.unflatten(1, (-1, self.pieces)).max(2).values


class Gated(nn.Module):
    """sigmoid(a) · tanh(b), a the even and b the odd channels: (n, 2c, ...) -> (n, c, ...).

    Van den Oord et al., NeurIPS 2016, equation 2.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Over each pair of channels."""
        a, b = x.unflatten(1, (-1, 2)).unbind(2)
        return a.sigmoid() * b.tanh()


def activation(name: str, pieces: int = 1) -> tuple[nn.Module, int]:
    """An activation, in place where it can be, and how many channels it needs for one that it gives. Raises InputError."""
    choice("activation", name, ACTIVATIONS)
    if name in ("relu", "leaky"):
        return LeakyReLU(SLOPE if name == "leaky" else 0.0, inplace=True), 1
    if name == "tanh":
        return nn.Tanh(), 1
    return (Gated(), 2) if name == "gated" else (Maxout(pieces), pieces)


def norm(kind: str, channels: int, points: bool = False) -> nn.Module:
    """'batch', 'layer' (over channels and pixels of each image, gain and bias a channel), or 'none', for maps or points."""
    choice("norm", kind, NORMS)
    if kind == "batch":
        return nn.BatchNorm1d(channels) if points else nn.BatchNorm2d(channels)
    return nn.GroupNorm(1, channels) if kind == "layer" else nn.Identity()


class Dropout(nn.Module):
    """Zero a share ``rate`` of the entries and divide the others by 1 - rate, by the numbers of a draw; without one, nothing."""

    def __init__(self, rate: float, name: str) -> None:
        super().__init__()
        self.rate, self.name = real("rate", rate, low=0, high=0.99), name

    def forward(self, x: Tensor, draw: Draw | None) -> Tensor:
        """Entrywise; the mask is each image's own."""
        kept = self.mask(x, draw)
        return x if kept is None else x * kept

    def mask(self, x: Tensor, draw: Draw | None) -> Tensor | None:
        """What x is multiplied by, or None for 1."""
        if draw is None or not self.rate:
            return None
        return (draw.uniform(self.name, tuple(x.shape[1:])) >= self.rate).to(x) / (1 - self.rate)


def one_hot(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    """Labels (n,) as (n, classes), of the type of ``like``."""
    return F.one_hot(labels, classes).to(like.dtype)


def concatenated(x: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """x (n, c, ...) with the labels' one-hot vectors as further, constant, channels; x where there are no classes.

    Mirza & Osindero 2014; at every layer in the code of Radford et al., ICLR 2016. Raises InputError without labels.
    """
    if not classes:
        return x
    if labels is None:
        raise wrong("labels", f"given to a network of {classes} classes", labels)
    y = one_hot(labels, classes, x)
    return torch.cat([x, y[(..., *([None] * (x.dim() - 2)))].expand(-1, -1, *x.shape[2:])], 1)


class Head(nn.Module):
    """A critic's last layer, of features f (n, d): w · f + b, in float32 at least, also under autocast.

    Where labels are to be projected, + v_label · f (Miyato & Koyama, ICLR 2018, equation 3); beside an auxiliary
    classifier, its logits (Odena et al., ICML 2017).
    """

    def __init__(self, features: int, target: Target, bias: bool = True) -> None:
        super().__init__()
        self.value = nn.Linear(features, 1, bias)
        project = target.classes and target.labels == "project"
        auxiliary = target.classes and target.labels == "auxiliary"
        self.project = nn.Linear(features, target.classes, bias=False) if project else None
        self.classes = nn.Linear(features, target.classes) if auxiliary else None

    def forward(self, features: Tensor, labels: Tensor | None) -> Scores:
        """Features (n, ...) and labels (n,) to ``Scores``."""
        with torch.autocast(features.device.type, enabled=False):
            f = precise(features.flatten(1))
            value = self.value(f).squeeze(1)
            if self.project is not None:
                value = value + (self.embedding(labels) * f).sum(1)
            return Scores(value, None if self.classes is None else self.classes(f))

    def adjoint(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """The gradient of the value by the features, of their shape and type."""
        u = self.value.weight.expand(len(features), -1)
        if self.project is not None:
            u = u + self.embedding(labels)
        return u.view_as(features).to(features.dtype)

    def embedding(self, labels: Tensor | None) -> Tensor:
        """v_label of each image (n, d). Raises InputError without labels."""
        if self.project is None or labels is None:
            raise wrong("labels", "given to a critic that projects them", labels)
        return self.project.weight[labels]


def precise(x: Tensor) -> Tensor:
    """float32 of a shorter type; float32 and float64 as they are."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def finish(x: Tensor, output: str) -> Tensor:
    """A generator's last activation: 'tanh', 'sigmoid' or 'linear', in float32 at least."""
    x = precise(x)
    return x if output == "linear" else x.tanh() if output == "tanh" else x.sigmoid()


@torch.no_grad()
def initialise(network: nn.Module, kind: str, scale: float) -> None:
    """Draw all weights anew from PyTorch's generator; biases are 0.

    'normal': N(0, scale²), gains of BatchNorm N(1, scale²) (Radford et al., ICLR 2016); 'uniform' on [-scale, scale]; 'he':
    uniform, with the variance of the code of Gulrajani et al., NeurIPS 2017 (``spread``).
    """
    choice("init", kind, INITS)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if kind == "normal":
                module.weight.normal_(0, scale)
            else:
                half_width = scale if kind == "uniform" else math.sqrt(3) * spread(module)
                module.weight.uniform_(-half_width, half_width)
            if module.bias is not None:
                module.bias.zero_()
        elif kind == "normal" and isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.normal_(1, scale)


def spread(module: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, hidden: bool = False) -> float:
    """The standard deviation of a layer's weights: √(4 / (in + out)) of a convolution, √(2 / (in + out)) of a linear layer.

    in and out count what one output sees and one input reaches. ``hidden``: √(2 / in), before a ReLU of a perceptron.
    """
    if isinstance(module, nn.Linear):
        return math.sqrt(2 / (module.in_features + (0 if hidden else module.out_features)))
    taps, strides = math.prod(module.kernel_size), math.prod(module.stride)
    seen, reached = module.in_channels * taps, module.out_channels * taps
    if isinstance(module, nn.ConvTranspose2d):
        seen /= strides
    else:
        reached /= strides
    return math.sqrt(4 / (seen + reached))
