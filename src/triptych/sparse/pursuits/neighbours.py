"""The Gram matrix of a few placed atoms, sparse: who overlaps whom, and by how much."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from triptych.sparse.dictionary import ConvDictionary

Index = np.ndarray


@dataclass(frozen=True, eq=False)
class Stripes:
    """A valid dictionary of k atoms over places (rows, columns); signals of one axis have one row.

    A placed atom is a number place · k + atom, with places counted row by row: sorted, the neighbours of an atom that lie
    on one row are one interval.
    """

    dictionary: ConvDictionary
    places: tuple[int, int]

    @cached_property
    def table(self) -> Tensor:
        """<atom_i, atom_j laid t strides further>, flat over (k, k, 2 q_y + 1, 2 q_x + 1)."""
        return self.dictionary.gram().flatten()

    @property
    def reach(self) -> tuple[int, int]:
        """How many places away an atom still overlaps, (q_y, q_x)."""
        q = [(n - 1) // self.dictionary.stride for n in self.dictionary.size]
        return (0, *q) if len(q) == 1 else (q[0], q[1])  # pyright: ignore[reportReturnType]

    def gram(self, active: Index) -> csr_matrix:
        """The Gram matrix (m, m) of sorted placed atoms (m,)."""
        (q_y, q_x), (rows, columns) = self.reach, self.places
        k, m = self.dictionary.n_atoms, len(active)
        place, atom = np.divmod(active, k)
        y, x = np.divmod(place, columns)
        row = y[:, None] + np.arange(-q_y, q_y + 1)
        low = np.searchsorted(place, row * columns + np.maximum(x - q_x, 0)[:, None])
        high = np.searchsorted(place, row * columns + np.minimum(x + q_x, columns - 1)[:, None], side="right")
        count = np.where((row >= 0) & (row < rows), high - low, 0)
        pointers = np.concatenate([[0], count.sum(1).cumsum()])
        flat = count.ravel()
        j = np.arange(flat.sum()) + np.repeat(low.ravel() - (flat.cumsum() - flat), flat)
        wide, tall = 2 * q_x + 1, 2 * q_y + 1
        # table[i, j, y_j - y_i + q_y, x_j - x_i + q_x], as a number of i plus a number of j
        from_i = atom * (k * tall * wide) - y * wide - x + q_y * wide + q_x
        from_j = atom * (tall * wide) + y * wide + x
        at = np.repeat(from_i, count.sum(1)) + from_j[j]
        values = self.table[torch.from_numpy(at)].numpy()
        return csr_matrix((values, j.astype(np.int32), pointers.astype(np.int32)), shape=(m, m))


def spots(stripes: Stripes, active: Index, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Where each of some placed atoms (m,) lies in a flat signal ``(c, *shape)``, and its samples; both (m, c · taps)."""
    D = stripes.dictionary
    place, atom = np.divmod(active, D.n_atoms)
    y, x = np.divmod(place, stripes.places[1])
    size = (1, *D.size) if len(D.size) == 1 else D.size
    stride = D.stride
    offsets = (np.arange(D.channels)[:, None, None] * shape[0] + np.arange(size[0])[:, None]) * shape[1] + np.arange(
        size[1]
    )
    corner = (y * stride if len(D.size) == 2 else y) * shape[1] + x * stride
    return torch.from_numpy(corner[:, None] + offsets.reshape(1, -1)), D.atoms.flatten(1)[torch.from_numpy(atom)]
