"""Basis pursuit on a working set: all atoms are looked at once a round, only the few that count are solved for."""

import warnings
from collections.abc import Generator
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csc_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso
from torch import Tensor
from torch.nn import functional as F

from triptych.check import InputError, whole
from triptych.convex import Certificate, Iterate, Problem
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.pursuits.placed import CHUNK, PLACES, Index, Placed

FIRST, MORE = 2, 2  # sweeps of the first round, and how many more each round has
EASED = 4  # rounds from one certificate by a second look to the next
FEW = 1000  # places whose correlations are made once more in float64


@dataclass(frozen=True)
class WorkingSet:
    """How `working_set` goes on: from every ``cell`` neighbouring places the atom that is wrong most comes in, a round;
    then at most ``sweeps`` sweeps of coordinate descent over the set, fewer in the first rounds.

    ``cell`` counts places along a signal of one axis, and places a side on images. Raises InputError for wrong values.
    """

    cell: int = 2
    sweeps: int = 20

    def __post_init__(self) -> None:
        whole("cell", self.cell)
        whole("sweeps", self.sweeps)


DEFAULT = WorkingSet()


@dataclass(frozen=True, eq=False)
class Round(Iterate):
    """Codes of a round, sparse, and their certificates: see `certify`."""

    problems: tuple[Any, ...] = ()


def working_set(coding: Coding, settings: WorkingSet = DEFAULT) -> Generator[Round, Tensor | None, None]:
    """`Codes` round by round; a round looks once at every atom at every place, in blocks, and never holds a dense code.

    Between two looks scikit-learn's coordinate descent solves the lasso of the few active atoms. Runs on the CPU, and
    starts from 0. Raises InputError where ``reg`` is 0. Of the kind of Massias, Gramfort & Salmon, ICML 2018.
    """
    free = (coding.lam() == 0) & (coding.target.flatten(1) != 0).any(1)
    if bool(free.any()):
        raise InputError("working_set needs reg above 0: without a penalty no code is sparse; use fista")
    return _rounds([Active(coding, i, settings) for i in range(len(coding.signals))])


def solver(coding: Coding, settings: WorkingSet = DEFAULT):
    """`working_set` as a solver for `triptych.convex.solve` with ``certify=certify``; its start is 0, whatever is given."""
    return lambda problem, start: working_set(coding, settings)


def certify(problem: Problem, iterate: Iterate) -> Certificate:
    """The certificate of a round, in float64, without a dense code.

    The correlations that bound it are those of the next look, in the signals' dtype; where rounding could have hidden the
    largest one they are made once more in float64.
    """
    assert isinstance(iterate, Round)
    found = [one.certificate() for one in iterate.problems]
    objective, bound = (torch.tensor(part, dtype=torch.float64) for part in zip(*found))
    return Certificate(iterate.x, objective, bound)


def _rounds(problems: "list[Active]") -> Generator[Round, Tensor | None, None]:
    """The stream: a round for every problem that is left."""
    while True:
        for one in problems:
            one.round()
        index, value = zip(*(one.code() for one in problems))
        codes = Codes(problems[0].shape, list(index), list(value))
        mask = yield Round(codes, problems=tuple(problems))  # pyright: ignore[reportArgumentType]
        if mask is not None:
            problems = [one for one, stays in zip(problems, mask.tolist()) if stays]


class _Look(NamedTuple):
    """The largest |D* residual| / weight at every place ``(rows, columns)``, its atom, and a bound on all of them."""

    best: Tensor
    atom: Tensor
    bound: float


class Active:
    """Problem i of a coding problem: its residual ``(c, h, w)``, and the active atoms with their coefficients."""

    def __init__(self, coding: Coding, i: int, settings: WorkingSet) -> None:
        D, line = coding.dictionary, len(coding.shape) == 1
        shape, places = ((1, *coding.shape), (1, *coding.code_shape)) if line else (coding.shape, coding.code_shape)
        target = coding.target[i].reshape(D.channels, *shape)
        self.settings, self.nonnegative = settings, coding.nonnegative
        self.shape = (D.n_atoms, *coding.code_shape)
        self.placed = Placed(D.to(target.dtype), shape, places)  # pyright: ignore[reportArgumentType]
        self.target = target.contiguous()
        self.mask = None
        if coding.mask is not None:
            mask = coding.mask.to(target).expand_as(coding.signals)
            self.mask = mask[i].reshape(target.shape).contiguous()
        self.lam = float(coding.lam()[i])
        self.weights = None
        if coding.weights is not None:
            weights = coding.weights.to(target).expand(len(coding.signals), *coding.weights.shape[1:])
            self.weights = weights[i].expand(self.shape).reshape(D.n_atoms, -1)
        self.active: Index = np.empty(0, np.int64)
        self.x = target.new_zeros(0).numpy()
        self.residual = self.target.double()
        self.look: _Look | None = None
        self.rounds = 0

    def begin(self, index: Tensor, value: Tensor) -> None:
        """Start from a code instead of 0: distinct places in the flat ``(k, *code_shape)``, and values (m,)."""
        atom, place = np.divmod(index.numpy(), prod(self.shape[1:]))
        order = np.argsort(place * self.shape[0] + atom)
        self.active = (place * self.shape[0] + atom)[order]
        self.x = value.numpy().astype(self.x.dtype)[order]
        self._resolve(None if self.mask is None else self.mask.numpy().ravel(), None)
        self.look = None

    def code(self) -> tuple[Tensor, Tensor]:
        """Where the code is not 0, in the flat ``(k, *code_shape)``, and its values."""
        place, atom = np.divmod(self.active, self.shape[0])
        kept = self.x != 0
        index = atom * prod(self.shape[1:]) + place
        return torch.from_numpy(index[kept]), torch.from_numpy(self.x[kept])

    def certificate(self, theta: Tensor | None = None) -> tuple[float, float]:
        """The objective and a lower bound on the least one, from a dual point ``(c, h, w)`` scaled into the feasible set.

        None: the residual. Every ``EASED``-th round a second point is looked at, scaled down only near the atoms that are wrong.
        """
        r = self.residual
        penalty = float(np.abs(self.x).astype(np.float64) @ self._weights().astype(np.float64))
        look = self._looked() if theta is None else self._made(theta)
        theta = r if theta is None else theta
        bound = max(0.0, self._dual(theta, look.bound))
        if self.rounds % EASED == 0 and look.bound > self.lam > 0:
            eased = theta * self._ease(look.best)
            bound = max(bound, self._dual(eased, self._made(eased).bound))
        return float(r.flatten() @ r.flatten()) / 2 + self.lam * penalty, bound

    def _dual(self, theta: Tensor, bound: float) -> float:
        """The dual objective of theta, scaled until no |D* theta| / weight is above the level; ``bound`` bounds them."""
        theta, y = theta.flatten(), self.target.double().flatten()
        c = 1.0 if bound <= self.lam else self.lam / bound * (1 - 1e-15)
        return c * float(theta @ y) - c * c * float(theta @ theta) / 2

    def _ease(self, best: Tensor) -> Tensor:
        """Factors (h, w) in (0, 1] for the samples: level / largest correlation near atoms that are above it, smooth, else 1."""
        (h, w), (n1, n2), s = self.placed.shape, self.placed.size, self.placed.dictionary.stride
        wrong = torch.zeros(h, w, dtype=torch.float64)  # 1 - factor, at the first sample of every place
        rows, columns = best.shape
        wrong[: rows * s : s, : columns * s : s] = 1 - self.lam / best.double().clamp_min(self.lam)
        # The largest over all atoms that cover a sample, and as far around as the mean over its neighbours reaches.
        a, b = n1 // 2, n2 // 2
        circular = self.placed.dictionary.boundary == "circular"
        padding = (n2 - 1 + 2 * b, 2 * b, n1 - 1 + 2 * a, 2 * a)
        if circular:
            index = [torch.arange(-low, n + high) % n for n, low, high in ((h, *padding[2:]), (w, *padding[:2]))]
            wrong = wrong[index[0][:, None], index[1]]
        else:
            wrong = F.pad(wrong, padding)
        worst = F.max_pool2d(wrong[None, None], (n1 + 2 * a, n2 + 2 * b), 1)
        return 1 - F.avg_pool2d(worst, (2 * a + 1, 2 * b + 1), 1)[0, 0]

    def round(self) -> None:
        """Look at every atom, take in the worst, solve on the set."""
        entering = self._entering()
        kept = self.x != 0
        old = self.active[kept]
        new = np.setdiff1d(entering, old)
        active = np.concatenate([old, new])
        order = np.argsort(active)
        self.active = active[order]
        self.x = np.concatenate([self.x[kept], np.zeros(len(new), self.x.dtype)])[order]
        if len(active):
            self._descend(min(self.settings.sweeps, FIRST + MORE * self.rounds))
        self.rounds, self.look = self.rounds + 1, None

    def _descend(self, sweeps: int) -> None:
        """Sweeps of coordinate descent on the active atoms; the residual of what they find."""
        weights = self._weights()
        scale = None if self.weights is None else 1 / weights
        mask = None if self.mask is None else self.mask.numpy().ravel()
        K = self.placed.columns(self.active, mask, scale)
        samples = self.target.numel()
        lasso = Lasso(
            self.lam / samples,
            fit_intercept=False,
            warm_start=True,
            max_iter=sweeps,
            tol=0,
            positive=self.nonnegative,
            copy_X=False,
        )
        lasso.coef_ = self.x * weights
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            lasso.fit(K, self.target.numpy().ravel())
        scaled = lasso.coef_.astype(self.x.dtype)
        self.x = scaled if scale is None else scaled * scale
        self._resolve(mask, K if scale is None and mask is None else None)

    def synthesis(self, columns: csc_matrix | None = None) -> np.ndarray:
        """D x, flat, float64; ``columns`` are those of the active atoms where they are at hand."""
        if columns is None:
            return self.placed.synthesis(self.active, self.x)
        z = np.zeros(self.target.numel())
        for part in (slice(start, start + CHUNK) for start in range(0, len(self.active), CHUNK)):
            z += columns[:, part].astype(np.float64) @ self.x[part].astype(np.float64)
        return z

    def _resolve(self, mask: np.ndarray | None, columns: csc_matrix | None) -> None:
        """The residual of the code as it is."""
        z = self.synthesis(columns)
        if mask is not None:
            z *= mask
        self.residual = self.target.double() - torch.from_numpy(z).reshape(self.target.shape)

    def _weights(self) -> np.ndarray:
        """The active atoms' weights."""
        if self.weights is None:
            return np.ones(len(self.active), self.x.dtype)
        place, atom = np.divmod(self.active, self.shape[0])
        return self.weights[torch.from_numpy(atom), torch.from_numpy(place)].numpy()

    def _entering(self) -> Index:
        """The placed atoms whose correlation is largest within a cell, and above the level."""
        look, rows = self._looked(), self.placed.places[0]
        window = (1 if rows == 1 else self.settings.cell, self.settings.cell)
        value, place = F.max_pool2d(look.best[None, None], window, window, ceil_mode=True, return_indices=True)
        chosen = place[value > self.lam]
        return (chosen * self.shape[0] + look.atom.flatten()[chosen]).numpy()

    def _looked(self) -> _Look:
        """The look at the residual, made once."""
        if self.look is None:
            self.look = self._made(self.residual)
        return self.look

    def _made(self, theta: Tensor) -> _Look:
        """A look at what stands for the residual."""
        D, (rows, columns) = self.placed.dictionary, self.placed.places
        seen = theta if self.mask is None else theta * self.mask.double()
        if D.boundary == "circular":
            n1, n2 = self.placed.size
            seen = F.pad(seen[None], (0, n2 - 1, 0, n1 - 1), mode="circular")[0]
        rounded = seen.to(self.target.dtype)
        atoms = D.atoms.flatten(1)
        columns_of = atoms.T.contiguous()
        best, which = rounded.new_empty(rows, columns), torch.empty(rows, columns, dtype=torch.int64)
        longest = 0.0
        for block in self.placed.blocks(PLACES):
            patches = self.placed.patches(rounded, *block)
            longest = max(longest, float(torch.linalg.vector_norm(patches, dim=1).max()))
            value, atom = self._weighed(patches @ columns_of, block).max(1)
            height, width = (part.stop - part.start for part in block)
            best[block], which[block] = value.view(height, width), atom.view(height, width)
        # |fl(<a, r>) - <a, r>| <= (n + 2) u ‖a‖ ‖r‖ to first order, r being rounded itself (Higham 2002, section 3.1).
        slack = 1.01 * (atoms.shape[1] + 2) * torch.finfo(best.dtype).eps / 2 * longest * float(D.norms.max())
        if self.weights is not None:
            slack = slack / float(self.weights.min()) + 2 * torch.finfo(best.dtype).eps * float(best.max())
        return _Look(best, which, self._bound(seen, best, slack))

    def _weighed(self, c: Tensor, block: tuple[slice, slice]) -> Tensor:
        """|c| / weights, or c / weights where codes are not negative, (places, k) of a block."""
        c = c if self.nonnegative else c.abs_()
        if self.weights is not None:
            weights = self.weights.reshape(-1, *self.placed.places)[:, block[0], block[1]]
            c = c / weights.reshape(len(weights), -1).T.to(c)
        return c

    def _bound(self, seen: Tensor, best: Tensor, slack: float) -> float:
        """A number that no |D* residual| / weight exceeds: what may, as rounded, is made once more in float64."""
        top = float(best.max())
        close = (best >= top - slack).nonzero().tolist()
        if len(close) > FEW:
            return top + slack
        atoms = self.placed.dictionary.atoms.flatten(1).double().T
        blocks = [(slice(y, y + 1), slice(x, x + 1)) for y, x in close]
        exact = (float(self._weighed(self.placed.patches(seen, *b) @ atoms, b).max()) for b in blocks)
        return max(top, *exact)
