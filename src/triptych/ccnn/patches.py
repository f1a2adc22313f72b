"""From maps to patches and from positions to pooled positions: pure functions of tensors."""

import torch
from torch import Tensor
from torch.nn.functional import pad as zero_pad

from triptych.check import InputError


def extract_patches(maps: Tensor, size: tuple[int, int], pad: int = 0) -> Tensor:
    """Every patch of maps (n, c, h, w), stride 1: (n · H · W, c · size0 · size1), channel-major, H = h + 2 pad - size0 + 1.

    Raises InputError where a patch is larger than the padded map.
    """
    if pad:
        maps = zero_pad(maps, (pad, pad, pad, pad))
    c, h, w = maps.shape[1:]
    if size[0] > h or size[1] > w:
        raise InputError(
            f"patch must fit into the maps, got {size[0]} x {size[1]} for maps of {h} x {w}; take a smaller patch or larger images"
        )
    windows = maps.unfold(2, size[0], 1).unfold(3, size[1], 1)
    return windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, c * size[0] * size[1])


def contrast_normalise(patches: Tensor, offset: float) -> Tensor:
    """(p - mean(p)) / (‖p - mean(p)‖₂ + offset) of every row of patches (N, d). Zhang et al., ICML 2017, section 5."""
    centred = patches - patches.mean(1, keepdim=True)
    return centred / (torch.linalg.vector_norm(centred, dim=1, keepdim=True) + offset)


def whitening(covariance: Tensor, ridge: float) -> Tensor:
    """The symmetric matrix (S + ridge · I)^(-1/2) of a covariance S (d, d): ZCA. Float64 in, float64 out."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * (values.clamp_min(0) + ridge).rsqrt()) @ vectors.mT
