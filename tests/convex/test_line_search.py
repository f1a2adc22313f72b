"""The line search: what it costs, how it follows the curvature, and that rounding does not stop it."""

from functools import partial
from itertools import islice, pairwise

import pytest
import torch

from triptych.check import InputError
from triptych.convex import (
    Iterate,
    L2Ball,
    LeastSquares,
    LineSearch,
    Matrix,
    NuclearBall,
    Problem,
    certify,
    fista,
    gap,
    proximal_gradient,
    solve,
)  # fmt: skip


def zeros(problem, b=1, dtype=torch.float64):
    return torch.zeros(b, problem.map.K.shape[2], 3, dtype=dtype)


def test_an_accepted_step_costs_one_forward_and_one_adjoint(counting, logistic):
    problem = logistic()
    K = counting(problem.map)
    largest = torch.linalg.matrix_norm(problem.map.K, 2).item()
    search = LineSearch(step=0.99 / (problem.loss.smoothness * largest**2), growth=1.0)
    for solver in (fista, proximal_gradient):
        stream = solver(Problem(problem.loss, K, problem.term), zeros(problem), search)
        next(stream)
        before = dict(K.calls)
        list(islice(stream, 40))
        assert K.calls["forward"] - before["forward"] == 40
        assert K.calls["adjoint"] - before["adjoint"] == 40


def test_growing_steps_cost_few_rejections_and_pay(counting, logistic):
    problem = logistic(NuclearBall(30.0), noise=0.1)
    K = counting(problem.map)
    solution = solve(
        Problem(problem.loss, K, problem.term), fista, zeros(problem), tol=1e-6, max_steps=3000,
        certify=lambda _, iterate: certify(problem, iterate),
    )  # fmt: skip
    steps = solution.steps.item()
    assert solution.converged
    assert K.calls["adjoint"] == steps + 1  # one to choose the first step
    assert steps + 2 <= K.calls["forward"] <= 1.3 * steps + 2
    fixed = solve(problem, partial(fista, search=LineSearch(growth=1.0)), zeros(problem), tol=1e-6, max_steps=3000)
    assert steps < 0.7 * fixed.steps.item()


def test_a_step_far_too_long_is_shortened_at_once(logistic):
    """The first step falls to what the curvature allows, and the objective with it."""
    problem = logistic()
    first = next(fista(problem, zeros(problem), LineSearch(step=1e6)))
    start = problem.loss.value(torch.zeros(1, 60, 3, dtype=torch.float64))
    assert problem.loss.value(problem.map.forward(first.x)) < start


class NeverBelow:
    """A loss that lies: its value rises with every call, so that no step is ever accepted."""

    smoothness = 1.0

    def __init__(self, loss):
        self.loss, self.calls = loss, 0

    def value(self, z):
        self.calls += 1
        return self.loss.value(z) + self.calls

    def grad(self, z):
        return self.loss.grad(z)


def test_the_search_never_spins(counting, logistic):
    """A value without meaning costs at most ``attempts`` forwards more an iteration, and the stream goes on."""
    problem = logistic()
    K = counting(problem.map)
    stream = fista(Problem(NeverBelow(problem.loss), K, problem.term), zeros(problem), LineSearch(step=1.0, attempts=4))
    points = [iterate.x for iterate in islice(stream, 10)]
    assert K.calls["forward"] == 1 + 10 * 5
    moves = [(b - a).norm().item() for a, b in pairwise(points)]
    assert moves[-1] > 1e-4 * moves[0]  # the step is halved once an iteration, not away


class Rounded:
    """K with bf16 entries whose products take bf16 in and give bf16 out, as a matrix unit does."""

    def __init__(self, K):
        self.K = K.bfloat16().float()

    def forward(self, x):
        return (self.K @ x.bfloat16().float()).bfloat16()

    def adjoint(self, z):
        return (self.K.mT @ z.bfloat16().float()).bfloat16()


def from_scratch(problem, x, cap=20):
    """FISTA with backtracking and restart as in the textbook: predictions of each new point by a forward of its own."""
    step, t, y = 1.0, 1.0, x
    while True:
        z = problem.map.forward(y).to(x)
        f, theta = problem.loss.value(z), problem.loss.grad(z)
        g = problem.map.adjoint(theta).to(x)
        for _ in range(cap):
            new = problem.term.prox(y - step * g, step)
            d = new - y
            if problem.loss.value(problem.map.forward(new).to(x)) <= f + (g * d).sum() + (d * d).sum() / (2 * step):
                break
            step /= 2
        t_old, t = t, (1 + (1 + 4 * t * t) ** 0.5) / 2
        if ((y - new) * (new - x)).sum() > 0:
            t_old = t = 1.0
        x, y, step = new, new + (t_old - 1) / t * (new - x), step * 1.15
        yield Iterate(x)


@pytest.fixture
def rounded(logistic):
    """A problem on a rounded map in float32, and the same with the map's stored entries in float64."""
    problem = logistic(NuclearBall(40.0), n=300, d=30, noise=0.5)
    K = Rounded(problem.map.K)
    return Problem(problem.loss, K, problem.term), Problem(problem.loss, Matrix(K.K.double()), problem.term)


def reached(rounded, solver, steps=400):
    """The certified gap after some steps, in float64 from the stored entries."""
    problem, exact = rounded
    start = torch.zeros(1, 30, 3)
    solution = solve(
        problem, solver, start, tol=0, max_steps=steps, certify=lambda _, i: certify(exact, i), patience=99
    )
    return solution.gap.item()


def test_rounded_products_do_not_stop_the_solver(rounded):
    """New predictions are the old ones plus K of a difference: their rounding shrinks with the steps."""
    ours, textbook = reached(rounded, fista), reached(rounded, from_scratch)
    assert ours < 3e-3
    assert textbook > 10 * ours


def test_predictions_made_anew_exactly_take_the_drift_away(rounded):
    drifting = reached(rounded, fista)
    renewed = reached(rounded, partial(fista, search=LineSearch(refresh=20, exact=Matrix(rounded[0].map.K))))
    assert renewed < drifting / 3


def test_float32_goes_as_far_as_its_digits(rng):
    """Where differences of the loss have drowned in a large loss, those of its gradient still steer the step."""
    K = torch.randn(1, 40, 10, generator=rng, dtype=torch.float64)
    y = torch.randn(1, 40, generator=rng, dtype=torch.float64)
    y = 1e3 * (y - (K @ torch.linalg.lstsq(K, y.unsqueeze(2)).solution).squeeze(2)) + (K.sum(2))
    problem = Problem(LeastSquares(y.float()), Matrix(K.float()), L2Ball(100.0))
    (x,) = [i.x for i in islice(fista(problem, torch.zeros(1, 10)), 300)][-1:]
    torch.testing.assert_close(x, torch.ones(1, 10), rtol=0, atol=1e-3)


def test_long_after_convergence_float32_costs_no_more_than_before(counting, logistic):
    """Where every difference is rounding, trials are not rejected for it."""
    problem = logistic()
    K = counting(Matrix(problem.map.K.float()))
    stream = fista(Problem(problem.loss, K, problem.term), zeros(problem, dtype=torch.float32))
    last = [iterate.x for iterate in islice(stream, 800)][-1]
    assert K.calls["forward"] < 1.25 * 800
    assert gap(problem, Iterate(last)).item() < 1e-4


def test_vanishing_gradients_do_not_let_the_step_overflow():
    """At the optimum every step is accepted and grows: without a limit it is inf after 130, and inf · 0 no number."""
    problem = Problem(LeastSquares(torch.ones(1, 3)), Matrix(torch.eye(3)[None]), L2Ball(10.0))
    stream = fista(problem, torch.ones(1, 3), LineSearch(step=1.0, growth=2.0))
    assert all(iterate.x.eq(1).all() for iterate in islice(stream, 300))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": -1.0}, "step must be a finite number above 0"),
        ({"growth": 0.9}, "growth must be"),
        ({"shrink": 1.0}, "shrink must be"),
        ({"attempts": 0}, "attempts must be"),
        ({"refresh": -1}, "refresh must be"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings, message):
    with pytest.raises(InputError, match=message):
        LineSearch(**settings)
