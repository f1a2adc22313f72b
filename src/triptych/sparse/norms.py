"""Local norms of codes and of signals: the worst stripe, the worst patch (Papyan, Romano & Elad, JMLR 2017)."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from triptych.check import choice, real, whole, wrong
from triptych.sparse.codes import Codes
from triptych.sparse.dictionary import BOUNDARIES, ConvDictionary


def l0_stripe(D: ConvDictionary, codes: Tensor | Codes, tol: float = 0.0) -> Tensor:
    """‖codes‖_{0,∞}^S, (b,) int64, of ``(b, k, *space)``: the most |x| > tol among the atoms that meet the atoms of one place.

    Those lie up to q = (n - 1) // stride places away on every axis. Sparse codes are counted as they are. Raises InputError
    where the codes do not fit D.
    """
    if isinstance(codes, Codes):
        codes.expect(D)
        counts = _sparse_counts(codes, tol)
    else:
        D.expect("codes", codes, D.n_atoms)
        counts = _counts(codes, tol)
    for axis, n in enumerate(D.size, 1):
        q = min((n - 1) // D.stride, counts.shape[axis] - 1)  # no code is farther away
        if D.boundary == "valid":
            counts = _margined(counts, axis, q)
        counts = _sums(counts, axis, 2 * q + 1, D.boundary)
    return counts.flatten(1).amax(1)


def l0_patch(codes: Tensor, size: Sequence[int] | None, tol: float = 0.0, boundary: str = "valid") -> Tensor:
    """‖codes‖_{0,∞}^P, (b,) int64, of ``(b, k, *space)``: the most |x| > tol in a patch, all channels of it.

    A patch is what one atom of the next layer covers, ``size`` of its codes; None: the whole map. Raises InputError.
    """
    _expect("codes", codes)
    choice("boundary", boundary, BOUNDARIES)
    if size is None:
        return _counts(codes, tol).flatten(1).sum(1)
    return _largest(_counts(codes, tol), size, boundary)


def l2_patch(signals: Tensor, size: Sequence[int], boundary: str = "valid") -> Tensor:
    """‖signals‖_{2,∞}^P, (b,), of ``(b, c, *space)``: the largest ‖·‖₂ of a patch of ``size``, all channels of it.

    Raises InputError.
    """
    _expect("signals", signals)
    choice("boundary", boundary, BOUNDARIES)
    energy = torch.zeros_like(signals[:, 0], dtype=torch.float64)
    for channel in signals.unbind(1):
        energy = energy + channel.double().square()
    return _largest(energy, size, boundary).sqrt().to(signals.dtype)


def _counts(codes: Tensor, tol: float) -> Tensor:
    """The number of channels with |x| > tol, (b, *space) int64; one channel at a time, as codes are large."""
    tol = real("tol", tol, low=0)
    if not codes.shape[2:].numel():
        raise wrong("codes", "of at least one place on every axis", tuple(codes.shape))
    counts = torch.zeros_like(codes[:, 0], dtype=torch.int64)
    for channel in codes.unbind(1):
        counts += channel.abs() > tol
    return counts


def _sparse_counts(codes: Codes, tol: float) -> Tensor:
    """The same of sparse codes."""
    tol, space = real("tol", tol, low=0), codes.shape[1:]
    places = [index[value.abs() > tol] % prod(space) for index, value in zip(codes.index, codes.value)]
    return torch.stack([place.bincount(minlength=prod(space)).reshape(space) for place in places])


def _largest(x: Tensor, size: Sequence[int], boundary: str) -> Tensor:
    """The largest sum of x ``(b, *space)`` over a window of ``size``, (b,)."""
    size = tuple(size)
    if len(size) != x.ndim - 1:
        raise wrong("size", "one whole number an axis of space", size)
    for axis, n in enumerate(size, 1):
        x = _sums(x, axis, whole("size", n, high=x.shape[axis]), boundary)
    return x.flatten(1).amax(1)


def _sums(x: Tensor, axis: int, n: int, boundary: str) -> Tensor:
    """Sums of x over all windows of n along an axis; circular: also over its ends, no sample twice in one window.

    Differs from a running sum: nothing is subtracted, so that counts are exact and energies lose no digits.
    """
    if boundary == "circular":
        n = min(n, x.shape[axis])
        x = torch.cat([x, x.narrow(axis, 0, n - 1)], axis)
    return x.unfold(axis, n, 1).sum(-1)  # a view: windows are not copied


def _margined(x: Tensor, axis: int, q: int) -> Tensor:
    """x between two margins of q zeros along an axis."""
    zeros = x.new_zeros(*x.shape[:axis], q, *x.shape[axis + 1 :])
    return torch.cat([zeros, x, zeros], axis)


def _expect(name: str, x: Tensor) -> None:
    """Refuse what is not ``(b, c, *space)`` and floating-point, with one or two axes of space."""
    if not isinstance(x, Tensor) or x.ndim not in (3, 4) or not x.shape[1] or not x.is_floating_point():
        found = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else x
        raise wrong(name, "a floating-point tensor (b, c, n) or (b, c, n1, n2)", found)
