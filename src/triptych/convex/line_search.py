"""The step of a proximal gradient method, by a line search that costs no pass over the data while it accepts.

Predictions are linear in x: those of the trial are needed anyway, and those of the extrapolated point are an extrapolation.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from triptych.check import real, whole
from triptych.convex.problem import Linear, Problem, inner, per_problem


@dataclass(frozen=True, eq=False)
class LineSearch:
    """How `fista` and `proximal_gradient` choose their steps.

    ``step`` starts, a number or (b,) (None: 1 / the curvature along the first gradient). It grows by ``growth`` an
    iteration and is multiplied by ``shrink`` at a rejection, at most ``attempts`` times an iteration. Every ``refresh``
    iterations (0: never) the predictions are made anew by ``exact``, a map of the same K (None: the problem's own).
    Raises InputError for wrong values.
    """

    step: float | Tensor | None = None
    growth: float = 1.15
    shrink: float = 0.5
    attempts: int = 20
    refresh: int = 0
    exact: Linear | None = None

    def __post_init__(self) -> None:
        if self.step is not None and not isinstance(self.step, Tensor):
            real("step", self.step, above=0.0)
        real("growth", self.growth, low=1.0)
        real("shrink", self.shrink, above=0.0, high=0.99)
        whole("attempts", self.attempts)
        whole("refresh", self.refresh, low=0)


@dataclass(frozen=True, eq=False)
class Trial:
    """A proximal step x with its predictions, and whether the line search accepts it, (b,)."""

    x: Tensor
    z: Tensor
    accepted: Tensor

    def put(self, mask: Tensor, other: "Trial") -> "Trial":
        """The other's entries at the problems of a mask, this one's elsewhere."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Trial(*(mine.index_put((mask,), theirs) for mine, theirs in pairs))


@dataclass(frozen=True, eq=False)
class Point:
    """The extrapolated point y, its predictions, the loss and its gradients there."""

    y: Tensor
    z: Tensor
    value: Tensor
    theta: Tensor
    g: Tensor

    def take(self, mask: Tensor) -> "Point":
        """Some of the problems."""
        return Point(*(getattr(self, f.name)[mask] for f in fields(self)))


def backtracked(problem: Problem, point: Point, step: Tensor, search: LineSearch) -> tuple[Trial, Tensor, Tensor]:
    """The trial that is taken, the step to begin with next time, and whether the trial was accepted; each a problem.

    Costs one forward, and one more (of the rejected problems alone) a rejection.
    """
    trial, tried = _trial(problem, point, step), step
    for _ in range(search.attempts):
        bad = ~trial.accepted
        if not bool(bad.any()):
            break
        tried = torch.where(bad, tried * search.shrink, tried)
        if bool(bad.all()):
            trial = _trial(problem, point, tried)
        else:
            trial = trial.put(bad, _trial(problem.take(bad), point.take(bad), tried[bad]))
    grown = torch.where(tried == step, step * search.growth, tried)
    grown = grown.clamp_max(torch.finfo(step.dtype).max ** 0.5)  # gradients that vanish let it grow without end
    # no step is short enough: the noise of the map decides, not the curvature, and the step must not die of it
    return trial, torch.where(trial.accepted, grown, step * search.shrink), trial.accepted


def _trial(problem: Problem, point: Point, step: Tensor) -> Trial:
    """The proximal step from a point, accepted where the loss lies below its quadratic model along K; one forward."""
    loss = problem.loss
    x = problem.term.prox(point.y - per_problem(step, point.y) * point.g, step)
    d = x - point.y
    dz = problem.map.forward(d).to(point.z)
    z = point.z + dz
    value = loss.value(z)
    excess = value - point.value - inner(point.theta, dz)
    eps = torch.finfo(z.dtype).eps
    drowned = excess.abs() <= 64 * eps * (value.abs() + point.value.abs())
    if bool(drowned.any()):
        # the difference of two losses has lost its digits, that of two gradients has not (Becker, Candès & Grant,
        # Math. Prog. Comp. 2011, section 5.3)
        excess = torch.where(drowned, inner(loss.grad(z) - point.theta, dz) / 2, excess)
    return Trial(x, z, excess <= inner(d, d).to(excess) / (2 * step.to(excess)))


def first_step(problem: Problem, z: Tensor) -> Tensor:
    """‖d‖² / <grad loss(z + K d) - grad loss(z), K d> for a cautious step d along the gradient; one adjoint, one forward."""
    loss, K = problem.loss, problem.map
    theta = loss.grad(z)
    g = K.adjoint(theta)
    Kg = K.forward(g).to(z)
    safe = _quotient(inner(g, g), loss.smoothness * inner(Kg, Kg))
    dz = per_problem(-safe, z) * Kg
    return _quotient(safe.square() * inner(g, g), inner(loss.grad(z + dz) - theta, dz))


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 1 where either is not positive."""
    return torch.where((a > 0) & (b > 0), a / b, 1.0)
