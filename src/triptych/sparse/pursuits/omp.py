"""Convolutional orthogonal matching pursuit: one atom after another, all coefficients fitted anew."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor
from torch.nn import functional as F

from triptych.check import InputError, real, whole, wrong
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.guarantees import Guarantees, guarantees
from triptych.sparse.pursuits.placed import PLACES, Placed


class Ending(Enum):
    """Why a pursuit took no more atoms."""

    NOISE = "the residual is as small as asked for"
    COUNT = "as many atoms as asked for"
    NOTHING_LEFT = "no atom correlates with what is left, or the next depends on those taken"


@dataclass(frozen=True, eq=False)
class Matched:
    """Codes of b signals, the norm of what they leave of each, (b,), and why each ended."""

    coding: Coding
    codes: Codes
    residual: Tensor
    ending: list[Ending]

    def guarantees(self, i: int, local_noise: float) -> Guarantees:
        """What theory promises for code i, were it the true one and the noise in every patch at most so large.

        Where its ``omp`` holds, this pursuit finds the code's atoms from any such signal.
        """
        one = torch.tensor([n == i for n in range(len(self.codes))])
        return guarantees(self.coding.dictionary, self.codes[one].dense(), local_noise)[0]


def omp(coding: Coding, n_nonzero: int | None = None, noise: float | Tensor | None = None) -> Matched:
    """Take the placed atom that correlates most with the residual, fit all coefficients by least squares, and so on.

    A pursuit ends with ``n_nonzero`` atoms, or when ‖mask · (D x - signal)‖₂ is at most ``noise`` (a number, or (b,)); give one
    or both. Atoms need not be unit: correlations are divided by ‖mask · atom‖. ``reg`` is not used. Least squares go by a
    Cholesky factor that grows by a row an atom, in float64: memory and time grow with the square of the atoms taken.
    Raises InputError for wrong arguments, and for weights or x >= 0. Pati, Rezaiifar & Krishnaprasad, Asilomar 1993;
    convolutional: Papyan, Sulam & Elad, IEEE TSP 2017, part I.
    """
    b = len(coding.signals)
    if n_nonzero is None and noise is None:
        raise InputError("omp needs n_nonzero, noise or both to know when to end")
    if coding.weights is not None or coding.nonnegative:
        raise InputError("omp knows no weights and no x >= 0; use pursue, or leave them out")
    most = None if n_nonzero is None else whole("n_nonzero", n_nonzero)
    if isinstance(noise, Tensor):
        if noise.shape not in ((), (1,), (b,)) or not bool((noise.isfinite() & (noise >= 0)).all()):
            raise wrong("noise", f"a finite number of at least 0, or a tensor ({b},) of them", noise)
        levels = noise.expand(b).tolist()
    else:
        levels = [0.0 if noise is None else real("noise", noise, low=0.0)] * b
    found = [Matching(coding, i) for i in range(b)]
    ending = [one.run(most, level) for one, level in zip(found, levels)]
    index, value = zip(*(one.code() for one in found))
    shape = (coding.dictionary.n_atoms, *coding.code_shape)
    residual = torch.tensor([float(one.residual.norm()) for one in found], dtype=torch.float64)
    return Matched(coding, Codes(shape, list(index), list(value)), residual, ending)


class Matching:
    """Signal i of a coding problem: the atoms taken, their coefficients, the residual ``(c, h, w)``."""

    def __init__(self, coding: Coding, i: int) -> None:
        D, line = coding.dictionary, len(coding.shape) == 1
        shape, places = ((1, *coding.shape), (1, *coding.code_shape)) if line else (coding.shape, coding.code_shape)
        self.dtype = coding.signals.dtype
        self.placed = Placed(D.to(torch.float64), shape, places)  # pyright: ignore[reportArgumentType]
        self.target = coding.target[i].double().reshape(D.channels, *shape).contiguous()
        self.mask = None
        if coding.mask is not None:
            mask = coding.mask.double().expand_as(coding.signals)
            self.mask = mask[i].reshape(self.target.shape).contiguous()
        self.residual = self.target.clone()
        self.taken: list[int] = []
        self.x = np.zeros(0)
        self.factor, self.fit = np.zeros((16, 16)), np.zeros(16)
        self.columns: list[tuple[np.ndarray, np.ndarray]] = []
        self.best, self.atom = torch.zeros(places, dtype=torch.float64), torch.zeros(places, dtype=torch.int64)
        self._look(slice(0, places[0]), slice(0, places[1]))

    def code(self) -> tuple[Tensor, Tensor]:
        """Places in the flat ``(k, *code_shape)``, and values."""
        k, (rows, columns) = self.placed.dictionary.n_atoms, self.placed.places
        place, atom = np.divmod(np.array(self.taken, np.int64), k)
        order = np.argsort(atom * rows * columns + place)
        index = torch.from_numpy((atom * rows * columns + place)[order])
        return index, torch.from_numpy(self.x[order]).to(self.dtype)

    def run(self, most: int | None, noise: float) -> Ending:
        """Take atoms until there is a reason not to."""
        floor = 1e-12 * float(self.target.norm())
        while True:
            if float(self.residual.norm()) <= max(noise, floor):
                return Ending.NOISE
            if most is not None and len(self.taken) >= most:
                return Ending.COUNT
            place = int(self.best.argmax())
            if float(self.best.flatten()[place]) <= floor:
                return Ending.NOTHING_LEFT
            if not self._take(place * self.placed.dictionary.n_atoms + int(self.atom.flatten()[place])):
                return Ending.NOTHING_LEFT

    def _take(self, new: int) -> bool:
        """Take a placed atom: a row of the Cholesky factor, all coefficients, the residual, the correlations around."""
        m = len(self.taken)
        mask = None if self.mask is None else self.mask.numpy().ravel()
        column = self.placed.columns(np.array([new]), mask)
        where, what = column.indices, column.data
        full = np.zeros(self.target.numel())
        full[where] = what
        row = np.array([full[w] @ v for w, v in self.columns])
        L = self.factor
        w = solve_triangular(L[:m, :m], row, lower=True, check_finite=False) if m else row
        left = what @ full[where] - w @ w
        if left <= 1e-12 * (what @ full[where]):
            return False
        if m == len(L):
            self.factor = L = np.pad(L, (0, m))
            self.fit = np.pad(self.fit, (0, m))
        L[m, :m], L[m, m] = w, np.sqrt(left)
        self.fit[m] = (full @ self.target.numpy().ravel() - w @ self.fit[:m]) / L[m, m]
        self.taken.append(new)
        self.columns.append((where, what))
        before = np.append(self.x, 0.0)
        self.x = solve_triangular(L[: m + 1, : m + 1], self.fit[: m + 1], lower=True, trans=1, check_finite=False)
        self._resolve(before)
        return True

    def _resolve(self, before: np.ndarray) -> None:
        """The residual of new coefficients, and the correlations where it changed."""
        changed = np.flatnonzero(self.x != before)
        r = self.residual.view(-1).numpy()
        for j in changed:
            where, what = self.columns[j]
            r[where] -= (self.x[j] - before[j]) * what
        places = np.array(self.taken, np.int64)[changed] // self.placed.dictionary.n_atoms
        spans = []
        for at, n, count in zip(np.divmod(places, self.placed.places[1]), self.placed.size, self.placed.places):
            reach = (n - 1) // self.placed.dictionary.stride
            low, high = int(at.min()) - reach, int(at.max()) + reach + 1
            whole_axis = self.placed.dictionary.boundary == "circular" and (low < 0 or high > count)
            spans.append(slice(0, count) if whole_axis else slice(max(0, low), min(count, high)))
        self._look(*spans)

    def _look(self, rows: slice, columns: slice) -> None:
        """The largest |⟨mask · atom, residual⟩| / ‖mask · atom‖ at some places, and its atom."""
        D, (n1, n2) = self.placed.dictionary, self.placed.size
        seen = self.residual if self.mask is None else self.residual * self.mask
        weight = None if self.mask is None else self.mask.square()
        if D.boundary == "circular":
            wrap = (0, n2 - 1, 0, n1 - 1)
            seen = F.pad(seen[None], wrap, mode="circular")[0]
            weight = None if weight is None else F.pad(weight[None], wrap, mode="circular")[0]
        atoms = D.atoms.flatten(1).T.contiguous()
        high = max(1, PLACES // max(1, columns.stop - columns.start))
        for top in range(rows.start, rows.stop, high):
            block = slice(top, min(top + high, rows.stop)), columns
            c = (self.placed.patches(seen, *block) @ atoms).abs()
            if weight is None:
                c = c / D.norms.clamp_min(1e-300)
            else:
                norms = (self.placed.patches(weight, *block) @ atoms.square()).sqrt()
                c = torch.where(norms > 1e-12 * D.norms, c / norms.clamp_min(1e-300), 0.0)
            value, atom = c.max(1)
            size = tuple(part.stop - part.start for part in block)
            self.best[block], self.atom[block] = value.view(size), atom.view(size)
