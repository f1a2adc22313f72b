"""A torch convolution, with the BatchNorm behind it, read as the analysis of a dictionary."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from triptych.check import InputError, wrong
from triptych.sparse.dictionary import ConvDictionary

Conv = nn.Conv1d | nn.Conv2d
Norm = nn.BatchNorm1d | nn.BatchNorm2d


@dataclass(frozen=True, eq=False)
class Folded:
    """norm(conv(x)) = D* pad(x) + bias: the dictionary, the bias (k,), and the zeros around x on every axis."""

    dictionary: ConvDictionary
    bias: Tensor
    padding: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        """D* pad(x) + bias, ``(b, k, *code_shape)``, for x ``(b, c, *shape)``."""
        return self.dictionary.analyse(self.pad(x)) + self.bias.reshape(-1, *(1,) * len(self.padding))

    def pad(self, x: Tensor) -> Tensor:
        """x with its zeros around it: the signal whose code the convolution's output begins."""
        return padded(x, self.padding)


def padded(x: Tensor, padding: tuple[int, ...]) -> Tensor:
    """x ``(b, c, *shape)`` with so many zeros on either side of every axis."""
    return F.pad(x, [side for p in reversed(padding) for side in (p, p)])


def fold(conv: Conv, norm: Norm | None = None) -> Folded:
    """The dictionary, bias and padding of a convolution and of the BatchNorm behind it, as it is in evaluation.

    D_k = gamma_k / sqrt(variance_k + eps) · weight_k, bias_k = gamma_k (bias_k - mean_k) / sqrt(...) + beta_k. The
    weights are copied. Raises InputError for what is not such a dictionary: groups, dilation, unequal strides, padding
    that is not zeros, a BatchNorm without running statistics. Ioffe & Szegedy, ICML 2015, Algorithm 2.
    """
    if not isinstance(conv, Conv):
        raise wrong("conv", "a torch.nn.Conv1d or Conv2d", type(conv).__name__)
    _plain(conv)
    weight = conv.weight.detach().clone()
    bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().clone()
    if norm is not None:
        scale, shift = _affine(norm, len(weight))
        weight = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
        bias = bias * scale + shift
    return Folded(ConvDictionary(weight, int(conv.stride[0])), bias, _padding(conv))


def _plain(conv: Conv) -> None:
    """Refuse a convolution that no dictionary of `ConvDictionary` has."""
    if conv.groups != 1 or set(conv.dilation) != {1}:
        raise InputError(
            f"conv must have groups=1 and dilation=1 to be a dictionary, got groups={conv.groups} and "
            f"dilation={conv.dilation}"
        )
    if len(set(conv.stride)) != 1:
        raise wrong("conv.stride", "the same on both axes", conv.stride)
    if conv.padding_mode != "zeros":
        raise wrong("conv.padding_mode", "'zeros'", conv.padding_mode)


def _padding(conv: Conv) -> tuple[int, ...]:
    """The zeros on either side of every axis."""
    if conv.padding == "valid":
        return (0,) * len(conv.kernel_size)
    if conv.padding == "same":
        if any(n % 2 == 0 for n in conv.kernel_size):
            raise wrong("conv.padding", "a number where kernels are even ('same' pads them on one side)", "same")
        return tuple(n // 2 for n in conv.kernel_size)
    return tuple(int(p) for p in conv.padding)


def _affine(norm: Norm, channels: int) -> tuple[Tensor, Tensor]:
    """scale and shift (k,) of a BatchNorm in evaluation."""
    if not isinstance(norm, Norm) or norm.num_features != channels:
        found = f"{type(norm).__name__} of {norm.num_features}" if isinstance(norm, Norm) else type(norm).__name__
        raise wrong("norm", f"a BatchNorm of {channels} channels", found)
    if norm.running_mean is None or norm.running_var is None:
        raise InputError("norm must have running statistics to be folded, got none; set track_running_stats=True")
    gamma = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight.detach()
    beta = torch.zeros_like(norm.running_var) if norm.bias is None else norm.bias.detach()
    scale = gamma / (norm.running_var + norm.eps).sqrt()
    return scale, beta - scale * norm.running_mean
