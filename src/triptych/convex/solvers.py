"""Solvers: streams of iterates from a start (b, ...), each of which keeps its predictions z = K x.

Predictions are linear in x, and so are those at an extrapolated point: one adjoint and one forward make an iteration.
New predictions are the old ones plus K of the difference, so that a map whose products are rounded (bf16) errs relative
to the difference, which shrinks.
"""

from collections.abc import Generator
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import cast

import torch
from torch import Tensor

from triptych.check import InputError, real, whole
from triptych.convex.line_search import LineSearch, Point, backtracked, first_step
from triptych.convex.problem import Ball, Iterate, Linear, Loss, Problem, Sampled, inner, per_problem, take

Stream = Generator[Iterate, Tensor | None, None]


DEFAULT = LineSearch()


@dataclass(frozen=True)
class SGD:
    """The settings of `projected_sgd`: constant step, images a minibatch, minibatches a projection, heavy-ball momentum.

    Raises InputError for wrong values.
    """

    step: float
    batch: int = 100
    every: int = 10
    momentum: float = 0.0

    def __post_init__(self) -> None:
        real("step", self.step, above=0.0)
        whole("batch", self.batch)
        whole("every", self.every)
        real("momentum", self.momentum, low=0.0, high=0.999)


@dataclass(frozen=True, eq=False)
class _State:
    """The two last points with their predictions, the momentum's t and the step, of the problems that are left."""

    x: Tensor
    z: Tensor
    x_old: Tensor
    z_old: Tensor
    t: Tensor
    step: Tensor

    def take(self, mask: Tensor) -> "_State":
        return _State(*(getattr(self, f.name)[mask] for f in fields(self)))


def fista(problem: Problem, start: Tensor, search: LineSearch = DEFAULT) -> Stream:
    """Proximal gradient with momentum that restarts where it points uphill, for start (b, ...).

    Beck & Teboulle, SIAM J. Imaging Sci. 2009; restart: O'Donoghue & Candès, Found. Comput. Math. 2015, section 3.2.
    Differs: the step may grow, so that it follows the local curvature.
    """
    return _forward_backward(problem, start, search, momentum=True)


def proximal_gradient(problem: Problem, start: Tensor, search: LineSearch = DEFAULT) -> Stream:
    """x <- prox(x - step · K* grad loss(K x), step), for start (b, ...). Combettes & Wajs, Multiscale Model. Simul. 2005."""
    return _forward_backward(problem, start, search, momentum=False)


def _forward_backward(problem: Problem, start: Tensor, search: LineSearch, momentum: bool) -> Stream:
    """Both of the above."""
    exact = problem.map if search.exact is None else search.exact
    state, done = _begin(problem, start, search, exact), 0
    while True:
        point, t = _extrapolated(problem, state)
        trial, step, accepted = backtracked(problem, point, state.step, search)
        uphill = inner(point.y - trial.x, trial.x - state.x) > 0
        t = torch.where(accepted & ~uphill, t, 1.0) if momentum else state.t
        state = _State(trial.x, trial.z, state.x, state.z, t, step)
        done += 1
        if search.refresh and done % search.refresh == 0:
            # the drift of z is that of z_old too: both move, so that their difference stays what it was
            drift = exact.forward(state.x).to(state.z) - state.z
            state = replace(state, z=state.z + drift, z_old=state.z_old + drift)
        mask = yield Iterate(state.x, state.z)
        if mask is not None:
            problem, exact, state = problem.take(mask), take(exact, mask), state.take(mask)


def _begin(problem: Problem, x: Tensor, search: LineSearch, exact: Linear) -> _State:
    """The state at the start, with the step that the search names or 1 / the local curvature along the gradient."""
    z = exact.forward(x).to(x)
    step = search.step if search.step is not None else first_step(problem, z)
    step = torch.as_tensor(step, dtype=x.dtype, device=x.device).expand(len(x))
    return _State(x, z, x, z, torch.ones_like(step), step)


def _extrapolated(problem: Problem, state: _State) -> tuple[Point, Tensor]:
    """The point y = x + beta (x - x_old), and the next t; costs one adjoint."""
    t = (1 + (1 + 4 * state.t.square()).sqrt()) / 2
    beta = (state.t - 1) / t
    y = state.x + per_problem(beta, state.x) * (state.x - state.x_old)
    z = state.z + per_problem(beta, state.z) * (state.z - state.z_old)
    theta = problem.loss.grad(z)
    return Point(y, z, problem.loss.value(z), theta, problem.map.adjoint(theta).to(y)), t


def frank_wolfe(problem: Problem, start: Tensor) -> Stream:
    """x <- x + gamma (vertex - x) with the exact gamma in [0, 1], for start (b, ...) and a term with vertices (a ball).

    The start is projected. Raises InputError where the term is no ball. Jaggi, ICML 2013, Algorithm 2.
    """
    if not isinstance(problem.term, Ball):
        raise InputError(
            f"frank_wolfe needs a term with vertices (a ball), got {type(problem.term).__name__}; use fista instead"
        )
    return _frank_wolfe(problem, start)


def _frank_wolfe(problem: Problem, start: Tensor) -> Stream:
    """The stream of `frank_wolfe`."""
    x = problem.term.prox(start, 0.0)
    z = problem.map.forward(x).to(x)
    while True:
        loss, K, ball = problem.loss, problem.map, cast(Ball, problem.term)
        d = ball.vertex(-K.adjoint(loss.grad(z)).to(x)) - x
        dz = K.forward(d).to(z)
        gamma = _exact_step(loss, z, dz)
        x, z = x + per_problem(gamma, x) * d, z + per_problem(gamma, z) * dz
        mask = yield Iterate(x, z)
        if mask is not None:
            problem, x, z = problem.take(mask), x[mask], z[mask]


def _exact_step(loss: Loss, z: Tensor, dz: Tensor, halvings: int = 30) -> Tensor:
    """The gamma in [0, 1], (b,), that minimises loss(z + gamma dz), by bisection of its slope; no pass over the data."""
    low, high = z.new_zeros(len(z)), z.new_ones(len(z))
    full = inner(loss.grad(z + dz), dz) <= 0
    for _ in range(halvings):
        middle = (low + high) / 2
        falling = inner(loss.grad(z + per_problem(middle, z) * dz), dz) < 0
        low, high = torch.where(falling, middle, low), torch.where(falling, high, middle)
    return torch.where(full, 1.0, (low + high) / 2)


def projected_sgd(problem: Problem, start: Tensor, settings: SGD, rng: torch.Generator) -> Stream:
    """Stochastic gradient steps on minibatches, a prox (projection) after every few, for start (b, ...).

    One step of the stream is ``settings.every`` minibatches and one prox. It yields the average of the projected points
    since the last step that is a power of two. All problems see the same minibatches. Raises InputError where the map
    has no rows. Shamir & Zhang, ICML 2013 (suffix averaging).
    """
    if not isinstance(problem.map, Sampled):
        raise InputError(f"projected_sgd needs a map with rows, got {type(problem.map).__name__}; use fista instead")
    return _projected_sgd(problem, start, settings, rng)


def _projected_sgd(problem: Problem, x: Tensor, settings: SGD, rng: torch.Generator) -> Stream:
    """The stream of `projected_sgd`."""
    n = cast(Sampled, problem.map).n_rows
    batches, step, mean, velocity = _minibatches(n, settings.batch, rng), 0, x, torch.zeros_like(x)
    while True:
        for index in islice(batches, settings.every):
            part = problem.rows(index.to(x.device))
            g = part.map.adjoint(part.loss.grad(part.map.forward(x))).to(x)
            velocity = settings.momentum * velocity - settings.step * g
            x = x + velocity
        x = problem.term.prox(x, settings.every * settings.step)
        step += 1
        since = step - (1 << (step.bit_length() - 1)) + 1
        mean = x if since == 1 else mean + (x - mean) / since
        mask = yield Iterate(mean)
        if mask is not None:
            problem, x, mean, velocity = problem.take(mask), x[mask], mean[mask], velocity[mask]


def _minibatches(n: int, batch: int, rng: torch.Generator) -> Generator[Tensor, None, None]:
    """Indices of minibatches, each row once a pass in a random order; a rest smaller than a minibatch is left out."""
    batch = min(batch, n)
    while True:
        order = torch.randperm(n, generator=rng, device=rng.device)
        yield from order[: n - n % batch].split(batch)
