"""Greedy coordinate descent on many coordinates at once: wherever no better change is near, the best one is made."""

from collections.abc import Generator
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from triptych.check import InputError
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.pursuits.referee import Code, Lazy, begun, dense, stream, weights_of

SWEEPS = 20  # rounds of changes that count as a step


def greedy(coding: Coding, start: Codes | None = None) -> Generator[Lazy, Tensor | None, None]:
    """Codes step by step. Changes at places that no atom joins do not touch each other, so all are exact at once.

    Correlations with all atoms at all places are held, and made again only around changes. Raises InputError where there is
    a mask, and for circular signals in which an atom meets another on both sides. Of the kind of Moreau, Oudre & Vayatis, DICOD,
    ICML 2018, in one process.
    """
    if coding.mask is not None:
        raise InputError(
            "greedy knows no mask, under which atoms are not the same everywhere; use fista or working_set"
        )
    D = coding.dictionary
    if D.boundary == "circular" and any(2 * ((n - 1) // D.stride) + 1 > m for n, m in zip(D.size, coding.code_shape)):
        raise InputError("greedy needs circular signals of at least twice an atom's size; use fista or working_set")
    return stream(coding, lambda i: _Walk(coding, i, begun(coding, start, i)))


class _Walk:
    """Problem i: code and correlations ``(k, places)``; of every place the best change, its atom and its worth."""

    def __init__(self, coding: Coding, i: int, start: Code | None) -> None:
        D = coding.dictionary.to(coding.signals.dtype)
        self.boundary, self.shape, self.k = D.boundary, coding.code_shape, D.n_atoms
        self.reach = tuple((n - 1) // D.stride for n in D.size)
        self.gram = D.gram().flatten(2).transpose(1, 2).contiguous()  # (k, shifts, k)
        self.squares = D.norms.square().clamp_min(torch.finfo(D.atoms.dtype).tiny)[:, None]
        self.level = coding.lam()[i].to(coding.signals) / self.squares
        if (weights := weights_of(coding, i)) is not None:
            self.level = self.level * weights.reshape(self.k, -1)
        self.nonnegative = coding.nonnegative
        signal = coding.signals[i : i + 1]
        self.x = torch.zeros(self.k, prod(self.shape), dtype=signal.dtype)
        if start is not None:
            self.x = dense(coding, start).reshape(self.k, -1)
            signal = signal - D.synthesise(self.x.reshape(1, self.k, *self.shape), coding.shape)
        self.c = D.analyse(signal)[0].reshape(self.k, -1).clone()
        self.worth, self.change = torch.zeros(2, prod(self.shape), dtype=signal.dtype)
        self.atom = torch.zeros(prod(self.shape), dtype=torch.int64)
        self._look(slice(None))

    def _look(self, places: Tensor | slice) -> None:
        """The best change at some places, every coefficient at its own optimum: the one with the largest ‖change · atom‖."""
        x = self.x[:, places]
        level = self.level if self.level.shape[1] == 1 else self.level[:, places]
        moved = x + self.c[:, places] / self.squares
        new = (moved - level).clamp_min(0) if self.nonnegative else moved - moved.clamp(-level, level)
        change = new - x
        self.worth[places], atom = (change.abs() * self.squares.sqrt()).max(0)
        self.atom[places] = atom
        self.change[places] = change.gather(0, atom[None])[0]

    def step(self) -> None:
        """A few sweeps."""
        for _ in range(SWEEPS):
            self._sweep()

    def _sweep(self) -> None:
        """Make every change that is the best within the reach of its atom; then look again around them."""
        worth = self.worth.reshape(1, 1, *self.shape)
        best = self._spread(worth)
        chosen = ((worth == best) & (worth > 0)).flatten().nonzero().squeeze(1)
        if not len(chosen):
            return
        if len(chosen) > 1:
            chosen = self._apart(chosen)
        atom, change = self.atom[chosen], self.change[chosen]
        self.x[atom, chosen] += change
        around, inside = self._around(chosen)
        moved = self.gram[atom] * change[:, None, None]  # (chosen, shifts, k)
        self.c.index_add_(1, around[inside], -moved[inside].T.contiguous())
        self._look(around[inside].unique())

    def _spread(self, x: Tensor) -> Tensor:
        """The largest value within the reach of an atom, axis by axis."""
        for axis, q in enumerate(self.reach, 2):
            line = x.movedim(axis, -1)
            flat = line.reshape(-1, 1, line.shape[-1])
            ends = (q, q)
            flat = F.pad(flat, ends, mode="circular") if self.boundary == "circular" and q else F.pad(flat, ends)
            x = F.max_pool1d(flat, 2 * q + 1, 1).reshape(line.shape).movedim(-1, axis)
        return x

    def _apart(self, chosen: Tensor) -> Tensor:
        """Of changes of the same worth that meet each other, the first."""
        order = torch.full((prod(self.shape),), 0.0, dtype=torch.float64)
        order[chosen] = torch.arange(len(chosen), 0, -1, dtype=torch.float64)
        first = self._spread(order.reshape(1, 1, *self.shape)).flatten()
        return chosen[order[chosen] == first[chosen]]

    def _around(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The places within reach of each, (chosen, shifts), and whether they are there."""
        flat = torch.zeros(len(chosen), 1, dtype=torch.int64)
        inside = torch.ones(len(chosen), 1, dtype=torch.bool)
        for at, q, n in zip(torch.unravel_index(chosen, self.shape), self.reach, self.shape):
            along = at[:, None] + torch.arange(-q, q + 1)
            there = (along >= 0) & (along < n) | (self.boundary == "circular")
            along = along % n
            flat = (flat[:, :, None] * n + along[:, None, :]).flatten(1)
            inside = (inside[:, :, None] & there[:, None, :]).flatten(1)
        return flat, inside

    def code(self) -> Code:
        """The code as it is."""
        x = self.x.flatten()
        index = x.nonzero().squeeze(1)
        return index, x[index]

    def dual(self) -> None:
        """None of its own."""
