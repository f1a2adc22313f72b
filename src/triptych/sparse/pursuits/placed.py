"""A few placed atoms of a dictionary as the columns of a sparse matrix."""

from collections.abc import Generator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from scipy.sparse import csc_matrix
from torch import Tensor

from triptych.sparse.dictionary import ConvDictionary

Index = np.ndarray
CHUNK = 1 << 14  # placed atoms that are written together
PLACES = 1 << 12  # places whose products with all atoms are made together: they stay in the processor's own memory
FEW = 0.02  # the share of placed atoms up to which their columns are written out one by one


@dataclass(frozen=True, eq=False)
class Placed:
    """A dictionary of k atoms over places (rows, columns) of a signal ``(c, h, w)``; signals of one axis have h = 1.

    A placed atom is a number place · k + atom, with places counted row by row.
    """

    dictionary: ConvDictionary
    shape: tuple[int, int]
    places: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """The extent of an atom, (1, n) where signals have one axis."""
        size = self.dictionary.size
        return (1, *size) if len(size) == 1 else size  # pyright: ignore[reportReturnType]

    def columns(self, active: Index, mask: np.ndarray | None = None, scale: np.ndarray | None = None) -> csc_matrix:
        """mask · D at some placed atoms (m,), every one of them times its ``scale``, as (c h w, m)."""
        D = self.dictionary
        h, w = self.shape
        samples = D.atoms.flatten(1).numpy()
        taps = samples.shape[1]
        where = np.empty((len(active), taps), np.int32)
        values = np.empty((len(active), taps), samples.dtype)
        channel = np.arange(D.channels, dtype=np.int32)[:, None, None] * (h * w)
        along = [np.arange(n, dtype=np.int32) for n in self.size]
        for start in range(0, len(active), CHUNK):
            part = slice(start, start + CHUNK)
            place, atom = np.divmod(active[part], D.n_atoms)
            y, x = (at.astype(np.int32)[:, None] * D.stride for at in np.divmod(place, self.places[1]))
            down, right = (y + along[0]) % h * w, (x + along[1]) % w
            at = channel + (down[:, :, None] + right[:, None, :])[:, None]
            where[part] = at.reshape(len(place), taps)
            values[part] = samples[atom]
            if mask is not None:
                values[part] *= mask[where[part]]
            if scale is not None:
                values[part] *= scale[part, None]
        pointers = np.arange(0, (len(active) + 1) * taps, taps)[: len(active) + 1]
        if len(active) * taps < np.iinfo(np.int32).max:
            pointers = pointers.astype(np.int32)
        return csc_matrix((values.ravel(), where.ravel(), pointers), shape=(D.channels * h * w, len(active)))

    def synthesis(self, active: Index, x: np.ndarray) -> np.ndarray:
        """D x, flat, float64, for coefficients (m,) of placed atoms in rising order: column by column, or place by place."""
        if len(active) > FEW * self.dictionary.n_atoms * prod(self.places):
            return self._laid(active, x)
        z = np.zeros(self.dictionary.channels * prod(self.shape))
        for start in range(0, len(active), CHUNK):
            part = slice(start, start + CHUNK)
            z += self.columns(active[part]).astype(np.float64) @ x[part].astype(np.float64)
        return z

    def _laid(self, active: Index, x: np.ndarray) -> np.ndarray:
        """`synthesis` for many: the patches of some places are one product of matrices, laid over each other."""
        D, s, (n1, n2), (h, w) = self.dictionary, self.dictionary.stride, self.size, self.shape
        k, columns = D.n_atoms, self.places[1]
        atoms = D.atoms.flatten(1).double()
        over = torch.zeros(D.channels, h + n1 - 1, w + n2 - 1, dtype=torch.float64)
        high = max(1, PLACES // columns)
        for top in range(0, self.places[0], high):
            rows = min(high, self.places[0] - top)
            first, last = np.searchsorted(active, (top * columns * k, (top + rows) * columns * k))
            dense = torch.zeros(rows * columns * k, dtype=torch.float64)
            dense[torch.from_numpy(active[first:last] - top * columns * k)] = torch.from_numpy(x[first:last]).double()
            patches = (dense.view(-1, k) @ atoms).view(rows, columns, D.channels, n1, n2).permute(2, 3, 4, 0, 1)
            for dy in range(n1):
                down = slice(top * s + dy, (top + rows - 1) * s + dy + 1, s)
                for dx in range(n2):
                    over[:, down, dx : (columns - 1) * s + dx + 1 : s] += patches[:, dy, dx]
        over[:, : n1 - 1] += over[:, h:]
        over[:, :, : n2 - 1] += over[:, :, w:]
        return over[:, :h, :w].flatten().numpy()

    def patches(self, signal: Tensor, rows: slice, columns: slice) -> Tensor:
        """What the atoms at some places see of a signal ``(c, h, w)``, one place a row, (places, c · taps)."""
        D, (n1, n2) = self.dictionary, self.size
        top, left = rows.start * D.stride, columns.start * D.stride
        part = signal[:, top : (rows.stop - 1) * D.stride + n1, left : (columns.stop - 1) * D.stride + n2]
        windows = part.unfold(1, n1, D.stride).unfold(2, n2, D.stride)
        return windows.permute(1, 2, 0, 3, 4).reshape(-1, D.channels * n1 * n2)

    def blocks(self, most: int) -> Generator[tuple[slice, slice], None, None]:
        """The places in blocks of at most so many: (rows, columns)."""
        rows, columns = self.places
        high, wide = max(1, most // columns), min(columns, most)
        for y in range(0, rows, high):
            for x in range(0, columns, wide):
                yield slice(y, min(y + high, rows)), slice(x, min(x + wide, columns))
