"""Slice by slice: the codes of one place at a time, at all places at once that share no sample."""

from collections.abc import Generator
from itertools import product
from math import prod

import torch
from torch import Tensor

from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.pursuits.referee import Code, Lazy, begun, dense, stream, weights_of

INNER = 4  # proximal steps of a place's own problem, each time that it is its turn


def slices(coding: Coding, start: Codes | None = None) -> Generator[Lazy, Tensor | None, None]:
    """Codes pass by pass. The signal is a sum of slices, each the atoms of one place; a slice is coded against what the
    others leave of its patch, a small basis pursuit in the local dictionary.

    The splitting into slices: Papyan, Romano, Sulam & Elad, ICCV 2017. Differs: places are visited in turn, as Zisselman, Sulam &
    Elad do (LoBCoD, CVPR 2019), instead of alternating directions between slices and signal; so the objective never rises.
    """
    return stream(coding, lambda i: _Walk(coding, i, begun(coding, start, i)))


class _Walk:
    """Problem i: code (rows, columns, k) and residual, mask · y - mask · D x, ``(c, h, w)``; lines have one row."""

    def __init__(self, coding: Coding, i: int, start: Code | None) -> None:
        D, line = coding.dictionary.to(coding.signals.dtype), len(coding.shape) == 1
        shape = (1, *coding.shape) if line else coding.shape
        self.places = (1, *coding.code_shape) if line else coding.code_shape
        self.size = (1, *D.size) if line else D.size
        self.stride, self.circular, self.k = D.stride, D.boundary == "circular", D.n_atoms
        self.atoms = D.atoms.flatten(1)  # (k, c n1 n2)
        self.step_size = 1 / float(torch.linalg.matrix_norm(self.atoms.double(), 2).square())
        self.nonnegative = coding.nonnegative
        self.mask = None
        if coding.mask is not None:
            mask = coding.mask.to(coding.signals).expand_as(coding.signals)
            self.mask = mask[i].reshape(D.channels, *shape)
        self.level = coding.lam()[i].to(coding.signals) * self.step_size
        if (weights := weights_of(coding, i)) is not None:
            self.level = self.level * weights.reshape(self.k, *self.places).permute(1, 2, 0)
        self.rest = coding.target[i].reshape(D.channels, *shape).clone()
        self.x = coding.signals.new_zeros(*self.places, self.k)
        if start is not None:
            x = dense(coding, start)
            self.x = x.reshape(self.k, *self.places).permute(1, 2, 0).contiguous()
            z = D.synthesise(x[None], coding.shape)[0].reshape(self.rest.shape)
            self.rest -= z if self.mask is None else self.mask * z
        self.turns = list(product(*(self._apart(axis) for axis in range(2))))

    def _apart(self, axis: int) -> list[Tensor]:
        """The places of an axis in parts, within each of which no two atoms share a sample."""
        count, gap = self.places[axis], -(-self.size[axis] // self.stride)
        parts = []
        for first in range(min(gap, count)):
            part = torch.arange(first, count, gap)
            if self.circular and len(part) > 1 and int(part[-1]) + gap > count + first:
                parts.append(part[-1:])
                part = part[:-1]
            parts.append(part)
        return parts

    def step(self) -> None:
        """Every place once."""
        for rows, columns in self.turns:
            self._turn(rows, columns)

    def _turn(self, rows: Tensor, columns: Tensor) -> None:
        """Some proximal steps on the slices of places that share no sample."""
        here = rows[:, None], columns[None, :]
        down, right = (
            ((at * self.stride)[:, None] + torch.arange(n)) % N
            for at, n, N in zip((rows, columns), self.size, self.rest.shape[1:])
        )
        window = (slice(None), down[:, None, :, None], right[None, :, None, :])  # (c, rows, columns, n1, n2)
        order = (1, 2, 0, 3, 4)
        patches = self.rest[window].permute(order).flatten(2)
        mask = None if self.mask is None else self.mask[window].permute(order).flatten(2)
        x, level = self.x[here], self.level if self.level.ndim == 0 else self.level[here]
        for _ in range(INNER):
            seen = patches if mask is None else mask * patches
            moved = x + self.step_size * (seen @ self.atoms.T)
            new = (moved - level).clamp_min(0)
            if not self.nonnegative:
                new = new - (-moved - level).clamp_min(0)
            change = (new - x) @ self.atoms
            patches = patches - (change if mask is None else mask * change)
            x = new
        self.x[here] = x
        self.rest[window] = patches.reshape(len(rows), len(columns), -1, *self.size).permute(2, 0, 1, 3, 4)

    def code(self) -> Code:
        """The code as it is."""
        place, atom = self.x.reshape(-1, self.k).nonzero().unbind(1)
        index = atom * prod(self.places) + place
        order = index.argsort()
        return index[order], self.x.reshape(-1, self.k)[place, atom][order]

    def dual(self) -> None:
        """None of its own."""
