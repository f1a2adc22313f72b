"""Singular values and the nuclear projection against NumPy's SVD, on spectra made to lose a Gram matrix its digits."""

import numpy as np
import pytest
import torch

from triptych.convex import nuclear_norm, project_nuclear, singular_values, spectral_norm
from triptych.convex.spectrum import l1_threshold, top_pair

P, Q = 24, 40
SPECTRA = {
    "flat": np.ones(P),
    "geometric": 10.0 ** -np.linspace(0, 14, P),
    "hidden": np.r_[1.0, np.full(P - 1, 3e-9)],
    "steps": np.r_[np.ones(4), np.full(8, 1e-3), np.full(8, 3e-6), np.full(4, 1e-8)],
    "small rank one below": np.r_[np.ones(2), 1e-7, np.zeros(P - 3)],
    "low rank": np.r_[np.linspace(5, 1, 6), np.zeros(P - 6)],
    "edges": np.r_[1.0, 1.01e-4, 0.99e-4, 1.01e-5, 0.99e-5, np.full(P - 5, 1e-6)],
}
every_spectrum = pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
SHAPES = pytest.mark.parametrize("tall", [False, True], ids=["wide", "tall"])


def matrix(spectrum, tall=False, seed=0):
    """Random singular vectors with the given singular values."""
    numbers = np.random.default_rng(seed)
    U = np.linalg.qr(numbers.normal(size=(P, P)))[0]
    V = np.linalg.qr(numbers.normal(size=(Q, P)))[0]
    X = U @ np.diag(spectrum) @ V.T
    return X.T if tall else X


def bisected(s, radius):
    """The least tau >= 0 with sum max(s - tau, 0) <= radius, by bisection."""
    low, high = 0.0, s.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(s - middle, 0).sum() > radius else (low, middle)
    return high if s.sum() > radius else 0.0


def projected(X, radius):
    """The projection by NumPy's SVD."""
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    return U @ np.diag(np.maximum(s - bisected(s, radius), 0)) @ Vt


@every_spectrum
@SHAPES
@pytest.mark.parametrize("depth", [0.9, 0.3, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10, -1e-10, -1e-4])
def test_projection_is_that_of_an_svd(spectrum, tall, depth):
    """At any depth below the surface, and just inside: to 1e-9 of the norm, and in the set to 1e-9."""
    X = matrix(spectrum, tall)
    radius = spectrum.sum() * (1 - depth)
    x = project_nuclear(torch.from_numpy(X)[None], radius)[0].numpy()
    assert np.linalg.norm(x - projected(X, radius)) <= 1e-9 * np.linalg.norm(X)
    assert np.linalg.svd(x, compute_uv=False).sum() <= radius * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_a_sum_that_a_gram_matrix_hides_is_still_outside(seed):
    """Values of 1e-8 beside 1: their squares are rounding errors, and their sum is what makes the matrix an outsider."""
    spectrum = np.r_[1.0, np.full(P - 1, 1e-8)]
    X, radius = matrix(spectrum, seed=seed), spectrum.sum() * (1 - 5e-9)
    x = project_nuclear(torch.from_numpy(X)[None], radius)[0].numpy()
    assert np.linalg.svd(x, compute_uv=False).sum() <= radius * (1 + 1e-9)
    assert np.linalg.norm(x - projected(X, radius)) <= 1e-9


@every_spectrum
@SHAPES
def test_singular_values_are_those_of_an_svd(spectrum, tall):
    X = torch.from_numpy(matrix(spectrum, tall))[None]
    expected = torch.from_numpy(np.linalg.svd(X[0].numpy(), compute_uv=False))[None]
    torch.testing.assert_close(singular_values(X), expected, rtol=0, atol=1e-11 * spectrum.max())
    torch.testing.assert_close(nuclear_norm(X), expected.sum(1), rtol=1e-10, atol=0)
    torch.testing.assert_close(spectral_norm(X), expected[:, 0], rtol=1e-13, atol=0)


def test_a_large_matrix_of_low_rank_and_noise():
    """The size of a convexified layer, float32 in: the answer of an SVD in float64, rounded to float32."""
    numbers = np.random.default_rng(0)
    X = numbers.normal(size=(128, 8)) @ numbers.normal(size=(8, 490)) + 1e-2 * numbers.normal(size=(128, 490))
    X = X.astype(np.float32)
    for radius in (50.0, 1500.0):
        x = project_nuclear(torch.from_numpy(X)[None], radius)
        assert x.dtype == torch.float32
        expected = projected(X.astype(np.float64), radius)
        assert np.linalg.norm(x[0].numpy() - expected) <= 1e-7 * np.linalg.norm(X)


@SHAPES
def test_matrices_inside_come_back_unchanged(tall):
    X = torch.from_numpy(matrix(SPECTRA["low rank"], tall))[None].float()
    outside = project_nuclear(torch.cat([X, 2 * X]), 19.0)
    assert torch.equal(outside[:1], X)
    assert not torch.equal(outside[1:], 2 * X)
    assert torch.equal(project_nuclear(X, 1e3), X)


def test_a_batch_with_a_radius_each_is_its_problems_one_by_one():
    X = torch.stack([torch.from_numpy(matrix(s, seed=i)) for i, s in enumerate(SPECTRA.values())])
    radius = torch.linspace(0.05, 20, len(X), dtype=torch.float64)
    x = project_nuclear(X, radius)
    for i in range(len(X)):
        torch.testing.assert_close(x[i : i + 1], project_nuclear(X[i : i + 1], float(radius[i])), rtol=0, atol=1e-12)


def test_threshold_is_that_of_bisection(rng):
    sigma = torch.rand(50, 9, generator=rng, dtype=torch.float64)
    sigma[:10, 4:] = 0
    sigma[10:20] = sigma[10:20, :1]
    radius = 3 * torch.rand(50, generator=rng, dtype=torch.float64) + 1e-3
    expected = [bisected(s.numpy(), r.item()) for s, r in zip(sigma, radius)]
    torch.testing.assert_close(l1_threshold(sigma, radius), torch.tensor(expected, dtype=torch.float64))


@SHAPES
def test_top_pair_is_the_first_of_an_svd(tall, rng):
    shape = (2, 5, 3) if tall else (2, 3, 5)
    X = torch.randn(shape, generator=rng, dtype=torch.float64)
    a, b = top_pair(X)
    U, _, Vt = np.linalg.svd(X.numpy(), full_matrices=False)
    expected = torch.from_numpy(U[:, :, :1] @ Vt[:, :1])
    torch.testing.assert_close(a.unsqueeze(2) * b.unsqueeze(1), expected)


def test_numbers_that_are_not_finite_are_refused():
    X = torch.ones(1, 3, 4)
    X[0, 1, 1] = torch.nan
    with pytest.raises(ArithmeticError, match="not finite"):
        project_nuclear(X, 1.0)
