"""Convex terms of x (b, ...): penalties and balls, each with its value, prox, conjugate and shrinking factor."""

from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import real, wrong
from triptych.convex.problem import inner, per_problem, take
from triptych.convex.spectrum import nuclear_norm, project_nuclear, spectral_norm, top_pair

Level = float | Tensor
"""A number for all problems, or a tensor (b,) with one a problem."""


def soft_threshold(v: Tensor, level: Level) -> Tensor:
    """sign(v) · max(|v| - level, 0), entrywise: the prox of level · ‖·‖₁, v (b, ...)."""
    return v.sign() * (v.abs() - per_problem(level, v)).clamp_min(0)


@dataclass(frozen=True, eq=False)
class L1:
    """weight · ‖x‖₁, x (b, ...). Raises InputError unless weight >= 0. Tibshirani, JRSS B 1996."""

    weight: Level

    def __post_init__(self) -> None:
        _checked("weight", self.weight)

    def value(self, x: Tensor) -> Tensor:
        """weight · ‖x‖₁, (b,)."""
        return _beside(self.weight, x) * x.abs().flatten(1).sum(1)

    def prox(self, v: Tensor, step: Level) -> Tensor:
        """Soft thresholding at step · weight."""
        return soft_threshold(v, step * self.weight)

    def conjugate(self, u: Tensor) -> Tensor:
        """0 where ‖u‖_∞ <= weight, else +inf."""
        return _indicator(u.abs().flatten(1).amax(1) <= _beside(self.weight, u), u)

    def shrink(self, u: Tensor) -> Tensor:
        """min(1, weight / ‖u‖_∞)."""
        return _ratio(self.weight, u.abs().flatten(1).amax(1))

    def take(self, mask: Tensor) -> "L1":
        """Some of the problems."""
        return L1(take(self.weight, mask))


@dataclass(frozen=True, eq=False)
class NonNegativeL1:
    """weight · Σ x over x >= 0, +inf elsewhere, x (b, ...). Raises InputError unless weight >= 0."""

    weight: Level

    def __post_init__(self) -> None:
        _checked("weight", self.weight)

    def value(self, x: Tensor) -> Tensor:
        """weight · Σ x, (b,); +inf where an entry is negative."""
        flat = x.flatten(1)
        slack = _slack(x) * flat.abs().amax(1)
        return _beside(self.weight, x) * flat.sum(1) + _indicator(flat.amin(1) >= -slack, x)

    def prox(self, v: Tensor, step: Level) -> Tensor:
        """max(v - step · weight, 0)."""
        return (v - per_problem(step * self.weight, v)).clamp_min(0)

    def conjugate(self, u: Tensor) -> Tensor:
        """0 where max u <= weight, else +inf."""
        return _indicator(u.flatten(1).amax(1) <= _beside(self.weight, u), u)

    def shrink(self, u: Tensor) -> Tensor:
        """min(1, weight / max u)."""
        return _ratio(self.weight, u.flatten(1).amax(1))

    def take(self, mask: Tensor) -> "NonNegativeL1":
        """Some of the problems."""
        return NonNegativeL1(take(self.weight, mask))


@dataclass(frozen=True, eq=False)
class WeightedL1:
    """level · Σ weights |x|, x (b, ...); with ``nonnegative`` over x >= 0, and +inf elsewhere.

    ``weights`` (b or 1, ...) broadcast against x. Raises InputError unless level >= 0 and the weights are finite and above 0.
    Zou, JASA 2006 (the adaptive lasso).
    """

    level: Level
    weights: Tensor
    nonnegative: bool = False

    def __post_init__(self) -> None:
        _checked("level", self.level)
        weights = self.weights
        if weights.ndim < 2 or not bool((weights.isfinite() & (weights > 0)).all()):
            raise wrong("weights", "a tensor (b or 1, ...) of finite numbers above 0", weights)

    def value(self, x: Tensor) -> Tensor:
        """level · Σ weights |x|, (b,)."""
        return self._plain.value(self.weights.to(x) * x)

    def prox(self, v: Tensor, step: Level) -> Tensor:
        """Soft thresholding at step · level · weights, from above alone where x >= 0."""
        level = per_problem(step * self.level, v) * self.weights.to(v)
        return (v - level).clamp_min(0) if self.nonnegative else v.sign() * (v.abs() - level).clamp_min(0)

    def conjugate(self, u: Tensor) -> Tensor:
        """0 where u / weights is in the domain of the plain term's, else +inf."""
        return self._plain.conjugate(u / self.weights.to(u))

    def shrink(self, u: Tensor) -> Tensor:
        """The plain term's factor for u / weights."""
        return self._plain.shrink(u / self.weights.to(u))

    def take(self, mask: Tensor) -> "WeightedL1":
        """Some of the problems."""
        return WeightedL1(take(self.level, mask), take(self.weights, mask), self.nonnegative)

    @property
    def _plain(self) -> L1 | NonNegativeL1:
        """The same term of weights · x."""
        return NonNegativeL1(self.level) if self.nonnegative else L1(self.level)


@dataclass(frozen=True, eq=False)
class SquaredL2:
    """weight / 2 · ‖x‖₂², x (b, ...). Raises InputError unless weight > 0. Hoerl & Kennard, Technometrics 1970."""

    weight: Level

    def __post_init__(self) -> None:
        _checked("weight", self.weight, above=0.0)

    def value(self, x: Tensor) -> Tensor:
        """weight / 2 · ‖x‖₂², (b,)."""
        return _beside(self.weight, x) / 2 * inner(x, x)

    def prox(self, v: Tensor, step: Level) -> Tensor:
        """v / (1 + step · weight)."""
        return v / (1 + per_problem(step * self.weight, v))

    def conjugate(self, u: Tensor) -> Tensor:
        """‖u‖₂² / (2 weight)."""
        return inner(u, u) / (2 * _beside(self.weight, u))

    def shrink(self, u: Tensor) -> Tensor:
        """1: the conjugate is finite everywhere."""
        return u.new_ones(len(u))

    def take(self, mask: Tensor) -> "SquaredL2":
        """Some of the problems."""
        return SquaredL2(take(self.weight, mask))


@dataclass(frozen=True, eq=False)
class L2Ball:
    """The set ‖x‖₂ <= radius over all axes but the first, x (b, ...). Raises InputError unless radius > 0."""

    radius: Level

    def __post_init__(self) -> None:
        _checked("radius", self.radius, above=0.0)

    def value(self, x: Tensor) -> Tensor:
        """0 in the ball, +inf outside."""
        return _indicator(_norm(x) <= _beside(self.radius, x) * (1 + _slack(x)), x)

    def prox(self, v: Tensor, step: Level) -> Tensor:
        """The projection: v · min(1, radius / ‖v‖₂), whatever the step."""
        return v * per_problem((_beside(self.radius, v) / _norm(v)).clamp_max(1), v)

    def conjugate(self, u: Tensor) -> Tensor:
        """radius · ‖u‖₂."""
        return _beside(self.radius, u) * _norm(u)

    def shrink(self, u: Tensor) -> Tensor:
        """1: the conjugate is finite everywhere."""
        return u.new_ones(len(u))

    def vertex(self, u: Tensor) -> Tensor:
        """radius · u / ‖u‖₂."""
        return u * per_problem(_beside(self.radius, u) / _norm(u).clamp_min(torch.finfo(u.dtype).tiny), u)

    def take(self, mask: Tensor) -> "L2Ball":
        """Some of the problems."""
        return L2Ball(take(self.radius, mask))


@dataclass(frozen=True, eq=False)
class NuclearBall:
    """The matrices with ‖x‖_* = Σ singular values <= radius, x (b, p, q). Raises InputError unless radius > 0.

    Fazel, Hindi & Boyd, ACC 2001; projection by the Gram matrix: see `triptych.convex.spectrum.project_nuclear`.
    """

    radius: Level

    def __post_init__(self) -> None:
        _checked("radius", self.radius, above=0.0)

    def value(self, x: Tensor) -> Tensor:
        """0 in the ball, +inf outside."""
        return _indicator(nuclear_norm(x) <= _beside(self.radius, x) * (1 + _slack(x)), x)

    def prox(self, v: Tensor, step: Level) -> Tensor:
        """The projection, whatever the step; a matrix inside is returned unchanged."""
        return project_nuclear(v, self.radius)

    def conjugate(self, u: Tensor) -> Tensor:
        """radius · ‖u‖_op."""
        return _beside(self.radius, u) * spectral_norm(u)

    def shrink(self, u: Tensor) -> Tensor:
        """1: the conjugate is finite everywhere."""
        return u.new_ones(len(u))

    def vertex(self, u: Tensor) -> Tensor:
        """radius · a b', with a and b the first singular vectors of u."""
        a, b = top_pair(u)
        return per_problem(_beside(self.radius, u), u) * a.unsqueeze(2) * b.unsqueeze(1)

    def take(self, mask: Tensor) -> "NuclearBall":
        """Some of the problems."""
        return NuclearBall(take(self.radius, mask))


def _checked(name: str, level: Level, above: float | None = None) -> None:
    """Refuse a level that is not finite, at least 0 (or above ``above``), one number or one a problem."""
    if not isinstance(level, Tensor):
        real(name, level, low=0.0, above=above)
        return
    valid = level.isfinite() & ((level >= 0) if above is None else (level > above))
    if level.ndim > 1 or not bool(valid.all()):
        expected = "of at least 0" if above is None else f"above {above:g}"
        raise wrong(name, f"a finite number {expected}, or a tensor (b,) of them", level)


def _beside(level: Level, x: Tensor) -> Tensor:
    """The level as (b,) or (1,), in the dtype and on the device of x."""
    return torch.as_tensor(level, dtype=x.dtype, device=x.device).reshape(-1)


def _norm(x: Tensor) -> Tensor:
    """‖x‖₂ over all axes but the first, (b,)."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def _slack(x: Tensor) -> float:
    """What rounding a point of a set to its dtype may add to its norm, relative; 1e-9 in float64."""
    return max(1e-9, 8 * torch.finfo(x.dtype).eps)


def _indicator(inside: Tensor, x: Tensor) -> Tensor:
    """0 inside, +inf outside, (b,), in the dtype of x."""
    return torch.where(inside, 0.0, torch.inf).to(x.dtype)


def _ratio(level: Level, norm: Tensor) -> Tensor:
    """min(1, level / norm), rounded down where it is below 1."""
    weight = _beside(level, norm)
    down = 1 - 4 * torch.finfo(norm.dtype).eps
    return torch.where(norm <= weight, 1.0, weight / norm.clamp_min(torch.finfo(norm.dtype).tiny) * down)
