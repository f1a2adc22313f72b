"""The atoms' turn: one after another to a lower objective, codes held as they are."""

import torch
from torch import Tensor
from torch.nn import functional as F

from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.learning.statistics import Statistics

_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d}


def updated(
    dictionary: ConvDictionary, statistics: Statistics, passes: int = 3, rank_one: bool = False
) -> ConvDictionary:
    """The dictionary after so many passes over its atoms; `Statistics.objective` falls with every atom, or stays.

    An atom takes a gradient step of 1 / (the largest eigenvalue of its own correlations), and is then the nearest unit vector,
    or the nearest one of rank one (channels x samples): the minimum over those of a quadratic that lies above the objective.
    Atoms that no code uses stay.
    """
    atoms = dictionary.atoms.double().clone()
    curvature = _curvature(statistics.pairs)
    for _ in range(passes):
        for k in statistics.used.nonzero().flatten().tolist():
            gradient = _seen(atoms, statistics.pairs[k], dictionary.stride) - statistics.patches[k]
            atoms[k] = _nearest(atoms[k] - gradient / curvature[k], rank_one, atoms[k])
    return ConvDictionary(atoms.to(dictionary.atoms.dtype), dictionary.stride, dictionary.boundary)


def _seen(atoms: Tensor, pairs: Tensor, stride: int) -> Tensor:
    """What atom k sees of D x, summed over its places with its coefficients, ``(c, *size)``; ``pairs`` are those of atom k."""
    size = atoms.shape[2:]
    full = _TRANSPOSED[len(size)](pairs[None], atoms, stride=stride)[0]
    for axis, n in enumerate(size, 1):
        full = full.narrow(axis, (full.shape[axis] - n) // 2, n)
    return full


def _curvature(pairs: Tensor) -> Tensor:
    """An upper bound on the largest eigenvalue of every atom's own part of the quadratic, (k,).

    Among samples of an atom that lie a multiple of the stride apart it is the Toeplitz matrix of x_k's correlations with
    itself, which is a block of their circulant on 2 q + 1 places an axis; among others it is 0.
    """
    own = torch.diagonal(pairs).movedim(-1, 0)  # (k, 2 q + 1, ...)
    return torch.fft.fftn(own, dim=tuple(range(1, own.ndim))).abs().flatten(1).amax(1)


def _nearest(atom: Tensor, rank_one: bool, before: Tensor) -> Tensor:
    """The nearest unit atom ``(c, *size)``, of rank one where asked for; the one before where all are as near."""
    if rank_one:
        u, s, v = torch.linalg.svd(atom.flatten(1), full_matrices=False)
        return torch.outer(u[:, 0], v[0]).reshape(atom.shape) if s[0] > 0 else before
    norm = torch.linalg.vector_norm(atom)
    return atom / norm if norm > 0 else before
