"""Laws of the solvers: they reach the optimum, momentum pays, a batch is its problems, minibatches are honest."""

from functools import partial
from itertools import islice

import pytest
import torch

from triptych.check import InputError
from triptych.convex import (
    L1,
    SGD,
    L2Ball,
    LeastSquares,
    Matrix,
    NuclearBall,
    Problem,
    SquaredL2,
    fista,
    frank_wolfe,
    gap,
    nuclear_norm,
    projected_sgd,
    proximal_gradient,
    solve,
)  # fmt: skip


def seeded(settings):
    return partial(projected_sgd, settings=settings, rng=torch.Generator().manual_seed(0))


# each with the gap that it reaches in 3,000 steps
SOLVERS = {
    "fista": (lambda: fista, 1e-9),
    "proximal gradient": (lambda: proximal_gradient, 1e-6),
    "frank wolfe": (lambda: frank_wolfe, 1e-3),
    "sgd": (lambda: seeded(SGD(step=0.5, batch=20, every=5)), 3e-3),
    "sgd with momentum": (lambda: seeded(SGD(step=0.1, batch=20, every=5, momentum=0.9)), 3e-3),
}
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


def zeros(problem, b=1, dtype=torch.float64):
    return torch.zeros(b, problem.map.K.shape[2], 3, dtype=dtype)


@every_solver
@pytest.mark.parametrize("radius", [3.0, 20.0], ids=["tight", "wide"])
def test_every_solver_reaches_the_optimum(solver, radius, logistic):
    make, tol = solver
    problem = logistic(NuclearBall(radius))
    solution = solve(problem, make(), zeros(problem), tol=tol, max_steps=3000)
    assert solution.converged
    assert nuclear_norm(solution.x).item() <= radius * (1 + 1e-9)


@every_solver
def test_a_batch_is_its_problems_one_by_one(solver, logistic):
    make, tol = solver
    problem = logistic()
    radius = torch.tensor([0.5, 3.0, 8.0], dtype=torch.float64)
    both = Problem(problem.loss, problem.map, NuclearBall(radius))
    together = solve(both, make(), zeros(problem, 3), tol=10 * tol, max_steps=500)
    for i in range(3):
        alone = solve(
            Problem(problem.loss, problem.map, NuclearBall(float(radius[i]))), make(), zeros(problem), tol=10 * tol, max_steps=500
        )  # fmt: skip
        assert alone.steps.item() == together.steps[i].item()
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=0, atol=1e-8)


@every_solver
def test_predictions_that_are_yielded_are_those_of_x(solver, rng, logistic):
    make, _ = solver
    problem = logistic()
    start = torch.randn(1, 8, 3, generator=rng, dtype=torch.float64)
    for iterate in islice(make()(problem, start), 30):
        if iterate.z is not None:
            torch.testing.assert_close(iterate.z, problem.map.forward(iterate.x))


def steps_to(problem, solver, tol):
    stream = solver(problem, zeros(problem))
    return next(k for k, iterate in enumerate(stream, 1) if gap(problem, iterate).item() <= tol)


@pytest.mark.parametrize("term", [NuclearBall(8.0), L1(1e-3), SquaredL2(1e-3)], ids=lambda term: type(term).__name__)
def test_momentum_pays(term, logistic):
    problem = logistic(term, condition=1.0)
    plain = steps_to(problem, proximal_gradient, 1e-5)
    assert steps_to(problem, fista, 1e-5) < plain / 2


def test_restart_pays(logistic):
    """On a strongly convex problem momentum that never restarts ripples; the restarted one goes down like a stone."""
    problem = logistic(SquaredL2(1e-3), condition=1.0)
    solution = solve(problem, fista, zeros(problem), tol=1e-12, max_steps=600)
    assert solution.converged


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "solver", [fista, proximal_gradient, frank_wolfe, seeded(SGD(0.1))], ids=["fista", "pg", "fw", "sgd"]
)
def test_x_keeps_the_dtype_of_the_start(solver, dtype, logistic):
    problem = logistic()
    narrow = Problem(problem.loss, Matrix(problem.map.K.bfloat16()), problem.term)
    for iterate in islice(solver(narrow, zeros(problem, dtype=dtype)), 3):
        assert iterate.x.dtype == dtype
        assert iterate.z is None or iterate.z.dtype == dtype


def test_frank_wolfe_never_rises_and_stays_in_the_ball(logistic):
    problem = logistic()
    values = []
    for iterate in islice(frank_wolfe(problem, 100 + zeros(problem)), 50):
        assert nuclear_norm(iterate.x).item() <= 3.0 * (1 + 1e-9)
        values.append(problem.loss.value(iterate.z).item())
    assert values == sorted(values, reverse=True)


def test_frank_wolfe_takes_the_exact_step(logistic):
    """No other point between the iterate and the vertex has a lower loss: by a grid."""
    problem = logistic(L2Ball(2.0))
    x = zeros(problem)
    stream = frank_wolfe(problem, x)
    for _ in range(5):
        vertex = problem.term.vertex(-problem.map.adjoint(problem.loss.grad(problem.map.forward(x))))
        grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
        values = torch.stack([problem.loss.value(problem.map.forward(x + g * (vertex - x))) for g in grid])
        x = next(stream).x
        assert problem.loss.value(problem.map.forward(x)).item() <= values.min().item() + 1e-12


def test_sgd_reads_rows_alone_and_repeats_itself(logistic):
    problem = logistic()

    class RowsOnly:
        n_rows = 60
        seen: list = []  # noqa: RUF012

        def rows(self, index):
            self.seen.append(index)
            return problem.map.rows(index)

        def forward(self, x):
            raise AssertionError("a pass over all rows")

        columns = adjoint = forward

    sampled = Problem(problem.loss, RowsOnly(), problem.term)
    settings = SGD(step=0.3, batch=20, every=3)
    first = [i.x for i in islice(seeded(settings)(sampled, zeros(problem)), 4)]
    again = [i.x for i in islice(seeded(settings)(problem, zeros(problem)), 4)]
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    passes = torch.cat(RowsOnly.seen).reshape(4, 60)
    assert all(torch.equal(one.sort().values, torch.arange(60)) for one in passes)
    assert not torch.equal(passes[0], passes[1])


def test_sgd_yields_the_mean_since_the_last_power_of_two():
    """One row, K = 1, y = 1: each step halves the distance to 1, so that the projected points are 1 - 2^-k."""
    problem = Problem(LeastSquares(torch.ones(1, 1)), Matrix(torch.ones(1, 1, 1)), L2Ball(9.0))
    stream = seeded(SGD(step=0.5, batch=1, every=1))(problem, torch.zeros(1, 1))
    points = [1 - 0.5**k for k in range(1, 7)]
    expected = [points[0], points[1], sum(points[1:3]) / 2, points[3], sum(points[3:5]) / 2, sum(points[3:6]) / 3]
    assert [i.x.item() for i in islice(stream, 6)] == pytest.approx(expected)


@pytest.mark.parametrize("kind", [fista, proximal_gradient])
def test_a_start_at_the_optimum_stays_there(kind):
    problem = Problem(LeastSquares(torch.zeros(1, 3)), Matrix(torch.eye(3)[None]), L1(0.1))
    assert all(i.x.eq(0).all() for i in islice(kind(problem, torch.zeros(1, 3)), 5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p, x: frank_wolfe(Problem(p.loss, p.map, L1(0.1)), x), "frank_wolfe needs a term with vertices .* got L1"),
        (lambda p, x: seeded(SGD(0.1))(Problem(p.loss, object(), p.term), x), "needs a map with rows, got object"),
        (lambda p, x: SGD(0.0), "step must be a finite number above 0"),
        (lambda p, x: SGD(0.1, batch=0), "batch must be a whole number"),
        (lambda p, x: SGD(0.1, every=0), "every must be a whole number"),
        (lambda p, x: SGD(0.1, momentum=1.0), "momentum must be"),
    ],
)  # fmt: skip
def test_wrong_use_is_refused_by_name(make, message, logistic):
    problem = logistic()
    with pytest.raises(InputError, match=message):
        make(problem, zeros(problem))
