"""Convolutions of stride 2, down and up, each the adjoint of the other; labels as constant maps, convolved once a class."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.check import wrong
from triptych.gan.networks.layers import one_hot

FEW_CHANNELS = 4  # up to so many, phases are faster than a transposed convolution: forward 1.3 to 2.5 times on a CPU


class Down(nn.Conv2d):
    """A convolution of stride 2: (n, c, h, w) -> (n, out, ⌈h / 2⌉, ⌈w / 2⌉) for kernel 5, h / 2 of even h for kernel 4."""

    def __init__(self, channels: int, out: int, kernel: int, bias: bool = True) -> None:
        super().__init__(channels, out, kernel, 2, (kernel - 1) // 2, bias=bias)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Maps of half the sides; of more channels than x has, the last are the labels' constant maps."""
        c = x.shape[1]
        y = F.conv2d(x, self.weight[:, :c], self.bias, 2, self.padding)
        if c == self.in_channels:
            return y
        weight = self.weight[:, c:].transpose(0, 1).flatten(0, 1)[:, None]
        maps = F.conv2d(x.new_ones(1, 1, *x.shape[2:]), weight, None, 2, self.padding)
        return y + by_class(maps, labels, self.in_channels - c)

    def adjoint(self, u: Tensor, shape: Sequence[int]) -> Tensor:
        """The gradient by the input of u by the output; of the input's channels, the first of a ``shape`` (n, c, h, w)."""
        weight = self.weight if shape[1] == self.in_channels else self.weight[:, : shape[1]]
        return up(u, weight, None, shape[2:])


class Up(nn.ConvTranspose2d):
    """A transposed convolution of stride 2, cut to a size of 2h or 2h - 1: the adjoint of ``Down``."""

    def __init__(self, channels: int, out: int, kernel: int, size: tuple[int, int], bias: bool = True) -> None:
        super().__init__(channels, out, kernel, 2, (kernel - 1) // 2, bias=bias)
        self.size = size

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(n, c, h, w) -> (n, out, *size); of more channels than c, the last are the labels' constant maps."""
        c = x.shape[1]
        y = up(x, self.weight[:c], self.bias, self.size)
        if c == self.in_channels:
            return y
        weight = self.weight[c:].flatten(0, 1)[None]
        return y + by_class(up(x.new_ones(1, 1, *x.shape[2:]), weight, None, self.size), labels, self.in_channels - c)


def up(x: Tensor, weight: Tensor, bias: Tensor | None, size: Sequence[int]) -> Tensor:
    """Transposed convolution of stride 2 to a given size: x (n, c, h, w), weight (c, out, k, k), k 4 or 5."""
    k = weight.shape[-1]
    if weight.shape[1] > FEW_CHANNELS:
        over = [s - (2 * h - 1 if k == 5 else 2 * h) for s, h in zip(size, x.shape[2:])]
        return F.conv_transpose2d(x, weight, bias, 2, (k - 1) // 2, over)
    if torch.is_autocast_enabled(x.device.type):
        short = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(short), weight.to(short)
    y: Tensor = _FewChannelsUp.apply(x, weight, size)  # pyright: ignore[reportAssignmentType]
    return y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1)


class _FewChannelsUp(torch.autograd.Function):
    """``up`` to so few channels that libraries are slow at it: by phases, and back by the convolution that it is the adjoint of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, size: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        return up_by_phases(x, weight, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor | None, None]:
        (g,), (x, weight) = gradients, ctx.saved_tensors
        padding = [(weight.shape[-1] - 1) // 2] * 2
        by_weight = None
        if ctx.needs_input_grad[1]:
            options = [2, 2], padding, [1, 1], False, [0, 0], 1, [False, True, False]
            by_weight = torch.ops.aten.convolution_backward(x, g, weight, None, *options)[1]
        return F.conv2d(g, weight, None, 2, padding), by_weight, None


def up_by_phases(x: Tensor, weight: Tensor, size: Sequence[int]) -> Tensor:
    """``up`` as a 3 x 3 convolution to the four phases (even and odd rows and columns) of the output, interleaved.

    Output 2i + a is the sum over j of weight[2 (i - j) + a + ⌊(k - 1) / 2⌋] · x_j: three taps, i - 1, i and i + 1, a phase.
    """
    left = 5 - weight.shape[-1]
    taps = F.pad(weight, (left, 1, left, 1)).unflatten(3, (3, 2)).unflatten(2, (3, 2)).flip(2, 4)
    phases = taps.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)  # (out · 4, c, 3, 3)
    return F.pixel_shuffle(F.conv2d(x, phases, padding=1), 2)[:, :, : size[0], : size[1]]


def by_class(maps: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """Each image's own of the maps (1, classes · out, h, w): (n, out, h, w).

    A convolution of constant maps is the same for all images of a class. It is made once a class; concatenated to an image,
    such maps make odd numbers of channels, for which libraries have slow kernels alone (in bfloat16, ten times).
    """
    if labels is None:
        raise wrong("labels", f"given to a network of {classes} classes", labels)
    each = maps.unflatten(1, (classes, -1))[0].permute(0, 2, 3, 1)
    chosen = one_hot(labels, classes, each) @ each.flatten(1)
    return chosen.unflatten(1, tuple(each.shape[1:])).permute(0, 3, 1, 2)
