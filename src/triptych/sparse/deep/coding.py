"""Multi-layer basis pursuit: one deepest code that makes all layers sparse at once, as a convex problem with a certificate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, prod

import torch
from torch import Tensor

from triptych.check import InputError, choice, real, wrong
from triptych.convex import L1, NonNegativeL1, Problem, Term, inner, take
from triptych.sparse.coding import SCALES
from triptych.sparse.deep.dictionary import DENSE, MultiLayerDictionary

ENTRIES = 1 << 25  # of a map that is made a matrix
MATRIX = 1 << 25  # twice the entries of an effective dictionary that is held as a matrix
TOGETHER = 128  # columns of it that are made at a time


@dataclass(frozen=True, eq=False)
class Cascade:
    """The map of deepest codes g ``(b, k_L, *code_shape_L)`` to (X, G_1, ..., G_{L-1}), flat and side by side: (b, numbers)."""

    model: MultiLayerDictionary
    shape: tuple[int, ...]

    @cached_property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """``(c, *shape)``, ``(k_1, *code_shape_1)``, ... of what stands side by side."""
        shapes = (self.shape, *self.model.code_shapes(self.shape)[:-1])
        return tuple((k, *space) for k, space in zip(self._channels, shapes))

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many numbers each of them has."""
        return tuple(prod(part) for part in self.parts)

    @property
    def _channels(self) -> tuple[int, ...]:
        return (self.model.channels, *self.model.n_atoms[:-1])

    def split(self, z: Tensor) -> tuple[Tensor, ...]:
        """What stands side by side in z (b, numbers), each in its own shape."""
        return tuple(part.reshape(len(z), *shape) for part, shape in zip(z.split(self.sizes, 1), self.parts))

    def forward(self, x: Tensor) -> Tensor:
        """(X, G_1, ..., G_{L-1}) side by side: one synthesis a layer."""
        return torch.cat([part.flatten(1) for part in self.model.cascade(x, self.shape)[:-1]], 1)

    def adjoint(self, z: Tensor) -> Tensor:
        """D_L* (z_{L-1} + D_{L-1}* (z_{L-2} + ... D_1* z_0)): one analysis a layer."""
        parts = self.split(z)
        found = self.model.up(1, parts[0])
        for i, part in enumerate(parts[1:], 2):
            found = self.model.up(i, found + part)
        return found


@dataclass(frozen=True, eq=False)
class Table:
    """The same map as a float64 matrix (numbers, k_L · places), for deepest codes of few coefficients."""

    cascade: Cascade
    matrix: Tensor

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many numbers each part has."""
        return self.cascade.sizes

    def forward(self, x: Tensor) -> Tensor:
        """(X, G_1, ..., G_{L-1}) side by side."""
        return x.flatten(1) @ self._as(x).T

    def adjoint(self, z: Tensor) -> Tensor:
        """K* z, in the shape of deepest codes."""
        model = self.cascade.model
        places = model.code_shapes(self.cascade.shape)[-1]
        return (z @ self._as(z)).reshape(len(z), model.n_atoms[-1], *places)

    def _as(self, like: Tensor) -> Tensor:
        return self.matrix if like.dtype == torch.float64 else self._single.to(like)

    @cached_property
    def _single(self) -> Tensor:
        return self.matrix.float()


@dataclass(frozen=True, eq=False)
class LayerLoss:
    """½ ‖z_0 - y‖² + Σ λ_i ‖z_i‖₁ of z = (z_0, z_1, ...) side by side (b, numbers), y (b or 1, c · samples), λ_i (b or 1,)."""

    y: Tensor
    levels: tuple[Tensor, ...]
    sizes: tuple[int, ...]

    @property
    def smoothness(self) -> float:
        """Infinity, or 1 where there is no λ: primal-dual solvers use ``dual_prox`` instead."""
        return inf if self.levels else 1.0

    def value(self, z: Tensor) -> Tensor:
        """The loss, (b,)."""
        parts = z.split(self.sizes, 1)
        off = parts[0] - self.y.to(z)
        value = inner(off, off) / 2
        for level, part in zip(self.levels, parts[1:]):
            value = value + level.to(z) * part.abs().sum(1)
        return value

    def grad(self, z: Tensor) -> Tensor:
        """A subgradient: (z_0 - y, λ_i sign z_i)."""
        parts = z.split(self.sizes, 1)
        signs = [level.to(z)[:, None] * part.sign() for level, part in zip(self.levels, parts[1:])]
        return torch.cat([parts[0] - self.y.to(z), *signs], 1)

    def conjugate(self, theta: Tensor) -> Tensor:
        """½ ‖θ_0‖² + ⟨θ_0, y⟩ where ‖θ_i‖_∞ <= λ_i, else +inf, (b,)."""
        parts = theta.split(self.sizes, 1)
        value = inner(parts[0], parts[0]) / 2 + inner(parts[0], self.y.to(theta).expand_as(parts[0]))
        for level, part in zip(self.levels, parts[1:]):
            outside = part.abs().amax(1) > level.to(theta)
            value = value.masked_fill(outside, inf)
        return value

    def dual_prox(self, p: Tensor, step: Tensor) -> Tensor:
        """argmin_q loss*(q) + Σ (q - p)² / (2 step), with a step (b or 1, layers) for every part."""
        parts, found = p.split(self.sizes, 1), []
        first = step[:, :1].to(p)
        found.append((parts[0] - first * self.y.to(p)) / (1 + first))
        found += [_clamped(part, level) for level, part in zip(self.levels, parts[1:])]
        return torch.cat(found, 1)

    def take(self, mask: Tensor) -> "LayerLoss":
        """Some of the problems."""
        return LayerLoss(take(self.y, mask), tuple(take(level, mask) for level in self.levels), self.sizes)


@dataclass(frozen=True, eq=False)
class MultiLayerCoding:
    """Minimise ½ ‖D^(L) g - y‖² + Σ_{i<L} λ_i ‖D_{i+1} ... D_L g‖₁ + λ_L ‖g‖₁ over deepest codes g, b problems at once.

    Parameters
    ----------
    model : the MultiLayerDictionary D_1, ..., D_L.
    signals : floating-point tensor ``(b, c, *shape)``.
    reg : λ_1, ..., λ_L, at least 0, numbers or tensors (b,), as a tuple or list; one of them serves all layers.
    reg_scale : "lambda_max": of layer i as a fraction of ‖(D_1 ... D_i)* y‖_∞, problem by problem; "absolute": λ_i itself.
    nonnegative : whether g >= 0; the layers before it take the signs that it gives them.

    Raises InputError for wrong values. Sulam, Aberdam, Beck & Elad, IEEE TPAMI 2020, equation (7).
    """

    model: MultiLayerDictionary
    signals: Tensor
    reg: float | Tensor | Sequence[float | Tensor] = 0.1
    reg_scale: str = "lambda_max"
    nonnegative: bool = True

    def __post_init__(self) -> None:
        choice("reg_scale", self.reg_scale, SCALES)
        first, b = self.model.layers[0], len(self.signals)
        first.expect("signals", self.signals, first.channels)
        self.model.code_shapes(self.shape)
        if not bool(self.signals.isfinite().all()):
            raise InputError("signals must be finite, got NaN or infinity")
        reg = tuple(self.reg) if isinstance(self.reg, list | tuple) else (self.reg,) * len(self.model)
        if len(reg) != len(self.model):
            raise wrong("reg", f"a number, or {len(self.model)} of them, one a layer", self.reg)
        for part in reg:
            if not isinstance(part, Tensor):
                real("reg", part, low=0.0)
            elif part.shape not in ((), (1,), (b,)) or not bool((part.isfinite() & (part >= 0)).all()):
                raise wrong("reg", f"finite numbers of at least 0, or tensors ({b},) of them", part)
        object.__setattr__(self, "reg", reg)

    @property
    def shape(self) -> tuple[int, ...]:
        """The signals' shape in space."""
        return tuple(self.signals.shape[2:])

    @cached_property
    def map(self) -> Cascade | Table:
        """g -> (X, G_1, ..., G_{L-1}); as a matrix where deepest codes have few coefficients."""
        K, code = Cascade(self.model, self.shape), self.start()[:1]
        n = code.numel()
        if n > DENSE or n * sum(K.sizes) > ENTRIES:
            return K
        return Table(K, as_matrix(K.forward, tuple(code.shape[1:]), code.device))

    def lam(self) -> tuple[Tensor, ...]:
        """λ_1, ..., λ_L, each (b,), in the units of the signals."""
        return self._lam

    @cached_property
    def _lam(self) -> tuple[Tensor, ...]:
        like, b, found, seen = self.signals, len(self.signals), [], self.signals
        for i, part in enumerate(self.reg, 1):  # pyright: ignore[reportArgumentType]
            level = torch.as_tensor(part, dtype=like.dtype, device=like.device).expand(b)
            if self.reg_scale == "lambda_max":
                seen = self.model.up(i, seen)
                level = level * (seen if self.nonnegative and i == len(self.model) else seen.abs()).flatten(1).amax(1)
            found.append(level)
        return tuple(level.clamp_min(0) for level in found)

    def term(self) -> Term:
        """λ_L ‖g‖₁, with g >= 0 where asked for."""
        return NonNegativeL1(self.lam()[-1]) if self.nonnegative else L1(self.lam()[-1])

    def problem(self) -> Problem:
        """The convex problem; its certificate is a duality gap in the units of the squared signals."""
        sizes = self.map.sizes
        return Problem(LayerLoss(self.signals.flatten(1), self.lam()[:-1], sizes), self.map, self.term())

    def start(self) -> Tensor:
        """The code 0, ``(b, k_L, *code_shape_L)``."""
        return self.signals.new_zeros(
            len(self.signals), self.model.n_atoms[-1], *self.model.code_shapes(self.shape)[-1]
        )

    def take(self, mask: Tensor) -> "MultiLayerCoding":
        """Some of the problems; weights keep their value."""
        lam = [take(level, mask) for level in self.lam()]
        some = MultiLayerCoding(self.model, self.signals[mask], lam, "absolute", self.nonnegative)
        some.__dict__["map"] = self.map
        return some

    def objective(self, g: Tensor) -> Tensor:
        """The objective of deepest codes, (b,), in their dtype; infinity where g < 0 is not allowed."""
        problem = self.problem()
        return problem.loss.value(problem.map.forward(g)) + problem.term.value(g)


def matrix_is_less(model: MultiLayerDictionary, shape: Sequence[int]) -> bool:
    """Whether D_1 ... D_L on signals of a shape is small as a matrix, and half the work of its layers one by one or less: that pays for
    its making.
    """
    places = model.code_shapes(shape)
    entries = model.channels * prod(shape) * model.n_atoms[-1] * prod(places[-1])
    return 2 * entries <= min(MATRIX, sum(D.atoms.numel() * prod(place) for D, place in zip(model.layers, places)))


def as_matrix(
    forward: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """A linear map of codes of a shape as a matrix (numbers, coefficients), made some columns at a time."""
    n, columns = prod(shape), []
    for part in torch.arange(n, device=device).split(TOGETHER):
        unit = torch.zeros(len(part), n, dtype=dtype, device=device)
        unit[torch.arange(len(part), device=device), part] = 1
        columns.append(forward(unit.reshape(-1, *shape)).flatten(1))
    return torch.cat(columns).T.contiguous()


def _clamped(x: Tensor, level: Tensor) -> Tensor:
    """x (b, n) within ± level (b or 1,)."""
    level = level.to(x)[:, None]
    return x.clamp(-level, level)
