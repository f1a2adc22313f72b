from dataclasses import replace

import numpy as np
import pytest
import torch

from triptych import CCNNClassifier
from triptych.ccnn import pictures
from triptych.ccnn.kernels import Gaussian, InversePolynomial
from triptych.ccnn.pictures import drawable, filter_pictures, patch_covariance
from triptych.ccnn.settings import Layer, linear_layer


def blobs(channels, n=60, side=12):
    """Smooth pictures of two classes that differ in the direction of their stripes."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    grid = np.arange(side)
    phase, gain = rng.uniform(0, 6.28, (n, 1, 1, 1)), rng.uniform(0.3, 1, (n, channels, 1, 1))
    across, down = grid[None, None, None, :], grid[None, None, :, None]
    waves = np.where(y[:, None, None, None] == 1, np.sin(across + phase), np.sin(down + phase))
    noise = rng.normal(0, 0.3, (n, channels, side, side))
    return np.clip(127 + 90 * gain * waves + 30 * noise, 0, 255).astype(np.uint8), y


def fitted(layers, channels=1, darker=1):
    X, y = blobs(channels)
    X = X // darker
    return CCNNClassifier(layers, random_state=0, tol=0.05).fit(X, y), X


def test_a_linear_filter_is_its_own_picture():
    """The product with any patch is the response that the layer's maps have on an image of just that patch."""
    classifier, _ = fitted(linear_layer(3, 2.0, 4), channels=3)
    layer = classifier.layers_[0]
    found = filter_pictures(layer)
    patches = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    response = layer.features.filtered(layer.filters, 1, 1)(patches)[:, 0]  # the first position: the corner's patch
    assert found.shape == (len(layer.filters.mT), 3, 3, 3)
    product = torch.einsum("nchw,rchw->nr", patches[:, :, :3, :3] / 255, found)
    torch.testing.assert_close(product, response, rtol=1e-9, atol=1e-12)


def all_patches(X, side, offset):
    """Every contrast-normalised patch of pictures X (n, c, h, w), float64, with NumPy alone."""
    windows = np.lib.stride_tricks.sliding_window_view(X / 255, (side, side), axis=(2, 3))
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, X.shape[1] * side * side)
    rows = rows - rows.mean(1, keepdims=True)
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + offset)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_whitening_knows_the_covariance_of_the_training_patches(channels):
    classifier, X = fitted(Layer(patch=3, width=60, ridge=0.05), channels)
    covariance, ridge = patch_covariance(classifier.layers_[0].features)
    assert ridge == 0.05
    expected = np.cov(all_patches(X, 3, 0.1).T, bias=True)
    np.testing.assert_allclose(covariance.numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_cosines_have_their_closed_form(monkeypatch, channels):
    """For p Gaussian, E[(p - mean) cos(<v, p - mean> + b)] = -S v sin(b) exp(-v' S v / 2)."""
    classifier, X = fitted(Layer(patch=3, width=60, kernel=Gaussian(0.8), ridge=0.05), channels)
    layer = classifier.layers_[0]
    features, cosines = layer.features, layer.features.expansion.tensors()
    S = torch.from_numpy(np.cov(all_patches(X, 3, 0.1).T, bias=True))
    v = features.whiten.double() @ cosines["weight"].double()
    b = cosines["bias"].double()
    moments = -S @ v * b.sin() * (-(v * (S @ v)).sum(0) / 2).exp() * (2 / len(b)) ** 0.5
    exact = torch.linalg.solve(S + 0.05 * torch.eye(len(S)), moments @ features.mix.double() @ layer.filters)
    monkeypatch.setattr(pictures, "DRAWS", 100_000)
    found = filter_pictures(layer).flatten(1).mT
    assert torch.linalg.matrix_norm(found - exact) < 0.05 * torch.linalg.matrix_norm(exact)


LAYERS = {
    "gaussian": Layer(),
    "ball": Layer(
        kernel=InversePolynomial(), method="nystrom"
    ),  # random monomials have tails too heavy for two samples
    "nystrom": Layer(method="nystrom"),
    "unwhitened": Layer(ridge=None),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_pictures_are_the_ridge_regression_of_responses_on_patches(monkeypatch, layer):
    """The oracle draws its own patches, from the images' moments, and asks the layer for their maps as for any image."""
    classifier, X = fitted(replace(layer, patch=3, width=40, contrast=None), darker=4)
    fit, rng = classifier.layers_[0], np.random.default_rng(7)
    windows = np.lib.stride_tricks.sliding_window_view(X[:, 0] / 255, (3, 3), axis=(1, 2)).reshape(-1, 9)
    S, ridge = np.cov(windows.T, bias=True), layer.ridge or 0.0
    S = S if layer.ridge else np.eye(9) * np.trace(S) / 9
    patches = rng.multivariate_normal(np.zeros(9), S, 100_000)
    alone = replace(fit.features.filtered(fit.filters, 1, 1), shape=(1, 3, 3), scale=1.0, dtype=torch.float64)
    maps = alone(torch.from_numpy(patches + windows.mean(0)).view(-1, 1, 3, 3))[:, 0].numpy()
    expected = np.linalg.solve(S + ridge * np.eye(9), patches.T @ (maps - maps.mean(0)) / len(maps))
    monkeypatch.setattr(pictures, "DRAWS", 100_000)
    found = filter_pictures(fit).flatten(1).mT.numpy()
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_pictures_survive_a_save_and_deeper_layers_read_maps(tmp_path):
    classifier, _ = fitted([Layer(patch=3, width=60), Layer(patch=3, width=60)], channels=3)
    first, second = (filter_pictures(layer) for layer in classifier.layers_)
    assert second.shape[1:] == (len(first), 3, 3)
    again = CCNNClassifier.load(classifier.save(tmp_path / "m"))
    torch.testing.assert_close(filter_pictures(again.layers_[0]), first, rtol=1e-9, atol=1e-12)
    assert drawable(first) is first
    assert torch.equal(drawable(second), second.mean(1, keepdim=True))


def test_patches_are_cut_to_maps_that_are_smaller():
    X, y = blobs(1, side=4)
    classifier = CCNNClassifier(Layer(patch=3, width=20), random_state=0, tol=0.1).fit(X[:, :, :2], y)
    assert filter_pictures(classifier.layers_[0]).shape[1:] == (1, 2, 3)
