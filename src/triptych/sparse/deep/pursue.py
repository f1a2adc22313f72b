"""One call for all pursuits through many layers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from triptych.check import choice, wrong
from triptych.convex import (
    L1,
    Certificate,
    Iterate,
    LeastSquares,
    Matrix,
    NonNegativeL1,
    Problem,
    Solution,
    Solver,
    fista,
    solve,
)
from triptych.sparse.deep.alternating import alternating, certifier
from triptych.sparse.deep.coding import MultiLayerCoding, Table, as_matrix, matrix_is_less
from triptych.sparse.deep.dictionary import MultiLayerDictionary
from triptych.sparse.deep.exact import primal_dual
from triptych.sparse.deep.forward import layered_thresholding
from triptych.sparse.deep.ista import ml_fista, ml_ista
from triptych.sparse.pursuits.auto import SEARCH

FINE = 1e-5  # relative gaps below this are for float64
WARM = 60  # steps of ML-FISTA before primal-dual iterations
METHODS = ("thresholding", "hard", "layered", "ml-ista", "ml-fista", "primal-dual", "alternating", "exact")


@dataclass(frozen=True, eq=False)
class MultiLayerPursuit:
    """Codes (G_1, ..., G_L) of b signals as a method made them, and the certificate of the deepest.

    ``objective`` and ``lower_bound`` (b,) are of multi-layer basis pursuit: of G_L, whatever the codes before it are; no code
    has a lower one than ``lower_bound``. ``solution`` is what the referee knows, of methods that iterate.
    """

    coding: MultiLayerCoding
    codes: tuple[Tensor, ...]
    objective: Tensor
    lower_bound: Tensor
    solution: Solution | None = None

    @property
    def gap(self) -> Tensor:
        """objective - lower_bound, (b,)."""
        return self.objective - self.lower_bound

    def mismatch(self) -> Tensor:
        """‖G_{i-1} - D_i G_i‖ / ‖G_{i-1}‖ with G_0 the signal, (b, L): but for the first, 0 where one code made all layers."""
        model, found = self.coding.model, []
        below = (self.coding.signals, *self.codes)
        for i, code in enumerate(self.codes, 1):
            off = below[i - 1].double() - model.down(i, code.double(), below[i - 1].shape[2:])
            size = below[i - 1].double().flatten(1).norm(dim=1)
            found.append(off.flatten(1).norm(dim=1) / size.clamp_min(1e-300))
        return torch.stack(found, 1)


def pursue_layers(
    coding: MultiLayerCoding,
    method: str = "ml-fista",
    *,
    tol: float | Tensor = 1e-3,
    max_steps: int = 1000,
    start: Tensor | None = None,
    progress: Callable[[int, Certificate], None] | None = None,
) -> MultiLayerPursuit:
    """Codes of all layers for b signals at once.

    ``method``:

    - "thresholding": every layer analysed and thresholded at λ_i: the forward pass of a network; "hard": with hard thresholds;
    - "layered": every layer by basis pursuit with λ_i of the code of the layer before, each to the gap ``tol``;
    - "ml-ista", "ml-fista": one deepest code that makes all layers sparse, nearly optimal: they stop within ``tol`` of the
      objective if their certificate gets there, else after ``max_steps``;
    - "alternating", "primal-dual": the same, to the optimum; the first for deepest codes of up to some thousand coefficients, the
      second from where some steps of ML-FISTA end; "exact" is the first where it can be.

    The first three leave codes that do not synthesise each other (`MultiLayerPursuit.mismatch`), and where ``nonnegative`` is
    set all their layers are at least 0. ``start`` (b, k_L, ...) is the deepest code to begin with, of the others; None: 0.
    Raises InputError for wrong arguments. Papyan, Romano & Elad, JMLR 2017; Sulam et al., IEEE TPAMI 2020.
    """
    choice("method", method, METHODS)
    if method in ("thresholding", "hard"):
        return _passed(coding, method)
    if method == "layered":
        return _layer_by_layer(coding, tol, max_steps)
    g = coding.start() if start is None else start
    if g.shape != coding.start().shape:
        raise wrong("start", f"of shape {tuple(coding.start().shape)}", tuple(g.shape))
    if method == "exact":
        method = "alternating" if isinstance(coding.map, Table) else "primal-dual"
    if method == "primal-dual":
        solver, g = _warmed(coding, g)
    else:
        solver = {"ml-ista": ml_ista, "ml-fista": ml_fista, "alternating": alternating}[method](coding)
    found = solve(
        coding.problem(),
        solver,
        g,
        certify=certifier(coding),
        tol=tol,
        max_steps=max_steps,
        patience=10**6,
        relative=True,
        progress=progress,
    )
    return _solved(coding, found)


def _passed(coding: MultiLayerCoding, method: str) -> MultiLayerPursuit:
    """The forward pass with thresholds λ_i."""
    kinds = {"thresholding": ("soft", "nonnegative"), "hard": ("hard", "nonnegative hard")}
    kind = kinds[method][coding.nonnegative]
    levels = [level[:, None] for level in coding.lam()]
    return judged(coding, layered_thresholding(coding.model, coding.signals, levels, kind))


def judged(coding: MultiLayerCoding, codes: tuple[Tensor, ...]) -> MultiLayerPursuit:
    """Codes of any making, with the objective and the bound that the deepest gives."""
    found = certifier(coding)(coding.problem(), Iterate(codes[-1]))
    return MultiLayerPursuit(coding, codes, found.objective, found.lower_bound)


def _layer_by_layer(coding: MultiLayerCoding, tol: float | Tensor, max_steps: int) -> MultiLayerPursuit:
    """argmin ½ ‖G_{i-1} - D_i G‖² + λ_i ‖G‖₁, one layer after the other."""
    below, codes = coding.signals, []
    for i, level in enumerate(coding.lam(), 1):
        term = NonNegativeL1(level) if coding.nonnegative else L1(level)
        layer = Layer(coding.model, i, tuple(below.shape[2:]))
        problem = Problem(LeastSquares(below), layer, term)
        found = solve(
            problem,
            lambda problem, x: fista(problem, x, SEARCH),
            torch.zeros_like(coding.model.up(i, below)),
            tol=tol,
            max_steps=max_steps,
            relative=True,
        )
        below = found.x.to(below)
        codes.append(below)
    return judged(coding, tuple(codes))


@dataclass(frozen=True, eq=False)
class Layer:
    """The map of codes of layer i to those of layer i - 1, of a shape in space."""

    model: MultiLayerDictionary
    i: int
    shape: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        """D_i x."""
        return self.model.down(self.i, x, self.shape)

    def adjoint(self, z: Tensor) -> Tensor:
        """D_i* z."""
        return self.model.up(self.i, z)


def deepest_codes(
    model: MultiLayerDictionary, signals: Tensor, lam: float, nonnegative: bool, tol: float, max_steps: int = 2000
) -> Solution:
    """Basis pursuit on the effective dictionary, argmin ½ ‖D_1 ... D_L g - y‖² + λ ‖g‖₁, ``(b, k_L, *code_shape_L)``, certified.

    Where that is less work it is made a matrix first; gaps that float32 cannot reach are sought in float64.
    """
    signals = signals.double() if tol < FINE else signals
    space = tuple(signals.shape[2:])
    shape = (model.n_atoms[-1], *model.code_shapes(space)[-1])
    term = NonNegativeL1(lam) if nonnegative else L1(lam)
    K = Whole(model, space)
    if matrix_is_less(model, space):
        K = Matrix(as_matrix(K.forward, shape, signals.device, signals.dtype)[None])
    y = signals.flatten(1) if isinstance(K, Matrix) else signals
    start = (
        signals.new_zeros(len(signals), prod(shape))
        if isinstance(K, Matrix)
        else signals.new_zeros(len(signals), *shape)
    )
    problem = Problem(LeastSquares(y), K, term)
    found = solve(
        problem,
        lambda problem, x: fista(problem, x, SEARCH),
        start,
        tol=tol,
        max_steps=max_steps,
        relative=True,
        patience=30,
    )
    return replace(found, x=found.x.reshape(-1, *shape))


@dataclass(frozen=True, eq=False)
class Whole:
    """The map of deepest codes to signals of a shape in space."""

    model: MultiLayerDictionary
    shape: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        """D_1 ... D_L x."""
        return self.model.synthesise(x, self.shape)

    def adjoint(self, z: Tensor) -> Tensor:
        """(D_1 ... D_L)* z."""
        return self.model.analyse(z)


def _warmed(coding: MultiLayerCoding, g: Tensor) -> tuple[Solver, Tensor]:
    """Some steps of ML-FISTA, and primal-dual iterations from its code and its dual point."""
    stream = ml_fista(coding)(coding.problem(), g)
    for _ in range(WARM):
        iterate = next(stream)
    return primal_dual(coding, theta=iterate.theta), iterate.x


def _solved(coding: MultiLayerCoding, found: Solution) -> MultiLayerPursuit:
    """A deepest code and the layers that it makes."""
    codes = coding.model.cascade(found.x, coding.shape)[1:]
    dtype = coding.signals.dtype
    return MultiLayerPursuit(coding, tuple(code.to(dtype) for code in codes), found.objective, found.lower_bound, found)
