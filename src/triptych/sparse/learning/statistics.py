"""All that an update of the atoms needs to know of signals and their codes: three sums, of a size that no data change."""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np
import torch
from torch import Tensor

from triptych.sparse.dictionary import ConvDictionary

PAIRS = 1 << 22  # pairs of coefficients that are multiplied together


@dataclass(frozen=True, eq=False)
class Statistics:
    """With codes x of signals y as they are, ½ ‖y - D x‖² + penalty as a function of the atoms alone, exactly.

    Parameters
    ----------
    pairs : float64 tensor ``(k, k, 2 q + 1, ...)``: sum over places p of x_i(p) · x_j(p + t), laid out as `ConvDictionary.gram`.
    patches : float64 tensor ``(k, c, *size)``: sum over places p of x_i(p) · (what an atom at p sees of y).
    energy : ½ ‖y‖².
    penalty : ``λ Σ weights |x|``.

    Mairal, Bach, Ponce & Sapiro, JMLR 2010 (the sums A and B of Algorithm 1); convolutional: Liu, Garcia-Cardona, Wohlberg &
    Yin, SIAM J. Imaging Sci. 2018.
    """

    pairs: Tensor
    patches: Tensor
    energy: float = 0.0
    penalty: float = 0.0

    @classmethod
    def empty(cls, dictionary: ConvDictionary) -> "Statistics":
        """Those of no signal."""
        k, reach = dictionary.n_atoms, (2 * q + 1 for q in _reach(dictionary))
        return cls(
            torch.zeros(k, k, *reach, dtype=torch.float64), torch.zeros_like(dictionary.atoms, dtype=torch.float64)
        )

    @classmethod
    def of(cls, dictionary: ConvDictionary, signal: Tensor, index: Tensor, value: Tensor, lam: float) -> "Statistics":
        """Those of one signal ``(c, *shape)`` and its code: places in the flat ``(k, *code_shape)``, and values (m,)."""
        places = dictionary.code_shape(signal.shape[1:])
        atom, place = np.divmod(index.numpy(), prod(places))
        order = np.argsort(place, kind="stable")
        at, atom, x = place[order], atom[order], value.numpy().astype(np.float64)[order]
        return cls(
            _pairs(dictionary, places, at, atom, x),
            _patches(dictionary, signal, np.unravel_index(at, places), atom, x),
            float(signal.double().square().sum()) / 2,
            lam * float(np.abs(x).sum()),
        )

    def plus(self, other: "Statistics", factor: float = 1.0) -> "Statistics":
        """These, and ``factor`` times others."""
        return Statistics(
            self.pairs.add(other.pairs, alpha=factor),
            self.patches.add(other.patches, alpha=factor),
            self.energy + factor * other.energy,
            self.penalty + factor * other.penalty,
        )

    def scaled(self, factor: float) -> "Statistics":
        """These times a factor."""
        return Statistics(self.pairs * factor, self.patches * factor, self.energy * factor, self.penalty * factor)

    def objective(self, dictionary: ConvDictionary) -> float:
        """½ ‖y - D x‖² + penalty for other atoms and the same codes, up to rounding."""
        double = dictionary.to(torch.float64)
        fit = float((self.patches * double.atoms).sum())
        return self.energy - fit + float((self.pairs * double.gram()).sum()) / 2 + self.penalty

    @property
    def used(self) -> Tensor:
        """Which atoms any code uses, (k,)."""
        centre = tuple(n // 2 for n in self.pairs.shape[2:])
        return self.pairs.diagonal()[centre] > 0


def _reach(dictionary: ConvDictionary) -> list[int]:
    """How many places further an atom still meets another, on every axis."""
    return [(n - 1) // dictionary.stride for n in dictionary.size]


def _pairs(D: ConvDictionary, places: tuple[int, ...], at: np.ndarray, atom: np.ndarray, x: np.ndarray) -> Tensor:
    """Products of all pairs of coefficients that meet, summed by their atoms and how far apart they are.

    Places are laid on a grid with ``q`` more on every side, row by row: what a coefficient meets in one row is then one run of
    the sorted coefficients; rows above are those below seen from the other one. The ends of a circular signal hold its other end once more.
    """
    rows_reach, reach = (0, *_reach(D)) if len(places) == 1 else _reach(D)
    rows, columns = (1, *places) if len(places) == 1 else places
    y, x_at = np.divmod(at, columns)
    source_y, source_x = y, x_at
    target_y, target_x, target = y, x_at, np.arange(len(at))
    if D.boundary == "circular":
        target_y, target_x, target = _wrapped(y, x_at, (rows, columns), (rows_reach, reach))
    wide = columns + 2 * reach
    key = (target_y + rows_reach) * wide + target_x + reach
    order = np.argsort(key, kind="stable")
    key, target = key[order], target[order]
    start = np.searchsorted(key, np.arange((rows + 2 * rows_reach) * wide + 1))
    k, span = D.n_atoms, 2 * reach + 1
    total = np.zeros(k * k * (rows_reach + 1) * span)
    for dy in range(rows_reach + 1):
        left = (source_y + dy + rows_reach) * wide + source_x
        first, last = start[left], start[left + span]
        for part in _chunks(last - first):
            count = (last - first)[part]
            i = np.repeat(np.arange(part.start, part.stop), count)
            run = np.arange(len(i)) - np.repeat(count.cumsum() - count, count)
            other = first[i] + run
            dx = key[other] - left[i]
            j = target[other]
            bins = ((atom[i] * k + atom[j]) * (rows_reach + 1) + dy) * span + dx
            total += np.bincount(bins, x[i] * x[j], len(total))
    below = torch.from_numpy(total).reshape(k, k, rows_reach + 1, span)
    above = below[:, :, 1:].flip(2, 3).transpose(0, 1)
    both = torch.cat([above, below], 2)
    return both[:, :, 0] if len(places) == 1 else both


def _chunks(counts: np.ndarray) -> Generator[slice, None, None]:
    """Runs of coefficients with about ``PAIRS`` pairs each."""
    edges = np.searchsorted(counts.cumsum(), np.arange(0, counts.sum() + 1, PAIRS)[1:])
    bounds = np.unique([0, *edges, len(counts)])
    yield from (slice(int(a), int(b)) for a, b in pairwise(bounds))


def _wrapped(y: np.ndarray, x: np.ndarray, size: tuple[int, int], reach: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """The coefficients of a circular code, and those near its ends once more beyond the other end: rows, columns, which."""
    found = []
    for a in (-size[0], 0, size[0]):
        for b in (-size[1], 0, size[1]):
            inside_y = (y + a >= -reach[0]) & (y + a < size[0] + reach[0])
            which = np.flatnonzero(inside_y & (x + b >= -reach[1]) & (x + b < size[1] + reach[1]))
            found.append((y[which] + a, x[which] + b, which))
    return tuple(np.concatenate(part) for part in zip(*found))


def _patches(D: ConvDictionary, signal: Tensor, at: tuple[np.ndarray, ...], atom: np.ndarray, x: np.ndarray) -> Tensor:
    """Sum of x times what its atom sees of the signal, atom by atom."""
    out = torch.zeros(D.n_atoms, D.channels * prod(D.size), dtype=torch.float64)
    positions = []
    for axis, (p, n) in enumerate(zip(at, D.size)):
        along = (p[:, None] * D.stride + np.arange(n)) % signal.shape[1 + axis]
        positions.append(torch.from_numpy(along))
    weight, which = torch.from_numpy(x)[:, None], torch.from_numpy(atom)
    for part in torch.arange(len(x)).split(1 << 13):
        if len(positions) == 1:
            seen = signal[:, positions[0][part]].transpose(0, 1)
        else:
            seen = signal[:, positions[0][part][:, :, None], positions[1][part][:, None, :]].transpose(0, 1)
        out.index_add_(0, which[part], seen.flatten(1).double() * weight[part])
    return out.reshape(D.atoms.shape)
