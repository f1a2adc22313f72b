"""A layer's features against a pipeline in NumPy, and what they must not depend on: other images, chunks, a rotation."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from triptych.ccnn import features as module
from triptych.ccnn.features import fit_features
from triptych.ccnn.kernels import Gaussian, InversePolynomial, Linear
from triptych.ccnn.settings import Layer, linear_layer
from triptych.check import InputError

SMALL = Layer(patch=3, width=25, window=2, stride=2, components=8)
SETTINGS = {
    "random": SMALL,
    "nystrom": Layer(patch=3, width=25, window=2, stride=2, components=8, method="nystrom"),
    "monomials": Layer(patch=3, width=25, window=2, stride=2, components=8, kernel=InversePolynomial()),
    "plain patches": Layer(patch=3, width=25, window=2, stride=1, components=8, contrast=None, ridge=None),
    "not centred": Layer(patch=2, width=25, window=3, stride=1, components=8, centre=False, power=0.5),
    "linear": linear_layer(3, 1.0, 4, window=2, stride=2),
}
ALL = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def digits(first, last):
    return torch.from_numpy(load_digits().images[first:last, None] / 16)


def fitted(settings, maps=None, precision=torch.float64):
    return fit_features(digits(0, 60) if maps is None else maps, settings, rng(), precision=precision)


def pipeline(maps, train, settings, expansion):
    """Rows (n, P, q) of maps by NumPy loops, with statistics from ``train``; components are fixed up to their signs."""

    def patches(images):
        s = settings.patch
        out = [
            [im[:, i : i + s, j : j + s].ravel() for i in range(8 - s + 1) for j in range(8 - s + 1)]
            for im in images.numpy()
        ]
        p = np.array(out)
        if settings.contrast is not None:
            p = p - p.mean(2, keepdims=True)
            p = p / (np.linalg.norm(p, axis=2, keepdims=True) + settings.contrast)
        return p

    rows = patches(train).reshape(-1, settings.patch**2)
    mean, S = rows.mean(0), np.cov(rows.T, bias=True)
    values, vectors = np.linalg.eigh(S)
    W = np.eye(len(S)) if settings.ridge is None else vectors / np.sqrt(values + settings.ridge) @ vectors.T
    W = W / np.sqrt((((rows - mean) @ W) ** 2).sum(1).mean())

    def pooled(images):
        z = (patches(images) - mean) @ W
        if settings.kernel.ball:
            z = z / np.maximum(1, np.linalg.norm(z, axis=2, keepdims=True))
        phi = expansion.finish(expansion.raw(torch.from_numpy(z.reshape(-1, z.shape[2])))).numpy()
        side = 8 - settings.patch + 1
        phi = phi.reshape(len(images), side, side, -1)
        starts = range(0, side - settings.window + 1, settings.stride)
        w = settings.window
        cells = [phi[:, i : i + w, j : j + w].mean((1, 2)) for i in starts for j in starts]
        return np.stack(cells, 1)

    known = pooled(train)
    known = known.reshape(-1, known.shape[2])
    centre = known.mean(0) * settings.centre
    values, vectors = np.linalg.eigh((known - centre).T @ (known - centre) / len(known))
    values, vectors = values[::-1][: settings.components], vectors[:, ::-1][:, : settings.components]
    scaled = vectors * values**-settings.power / np.sqrt((values ** (1 - 2 * settings.power)).sum())
    return (pooled(maps) - centre) @ scaled


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "linear"])
def test_features_are_those_of_the_plain_pipeline(name):
    """Statistics come from the training images; the mean and the whitening are kept in float32, hence the tolerance."""
    train, test = digits(0, 60), digits(60, 75)
    settings = SETTINGS[name]
    found = fitted(settings, train)
    expected = pipeline(test, train, found.settings, found.expansion)
    rows = found(test).numpy()
    assert rows.shape == expected.shape == (15, found.positions, found.components)
    signs = np.sign((rows * expected).sum((0, 1)))  # an eigenvector's sign is its own
    np.testing.assert_allclose(rows, expected * signs, atol=2e-4)


@ALL
def test_an_image_is_transformed_the_same_in_any_company(settings):
    train, test = digits(0, 60), digits(60, 90)
    found = fitted(settings, train)
    before = {name: tensor.clone() for name, tensor in found.expansion.tensors().items()}
    alone, together = found(test[:5]), found(torch.cat([test[:5], 100 * test[5:]]))[:5]
    torch.testing.assert_close(alone, together, rtol=1e-10, atol=1e-12)
    again = fitted(settings, train)
    assert all(torch.equal(before[name], tensor) for name, tensor in again.expansion.tensors().items())
    assert torch.equal(again(test[:5]), alone)


@ALL
def test_chunks_do_not_matter(settings, monkeypatch):
    """Neither when the statistics are learned nor when they are used: 1, a few and all images at once."""
    train, test = digits(0, 60), digits(60, 90)
    found, expected = fitted(settings, train), fitted(settings, train)(test)
    for entries in (1, 7 * 36 * found.expansion.width):
        monkeypatch.setattr(module, "CHUNK_ENTRIES", entries)
        assert found.chunk == max(1, entries // ((9 - found.patch[0]) ** 2 * found.expansion.width))
        torch.testing.assert_close(found(test), expected, rtol=1e-10, atol=1e-12)
        learned = fitted(settings, train)(test)
        torch.testing.assert_close(learned @ learned.mT, expected @ expected.mT, rtol=1e-6, atol=1e-8)


@ALL
def test_every_dtype_and_scale_of_pixels_is_the_same_picture(settings):
    """To the accuracy of the whitening, which is learned and kept in float32; the linear layer has none."""
    pixels = (digits(0, 60) * 255).round().to(torch.uint8)
    whole = fit_features(pixels, settings, rng(), scale=1 / 255, precision=torch.float64)
    real = fit_features(pixels.double() / 255, settings, rng(), precision=torch.float64)
    tolerance = 1e-12 if settings.kernel == Linear() else 1e-4
    torch.testing.assert_close(whole(pixels), real(pixels.double() / 255), rtol=0, atol=tolerance)


@pytest.mark.parametrize("components", [None, 4])
@pytest.mark.parametrize("power", [0.0, 0.3, 0.5])
def test_the_mean_squared_norm_of_training_features_is_1(power, components):
    settings = Layer(patch=3, width=25, window=2, stride=2, power=power, components=components)
    rows = fitted(settings)(digits(0, 60))
    assert float(rows.square().sum(2).mean()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(rows.mean((0, 1)), torch.zeros(rows.shape[2], dtype=torch.float64), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["random", "plain patches", "nystrom"])
def test_the_mean_squared_norm_of_training_patches_is_1(name):
    """What gamma = 1 means is the same for every data set."""
    assert float(fitted(SETTINGS[name]).patches(digits(0, 60)).square().sum(1).mean()) == pytest.approx(1, abs=1e-5)


def test_patches_of_a_ball_kernel_lie_in_the_ball():
    norms = torch.linalg.vector_norm(fitted(SETTINGS["monomials"]).patches(50 * digits(0, 60)), dim=1)
    assert float(norms.max()) == pytest.approx(1, abs=1e-6)


def test_all_components_at_power_0_are_a_rotation():
    """The Gram matrix of the features is that of the centred pooled expansions, over their mean squared norm."""
    settings = Layer(patch=3, width=25, window=2, stride=2, components=None, power=0.0)
    found, train = fitted(settings), digits(0, 60)
    plain = found.expansion.finish(found.pooled(train)).flatten(0, 1)
    plain = plain - plain.mean(0)
    plain = plain / plain.square().sum(1).mean().sqrt()
    rows = found(train).flatten(0, 1)
    assert found.components == 25
    torch.testing.assert_close(rows @ rows.mT, plain @ plain.mT, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.3, 0.5])
def test_components_are_uncorrelated_and_scaled_by_the_power(power):
    """The variance of component j is proportional to eigenvalue_j^(1 - 2 power)."""
    settings = Layer(patch=3, width=25, window=2, stride=2, components=6, power=power)
    rows = fitted(settings)(digits(0, 60)).flatten(0, 1)
    plain = fitted(Layer(patch=3, width=25, window=2, stride=2, components=6, power=0.0))(digits(0, 60)).flatten(0, 1)
    S, variances = rows.mT @ rows / len(rows), plain.square().mean(0)
    expected = variances ** (1 - 2 * power)
    torch.testing.assert_close(S, torch.diag(expected / expected.sum()), rtol=1e-6, atol=1e-7)


def test_permuting_pixels_permutes_positions():
    """With patches and windows of one pixel a position is a pixel, and statistics do not see their order."""
    settings = Layer(patch=1, contrast=None, ridge=None, width=9, window=1, stride=1, components=5)
    maps = torch.randn(40, 2, 4, 4, generator=rng(3), dtype=torch.float64)
    order = torch.randperm(16, generator=rng(4))
    permuted = maps.flatten(2)[:, :, order].view(maps.shape)
    found, other = fitted(settings, maps), fitted(settings, permuted)
    torch.testing.assert_close(found(permuted), found(maps)[:, order], rtol=1e-9, atol=1e-12)
    a, b = other(permuted), found(maps)[:, order]
    torch.testing.assert_close(a @ a.mT, b @ b.mT, rtol=1e-5, atol=1e-6)


def test_a_pixel_reaches_the_positions_whose_windows_hold_it():
    """Pixel (1, 6) of 8 x 8 lies in 3 x 3 patches at rows 0, 1 and columns 4, 5, those in the cell (0, 2) of 3 x 3."""
    found, image = fitted(SMALL), digits(0, 1)
    changed = image.clone()
    changed[0, 0, 1, 6] += 0.5
    differ = (found(changed) - found(image))[0].abs().amax(1) > 1e-9
    assert found.grid == (3, 3)
    assert differ.view(3, 3).nonzero().tolist() == [[0, 2]]


def test_low_maps_get_lower_patches_and_windows():
    """A signal 1 x 12 with patches of 5 and windows of 4: patches 1 x 5, 8 positions, cells at 0, 2 and 4."""
    found = fit_features(torch.rand(30, 2, 1, 12, generator=rng()), Layer(patch=5, window=4, stride=2, width=9), rng())
    assert (found.patch, found.grid, found.positions) == ((1, 5), (1, 3), 3)
    assert found.patches(torch.rand(4, 2, 1, 12)).shape == (4 * 8, 2 * 5)


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 2), (3, 2), (4, 1), (2, 3), (4, 4)])
def test_pooling_is_the_average_over_windows_that_lie_inside(window, stride):
    """A loop over maps of 5 x 8: patches of 2 have 4 x 7 places; what is left at the far edges belongs to no window."""
    maps = torch.randn(3, 2, 5, 8, generator=rng(1), dtype=torch.float64)
    found = fit_features(maps, linear_layer(2, 1.0, 1, window=window, stride=stride), rng())
    patches = maps.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).flatten(3).numpy()
    expected = [
        [
            sum(image[i + a, j + b] for a in range(window) for b in range(window)) / window**2
            for i in range(0, 4 - window + 1, stride)
            for j in range(0, 7 - window + 1, stride)
        ]
        for image in patches
    ]
    np.testing.assert_allclose(found.pooled(maps).numpy(), np.array(expected), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found(maps).numpy(), np.array(expected), rtol=1e-12, atol=1e-14)
    assert found.positions == len(expected[0])


@pytest.mark.parametrize("settings", [SMALL, SETTINGS["linear"]], ids=["random", "linear"])
def test_filters_act_on_the_features_and_the_maps_have_a_pooling_of_their_own(settings):
    found, maps = fitted(settings), digits(60, 70)
    filters = torch.randn(found.components, 3, generator=rng(2), dtype=torch.float64)
    torch.testing.assert_close(found.filtered(filters, 2, 2)(maps), found(maps) @ filters)
    fine, side = found.filtered(filters, 1, 1), 6
    assert fine.grid == (side, side)
    cells = fine(maps).view(10, side, side, 3)
    pooled = (cells[:, ::2, ::2] + cells[:, 1::2, ::2] + cells[:, ::2, 1::2] + cells[:, 1::2, 1::2]) / 4
    torch.testing.assert_close(pooled.flatten(1, 2), found(maps) @ filters)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (SMALL, torch.bfloat16),
        (SETTINGS["monomials"], torch.float32),
        (SETTINGS["nystrom"], torch.float32),
        (SETTINGS["linear"], torch.float64),
    ],
    ids=["random", "monomials", "nystrom", "linear"],
)
def test_the_dtype_is_the_coarsest_that_is_safe_where_there_are_many(settings, expected, monkeypatch):
    """And safe means: the relative error against float64 is small (bfloat16 has 8 bits, and rounds several times)."""
    monkeypatch.setattr(module, "FEW_ENTRIES", 0)
    train, test = digits(0, 60), digits(60, 90)
    found, exact = fitted(settings, train, precision=None), fitted(settings, train)(test)
    assert found.dtype == expected
    gram = found(test).double()
    gram, exact = gram.flatten(1) @ gram.flatten(1).mT, exact.flatten(1) @ exact.flatten(1).mT
    bound = {torch.bfloat16: 0.03, torch.float32: 1e-3, torch.float64: 1e-9}[expected]
    assert float((gram - exact).norm() / exact.norm()) < bound


def test_the_linear_layer_keeps_float64_whatever_is_asked():
    assert fitted(SETTINGS["linear"], precision=torch.bfloat16).dtype == torch.float64


def test_statistics_of_many_images_come_from_a_random_part(monkeypatch):
    """With room for one image's 36 patches, the mean is that of one of the images, and not always of the first."""
    monkeypatch.setattr(module, "SAMPLE_PATCHES", 36)
    maps = digits(0, 20)
    settings = Layer(patch=3, contrast=None, ridge=None, width=5, window=6, stride=1)
    means = torch.stack([maps[i].unfold(1, 3, 1).unfold(2, 3, 1).reshape(36, 9).mean(0) for i in range(20)])
    chosen = set()
    for seed in range(5):
        found = fit_features(maps, settings, rng(seed)).mean
        assert found is not None
        distances = (means - found).abs().amax(1)
        assert float(distances.min()) < 1e-6
        chosen.add(int(distances.argmin()))
    assert len(chosen) > 1


def test_images_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"the shape of the training images, \(1, 8, 8\), got \(1, 9, 8\)"):
        fitted(SMALL)(torch.zeros(2, 1, 9, 8))


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("kernel", [Gaussian(1.0), InversePolynomial(), Linear()], ids=lambda k: k.name)
def test_images_without_any_content_have_finite_features(value, kernel):
    """Constant images have no variance: there is no component to find, and still something to return."""
    maps = torch.full((10, 1, 8, 8), value)
    rows = fit_features(maps, Layer(patch=3, width=9, kernel=kernel), rng())(maps)
    assert rows.shape[2] > 0
    assert bool(rows.isfinite().all())
    torch.testing.assert_close(rows[0], rows[9])


def test_nothing_in_means_nothing_out():
    assert fitted(SMALL)(digits(0, 0)).shape == (0, 9, 8)


@pytest.mark.parametrize(
    ("shape", "patch", "window", "stride", "grid"),
    [
        ((1, 28, 28), 5, 6, 3, (7, 7)),
        ((3, 32, 32), 5, 7, 3, (8, 8)),
        ((1, 8, 8), 3, 2, 1, (5, 5)),
        ((1, 1, 20), 3, 5, 2, (1, 7)),
        ((1, 1, 1), 1, 1, 1, (1, 1)),
    ],
)
def test_what_is_left_open_follows_from_the_shape(shape, patch, window, stride, grid):
    settings = Layer(width=4).resolved(shape)
    assert (settings.patch, settings.window, settings.stride) == (patch, window, stride)
    assert (settings.map_window, settings.map_stride) == (window, stride)
    assert fit_features(torch.rand(6, *shape, generator=rng()), Layer(width=4), rng()).grid == grid


def test_few_features_are_float32_where_the_choice_is_free():
    assert fitted(SMALL, digits(0, 60), precision=None).dtype == torch.float32
    assert fitted(SMALL, digits(0, 60), precision=torch.bfloat16).dtype == torch.bfloat16
