"""A few placed atoms of a dictionary as the columns of a sparse matrix."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_matrix
from torch import Tensor

from triptych.sparse.dictionary import ConvDictionary

Index = np.ndarray
CHUNK = 1 << 14  # placed atoms that are written together


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
