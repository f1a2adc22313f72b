"""Patches, contrast and whitening against plain loops and NumPy, in float64."""

import numpy as np
import pytest
import torch

from triptych.ccnn.patches import contrast_normalise, extract_patches, whitening
from triptych.check import InputError


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def normal(*shape, rng):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("pad", [0, 2])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (2, 4), (5, 6)])
def test_patches_are_those_of_a_loop(size, pad, rng):
    """Image by image, position by position (row-major), channel by channel: nothing is flipped or transposed."""
    maps = normal(3, 2, 5, 6, rng=rng)
    padded = np.pad(maps.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    expected = [
        image[:, i : i + size[0], j : j + size[1]].ravel()
        for image in padded
        for i in range(padded.shape[2] - size[0] + 1)
        for j in range(padded.shape[3] - size[1] + 1)
    ]
    np.testing.assert_array_equal(extract_patches(maps, size, pad).numpy(), np.array(expected))


@pytest.mark.parametrize("size", [(6, 1), (1, 7)])
def test_a_patch_larger_than_the_map_is_refused(size):
    with pytest.raises(InputError, match=r"patch must fit .* got \d x \d for maps of 5 x 6; take a smaller patch"):
        extract_patches(torch.zeros(1, 1, 5, 6), size)


def test_contrast_normalisation_is_the_formula(rng):
    patches = 3 + 2 * normal(20, 9, rng=rng)
    rows = patches.numpy()
    centred = np.array([row - row.sum() / 9 for row in rows])
    expected = np.array([row / (np.sqrt((row**2).sum()) + 0.7) for row in centred])
    np.testing.assert_allclose(contrast_normalise(patches, 0.7).numpy(), expected, rtol=1e-12)


def test_contrast_normalisation_knows_no_brightness_and_caps_the_contrast(rng):
    patches = normal(20, 9, rng=rng)
    torch.testing.assert_close(contrast_normalise(patches + 5, 0.1), contrast_normalise(patches, 0.1))
    assert bool((torch.linalg.vector_norm(contrast_normalise(1e6 * patches, 0.1), dim=1) < 1).all())
    assert not contrast_normalise(torch.full((2, 9), 3.0), 0.1).any()  # flat patches: 0, not 0 / 0


def covariance_of_rank(rank, dim, rng):
    rows = normal(rank, dim, rng=rng)
    return rows.mT @ rows / rank


@pytest.mark.parametrize(("rank", "ridge"), [(9, 0.1), (9, 1e-3), (4, 0.1)])
def test_whitening_leaves_each_direction_its_share(rank, ridge, rng):
    """W S W = S (S + ridge)^-1: 1 where the variance is far above the ridge, 0 where there is none; W = W'."""
    S = covariance_of_rank(rank, 6, rng)
    W = whitening(S, ridge)
    expected = np.linalg.solve(S.numpy() + ridge * np.eye(6), S.numpy())
    np.testing.assert_allclose((W @ S @ W).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(W.numpy(), W.numpy().T, atol=1e-13)
    assert W.dtype == torch.float64


def test_whitening_without_a_ridge_gives_the_identity(rng):
    S = covariance_of_rank(30, 6, rng)
    errors = [float((W @ S @ W - torch.eye(6)).abs().max()) for W in (whitening(S, r) for r in (1e-2, 1e-5, 1e-11))]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-9
