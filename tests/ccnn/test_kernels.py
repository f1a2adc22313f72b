"""Kernels against their formulas, and expansions whose inner products are, or approach, the kernel."""

import numpy as np
import pytest
import torch

from triptych.ccnn.kernels import Gaussian, Identity, InversePolynomial, Linear, nystrom
from triptych.check import InputError

KERNELS = {
    "gaussian": (Gaussian(0.7), lambda a, b: np.exp(-0.7 * ((a - b) ** 2).sum())),
    "wide gaussian": (Gaussian(0.01), lambda a, b: np.exp(-0.01 * ((a - b) ** 2).sum())),
    "inverse polynomial": (InversePolynomial(), lambda a, b: 1 / (2 - a @ b)),
    "linear": (Linear(), lambda a, b: a @ b),
}
ALL = pytest.mark.parametrize(("kernel", "formula"), KERNELS.values(), ids=KERNELS)
RANDOM = pytest.mark.parametrize("kernel", [Gaussian(0.7), InversePolynomial()], ids=lambda k: k.name)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def points(count, dim, rng, norm=1.0):
    """Points in the ball of a norm, in float64."""
    z = torch.randn(count, dim, generator=rng, dtype=torch.float64)
    radii = torch.rand(count, 1, generator=rng, dtype=torch.float64)
    return norm * z / torch.linalg.vector_norm(z, dim=1, keepdim=True) * radii


def gram(formula, z, other):
    return np.array([[formula(a, b) for b in other.numpy()] for a in z.numpy()])


def products(expansion, z, other):
    return expansion.finish(expansion.raw(z)) @ expansion.finish(expansion.raw(other)).mT


@ALL
def test_gram_is_the_formula_pair_by_pair(kernel, formula, rng):
    z, other = points(7, 4, rng), points(5, 4, rng)
    before = z.clone(), other.clone()
    np.testing.assert_allclose(kernel.gram(z, other).numpy(), gram(formula, z, other), rtol=1e-12)
    assert torch.equal(z, before[0])
    assert torch.equal(other, before[1])


def test_a_gaussian_is_at_most_1_however_the_norms_round():
    z = torch.full((3, 50), 300.1, dtype=torch.float32)
    assert bool((Gaussian(5.0).gram(z, z) <= 1).all())


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan"), float("inf"), "1", True])
def test_gamma_must_be_positive(gamma):
    with pytest.raises(InputError, match="gamma must be a finite number above 0, got"):
        Gaussian(gamma)


@RANDOM
@pytest.mark.parametrize("width", [100, 10_000])
def test_random_features_approach_the_kernel_at_rate_one_over_root_m(kernel, width, rng):
    """<phi, phi'> is a mean of m independent terms t with mean K: the expected squared error is var(t) / m <= E t² / m.

    Gaussian: t = 2 cos(a) cos(b) = cos(a - b) + cos(a + b), whose random phase makes E t² <= 1 + 1/2. Monomials: by
    Khintchine's inequality E <s, z>² <s, z'>² <= 3 ‖z‖² ‖z'‖², so that E t² <= Σ_j 2^-(j+1) (3 r⁴)^j = 1 / (2 - 3 r⁴) < 1
    for norms r <= 0.68. The root mean square over all pairs is, by Markov, above 3 sqrt(1.5 / m) for one seed in nine
    at most. It is not below a twentieth of sqrt(1.5 / m) either: the rate is no better.
    """
    z, other = points(40, 5, rng, norm=0.68), points(40, 5, rng, norm=0.68)
    expansion = kernel.random(5, width, rng)
    error = float((products(expansion, z, other) - kernel.gram(z, other)).square().mean().sqrt())
    assert 0.05 * (1.5 / width) ** 0.5 < error < 3 * (1.5 / width) ** 0.5
    assert expansion.width == width


@RANDOM
def test_the_mean_of_many_expansions_is_the_kernel(kernel, rng):
    """No bias: 400 draws of 50 features deviate from the kernel by at most 5 standard errors of their own scatter."""
    z, other = points(6, 4, rng, norm=0.68), points(6, 4, rng, norm=0.68)
    draws = torch.stack([products(kernel.random(4, 50, rng), z, other) for _ in range(400)])
    error = (draws.mean(0) - kernel.gram(z, other)).abs()
    assert bool((error <= 5 * draws.std(0) / 400**0.5).all())


def test_monomials_are_products_of_signed_sums_of_their_degree(rng):
    expansion = InversePolynomial().random(3, 60, rng)
    z = points(5, 3, rng)
    expected, first = np.ones((5, 60)), 0
    for level in range(int(expansion.degrees.max())):  # the factors of one level of all features lie together
        for feature in range(int((expansion.degrees > level).sum())):
            expected[:, feature] *= z.numpy() @ expansion.signs[first].double().numpy()
            first += 1
    assert first == len(expansion.signs)
    assert set(expansion.signs.unique().tolist()) == {-1.0, 1.0}
    np.testing.assert_allclose(expansion.raw(z).numpy(), expected, rtol=1e-12)


def test_degrees_halve_in_number():
    """Degree j has probability 2^-(j+1): the counts of 20,000 features lie within 5 standard deviations."""
    degrees = InversePolynomial().random(1, 20_000, torch.Generator().manual_seed(1)).degrees
    for j in range(6):
        p = 2.0 ** -(j + 1)
        assert abs(int((degrees == j).sum()) - 20_000 * p) < 5 * (20_000 * p * (1 - p)) ** 0.5


@ALL
def test_nystrom_is_exact_on_its_landmarks(kernel, formula, rng):
    expansion = nystrom(kernel, points(60, 6, rng), 6, rng)
    landmarks = expansion.landmarks
    np.testing.assert_allclose(
        products(expansion, landmarks, landmarks).numpy(), gram(formula, landmarks, landmarks), atol=2e-4
    )


def clustered(rng, count=400, clusters=12, dim=10):
    centres = points(clusters, dim, rng, norm=0.95)
    return centres[torch.arange(count) % clusters] + 0.01 * torch.randn(count, dim, generator=rng, dtype=torch.float64)


@RANDOM
def test_nystrom_beats_random_features_on_clusters(kernel, rng):
    """As many landmarks as clusters all but determine the kernel there; as many random features err by 1 / sqrt(m)."""
    z = clustered(rng)
    exact = kernel.gram(z, z)

    def error(expansion):
        return float((products(expansion, z, z) - exact).square().mean().sqrt())

    assert error(nystrom(kernel, z, 24, rng)) < 0.1 * error(kernel.random(10, 24, rng))


def test_k_means_puts_its_landmarks_into_the_middle_of_the_clusters(rng):
    """Two far clusters, two landmarks: Lloyd's algorithm ends in their means whatever it starts from."""
    far = torch.tensor([[-1.0, 0.0]] * 30 + [[1.0, 0.0]] * 30, dtype=torch.float64)
    z = far + 0.01 * torch.randn(60, 2, generator=rng, dtype=torch.float64)
    landmarks = nystrom(Gaussian(1.0), z, 2, rng).landmarks
    order = landmarks[:, 0].argsort()
    torch.testing.assert_close(landmarks[order], torch.stack([z[:30].mean(0), z[30:].mean(0)]))


def test_nystrom_takes_no_more_landmarks_than_patches_and_survives_equal_ones(rng):
    z = points(3, 4, rng).repeat(2, 1)
    expansion = nystrom(Gaussian(1.0), z, 50, rng)
    assert expansion.width == 6
    np.testing.assert_allclose(products(expansion, z, z).numpy(), Gaussian(1.0).gram(z, z).numpy(), atol=1e-4)


@pytest.mark.parametrize("width", [1, 7])
def test_the_identity_is_exact_whatever_the_width(width, rng):
    expansion, z = Linear().random(4, width, rng), points(5, 4, rng)
    assert isinstance(expansion, Identity)
    assert expansion.width == 4
    assert torch.equal(expansion.finish(expansion.raw(z)), z)


@pytest.mark.parametrize("kind", ["gaussian", "inverse polynomial", "linear", "nystrom"])
def test_the_linear_end_commutes_with_averages(kind, rng):
    """finish(mean of raw) = mean of finish(raw): what allows pooling between the two."""
    z = points(12, 4, rng)
    kernel = KERNELS[kind][0] if kind != "nystrom" else None
    expansion = kernel.random(4, 9, rng) if kernel else nystrom(Gaussian(1.0), z, 5, rng)
    torch.testing.assert_close(expansion.finish(expansion.raw(z).mean(0)), expansion.finish(expansion.raw(z)).mean(0))


@RANDOM
def test_the_generator_decides_and_nothing_else(kernel):
    torch.manual_seed(1)
    one = kernel.random(4, 9, torch.Generator().manual_seed(3)).tensors()
    torch.manual_seed(2)
    two, three = (kernel.random(4, 9, torch.Generator().manual_seed(seed)).tensors() for seed in (3, 4))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(one[name].shape != three[name].shape or not torch.equal(one[name], three[name]) for name in one)
