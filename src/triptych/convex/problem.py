"""The convex problem, minimise loss(K x) + term(x) with K linear, and its one certificate.

The first axis counts problems, b of them: x is (b, ...), z = K x is (b, ...), and value, gap, step and tolerance are (b,).
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


class Linear(Protocol):
    """A linear map K of x (b, ...) to predictions z (b, ...); how it streams, and in which precision, is its own affair.

    A map whose tensors differ from problem to problem also has ``take(mask)``; one without is shared by all problems.
    """

    def forward(self, x: Tensor, /) -> Tensor:
        """Predictions z = K x, (b, ...)."""
        ...

    def adjoint(self, z: Tensor, /) -> Tensor:
        """K* z, of the shape of x: <K x, z> = <x, K* z> for all x and z."""
        ...


@runtime_checkable
class Sampled(Linear, Protocol):
    """A linear map with rows (the minibatches of a stochastic solver) and columns (the working sets of a pursuit)."""

    @property
    def n_rows(self) -> int:
        """The length of the second axis of z."""
        ...

    def rows(self, index: Tensor, /) -> Linear:
        """The map onto z[:, index]."""
        ...

    def columns(self, index: Tensor, /) -> Linear:
        """The map of x[:, index], the rest of x being 0."""
        ...


class Loss(Protocol):
    """A smooth convex function of predictions z (b, ...), one value a problem.

    A loss whose tensors differ from problem to problem also has ``take(mask)``; one with data a row has ``rows(index)``,
    scaled such that the mean over a uniformly drawn index is the whole loss.
    """

    @property
    def smoothness(self) -> float:
        """A Lipschitz constant of the gradient in the Euclidean norm of z."""
        ...

    def value(self, z: Tensor, /) -> Tensor:
        """The loss, (b,)."""
        ...

    def grad(self, z: Tensor, /) -> Tensor:
        """Its gradient, of the shape of z."""
        ...

    def conjugate(self, theta: Tensor, /) -> Tensor:
        """sup_z <theta, z> - loss(z), (b,); +inf outside its domain. Minus its value at 0 is the least loss."""
        ...


class Term(Protocol):
    """A convex function of x (b, ...): a penalty, or the indicator of a set (to 1e-9, relative), one value a problem.

    A term whose tensors differ from problem to problem also has ``take(mask)``.
    """

    def value(self, x: Tensor, /) -> Tensor:
        """The term, (b,); +inf outside its domain."""
        ...

    def prox(self, v: Tensor, step: float | Tensor, /) -> Tensor:
        """argmin_x term(x) + ‖x - v‖² / (2 step); step 0 gives the projection onto the domain."""
        ...

    def conjugate(self, u: Tensor, /) -> Tensor:
        """sup_x <u, x> - term(x), (b,); finite at u · shrink(u)."""
        ...

    def shrink(self, u: Tensor, /) -> Tensor:
        """A factor c <= 1, (b,), with c u in the conjugate's domain, rounded down by 1 - 4 eps."""
        ...


@runtime_checkable
class Ball(Term, Protocol):
    """The indicator of a bounded set."""

    def vertex(self, u: Tensor, /) -> Tensor:
        """A point of the set at which <u, x> is largest."""
        ...


@dataclass(frozen=True, eq=False)
class Problem:
    """Minimise loss(map x) + term(x), for b problems at once."""

    loss: Loss
    map: Linear
    term: Term

    def take(self, mask: Tensor) -> "Problem":
        """Some of the problems, by a mask (b,)."""
        return Problem(take(self.loss, mask), take(self.map, mask), take(self.term, mask))

    def rows(self, index: Tensor) -> "Problem":
        """Some of the data, by an index of rows; the loss is scaled to estimate the whole."""
        loss, K = self.loss, self.map
        return Problem(loss.rows(index), K.rows(index), self.term)  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True, eq=False)
class Iterate:
    """What a solver yields: x (b, ...), z = K x where it has it, and a dual point theta where it has its own."""

    x: Tensor
    z: Tensor | None = None
    theta: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Certificate:
    """A point x of the domain, its objective (b,) and a lower bound (b,) on the least objective, all float64."""

    x: Tensor
    objective: Tensor
    lower_bound: Tensor

    @property
    def gap(self) -> Tensor:
        """objective - lower_bound, (b,): x is at most that far from optimal, in the units of the loss."""
        return self.objective - self.lower_bound


Solver = Callable[[Problem, Tensor], Generator[Iterate, Tensor | None, None]]
"""A stream of iterates from a start. Sent a mask (b,) of unsolved problems, it drops the others, and its later iterates
hold the problems that are left."""

Certifier = Callable[[Problem, Iterate], Certificate]


def certify(problem: Problem, iterate: Iterate) -> Certificate:
    """Bound in float64 how far an iterate (b, ...) is from the optimum; costs one forward and one adjoint.

    x is projected onto the term's domain; theta is the iterate's own dual point or loss.grad(K x), u = -K* theta,
    c = term.shrink(u), and min F >= -loss*(c theta) - term*(c u). The dual point 0 gives min loss + min term besides.

    Rockafellar, Convex Analysis 1970, section 31.
    """
    loss, K, term = problem.loss, problem.map, problem.term
    x = term.prox(iterate.x.double(), 0.0)
    z = K.forward(x)
    theta = loss.grad(z) if iterate.theta is None else iterate.theta.double()
    u = -K.adjoint(theta)
    c = term.shrink(u)
    bound = -loss.conjugate(theta * per_problem(c, theta)) - term.conjugate(u * per_problem(c, u))
    least = -loss.conjugate(torch.zeros_like(theta)) - term.conjugate(torch.zeros_like(u))
    return Certificate(x, loss.value(z) + term.value(x), torch.fmax(bound, least))


def gap(problem: Problem, iterate: Iterate) -> Tensor:
    """The duality gap (b,) of an iterate (b, ...), in the units of the loss: see `certify`."""
    return certify(problem, iterate).gap


def per_problem(t: float | Tensor, like: Tensor) -> Any:
    """Reshape t (b,) to (b, 1, ..., 1) for products with ``like`` (b, ...), in its dtype; a number stays a number."""
    if not isinstance(t, Tensor):
        return t
    return t.to(like).reshape(-1, *(1,) * (like.ndim - 1))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> a problem: the sum over all axes but the first, (b,)."""
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))


def take(part: Any, mask: Tensor) -> Any:
    """The problems of a mask (b,): a tensor (b, ...) is indexed, a part with ``take`` takes, all else serves all problems."""
    if isinstance(part, Tensor):
        return part[mask.to(part.device)] if part.ndim > 0 and len(part) > 1 else part
    return part.take(mask) if hasattr(part, "take") else part
