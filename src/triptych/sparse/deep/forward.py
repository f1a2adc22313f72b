"""Layered thresholding: the forward pass of a convolutional network, read as a pursuit.

Papyan, Romano & Elad, JMLR 2017: with thresholds β_i, G_i = S_{β_i}(D_i* G_{i-1}). Non-negative soft thresholding is
ReLU(D_i* G_{i-1} - β_i): a convolution with the atoms as weights and the bias -β_i.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from triptych.check import choice, real, wrong
from triptych.sparse.deep.dictionary import MultiLayerDictionary

KINDS = ("nonnegative", "soft", "hard", "nonnegative hard")


def layered_thresholding(
    model: MultiLayerDictionary,
    signals: Tensor,
    thresholds: float | Tensor | Sequence[float | Tensor],
    kind: str = "nonnegative",
) -> tuple[Tensor, ...]:
    """(G_1, ..., G_L) of signals ``(b, c, *shape)``: every layer analysed and thresholded, one after the other.

    ``thresholds`` β: one for all layers, or as a tuple or list for every layer a number, a tensor (k_i,), one an atom, or a tensor
    (b, 1), one a signal. ``kind``: "nonnegative" max(v - β, 0), where β may be below 0; "soft" sign(v) max(|v| - β, 0); "hard"
    v where |v| > β, "nonnegative hard" where v > β. Raises InputError for what does not fit.
    """
    choice("kind", kind, KINDS)
    levels = tuple(thresholds) if isinstance(thresholds, list | tuple) else (thresholds,) * len(model)
    if len(levels) != len(model):
        raise wrong("thresholds", f"a number, or {len(model)} of them, one a layer", thresholds)
    found, below = [], signals
    level: Any
    for i, level in enumerate(levels, 1):
        below = thresholded(model, i, below, level, kind)
        found.append(below)
    return tuple(found)


def thresholded(model: MultiLayerDictionary, i: int, below: Tensor, level: float | Tensor, kind: str) -> Tensor:
    """The code of layer i from that of the layer before."""
    k = model.n_atoms[i - 1]
    beta = _levels(level, k, len(below), signed=kind == "nonnegative").to(below)
    if kind == "nonnegative" and beta.ndim == 1:
        return model.up(i, below, -beta.expand(k)).clamp_min(0)
    v = model.up(i, below)
    beta = beta.reshape(*(beta.shape if beta.ndim == 2 else (1, -1)), *(1,) * (v.ndim - 2))
    if kind in ("hard", "nonnegative hard"):
        return torch.where((v.abs() if kind == "hard" else v) > beta, v, 0.0)
    return (v - beta).clamp_min(0) if kind == "nonnegative" else v.sign() * (v.abs() - beta).clamp_min(0)


def _levels(level: float | Tensor, k: int, b: int, signed: bool) -> Tensor:
    """Thresholds as (1,), (k,) or (b, 1)."""
    if not isinstance(level, Tensor):
        return torch.tensor(
            [real("thresholds", level) if signed else real("thresholds", level, low=0.0)], dtype=torch.float64
        )
    level = level.reshape(1) if level.ndim == 0 else level
    if level.shape not in ((1,), (k,), (b, 1)) or not bool(level.isfinite().all()):
        raise wrong("thresholds", f"numbers, or tensors ({k},) or ({b}, 1), finite", tuple(level.shape))
    if not signed and bool((level < 0).any()):
        raise wrong("thresholds", "at least 0", float(level.min()))
    return level
