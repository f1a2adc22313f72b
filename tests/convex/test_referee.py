"""The referee, judged with solvers that play back known points."""

import math

import pytest
import torch

from triptych.check import InputError
from triptych.convex import (
    L1,
    Certificate,
    Iterate,
    LeastSquares,
    Matrix,
    Problem,
    Status,
    certify,
    proximal_gradient,
    solve,
)  # fmt: skip


def shrinkage(b=1, weight=0.0):
    """Minimise (x - 1)² / 2 + weight |x|, b times; the optimum is 1 - weight."""
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    return Problem(LeastSquares(torch.ones(b, 1, dtype=torch.float64)), Matrix(one), L1(weight))


def playing(points):
    """A solver that yields given points (b,) of every step, of the problems that are left."""

    def solver(problem, start):
        left = torch.ones(len(start), dtype=torch.bool)
        for point in points:
            mask = yield Iterate(torch.as_tensor(point, dtype=torch.float64).expand(len(left))[left].reshape(-1, 1))
            if mask is not None:
                left[left.clone()] = mask

    return solver


ZERO = torch.zeros(1, 1, dtype=torch.float64)


def bound_minus(objective_of, bound_of):
    """A certifier with made-up numbers, functions of x."""

    def certifier(problem, iterate):
        x = iterate.x.double()
        return Certificate(x, objective_of(x[:, 0]), bound_of(x[:, 0]))

    return certifier


def test_checks_are_geometric_and_include_the_last_step():
    seen = []
    solution = solve(
        shrinkage(), playing([5.0 - 0.001 * k for k in range(99)]), ZERO, max_steps=40, patience=99,
        progress=lambda step, best: seen.append((step, best.gap.item())),
    )  # fmt: skip
    assert [check.step for check in solution.history] == [1, 2, 4, 7, 11, 16, 23, 33, 40]
    assert [step for step, _ in seen] == [1, 2, 4, 7, 11, 16, 23, 33, 40]
    assert seen[-1][1] == solution.gap.item()
    assert solution.status == (Status.MAX_STEPS,)
    assert solution.steps.tolist() == [40]
    assert not solution.converged


def test_certificates_can_be_made_at_every_step():
    points = [5.0 - 0.001 * k for k in range(99)]
    solution = solve(shrinkage(), playing(points), ZERO, max_steps=7, patience=99, every_step=True)
    assert [check.step for check in solution.history] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(("relative", "steps"), [(True, 3), (False, 4)])
def test_a_relative_tolerance_is_a_fraction_of_the_objective(relative, steps):
    """Gaps of 8, 4, 2 and 1 at objectives of 11, 7, 5 and 4: .4 of 5 is 2, and an absolute tolerance of 1 waits for 1."""
    certifier = bound_minus(lambda x: 3 + x, lambda x: torch.full_like(x, 3.0))
    tol = 0.4 if relative else 1.0
    found = solve(
        shrinkage(), playing([8.0, 4.0, 2.0, 1.0, 0.5]), ZERO,
        certify=certifier, tol=tol, relative=relative, every_step=True,
    )  # fmt: skip
    assert found.converged
    assert found.steps.tolist() == [steps]


def test_the_best_point_and_the_best_bound_are_kept():
    """The objective is best at the second check, the bound at the third."""
    values = {1.0: (9.0, 1.0), 2.0: (4.0, 0.0), 3.0: (7.0, 2.0), 4.0: (8.0, 1.5)}
    certifier = bound_minus(
        lambda x: torch.tensor([values[v][0] for v in x.tolist()]).double(),
        lambda x: torch.tensor([values[v][1] for v in x.tolist()]).double(),
    )
    solution = solve(shrinkage(), playing([1, 2, 3, 3, 4, 4, 4]), ZERO, certify=certifier, max_steps=7)
    assert (solution.x.item(), solution.objective.item(), solution.lower_bound.item()) == (2, 4, 2)
    assert [(h.objective.item(), h.lower_bound.item()) for h in solution.history] == [(9, 1), (4, 1), (4, 2), (4, 2)]
    assert solution.gap.item() == 2
    seconds = [h.seconds for h in solution.history]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


def test_each_problem_has_its_own_tolerance_and_stops_at_it():
    """With L1(0) and x at distance d the gap is d²/2 (the dual point 0 bounds by 0)."""
    solution = solve(
        shrinkage(3), playing([[2.0, 2.0, 2.0], [1.1, 1.1, 1.1], [1.01, 1.01, 1.01], [1.01, 1.01, 1.01]]),
        torch.zeros(3, 1), tol=torch.tensor([0.6, 0.01, 1e-9]), max_steps=4,
    )  # fmt: skip
    assert solution.steps.tolist() == [1, 2, 4]
    assert solution.status == (Status.CONVERGED, Status.CONVERGED, Status.MAX_STEPS)
    torch.testing.assert_close(solution.x[:, 0], torch.tensor([2.0, 1.1, 1.01], dtype=torch.float64))
    torch.testing.assert_close(solution.gap, torch.tensor([0.5, 0.005, 5e-5], dtype=torch.float64))


def test_a_gap_equal_to_the_tolerance_is_enough():
    assert solve(shrinkage(), playing([2.0]), ZERO, tol=0.5).status == (Status.CONVERGED,)


def test_a_solver_that_ends_has_stalled_after_its_last_point_was_certified():
    solution = solve(shrinkage(), playing([3.0, 2.0, 1.5]), ZERO, max_steps=50)
    assert solution.status == (Status.STALLED,)
    assert solution.x.item() == 1.5
    assert [check.step for check in solution.history] == [1, 2, 3]


def test_a_solver_that_ends_solved_has_converged():
    assert solve(shrinkage(), playing([3.0, 2.0, 1.0]), ZERO).status == (Status.CONVERGED,)


def test_no_progress_over_several_checks_is_a_stall():
    solution = solve(shrinkage(), playing([2.0] * 99), ZERO, max_steps=99, patience=3)
    assert solution.status == (Status.STALLED,)
    assert [check.step for check in solution.history] == [1, 2, 4, 7]


def test_a_stall_is_judged_over_the_whole_window():
    """The gap falls at the second check and never again: the window of three is over at the fifth, not at the fourth."""
    solution = solve(shrinkage(), playing([3.0] + [2.0] * 98), ZERO, max_steps=99, patience=3)
    assert [check.step for check in solution.history] == [1, 2, 4, 7, 11]


def test_slow_progress_is_no_stall():
    solution = solve(shrinkage(), playing([1 + k**-0.5 for k in range(1, 200)]), ZERO, max_steps=199, patience=3)
    assert solution.status == (Status.MAX_STEPS,)


def test_one_problem_may_stall_while_another_goes_on():
    points = [[2.0, 1 + 0.5**k] for k in range(60)]
    solution = solve(shrinkage(2), playing(points), torch.zeros(2, 1), tol=1e-12, max_steps=60, patience=3)
    assert solution.status == (Status.STALLED, Status.CONVERGED)
    assert solution.steps.tolist() == [7, 23]


def test_solved_problems_stop_and_the_others_are_not_disturbed(counting, rng):
    """A batch gives its problems' answers one by one, in the work of these alone."""
    b, d = 6, 5
    K = torch.randn(b, 12, d, generator=rng, dtype=torch.float64) * torch.logspace(0, -0.7, d, dtype=torch.float64)
    y, weight = torch.randn(b, 12, generator=rng, dtype=torch.float64), torch.logspace(0, -4, b, dtype=torch.float64)
    start = torch.zeros(b, d, dtype=torch.float64)
    one_by_one = []
    for i in range(b):
        problem = Problem(LeastSquares(y[i : i + 1]), Matrix(K[i : i + 1]), L1(float(weight[i])))
        one_by_one.append(solve(problem, proximal_gradient, start[:1], tol=1e-9, max_steps=5000))
    steps = torch.cat([s.steps for s in one_by_one])
    counted = counting(Matrix(K))
    problem = Problem(LeastSquares(y), counted, L1(weight))
    together = solve(
        problem, proximal_gradient, start, tol=1e-9, max_steps=5000,
        certify=lambda part, iterate: certify(Problem(part.loss, part.map.inner, part.term), iterate),
    )  # fmt: skip
    assert together.converged
    assert together.steps.tolist() == steps.tolist()
    assert steps.unique().numel() >= 3  # else nothing stopped early and the test says nothing
    torch.testing.assert_close(together.x, torch.cat([s.x for s in one_by_one]), rtol=0, atol=1e-9)
    torch.testing.assert_close(together.gap, torch.cat([s.gap for s in one_by_one]), rtol=1e-2, atol=1e-12)
    assert counted.calls["problems"] <= 1.2 * steps.sum() + 2 * b  # a tenth or so for rejected steps, two to begin
    assert counted.calls["problems"] < 0.9 * b * steps.max()


def test_a_caller_certifies_with_a_map_of_his_own():
    """The certificate's K is twice the solver's: the objective is that of the certificate."""
    exact = Problem(LeastSquares(torch.ones(1, 1)), Matrix(2 * torch.ones(1, 1, 1)), L1(0.0))
    solution = solve(shrinkage(), playing([1.0]), ZERO, certify=lambda _, iterate: certify(exact, iterate), max_steps=1)
    assert solution.objective.item() == 0.5


def test_an_objective_that_is_no_number_is_an_arithmetic_error():
    with pytest.raises(ArithmeticError, match="objective is not a number at step 2"):
        solve(shrinkage(), playing([0.0, math.nan]), ZERO)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tol": -1.0}, "tol must be a finite number of at least 0"),
        ({"tol": torch.tensor([1.0, 2.0])}, r"tol must be .* a tensor \(1,\)"),
        ({"tol": torch.tensor([math.nan])}, "tol must be"),
        ({"max_steps": 0}, "max_steps must be a whole number"),
        ({"patience": 0}, "patience must be a whole number"),
        ({"start": torch.zeros(3)}, "start must be a floating-point tensor"),
        ({"start": torch.zeros(1, 1, dtype=torch.int64)}, "start must be a floating-point tensor"),
        ({"solver": playing([])}, "solver must yield at least one iterate"),
    ],
)
def test_wrong_arguments_are_refused_by_name(change, message):
    arguments = {"solver": playing([0.0]), "start": ZERO, **change}
    with pytest.raises(InputError, match=message):
        solve(shrinkage(), **arguments)
