"""The plain peer is the published algorithm: each of its steps against an independent computation."""

import gzip
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import cvxpy
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import rbf_kernel

from triptych.check import InputError

FILE = Path(__file__).parents[2] / "benchmarks" / "plain_ccnn.py"


def load():
    spec = importlib.util.spec_from_file_location("plain_ccnn", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["plain_ccnn"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


plain = load()
SMALL = plain.PlainSettings(
    gamma=0.3, m=40, R=20, lr=0.5, projections=12, steps=4, window=6, every=2, patch=3, channels=4
)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return (x.reshape(-1, 8, 8) / 16).astype(np.float32)[:400], y[:400]


def loop_patches(maps, side):
    """Patch by patch in float64, each normalised on its own."""
    rows = []
    for image in maps.astype(np.float64):
        for i in range(image.shape[0] - side + 1):
            for j in range(image.shape[1] - side + 1):
                p = image[i : i + side, j : j + side].ravel()
                p = p - p.mean()
                rows.append(p / (np.sqrt((p**2).sum()) + 0.1))
    return np.array(rows)


def loop_features(maps, s, W, b):
    """Pooled cosines by loops over windows: independent of how the code strides."""
    h, w = maps.shape[1] - s.patch + 1, maps.shape[2] - s.patch + 1
    phi = (2 / s.m) ** 0.5 * np.cos(loop_patches(maps, s.patch) @ W.astype(np.float64) + b)
    phi = phi.reshape(len(maps), h, w, s.m)
    return np.stack(
        [
            phi[:, s.pool * i : s.pool * (i + 1), s.pool * j : s.pool * (j + 1)].mean((1, 2))
            for i in range(h // s.pool)
            for j in range(w // s.pool)
        ],
        axis=1,
    )


@pytest.mark.parametrize("shape", [(3, 9, 9, 1), (2, 8, 7, 4)])
def test_patches_are_normalised_one_by_one(rng, shape):
    maps = rng.random(shape, dtype=np.float32)
    np.testing.assert_allclose(plain.normalised_patches(maps, 3), loop_patches(maps, 3), atol=1e-6)


@pytest.mark.parametrize("shape", [(11, 8, 8, 1), (9, 9, 7, 3)])  # even, and with a border that pooling drops
@pytest.mark.parametrize("pool", [2, 3])
def test_features_are_pooled_centred_and_scaled(rng, shape, pool):
    maps, s = rng.random(shape, dtype=np.float32), replace(SMALL, pool=pool)
    layer, Z = plain.fit_features(s, maps, rng)
    raw = loop_features(maps, s, layer.W, layer.b)
    centred = raw - raw.mean((0, 1))
    np.testing.assert_allclose(Z, centred / np.sqrt((centred**2).sum(2).mean()), atol=2e-5)
    np.testing.assert_allclose(layer.features(maps), Z, atol=2e-6)  # new images pass through the same statistics


def test_random_features_approximate_the_gaussian_kernel_of_whitened_patches(rng):
    """phi(p) . phi(q) -> exp(-gamma |p - q|^2 / c) with p, q whitened: error about 1 / sqrt(m)."""
    maps = rng.random((6, 6, 6, 2), dtype=np.float32)
    maps = np.concatenate([maps, -maps])  # p = -q shows whether the phases are uniform
    s = replace(SMALL, m=40_000, gamma=0.7, pool=1)
    layer, _ = plain.fit_features(s, maps, rng)
    phi = plain.pooled_cosines(s, layer.W, layer.b, maps).reshape(-1, s.m)
    p = loop_patches(maps, 3)
    S, U = np.linalg.eigh(np.cov(p.T, bias=True))
    exact = rbf_kernel(p @ U @ np.diag((S + 0.1) ** -0.5) @ U.T, gamma=0.7 / 2)
    assert exact.min() < 0.5 < exact.max()  # else a constant would do
    assert np.abs(phi @ phi.T - exact).max() < 5 / np.sqrt(s.m)


def test_whitening_makes_the_covariance_the_identity(rng):
    """Against numpy's covariance, plus 0.1 on its diagonal; ramps make a mean that is far from zero."""
    maps = (rng.random((20, 7, 7, 1)) * 0.3 + np.arange(7)[:, None]).astype(np.float32)
    zca = plain.whitening(maps, SMALL)
    p = loop_patches(maps, 3)
    assert np.abs(p.mean(0)).max() > 0.3
    np.testing.assert_allclose(zca, zca.T, atol=1e-12)  # ZCA, not PCA
    np.testing.assert_allclose(zca @ (np.cov(p.T, bias=True) + 0.1 * np.eye(9)) @ zca, np.eye(9), atol=1e-4)


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (6, 6)])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 1.5])
def test_projection_is_the_nearest_matrix_of_the_ball(rng, shape, share):
    A = rng.standard_normal(shape).astype(np.float32)
    R = share * np.linalg.svd(A, compute_uv=False).sum()
    B = cvxpy.Variable(shape)
    cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(B - A)), [cvxpy.normNuc(B) <= R]).solve(solver="CLARABEL")
    np.testing.assert_allclose(plain.project(A, R), B.value, atol=2e-4)


@pytest.mark.parametrize("R", [1.5, 4.0, 9.0])
def test_projection_thresholds_singular_values_by_bisection(rng, R):
    """Another way to Duchi's threshold: bisection on sum max(s - tau, 0) = R."""
    A = rng.standard_normal((30, 12)).astype(np.float32)
    U, s, Vt = np.linalg.svd(A.astype(np.float64), full_matrices=False)
    low, high = 0.0, s[0]
    for _ in range(80):
        tau = (low + high) / 2
        low, high = (tau, high) if np.maximum(s - tau, 0).sum() > R else (low, tau)
    B = plain.project(A, R)
    assert B.dtype == np.float32
    np.testing.assert_allclose(B, (U * np.maximum(s - tau, 0)) @ Vt, atol=1e-5)


def test_probabilities_and_loss_agree_with_scikit_learn(rng):
    Z, A = rng.standard_normal((700, 3, 4)), rng.standard_normal((4, 12)) * 0.5
    labels = np.r_[np.arange(5), rng.integers(5, size=695)]
    logits = np.c_[Z.reshape(700, -1) @ A.T, np.zeros(700)]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(plain.probabilities(logits[:, :-1]), p, rtol=1e-12)
    assert plain.training_loss(Z, labels, A) == pytest.approx(log_loss(labels, p), rel=1e-12)


def test_probabilities_survive_large_logits():
    p = plain.probabilities(np.array([[2000.0, 0.0], [-2000.0, -2000.0]], np.float32))
    np.testing.assert_array_equal(p, [[1, 0, 0], [0, 0, 1]])


def test_gradient_is_the_slope_of_the_loss(rng):
    Z, A = rng.standard_normal((30, 2, 4)), rng.standard_normal((3, 8)) * 0.5
    labels = np.r_[np.arange(4), rng.integers(4, size=26)]
    G, slope = plain.gradient(Z.reshape(30, -1), np.eye(4)[labels], A), np.empty_like(A)
    for entry in np.ndindex(A.shape):
        step = np.zeros_like(A)
        step[entry] = 1e-5
        slope[entry] = (plain.training_loss(Z, labels, A + step) - plain.training_loss(Z, labels, A - step)) / 2e-5
    np.testing.assert_allclose(G, slope, atol=1e-9)


def test_head_averages_the_projected_iterates_of_its_window(rng):
    """Against the recipe as a loop in float64, with the same batches."""
    n, positions, m = 60, 3, 5
    Z, labels = rng.standard_normal((n, positions, m)).astype(np.float32), rng.integers(4, size=n)
    s = replace(SMALL, m=m, R=1.5, lr=0.8, batch=7)
    draws, A, kept = np.random.default_rng(3), np.zeros((labels.max(), positions * m)), []
    for _ in range(s.projections):
        for _ in range(s.steps):
            index = draws.integers(n, size=s.batch)
            G = np.zeros_like(A)
            for i in index:
                z = Z[i].ravel().astype(np.float64)
                e = np.exp(np.append(A @ z, 0))
                G += np.outer((e / e.sum() - np.eye(len(e))[labels[i]])[:-1], z)
            A = A - s.lr * G / s.batch
        U, sigma, Vt = np.linalg.svd(A.reshape(-1, m), full_matrices=False)  # rows: (class, position)
        tau = max(0, *((sigma[: k + 1].sum() - s.R) / (k + 1) for k in range(len(sigma))))
        A = ((U * np.maximum(sigma - tau, 0)) @ Vt).reshape(A.shape)
        kept.append(A)
    seen = list(plain.fit_head(Z, labels, s, np.random.default_rng(3)))
    assert [t for t, _ in seen] == [2, 4, 6, 8, 10, 12]
    np.testing.assert_allclose(np.linalg.norm(A.reshape(-1, m), "nuc"), s.R)  # the ball is active: it is tested
    for t, average in seen:
        np.testing.assert_allclose(average, np.mean(kept[max(0, t - s.window) : t], axis=0), atol=1e-5)


@pytest.fixture(scope="module")
def trained(digits):
    """Two layers on the embedded digits, and what the callback was shown."""
    x, y = digits
    seen = []

    def look(t, model, loss):
        seen.append((t, len(model.layers), loss()))

    settings = (replace(SMALL, projections=60), replace(SMALL, patch=2, R=60, projections=60, lr=1.0))
    return plain.train(x[:300], y[:300], settings, callback=look, seed=1), seen


def test_training_learns_and_reports(digits, trained):
    (x, y), (model, seen) = digits, trained
    assert [t for t, _, _ in seen] == list(range(2, 61, 2)) * 2
    assert [layer for _, layer, _ in seen] == [1] * 30 + [2] * 30
    for layer in (1, 2):
        losses = [loss for _, number, loss in seen if number == layer]
        assert losses[-1] == pytest.approx(plain.objective(model, layer), rel=1e-4)
        assert losses[-1] < 0.5 * losses[0]
        part = plain.Model(model.layers[:layer])
        assert np.mean(plain.predict(part, x[300:]) != y[300:]) < 0.25  # chance is 0.9
    with pytest.raises(InputError, match="layer must be a whole number from 1 to 2"):
        plain.objective(model, 3)


def test_phases_are_the_four_and_leave_the_callback_out(digits, trained, monkeypatch):
    x, y = digits
    assert list(trained[0].phases) == ["features L1", "head L1", "features L2", "head L2"]
    assert all(seconds > 0 for seconds in trained[0].phases.values())

    def burn(*_):
        start = plain.time.process_time()
        while plain.time.process_time() - start < 0.4:
            pass
        return x[..., None]

    monkeypatch.setattr(plain.Layer, "maps", burn)
    short = replace(SMALL, projections=2, steps=1, window=2)
    phases = plain.train(x, y, (short, short), callback=burn).phases
    assert phases.pop("features L2") > 0.4  # making a layer's input belongs to that layer
    assert max(phases.values()) < 0.3


def test_objective_is_the_loss_of_the_features_of_the_training_images(digits, trained):
    """From images to the second layer's loss by the model alone, with float64 maps in between."""
    (x, y), (model, _) = digits, trained
    first, second = model.layers
    V = np.linalg.svd(first.A.reshape(-1, SMALL.m).astype(np.float64), full_matrices=False)[2][: SMALL.channels]
    Z = first.features(x[:300, ..., None])
    H = np.abs((Z @ V.T).reshape(300, 3, 3, SMALL.channels))  # singular vectors are given up to their sign
    np.testing.assert_allclose(np.abs(first.maps(Z)), H, atol=1e-3)
    logits = second.features(first.maps(Z)).reshape(300, -1) @ second.A.T
    p = np.exp(np.c_[logits, np.zeros(300)])
    assert plain.objective(model, 2) == pytest.approx(log_loss(y[:300], p / p.sum(1, keepdims=True)), rel=1e-4)


def test_the_seed_decides(digits, trained):
    x, y = digits
    settings = (replace(SMALL, projections=4),)
    a, b, c = (plain.train(x, y, settings, seed=seed).layers[0].A for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_the_settings_are_the_published_ones():
    """gamma, m, R, lr, projections of both layers, as the paper's code has them for MNIST."""
    assert [(s.gamma, s.m, s.R, s.lr, s.projections) for s in plain.MNIST] == [
        (0.2, 500, 200, 0.2, 1000),
        (2, 1000, 500, 1, 2000),
    ]
    assert {(s.steps, s.batch, s.window, s.patch, s.pool, s.zca, s.channels) for s in plain.MNIST} == {
        (10, 50, 250, 5, 2, 0.1, 16)
    }


@pytest.mark.parametrize("field", ["projections", "window"])
def test_an_interval_that_does_not_divide_is_refused(field):
    with pytest.raises(InputError, match="every must be a divisor of projections and of window, got 2"):
        replace(SMALL, **{field: 7})


def test_idx_files_are_read(tmp_path, rng):
    pixels = rng.integers(256, size=(3, 4, 5), dtype=np.uint8)
    header = bytes([0, 0, 8, 3]) + np.array([3, 4, 5], ">u4").tobytes()
    (tmp_path / "x.gz").write_bytes(gzip.compress(header + pixels.tobytes()))
    np.testing.assert_array_equal(plain.read_idx(tmp_path / "x.gz"), pixels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "train-images-idx3-ubyte.gz"),
        (["--train", "0"], "--train must be"),
        (["--layers", "3"], "--layers must be"),
    ],
)
def test_wrong_use_is_one_sentence_and_status_2(tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.setattr(sys, "argv", ["plain_ccnn.py", "--data", str(tmp_path), *options])
    with pytest.raises(SystemExit) as left:
        plain.main()
    assert left.value.code == 2
    assert message in capsys.readouterr().err
