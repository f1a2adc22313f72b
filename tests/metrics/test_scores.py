"""Scores of features against torchmetrics, SciPy, scikit-learn, loops and closed forms; one process against two."""

import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors
from torch import nn

from triptych.check import InputError
from triptych.data import load
from triptych.engine import Engine
from triptych.images import Images
from triptych.metrics.features import Moments, Pixels, Seen, as_pixels, extract, shrunk
from triptych.metrics.frechet import frechet_distance
from triptych.metrics.inception_score import ClassMoments, inception_score
from triptych.metrics.kernel_distance import kernel_distance, squared_mmd
from triptych.metrics.neighbours import nearest, nearest_in_parts, squared_distances
from triptych.metrics.precision_recall import precision_recall

F64 = torch.float64


def normal(n, d, seed=0, dtype=F64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(scope="module")
def pair():
    """Correlated features of two laws."""
    mix = normal(12, 12, 9)
    return normal(400, 12, 1) @ mix + 1, normal(300, 12, 2) @ (mix + 0.3 * normal(12, 12, 8)) + 1.2


class Given(nn.Module):
    """What torchmetrics takes for a network: features are what it is given."""

    num_features = 12

    def forward(self, x):
        return x


def test_moments_are_numpys_and_do_not_lose_digits_to_a_large_mean(pair):
    a = pair[0] + 1e6
    found = Moments.of(a)
    torch.testing.assert_close(found.mean, a.mean(0), rtol=1e-14, atol=0)
    np.testing.assert_allclose(found.covariance.numpy(), np.cov((a - 1e6).T.numpy()), rtol=1e-8)


def test_moments_in_parts_are_those_of_all_in_any_order(pair):
    a, whole = pair[0], Moments.of(pair[0])
    for parts in (a.split(70), tuple(reversed(a.split(33))), a.split(1)):
        found = Moments.gathered(parts)
        assert found.count == 400
        torch.testing.assert_close(found.mean, whole.mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.scatter, whole.scatter, rtol=1e-12, atol=1e-9)


def test_the_frechet_distance_is_that_of_torchmetrics_and_of_scipys_root(pair):
    from torchmetrics.image.fid import FrechetInceptionDistance

    a, b = (Moments.of(x) for x in pair)
    ours = frechet_distance(a, b)
    root = sqrtm(a.covariance.numpy() @ b.covariance.numpy()).real
    scipys = float((a.mean - b.mean).square().sum() + (a.covariance + b.covariance).trace()) - 2 * np.trace(root)
    assert ours == pytest.approx(scipys, rel=1e-9)
    theirs = FrechetInceptionDistance(feature=Given(), normalize=False).set_dtype(F64)
    theirs.update(pair[0], real=True)
    theirs.update(pair[1], real=False)
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_the_frechet_distance_of_two_gaussians_is_the_formula():
    m, s, t = normal(1, 5, 3)[0], normal(1, 5, 4)[0].abs() + 0.1, normal(1, 5, 5)[0].abs() + 0.1
    q = torch.linalg.qr(normal(5, 5, 6)).Q  # commuting covariances: the root is that of each eigenvalue
    a = Moments(10**9, torch.zeros(5, dtype=F64), q @ torch.diag(s**2) @ q.T * (10**9 - 1))
    b = Moments(10**9, m, q @ torch.diag(t**2) @ q.T * (10**9 - 1))
    assert frechet_distance(a, b) == pytest.approx(float(m.square().sum() + (s - t).square().sum()), rel=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_the_frechet_distance_of_fewer_samples_than_dimensions_is_finite_and_exact():
    a, b = normal(5, 40, 1), normal(7, 40, 2)
    A, B = a - a.mean(0), b - b.mean(0)
    nuclear = torch.linalg.svdvals(A @ B.T / (4 * 6) ** 0.5).sum()  # tr (Σ_a^½ Σ_b Σ_a^½)^½ without either matrix
    exact = (a.mean(0) - b.mean(0)).square().sum() + A.square().sum() / 4 + B.square().sum() / 6 - 2 * nuclear
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(float(exact), rel=1e-7)


def test_the_inception_score_is_that_of_torchmetrics_and_of_numpy():
    from torchmetrics.image.inception import InceptionScore as Theirs

    logits = 3 * normal(500, 12, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns of its memory, and of one split's spread
        theirs = Theirs(feature=Given(), splits=1).set_dtype(F64)
        theirs.update(logits)
        expected = float(theirs.compute()[0])
    assert inception_score(logits, 1).mean == pytest.approx(expected, rel=1e-6)
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    scores = [np.exp((q * np.log(q / q.mean(0))).sum(1).mean()) for q in np.split(p, 10)]
    found = inception_score(logits, 10)
    assert found.mean == pytest.approx(np.mean(scores), rel=1e-10)
    assert found.std == pytest.approx(np.std(scores), rel=1e-8)


def test_the_inception_score_is_one_of_one_class_and_k_of_k_even_ones():
    sure = 200.0 * torch.eye(7, dtype=F64)
    assert inception_score(sure.repeat(3, 1), 1).mean == pytest.approx(7)
    assert inception_score(sure[:1].repeat(9, 1), 3).mean == pytest.approx(1)
    assert inception_score(torch.zeros(8, 5), 2).mean == pytest.approx(1)


def test_the_kernel_distance_is_that_of_scikit_learns_kernel_and_of_torchmetrics(pair):
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = pair
    K = [polynomial_kernel(x, y, 3, gamma=1 / 12, coef0=1) for x, y in ((a, a), (b, b), (a, b))]
    n, m = len(a), len(b)
    expected = (
        (K[0].sum() - np.trace(K[0])) / (n * (n - 1)) + (K[1].sum() - np.trace(K[1])) / (m * (m - 1)) - 2 * K[2].mean()
    )
    assert squared_mmd(a, b) == pytest.approx(expected, rel=1e-10)
    ours = kernel_distance(a, b, subsets=3, size=10_000)
    assert (ours.size, ours.subsets) == (300, 3)
    once = kernel_distance(a[:300], b, subsets=50, size=10_000)  # all of both: nothing to spread
    assert (once.subsets, once.std, once.mean) == (1, None, squared_mmd(a[:300], b))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        theirs = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=300).set_dtype(F64)
        theirs.update(a[:300], real=True)
        theirs.update(b, real=False)
        expected = float(theirs.compute()[0])
    assert squared_mmd(a[:300], b) == pytest.approx(expected, rel=1e-6)


def test_the_kernel_distance_of_equal_laws_is_nought_on_average():
    x = normal(200, 100 * 3, 7).reshape(200, 100, 3)
    found = torch.tensor([squared_mmd(x[:100, i], x[100:, i]) for i in range(100)])
    assert abs(found.mean()) < 4 * found.std() / 10
    assert (found < 0).any()


def test_precision_and_recall_are_those_of_scikit_learns_neighbours(pair):
    a, b = pair
    found = precision_recall(a, b, 3)

    def share(centres, points):
        radii = NearestNeighbors(n_neighbors=4).fit(centres).kneighbors(centres)[0][:, -1]
        d = np.linalg.norm(points.numpy()[:, None] - centres.numpy()[None], axis=2)
        return (d <= radii).any(1).mean()

    assert found.precision == share(a, b)
    assert found.recall == share(b, a)
    assert 0 < found.precision < 1
    assert 0 < found.recall < 1


def test_precision_and_recall_of_disjoint_and_of_equal_sets():
    a = normal(50, 4)
    assert precision_recall(a, a + 100) == precision_recall(a + 100, a)
    assert (precision_recall(a, a + 100).precision, precision_recall(a, a).recall) == (0.0, 1.0)
    half = torch.cat([a[:25], a[:25] + 100])
    assert precision_recall(half, a[:25]).recall < 1 == precision_recall(half, a[:25]).precision


@pytest.mark.parametrize("apart", [False, True])
def test_neighbours_are_those_of_scikit_learn_block_by_block(monkeypatch, apart):
    a = normal(80, 6, 1, torch.float32)
    b = a if apart else normal(90, 6, 2, torch.float32)
    distances, indices = NearestNeighbors(n_neighbors=4, algorithm="brute").fit(b.double()).kneighbors(a.double())
    expected = (distances[:, apart : 3 + apart], indices[:, apart : 3 + apart])
    monkeypatch.setattr("triptych.metrics.neighbours.BLOCK", 700)
    found = nearest(a, b, 3, apart=apart)
    np.testing.assert_allclose(found[0].numpy(), expected[0], rtol=1e-12)
    np.testing.assert_array_equal(found[1].numpy(), expected[1])


def test_neighbours_among_parts_are_those_among_all_rows():
    a, b = normal(20, 6, 1, torch.float32), normal(90, 6, 2, torch.float32)
    b[70:75] = b[:5]  # equal rows, of which the lower index comes first
    for k in (1, 7, 90):
        found, expected = nearest_in_parts(a, b.split(13), k), nearest(a, b, k)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
    with pytest.raises(InputError, match="k must be at most 90"):
        nearest_in_parts(a, b.split(13), 91)


def test_large_rows_are_centred_part_by_part(monkeypatch):
    a, b = normal(20, 6, 1) + 1e4, normal(90, 6, 2) + 1e4
    monkeypatch.setattr("triptych.metrics.neighbours.CHUNK", 7)
    expected = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
    torch.testing.assert_close(squared_distances(a, b), expected, rtol=1e-11, atol=1e-11)


def test_an_equal_row_is_at_distance_nought_however_far_from_the_origin():
    a = normal(30, 5, 1) * 1e-3 + 1e6
    distances, indices = nearest(a, a.flip(0), 1)
    assert (distances == 0).all()
    assert torch.equal(indices[:, 0], torch.arange(29, -1, -1))


def test_pixels_are_features_and_large_images_are_averaged():
    images = Images(torch.randint(0, 256, (5, 3, 8, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)))
    seen = extract(Pixels(), images, chunk=2)
    assert seen.logits is None
    assert torch.equal(seen.features, images.floats().flatten(1))
    small = extract(Pixels(side=4), images).features.reshape(5, 3, 4, 3)
    torch.testing.assert_close(small, images.floats().reshape(5, 3, 4, 2, 3, 2).mean((3, 5)))
    assert shrunk(images.floats(), 8) is not None
    assert Pixels(4).name == "pixels at 4"


class Twice:
    """An extractor with logits."""

    name = "twice"

    def __call__(self, images):
        x = as_pixels(images).flatten(1)
        return Seen(2 * x, x[:, :3])


def test_an_extractor_is_any_function_with_a_name():
    images = load("digits").take(slice(0, 10))
    seen = extract(Twice(), images.pixels, chunk=3)
    assert torch.equal(seen.features, 2 * images.floats().flatten(1))
    assert seen.logits is not None
    assert seen.logits.shape == (10, 3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Moments.of(torch.ones(3)), r"floats \(n, d\)"),
        (lambda: Moments.of(torch.tensor([[1.0, torch.nan]])), "finite"),
        (lambda: Moments.gathered([]), "at least one row"),
        (lambda: Moments.of(torch.ones(1, 2)).covariance, "at least 2 rows"),
        (lambda: Moments.of(torch.ones(2, 2)) + Moments.of(torch.ones(2, 3)), "same dimensions, got 2 and 3"),
        (
            lambda: frechet_distance(Moments.of(torch.ones(2, 2)), Moments.of(torch.ones(2, 3))),
            "same dimensions, got 2 and 3",
        ),
        (lambda: inception_score(torch.ones(3, 2), 4), "at most the 3 images, got 4"),
        (lambda: squared_mmd(torch.ones(1, 2), torch.ones(3, 2)), "at least 2 rows"),
        (
            lambda: kernel_distance(torch.ones(3, 2), torch.ones(3, 2), size=1),
            "size must be a whole number of at least 2",
        ),
        (lambda: precision_recall(torch.ones(3, 2), torch.ones(5, 2), 3), "below the number of images of each set, 3"),
        (lambda: nearest(torch.ones(3, 2), torch.ones(3, 2), 3, apart=True), "at most 2"),
        (lambda: extract(Pixels(), torch.ones(3, 1, 2, 2)), "uint8"),
    ],
)
def test_what_has_no_score_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()


APART = """
import os, sys, torch
from triptych.engine import start
from triptych.metrics.features import Moments
from triptych.metrics.inception_score import ClassMoments
with start("cpu") as engine:
    x = torch.randn(401, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 5
    mine = x[:150] if engine.rank == 0 else x[150:]
    found = Moments.of(mine).summed(engine)
    one = Moments.of(x)
    assert found.count == 401
    torch.testing.assert_close(found.mean, one.mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(found.scatter, one.scatter, rtol=1e-12, atol=1e-10)
    classes, all_classes = ClassMoments.of(mine).summed(engine), ClassMoments.of(x)
    assert classes.count == 401
    torch.testing.assert_close(classes.marginal, all_classes.marginal, rtol=1e-12, atol=0)
    assert abs(classes.score / all_classes.score - 1) < 1e-12
"""


@pytest.mark.xdist_group("processes")
def test_two_gloo_processes_have_the_moments_of_one(tmp_path):
    script = tmp_path / "apart.py"
    script.write_text(APART)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    path = {"PATH": "", "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    children = [
        subprocess.Popen([sys.executable, str(script)], env={**path, **common, "RANK": str(i), "LOCAL_RANK": str(i)})
        for i in range(2)
    ]
    assert [child.wait(60) for child in children] == [0, 0]


def test_class_moments_of_parts_have_the_score_of_the_whole():
    logits = 4 * torch.randn(300, 9, generator=torch.Generator().manual_seed(3))
    parts = [ClassMoments.of(part) for part in logits.split([1, 120, 179])]
    found = parts[0] + parts[1] + parts[2]
    assert found.count == 300
    assert found.score == pytest.approx(inception_score(logits, 1).mean, rel=1e-12)
    assert found.summed(Engine()).score == pytest.approx(found.score, rel=1e-13)
    sure = ClassMoments.of(1e4 * torch.eye(5))
    assert sure.score == pytest.approx(5, rel=1e-12)  # a class each, without a doubt
    with pytest.raises(InputError, match="dimensions"):
        found + sure


def test_the_cases_of_the_selftest_hold():
    from triptych.metrics.truths import score_cases

    cases = list(score_cases())
    assert len(cases) == 4
    assert all(case.holds for case in cases), [case for case in cases if not case.holds]
