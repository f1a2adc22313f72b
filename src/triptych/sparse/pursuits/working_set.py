"""Basis pursuit on a working set: all atoms are looked at once a round, only the few that count are solved for."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from triptych.check import InputError, real, whole
from triptych.convex import Iterate
from triptych.sparse.coding import Coding
from triptych.sparse.pursuits.lasso import Quadratic, descend
from triptych.sparse.pursuits.neighbours import Index, Stripes, spots

ROWS = 1 << 12  # places whose products with all atoms are made together: they stay in the processor's own memory
CHUNK = 1 << 14  # placed atoms that are written into a signal together


@dataclass(frozen=True)
class WorkingSet:
    """How `working_set` goes on: from every ``cell`` places a side the atom that is wrong most comes in, a round;
    then at most ``steps`` steps of FISTA on the set, to ``share`` of the round's largest error.

    Raises InputError for wrong values.
    """

    cell: int = 3
    steps: int = 40
    share: float = 0.1

    def __post_init__(self) -> None:
        whole("cell", self.cell)
        whole("steps", self.steps)
        real("share", self.share, above=0.0, high=1.0)


DEFAULT = WorkingSet()


def working_set(coding: Coding, settings: WorkingSet = DEFAULT) -> Generator[Iterate, Tensor | None, None]:
    """Codes ``(b, k, *code_shape)`` of a valid dictionary, round by round; a round looks once at every atom at every place.

    The rest is work on the Gram matrix of the few active atoms, which is sparse, since only neighbours overlap. Runs on
    the CPU, and starts from 0. Raises InputError for circular dictionaries and for masks.
    """
    if coding.dictionary.boundary != "valid" or coding.mask is not None:
        raise InputError("working_set needs a valid dictionary and no mask; use fista")
    return _rounds([_One.begin(coding, i, settings) for i in range(len(coding.signals))])


def solver(coding: Coding, settings: WorkingSet = DEFAULT):
    """`working_set` as a solver for `triptych.convex.solve` with ``coding.problem()``; its start is 0, whatever is given."""
    return lambda problem, start: working_set(coding, settings)


def _rounds(problems: "list[_One]") -> Generator[Iterate, Tensor | None, None]:
    """The stream: a round for every problem that is left."""
    while True:
        for one in problems:
            one.round()
        mask = yield Iterate(torch.stack([one.code() for one in problems]))
        if mask is not None:
            problems = [one for one, stays in zip(problems, mask.tolist()) if stays]


@dataclass(eq=False)
class _One:
    """One problem: its signal ``(c, *shape)``, residual, and the active atoms with their coefficients."""

    stripes: Stripes
    signal: Tensor
    level: Tensor
    nonnegative: bool
    code_shape: tuple[int, ...]
    settings: WorkingSet
    residual: Tensor
    active: Index
    x: np.ndarray

    @classmethod
    def begin(cls, coding: Coding, i: int, settings: WorkingSet) -> "_One":
        """Problem i of a coding problem, at 0."""
        D, lam = coding.dictionary, coding.lam()[i]
        places = (1, *coding.code_shape) if len(coding.code_shape) == 1 else coding.code_shape
        weights = (
            torch.ones(1)
            if coding.weights is None
            else coding.weights.expand(len(coding.signals), *coding.weights.shape[1:])[i]
        )
        level = (lam * weights.to(lam)).expand(D.n_atoms, *coding.code_shape)
        signal = coding.signals[i].contiguous()
        stripes = Stripes(D.to(signal.dtype), places)  # pyright: ignore[reportArgumentType]
        none = np.empty(0, np.int64)
        return cls(
            stripes,
            signal,
            level,
            coding.nonnegative,
            coding.code_shape,
            settings,
            signal,
            none,
            signal.new_zeros(0).numpy(),
        )

    def code(self) -> Tensor:
        """The code, ``(k, *code_shape)``."""
        k = self.stripes.dictionary.n_atoms
        flat = self.signal.new_zeros(len(self.level[0].flatten()) * k)
        place, atom = np.divmod(self.active, k)
        flat[torch.from_numpy(atom * (len(flat) // k) + place)] = torch.from_numpy(self.x)
        return flat.reshape(k, *self.code_shape)

    def round(self) -> None:
        """Look at every atom, take in the worst, solve on the set."""
        excess, entering = self._worst()
        kept = self.x != 0
        old = self.active[kept]
        new = np.setdiff1d(entering, old)
        active = np.concatenate([old, new])
        order = np.argsort(active)
        x = np.concatenate([self.x[kept], np.zeros(len(new), self.x.dtype)])[order]
        self.active = active[order]
        if not len(active):
            return
        quadratic = Quadratic(self.stripes.gram(self.active), self._gradient(), self._levels(), self.nonnegative)
        self.x = descend(quadratic, x, self.settings.steps, self.settings.share * excess)
        self.residual = self.signal - self._synthesis()

    def _worst(self) -> tuple[float, Index]:
        """The largest |D* residual| - level, and the placed atoms at which it is largest within a cell and above 0."""
        D, (rows, columns) = self.stripes.dictionary, self.stripes.places
        line, across = self.residual, self.level.reshape(D.n_atoms, rows, columns)
        if len(self.code_shape) == 1:
            line = line.unsqueeze(1)
        height = 1 if len(D.size) == 1 else D.size[0]
        weights = D.atoms.flatten(1).T.contiguous()
        best, which = self.signal.new_empty(rows, columns), torch.empty(rows, columns, dtype=torch.int64)
        per, s = max(1, ROWS // columns), D.stride
        for y in range(0, rows, per):
            h = min(per, rows - y)
            top = y * s if height > 1 or len(D.size) == 2 else 0
            part = line[:, top : top + (h - 1) * s + height]
            patches = part.unfold(1, height, s).unfold(2, D.size[-1], s)[:, :h, :columns]
            c = patches.permute(1, 2, 0, 3, 4).reshape(h * columns, -1) @ weights
            c = c if self.nonnegative else c.abs_()
            value, atom = (c - across[:, y : y + h].reshape(D.n_atoms, -1).T).max(1)
            best[y : y + h], which[y : y + h] = value.reshape(h, columns), atom.reshape(h, columns)
        cell = self.settings.cell
        window = (1 if rows == 1 else cell, cell)
        value, place = F.max_pool2d(best[None, None], window, window, ceil_mode=True, return_indices=True)
        chosen = place[value > 0]
        placed = chosen * D.n_atoms + which.flatten()[chosen]
        return float(best.max()), placed.numpy()

    def _levels(self) -> np.ndarray:
        """The active atoms' levels."""
        place, atom = np.divmod(self.active, self.stripes.dictionary.n_atoms)
        flat = self.level.reshape(self.stripes.dictionary.n_atoms, -1)
        return flat[torch.from_numpy(atom), torch.from_numpy(place)].numpy()

    def _parts(self) -> Generator[tuple[slice, Tensor, Tensor], None, None]:
        """The active atoms, some at a time: where they lie and their samples."""
        rows, columns = (1, *self.signal.shape[1:]) if self.signal.ndim == 2 else self.signal.shape[1:]
        for start in range(0, len(self.active), CHUNK):
            part = slice(start, start + CHUNK)
            yield part, *spots(self.stripes, self.active[part], (rows, columns))

    def _gradient(self) -> np.ndarray:
        """-<atom, residual> for the active atoms: the gradient at the code that the residual belongs to."""
        flat = self.residual.flatten()
        return torch.cat([-(flat[where] * atoms).sum(1) for _, where, atoms in self._parts()]).numpy()

    def _synthesis(self) -> Tensor:
        """D x, ``(c, *shape)``."""
        out, x = torch.zeros_like(self.signal).flatten(), torch.from_numpy(self.x)
        for part, where, atoms in self._parts():
            out.index_add_(0, where.flatten(), (x[part, None] * atoms).flatten())
        return out.reshape(self.signal.shape)
