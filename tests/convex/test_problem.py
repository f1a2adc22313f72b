"""The certificate against cvxpy and Clarabel: it bounds the true suboptimality, for all terms x losses."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from triptych.convex import (
    L1,
    BinaryLogistic,
    Iterate,
    L2Ball,
    LeastSquares,
    Logistic,
    Matrix,
    NonNegativeL1,
    NuclearBall,
    Problem,
    SquaredHinge,
    SquaredL2,
    certify,
    fista,
    gap,
    per_problem,
    solve,
    take,
)  # fmt: skip

SEED = torch.Generator().manual_seed(3)
N, D, CLASSES = 9, 5, 3
K = torch.randn(1, N, D, generator=SEED, dtype=torch.float64)
Y = torch.randn(1, N, CLASSES, generator=SEED, dtype=torch.float64)
LABELS = torch.randint(CLASSES, (N,), generator=SEED)

# for each: ours, and the same in cvxpy
LOSSES = {
    "squares": (LeastSquares(Y), lambda Z: cp.sum_squares(Z - Y[0].numpy()) / 2),
    "logistic": (Logistic(LABELS, CLASSES), lambda Z: (cp.sum(cp.log_sum_exp(Z, axis=1)) - cp.sum(cp.multiply(Z, ONE_HOT))) / N),
    "binary": (BinaryLogistic(Y.sign()), lambda Z: cp.sum(cp.logistic(cp.multiply(-np.sign(Y[0].numpy()), Z))) / N),
    "hinge": (SquaredHinge(Y.sign()), lambda Z: cp.sum_squares(cp.pos(1 - cp.multiply(np.sign(Y[0].numpy()), Z))) / 2 / N),
}  # fmt: skip
ONE_HOT = np.eye(CLASSES)[LABELS.numpy()]
TERMS = {
    "l1": (L1(0.03), lambda X: (0.03 * cp.norm1(X), [])),
    "nonnegative": (NonNegativeL1(0.02), lambda X: (0.02 * cp.sum(X), [X >= 0])),
    "squared l2": (SquaredL2(0.1), lambda X: (0.05 * cp.sum_squares(X), [])),
    "l2 ball": (L2Ball(0.8), lambda X: (0, [cp.norm(X, "fro") <= 0.8])),
    "nuclear ball": (NuclearBall(1.1), lambda X: (0, [cp.normNuc(X) <= 1.1])),
}


@pytest.fixture(scope="module", params=[(a, b) for a in LOSSES for b in TERMS], ids=lambda pair: "-".join(pair))
def case(request):
    """A problem, and its least objective by an interior point method."""
    (loss, cvx_loss), (term, cvx_term) = LOSSES[request.param[0]], TERMS[request.param[1]]
    X = cp.Variable((D, CLASSES))
    penalty, constraints = cvx_term(X)
    oracle = cp.Problem(cp.Minimize(cvx_loss(K[0].numpy() @ X) + penalty), constraints)
    oracle.solve(solver=cp.CLARABEL)
    return Problem(loss, Matrix(K), term), oracle.value


def test_the_gap_bounds_the_suboptimality(case, rng):
    """At random points and along a solver's way: lower bound <= optimum <= objective."""
    problem, least = case
    points = [s * torch.randn(1, D, CLASSES, generator=rng, dtype=torch.float64) for s in (0.01, 0.1, 1.0, 10.0)]
    stream = fista(problem, torch.zeros(1, D, CLASSES, dtype=torch.float64))
    points += [next(stream).x for _ in range(12)]
    for x in points:
        found = certify(problem, Iterate(x))
        assert found.lower_bound.item() <= least + 1e-7
        assert found.objective.item() >= least - 1e-7
        assert found.gap.item() == gap(problem, Iterate(x)).item()


def test_any_dual_point_bounds_the_optimum(case, rng):
    """An iterate's own theta, feasible and within the loss's domain or not, never lifts the bound above the optimum."""
    problem, least = case
    x = torch.zeros(1, D, CLASSES, dtype=torch.float64)
    for _ in range(10):
        z = torch.randn(1, N, CLASSES, generator=rng, dtype=torch.float64)
        for theta in (problem.loss.grad(z), -problem.loss.grad(z)):
            bound = certify(problem, Iterate(x, theta=theta)).lower_bound.item()
            assert -1e-12 <= bound <= least + 1e-7


def test_the_solved_problem_is_that_of_the_oracle(case):
    """The certified gap closes, and the objective is the oracle's: the bound is tight."""
    problem, least = case
    solution = solve(problem, fista, torch.zeros(1, D, CLASSES, dtype=torch.float64), tol=1e-8, max_steps=20_000)
    assert solution.converged
    assert solution.objective.item() == pytest.approx(least, abs=1e-6)


def test_the_optimal_dual_point_gives_the_optimum_away_from_the_optimal_x(case):
    """The bound belongs to the problem, not to the iterate: an own theta is used as it is."""
    problem, least = case
    zero = torch.zeros(1, D, CLASSES, dtype=torch.float64)
    solution = solve(problem, fista, zero, tol=1e-8, max_steps=20_000)
    theta = problem.loss.grad(problem.map.forward(solution.x))
    assert certify(problem, Iterate(zero, theta=theta)).lower_bound.item() == pytest.approx(least, abs=1e-6)


def test_the_certified_point_is_projected(rng):
    x = 50 * torch.randn(1, D, CLASSES, generator=rng)
    for term in (NuclearBall(1.1), L2Ball(0.8), NonNegativeL1(0.1)):
        found = certify(Problem(LeastSquares(Y), Matrix(K), term), Iterate(x))
        assert found.x.dtype == found.objective.dtype == torch.float64
        torch.testing.assert_close(found.x, term.prox(x.double(), 0.0))
        assert found.objective.isfinite().all()


def test_some_rows_are_the_problem_of_these_rows():
    index = torch.tensor([1, 4, 5])
    x = torch.ones(1, D, CLASSES, dtype=torch.float64)
    part = Problem(Logistic(LABELS, CLASSES), Matrix(K), L1(0.1)).rows(index)
    torch.testing.assert_close(part.map.forward(x), (K @ x)[:, index])
    torch.testing.assert_close(
        part.loss.value(part.map.forward(x)), Logistic(LABELS[index], CLASSES).value((K @ x)[:, index])
    )


def test_per_problem_scales_problems_not_columns():
    x = torch.ones(2, 2, 2)
    scaled = x * per_problem(torch.tensor([2.0, 3.0], dtype=torch.float64), x)
    assert scaled.dtype == torch.float32
    assert scaled[0].eq(2).all()
    assert scaled[1].eq(3).all()
    assert per_problem(0.5, x) == 0.5


def test_take_indexes_what_belongs_to_problems_alone():
    mask = torch.tensor([True, False, True])
    assert take(torch.tensor([1.0, 2.0, 3.0]), mask).tolist() == [1, 3]
    assert take(torch.ones(1, 4), mask).shape == (1, 4)
    assert take(torch.tensor(2.0), mask).item() == 2
    assert take(0.5, mask) == 0.5
    shared = Logistic(LABELS, CLASSES)
    assert take(shared, mask) is shared
    taken = Problem(shared, Matrix(K.expand(3, -1, -1)), L1(torch.tensor([1.0, 2.0, 3.0]))).take(mask)
    assert taken.term.weight.tolist() == [1, 3]
    assert len(taken.map.K) == 2
