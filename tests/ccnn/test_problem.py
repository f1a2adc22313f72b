"""The problem of one layer: its map against an einsum of the definition, its certificate against cvxpy and clarabel."""

import ast
import math
from pathlib import Path

import cvxpy
import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from triptych.ccnn import problem as module
from triptych.ccnn.problem import FeatureRows, certify_layer, into_ball
from triptych.convex import Iterate, Logistic, NuclearBall, Problem, certify

N, P, Q, K = 15, 3, 4, 3


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def normal(*shape, rng):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def rows_of(Z, held=None, chunk=1024, classes=K):
    """The map of features Z (n, P, q), of which ``held`` are stored and the others made again."""
    flat = Z.flatten(1)
    held = len(Z) if held is None else held
    return FeatureRows(
        flat[:held], components=Z.shape[2], classes=classes, count=len(Z), make=lambda i, j: flat[i:j], chunk=chunk
    )


def defined(Z, A):
    """The definition: logits_ik = Σ_p <z_p(x_i), A[:, p, k]>."""
    return torch.einsum("ipq,qpk->ik", Z, A.view(Z.shape[2], Z.shape[1], -1))


def optimum(Z, y, radius, classes=K):
    """The optimal value and A (q, P · K) by cvxpy and clarabel, from the definition position by position."""
    n, positions, q = Z.shape
    A = cvxpy.Variable((q, positions * classes))
    blocks = [Z[:, p].numpy() @ A[:, p * classes : (p + 1) * classes] for p in range(positions)]
    logits = sum(blocks[1:], start=blocks[0])
    hot = np.eye(classes)[y.numpy()]
    loss = cvxpy.sum(cvxpy.log_sum_exp(logits, axis=1)) / n - cvxpy.sum(cvxpy.multiply(hot, logits)) / n
    problem = cvxpy.Problem(cvxpy.Minimize(loss), [cvxpy.normNuc(A) <= radius])
    problem.solve(solver=cvxpy.CLARABEL)
    return problem.value, torch.from_numpy(A.value)


@pytest.fixture
def data(rng):
    return normal(N, P, Q, rng=rng), torch.randint(0, K, (N,), generator=rng)


def problem_of(Z, y, radius, held=None, chunk=1024):
    return Problem(Logistic(y, K), rows_of(Z, held, chunk), NuclearBall(radius))


STORED = pytest.mark.parametrize(("held", "chunk"), [(N, 4), (0, 4), (7, 3), (7, 100), (14, 1)])


@STORED
def test_forward_is_the_definition_wherever_the_features_come_from(held, chunk, data, rng):
    Z, A = data[0], normal(Q, P * K, rng=rng)
    logits = rows_of(Z, held, chunk).forward(A[None])
    assert logits.shape == (1, N, K)
    torch.testing.assert_close(logits[0], defined(Z, A), rtol=1e-12, atol=1e-12)


@STORED
def test_adjoint_is_the_transpose_wherever_the_features_come_from(held, chunk, data, rng):
    Z, theta = data[0], normal(1, N, K, rng=rng)
    found = rows_of(Z, held, chunk).adjoint(theta)
    torch.testing.assert_close(found[0].view(Q, P, K), torch.einsum("ipq,ik->qpk", Z, theta[0]), rtol=1e-12, atol=1e-12)
    A, Zmap = normal(1, Q, P * K, rng=rng), rows_of(Z, held, chunk)
    assert float((Zmap.forward(A) * theta).sum()) == pytest.approx(float((A * found).sum()), rel=1e-12)


@STORED
def test_the_certificate_is_the_same_wherever_the_features_come_from(held, chunk, data, rng):
    Z, y = data
    iterate = Iterate(normal(1, Q, P * K, rng=rng))
    found = certify_layer(problem_of(Z, y, 2.0, held, chunk), iterate)
    expected = certify_layer(problem_of(Z, y, 2.0), iterate)
    for name in ("x", "objective", "lower_bound"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-12, atol=1e-14)


def test_features_are_made_once_a_pass_and_never_held(data, rng):
    Z, asked = data[0].flatten(1), []

    def make(first, last):
        asked.append((first, last))
        return Z[first:last]

    rows = FeatureRows(Z[:4], components=Q, classes=K, count=N, make=make, chunk=5)
    rows.forward(normal(1, Q, P * K, rng=rng))
    assert asked == [(4, 9), (9, 14), (14, 15)]
    rows.adjoint(normal(1, N, K, rng=rng))
    assert asked == 2 * [(4, 9), (9, 14), (14, 15)]


def test_some_rows_are_the_map_of_these_images(data, rng):
    A, index = normal(1, Q, P * K, rng=rng), torch.tensor([3, 3, 0])
    found = rows_of(data[0]).rows(index).forward(A)
    torch.testing.assert_close(found[0], defined(data[0][index], A[0]))


def test_products_of_coarse_features_come_back_in_float32(data, rng):
    rows = rows_of(data[0].bfloat16())
    A = normal(1, Q, P * K, rng=rng).float()
    assert rows.forward(A).dtype == rows.adjoint(normal(1, N, K, rng=rng).float()).dtype == torch.float32


def test_weights_and_matrix_are_inverse_and_name_the_entries_as_they_say(data):
    """Entry (component, position, class) of A meets entry (position, component) of a row and the class's logit."""
    rows = rows_of(data[0])
    A = torch.arange(Q * P * K, dtype=torch.float64).view(1, Q, P * K)
    W = rows.weights(A)
    assert W.shape == (P * Q, K)
    assert all(W[p * Q + q, k] == A[0, q, p * K + k] for q in range(Q) for p in range(P) for k in range(K))
    assert torch.equal(rows.matrix(W), A)
    assert rows.shape == (1, Q, P * K)


def test_permuting_positions_changes_nothing(data, rng):
    """Of the features and of A's columns alike: logits, objective, bound and nuclear norm stay."""
    Z, y = data
    A, order = normal(Q, P, K, rng=rng), torch.tensor([2, 0, 1])
    before = certify_layer(problem_of(Z, y, 3.0), Iterate(A.view(1, Q, -1)))
    after = certify_layer(problem_of(Z[:, order], y, 3.0), Iterate(A[:, order].reshape(1, Q, -1)))
    torch.testing.assert_close(after.objective, before.objective)
    torch.testing.assert_close(after.lower_bound, before.lower_bound)
    torch.testing.assert_close(after.x.view(Q, P, K), before.x.view(Q, P, K)[:, order])
    permuted = A[:, order].reshape(Q, -1)
    assert np.linalg.norm(permuted.numpy(), "nuc") == pytest.approx(np.linalg.norm(A.reshape(Q, -1).numpy(), "nuc"))


def test_the_ball_is_that_of_features_by_positions_and_classes(data, rng):
    """One filter at all positions has rank 1 and norm R here, rank K and a larger norm as (positions · features) x K.

    That other model would have to shrink this A; here it is a point of the ball, and stays what it is. The converse
    holds for one class direction at all positions: norm R there, more here, so that it is projected.
    """
    Z, y = data
    shared = torch.einsum("q,pk->qpk", normal(Q, rng=rng), normal(P, K, rng=rng))
    norms = np.linalg.norm(shared.reshape(Q, -1), "nuc"), np.linalg.norm(shared.transpose(0, 1).reshape(-1, K), "nuc")
    assert norms[1] > 1.1 * norms[0]
    inside = certify_layer(problem_of(Z, y, norms[0] * (1 + 1e-12)), Iterate(shared.view(1, Q, -1)))
    assert torch.equal(inside.x[0], shared.view(Q, -1))
    own = torch.einsum("pq,k->qpk", normal(P, Q, rng=rng), normal(K, rng=rng))
    norms = np.linalg.norm(own.reshape(Q, -1), "nuc"), np.linalg.norm(own.transpose(0, 1).reshape(-1, K), "nuc")
    assert norms[0] > 1.1 * norms[1]
    projected = certify_layer(problem_of(Z, y, norms[1]), Iterate(own.reshape(1, Q, -1)))
    assert np.linalg.norm(projected.x[0], "nuc") == pytest.approx(norms[1], rel=1e-9)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_objective_is_sklearns_log_loss(scale, data, rng):
    Z, y = data
    A = scale * normal(1, Q, P * K, rng=rng)
    found = certify_layer(problem_of(Z, y, 1e9), Iterate(A))
    logits = defined(Z, A[0]).numpy()
    if scale <= 1:  # log_loss clips probabilities at 2e-16
        odds = np.exp(logits - logits.max(1, keepdims=True))
        assert float(found.objective) == pytest.approx(log_loss(y, odds / odds.sum(1, keepdims=True), labels=range(K)))
    top = logits.max(1)
    exact = [top[i] + math.log(sum(math.exp(v - top[i]) for v in logits[i])) - logits[i, y[i]] for i in range(N)]
    assert float(found.objective) == pytest.approx(sum(exact) / N, rel=1e-12)
    assert found.objective.dtype == found.lower_bound.dtype == found.x.dtype == torch.float64


@pytest.mark.parametrize("radius", [0.5, 3.0, 30.0])
def test_the_bound_never_exceeds_the_optimum_and_the_objective_never_falls_below(radius, data, rng):
    """At points in, on and far outside the ball; at the optimum the two meet."""
    Z, y = data
    best, A = optimum(Z, y, radius)
    points = [
        0 * A,
        *(s * normal(Q, P * K, rng=rng) for s in (1e-3, 0.1, 1.0, 100.0)),
        A + 0.01 * normal(Q, P * K, rng=rng),
    ]
    for point in points:
        found = certify_layer(problem_of(Z, y, radius), Iterate(point[None]))
        assert float(found.lower_bound) <= best + 1e-7
        assert float(found.objective) >= best - 1e-7
        assert np.linalg.norm(found.x[0], "nuc") <= radius * (1 + 1e-9)
    met = certify_layer(problem_of(Z, y, radius), Iterate(A[None]))
    assert float(met.gap) < 1e-3 * max(1, radius) ** 0.5
    assert float(met.lower_bound) == pytest.approx(best, abs=1e-3 * max(1, radius) ** 0.5)


def test_the_bound_is_not_negative(data, rng):
    Z, y = data
    found = certify_layer(problem_of(Z, y, 1e6), Iterate(normal(1, Q, P * K, rng=rng)))
    assert float(found.lower_bound) == 0


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_two_certificates_written_apart_agree(scale, data, rng):
    """Frank-Wolfe's gap by an SVD here, Fenchel's conjugates by Gram matrices in `triptych.convex`."""
    Z, y = data
    problem, iterate = problem_of(Z, y, 2.0), Iterate(scale * normal(1, Q, P * K, rng=rng))
    one, two = certify_layer(problem, iterate), certify(problem, iterate)
    for name in ("objective", "lower_bound", "x"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_certificate_is_exact_for_the_features_as_stored(dtype, data, rng):
    """The rounded features define the problem; nothing else is rounded."""
    Z, y = data
    iterate = Iterate(normal(1, Q, P * K, rng=rng).float())
    found = certify_layer(problem_of(Z.to(dtype), y, 2.0), iterate)
    expected = certify(problem_of(Z.to(dtype).double(), y, 2.0), iterate)
    torch.testing.assert_close(found.objective, expected.objective, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.lower_bound, expected.lower_bound, rtol=1e-9, atol=0)


def test_the_certificate_works_through_many_rows_in_parts(data, rng, monkeypatch):
    Z, y = data
    iterate = Iterate(normal(1, Q, P * K, rng=rng))
    expected = certify_layer(problem_of(Z, y, 2.0), iterate)
    monkeypatch.setattr(module, "CERTIFICATE_ROWS", 4)
    found = certify_layer(problem_of(Z, y, 2.0, held=9, chunk=5), iterate)
    torch.testing.assert_close(found.objective, expected.objective, rtol=1e-13, atol=0)
    torch.testing.assert_close(found.lower_bound, expected.lower_bound, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 1)])
@pytest.mark.parametrize("radius", [0.1, 2.0])
def test_into_ball_is_the_nearest_point(shape, radius, rng):
    """By cvxpy; and by the laws of a projection, which need no solver: inside, and <V - X, B - X> <= 0 for B inside."""
    V = normal(*shape, rng=rng)
    X = into_ball(V, radius)
    variable = cvxpy.Variable(shape)
    cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(variable - V.numpy())), [cvxpy.normNuc(variable) <= radius]).solve(
        solver=cvxpy.CLARABEL
    )
    np.testing.assert_allclose(X.numpy(), variable.value, atol=1e-4)
    assert np.linalg.norm(X.numpy(), "nuc") == pytest.approx(radius, rel=1e-12)
    assert np.linalg.norm(X.numpy(), "nuc") <= radius * (1 + 1e-14)
    left, _, right = np.linalg.svd((V - X).numpy())
    vertex = radius * np.outer(left[:, 0], right[0])  # where <V - X, B> is largest over the ball
    assert ((V - X).numpy() * (vertex - X.numpy())).sum() <= 1e-10


def test_into_ball_leaves_what_is_inside(rng):
    V = normal(4, 6, rng=rng)
    assert into_ball(V, float(np.linalg.norm(V.numpy(), "nuc")) * (1 + 1e-12)) is V
    assert not into_ball(torch.zeros(2, 3, dtype=torch.float64), 1.0).any()


def test_an_iterate_outside_is_projected_before_it_is_certified(data, rng):
    Z, y = data
    V = 10 * normal(Q, P * K, rng=rng)
    found = certify_layer(problem_of(Z, y, 1.5), Iterate(V[None]))
    left, values, right = np.linalg.svd(V.numpy(), full_matrices=False)
    count = np.arange(1, len(values) + 1)
    levels = (values.cumsum() - 1.5) / count  # Duchi et al. 2008: the last level below its value
    level = levels[values > levels][-1]
    expected = left * np.maximum(values - level, 0) @ right
    np.testing.assert_allclose(found.x[0].numpy(), expected, atol=1e-9)
    certified = certify_layer(problem_of(Z, y, 1.5), Iterate(torch.from_numpy(expected)[None]))
    torch.testing.assert_close(found.objective, certified.objective)


def test_the_certificate_shares_no_code_with_the_solver():
    """Its module takes from the convex core the types alone, and never calls the problem's loss, map or term."""
    tree = ast.parse(Path(module.__file__).read_text())
    taken = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("triptych")
        for alias in node.names
    }
    assert taken == {"Certificate", "Iterate", "Problem"}
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "certify_layer")
    called = {
        node.func.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert not called & {"value", "grad", "prox", "conjugate", "shrink", "forward", "adjoint", "vertex"}
