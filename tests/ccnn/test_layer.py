"""A solved layer against cvxpy, its filters against NumPy's SVD, the linear layer against torch's convolution."""

import math
from dataclasses import replace

import cvxpy
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import conv2d

from triptych.ccnn import layer as layer_module
from triptych.ccnn.features import fit_features
from triptych.ccnn.kernels import InversePolynomial
from triptych.ccnn.layer import Effort, fit_layer, layer_problem, nuclear_norm_and_rank, solve_layer, stored_dtype
from triptych.ccnn.linear import from_filters, radius_bound, to_filters
from triptych.ccnn.problem import FeatureRows, certify_layer
from triptych.ccnn.settings import Layer, linear_layer
from triptych.check import InputError
from triptych.convex import Iterate, Status

TIGHT = Effort(tol=1e-7, max_steps=5000, precision=torch.float64)
SETTINGS = {
    "random": Layer(patch=3, width=20, window=3, stride=3, components=5, radius=4.0, filters=3),
    "nystrom": Layer(patch=3, width=12, window=3, stride=3, components=4, radius=2.0, method="nystrom"),
    "monomials": Layer(patch=3, width=15, window=6, components=5, radius=4.0, kernel=InversePolynomial()),
    "linear": linear_layer(2, 0.5, 3, window=3, stride=2),
}
ALL = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def digits(count, classes=3):
    X, y = load_digits(n_class=classes, return_X_y=True)
    return torch.from_numpy(X[:count]).view(-1, 1, 8, 8) / 16, torch.from_numpy(y[:count]).long()


def fitted(settings, count=24, effort=TIGHT, classes=3, seed=0):
    maps, labels = digits(count, classes)
    return fit_layer(maps, labels, classes, settings, torch.Generator().manual_seed(seed), effort)


@ALL
def test_the_solved_objective_is_that_of_cvxpy(settings):
    """To 1e-6 nats, and the certificate says so: its bound is below the optimum, and the gap is the one asked for."""
    maps, y = digits(24)
    layer = fitted(settings)
    Z = layer.features(maps).numpy()
    positions, q = Z.shape[1:]
    A = cvxpy.Variable((q, 3 * positions))
    logits = sum(Z[:, p] @ A[:, 3 * p : 3 * p + 3] for p in range(positions))
    fit = cvxpy.sum(cvxpy.multiply(np.eye(3)[y.numpy()], logits))
    problem = cvxpy.Problem(
        cvxpy.Minimize((cvxpy.sum(cvxpy.log_sum_exp(logits, axis=1)) - fit) / len(y)),
        [cvxpy.normNuc(A) <= settings.radius],
    )
    best = problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    solution = layer.solution
    assert float(solution.objective) == pytest.approx(best, abs=1e-6)
    assert float(solution.lower_bound) <= best + 1e-8
    assert solution.status == (Status.CONVERGED,)
    assert float(solution.gap) <= 1e-7 * math.log(3)
    assert np.linalg.norm(layer.A.numpy(), "nuc") <= settings.radius * (1 + 1e-9)


@ALL
def test_logits_are_the_definition(settings):
    layer, maps = fitted(settings), digits(40)[0]
    Z = layer.features(maps).numpy()
    blocks = layer.A.numpy().reshape(layer.features.components, layer.features.positions, 3)
    expected = sum(Z[:, p] @ blocks[:, p] for p in range(layer.features.positions))
    found = layer.logits(maps)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)
    assert layer.classes == 3


def test_the_rank_falls_with_the_radius():
    """A small ball has its optimum on a face of low rank."""
    settings = SETTINGS["random"]
    ranks = []
    for radius in (0.2, 1.0, 4.0, 12.0):
        layer = fitted(replace(settings, radius=radius), count=60, effort=TIGHT._replace(tol=1e-5))
        norm, rank = nuclear_norm_and_rank(layer.A)
        values = np.linalg.svd(layer.A.numpy(), compute_uv=False)
        assert norm == pytest.approx(values.sum())
        assert norm == pytest.approx(radius, rel=1e-6)  # the ball is active
        assert rank == (values > 1e-6 * values[0]).sum()
        ranks.append(rank)
    assert ranks == sorted(ranks)
    assert ranks[0] < ranks[-1]


@ALL
@pytest.mark.parametrize("filters", [1, 2, 32])
def test_filters_are_the_leading_left_singular_vectors(settings, filters):
    """Times the root of their singular values, so that their outer products are those of A, cut at the rank."""
    layer = fitted(replace(settings, filters=filters))
    left, values, _ = np.linalg.svd(layer.A.numpy(), full_matrices=False)
    keep = min(filters, int((values > 1e-6 * values[0]).sum()))
    assert layer.filters.shape == (layer.features.components, keep)
    outer = (left[:, :keep] * values[:keep]) @ left[:, :keep].T
    np.testing.assert_allclose((layer.filters @ layer.filters.mT).numpy(), outer, atol=1e-9 * values[0])


@ALL
def test_maps_are_the_filters_applied_at_every_pooled_position(settings):
    layer, maps = fitted(replace(settings, map_window=2, map_stride=1)), digits(10)[0]
    found = layer.transform(maps)
    r, side = layer.filters.shape[1], 9 - layer.settings.patch - 1
    assert found.shape == (10, r, side, side)
    finest = layer.features.filtered(torch.eye(layer.features.components, dtype=torch.float64), 1, 1)
    cells = finest(maps).view(10, side + 1, side + 1, -1) @ layer.filters
    expected = torch.nn.functional.avg_pool2d(cells.permute(0, 3, 1, 2), 2, 1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@ALL
def test_the_next_layer_reads_maps_of_root_mean_square_1(settings):
    layer, maps = fitted(settings), digits(24)[0]
    assert float((layer.transform(maps) * layer.map_scale).square().mean().sqrt()) == pytest.approx(1, rel=1e-9)


def test_images_that_all_look_alike_leave_every_class_its_share():
    """Nothing can be told apart: the least loss is the entropy of the labels, found and certified."""
    maps, y = digits(20, classes=2)
    layer = fit_layer(0 * maps + 0.5, y, 2, SETTINGS["linear"], torch.Generator().manual_seed(0), TIGHT)
    shares = np.bincount(y) / len(y)
    assert float(layer.solution.objective) == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-6)


@pytest.mark.parametrize("memory", [0, 10 * 8 * 4 * 5, 1 << 30])
def test_what_does_not_fit_in_memory_is_made_again(memory):
    """Bytes for nothing, for 10 images and for all: the same features, and the same solution."""
    maps, y = digits(24)
    settings = SETTINGS["random"]
    layer = fitted(settings, effort=TIGHT._replace(memory=memory))
    full = fitted(settings)
    held = layer_problem(layer.features, maps, y, 3, memory).map.stored
    assert len(held) == min(24, memory // (8 * 4 * 5))
    torch.testing.assert_close(held, full.features(maps).flatten(1)[: len(held)], rtol=1e-12, atol=1e-12)
    assert float(layer.solution.objective) == pytest.approx(float(full.solution.objective), abs=2e-7)
    torch.testing.assert_close(layer.logits(maps), full.logits(maps), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float32, torch.float64])
def test_the_problem_is_that_of_the_features_as_stored(precision):
    """The certificate's objective is the loss of the logits that the layer gives to its training images."""
    maps, y = digits(40)
    layer = fitted(SETTINGS["random"], count=40, effort=Effort(tol=1e-4, precision=precision))
    assert stored_dtype(layer.features) == (precision or torch.float32)  # few features
    loss = torch.nn.functional.cross_entropy(layer.logits(maps).double(), y)
    assert float(loss) == pytest.approx(float(layer.solution.objective), abs=1e-6)
    assert layer.A.dtype == torch.float64


def test_progress_hears_every_certificate():
    heard = []
    layer = fitted(
        SETTINGS["random"], effort=TIGHT._replace(progress=lambda step, c: heard.append((step, float(c.gap))))
    )
    assert [step for step, _ in heard] == [check.step for check in layer.solution.history]
    assert heard[-1][1] == float(layer.solution.gap)


# the layer of linear activations


def network(maps, w, alpha, size, window=1, stride=1):
    """H(x)_k = Σ_j Σ_p alpha_{k,j,p} w_j' z_p(x) by torch's convolution and pooling, which know nothing of ours."""
    c = maps.shape[1]
    responses = conv2d(maps, w.view(len(w), c, size, size))
    pooled = torch.nn.functional.avg_pool2d(responses, window, stride).flatten(2)
    return torch.einsum("njp,kjp->nk", pooled, alpha)


@pytest.mark.parametrize(("c", "size", "window", "stride"), [(1, 3, 1, 1), (2, 2, 1, 1), (3, 3, 2, 2), (1, 2, 3, 1)])
def test_a_convolutional_network_is_the_trace_form(c, size, window, stride):
    """From random filters and weights to A: the layer with this A is the network, to float64 accuracy."""
    rng = torch.Generator().manual_seed(5)
    maps, y = torch.randn(12, c, 6, 7, generator=rng, dtype=torch.float64), torch.arange(12) % 4
    settings = linear_layer(size, 1.0, 3, window=window, stride=stride)
    layer = fit_layer(maps, y, 4, settings, rng, Effort(tol=0.1))
    P = layer.features.positions
    w = torch.randn(3, c * size * size, generator=rng, dtype=torch.float64)
    alpha = torch.randn(4, 3, P, generator=rng, dtype=torch.float64)
    A = from_filters(w, alpha)
    assert np.linalg.matrix_rank(A.numpy()) == 3
    logits = type(layer)(layer.features, A, layer.filters, 1.0, layer.solution).logits(maps)
    torch.testing.assert_close(logits, network(maps, w, alpha, size, window, stride), rtol=1e-12, atol=1e-12)
    Z = layer.features(maps)
    by_class = A.view(-1, P, 4)
    traces = [[float(torch.trace(Z[i] @ by_class[:, :, k])) for k in range(4)] for i in range(12)]
    np.testing.assert_allclose(logits.numpy(), traces, rtol=1e-12, atol=1e-11)


def test_the_solved_linear_layer_is_a_convolutional_network():
    """From A back to filters and weights: as many filters as A has rank, and the same function of new images."""
    layer, images = fitted(SETTINGS["linear"]), digits(60)[0]
    w, alpha = to_filters(layer.A, 3)
    assert len(w) == np.linalg.matrix_rank(layer.A.numpy())
    expected = network(images, w, alpha, size=2, window=3, stride=2)
    torch.testing.assert_close(layer.logits(images), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_filters_to_a_and_back(rank):
    """The filters found differ by a rotation; the matrix, its rank and the balance of norms do not."""
    rng = torch.Generator().manual_seed(rank)
    w = torch.randn(rank, 9, generator=rng, dtype=torch.float64)
    alpha = torch.randn(3, rank, 4, generator=rng, dtype=torch.float64)
    A = from_filters(w, alpha)
    loop = np.zeros((9, 4, 3))
    for j in range(rank):
        for k in range(3):
            loop[:, :, k] += np.outer(w[j], alpha[k, j])
    np.testing.assert_allclose(A.numpy(), loop.reshape(9, 12), rtol=1e-12, atol=1e-13)
    found_w, found_alpha = to_filters(A, 3)
    assert found_w.shape == (rank, 9)
    assert found_alpha.shape == (3, rank, 4)
    torch.testing.assert_close(from_filters(found_w, found_alpha), A, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found_w.norm(dim=1), found_alpha.permute(1, 0, 2).flatten(1).norm(dim=1))


@pytest.mark.parametrize("seed", range(5))
def test_the_radius_holds_every_network_within_its_norms(seed):
    rng = torch.Generator().manual_seed(seed)
    w = torch.randn(4, 9, generator=rng, dtype=torch.float64)
    alpha = torch.randn(3, 4, 6, generator=rng, dtype=torch.float64)
    b1 = max(math.sqrt(sum(float(v) ** 2 for v in row)) for row in w)
    b2 = max(math.sqrt(sum(float(v) ** 2 for v in alpha[k, j])) for k in range(3) for j in range(4))
    assert radius_bound(w, alpha) == pytest.approx(b1 * b2 * 4 * math.sqrt(3))
    assert radius_bound(w, alpha) >= np.linalg.norm(from_filters(w, alpha).numpy(), "nuc")


def test_the_radius_is_reached_by_orthogonal_filters_of_equal_norm():
    """Equality: no smaller bound holds for all networks with these norms."""
    w = 2 * torch.eye(3, 9, dtype=torch.float64)
    alpha = 5 * torch.eye(3, 6, dtype=torch.float64).expand(2, 3, 6)
    assert radius_bound(w, alpha) == pytest.approx(np.linalg.norm(from_filters(w, alpha).numpy(), "nuc"))


@pytest.mark.parametrize("shape", [(3, 2, 6), (3, 4), (3, 5, 6)])
def test_weights_of_other_filters_are_refused(shape):
    with pytest.raises(InputError, match=r"alpha must be \(K, 4, P\)"):
        from_filters(torch.zeros(4, 9), torch.zeros(shape))


@pytest.mark.parametrize("shape", [(9, 7), (9,), (2, 9, 6)])
def test_a_matrix_of_other_classes_is_refused(shape):
    with pytest.raises(InputError, match=r"A must be a matrix \(d, P · 3\)"):
        to_filters(torch.zeros(shape), 3)


def noise_problem():
    """Noise with ten classes that a small ball cannot fit: bf16 products stall above a thousandth of log 10."""
    draw = torch.Generator().manual_seed(0)
    maps = torch.rand(300, 1, 8, 8, generator=draw)
    y = torch.randint(0, 10, (300,), generator=draw)
    settings = Layer(patch=3, width=200, components=100, radius=60.0)
    found = fit_features(maps, settings, torch.Generator().manual_seed(0), precision=torch.bfloat16)
    return layer_problem(found, maps, y, 10, 1 << 30)


def test_what_bf16_products_have_not_solved_float32_ones_do():
    """The same stored features, the same problem: history goes on, steps count on, bounds never fall back."""
    problem, tol = noise_problem(), 2e-4 * math.log(10)
    seen = []
    effort = Effort(max_steps=2000, progress=lambda step, certificate: seen.append(step))
    solution = solve_layer(problem, effort, tol)
    assert solution.converged
    assert float(solution.gap) <= tol
    assert int(solution.steps) > layer_module.ROUGH_STEPS
    assert seen == sorted(seen) == [check.step for check in solution.history]
    objectives = [float(check.objective) for check in solution.history]
    bounds = [float(check.lower_bound) for check in solution.history]
    assert objectives == sorted(objectives, reverse=True)
    assert bounds == sorted(bounds)
    own = certify_layer(problem, Iterate(solution.x))
    assert float(own.objective) == pytest.approx(float(solution.objective), abs=1e-12)


def test_exact_products_of_bf16_features_are_float32s():
    K = noise_problem().map
    draw = torch.Generator().manual_seed(1)
    A, theta = torch.randn(K.shape, generator=draw), torch.randn(1, 300, 10, generator=draw)
    double = FeatureRows(K.stored.double(), components=K.q, classes=10)
    for rough, precise, truth in (
        (K.forward(A), K.exactly().forward(A), double.forward(A.double())),
        (K.adjoint(theta), K.exactly().adjoint(theta), double.adjoint(theta.double())),
    ):
        assert float((precise - truth).norm() / truth.norm()) < 1e-5 < float((rough - truth).norm() / truth.norm())
