"""The sliced Wasserstein distance: SciPy's filters and distances, closed forms, and the whole written once more."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve, gaussian_filter
from scipy.stats import wasserstein_distance

from triptych.check import InputError
from triptych.images import Images
from triptych.metrics import sliced_wasserstein as module
from triptych.metrics.sliced_wasserstein import (
    descriptors,
    laplacian_pyramid,
    normalise_,
    pyramid_distance,
    sliced_wasserstein,
)

F64 = torch.float64
KERNEL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def textures(n, side, seed, smooth=1.5):
    """Smooth random fields in colour, each of its own contrast, uint8 (n, 3, side, side)."""
    rng = np.random.default_rng(seed)
    fields = gaussian_filter(rng.normal(size=(n, 3, side, side)), (0, 0, smooth, smooth), mode="wrap")
    fields *= rng.uniform(20, 50, (n, 1, 1, 1)) / fields.std()
    return torch.from_numpy((fields + 128).round().clip(0, 255).astype(np.uint8))


def down(image):
    return convolve(image, KERNEL, mode="mirror")[::2, ::2]


def up(image):
    spread = np.zeros((2 * image.shape[0], 2 * image.shape[1]))
    spread[::2, ::2] = image
    return convolve(spread, 4 * KERNEL, mode="mirror")


def scipy_pyramid(image, levels):
    """Levels of one image (h, w), the finest first."""
    found = []
    for _ in range(levels - 1):
        found.append(image - up(down(image)))
        image = down(image)
    return [*found, image]


@pytest.mark.parametrize(("h", "w", "least", "levels"), [(64, 96, 16, 3), (100, 56, 12, 3), (31, 40, 16, 1)])
def test_the_pyramid_is_that_of_scipys_filters(h, w, least, levels):
    images = torch.randn(2, 3, h, w, generator=generator(), dtype=F64)
    found = laplacian_pyramid(images, least)
    assert [level.shape for level in found] == [(2, 3, h >> k, w >> k) for k in range(levels)]
    for i in range(2):
        for c in range(3):
            for level, expected in zip(found, scipy_pyramid(images[i, c].numpy(), levels), strict=True):
                np.testing.assert_allclose(level[i, c].numpy(), expected, atol=1e-13)


def test_the_image_comes_back_from_its_pyramid():
    image = torch.randn(1, 1, 64, 128, generator=generator(), dtype=F64)
    *fine, whole = (level[0, 0].numpy() for level in laplacian_pyramid(image))
    for level in reversed(fine):
        whole = up(whole) + level
    np.testing.assert_allclose(whole, image[0, 0].numpy(), atol=1e-13)


def test_patches_lie_inside_at_every_place_and_keep_their_order():
    y, x = torch.meshgrid(torch.arange(9), torch.arange(12), indexing="ij")
    image = torch.arange(3)[:, None, None].expand(3, 9, 12)
    level = torch.stack([y.expand(3, 9, 12), x.expand(3, 9, 12), image], 1).float()
    found = descriptors(level, 2000, 5, generator()).reshape(6000, 3, 5, 5)
    corners = found[:, :2, 0, 0]
    offsets = torch.stack(torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij"))
    assert torch.equal(found[:, :2], corners[:, :, None, None] + offsets)
    assert torch.equal(found[:, 2, 0, 0], torch.arange(3.0).repeat_interleave(2000))
    places, counts = corners.unique(dim=0, return_counts=True)
    assert torch.equal(places, torch.cartesian_prod(torch.arange(5.0), torch.arange(8.0)))
    expected = 6000 / 40
    assert float((counts - expected).square().sum() / expected) < 39 + 5 * math.sqrt(2 * 39)


def test_channels_are_normalised_as_numpy_does():
    x = torch.randn(500, 3 * 16, generator=generator()) * 7 + torch.arange(48)
    cube = x.double().numpy().reshape(500, 3, 16)
    expected = (cube - cube.mean((0, 2), keepdims=True)) / cube.std((0, 2), keepdims=True)
    found = normalise_(x, 3)
    assert found is x
    np.testing.assert_allclose(found.numpy(), expected.reshape(500, 48), atol=1e-5)


def test_one_direction_is_scipys_distance():
    a, b = (torch.randn(200, 6, generator=generator(seed), dtype=F64) * scale for seed, scale in ((1, 1), (2, 3)))
    way = torch.randn(1, 6, generator=generator(5), dtype=F64)[0]
    expected = wasserstein_distance((a @ way / way.norm()).numpy(), (b @ way / way.norm()).numpy())
    assert sliced_wasserstein(a, b, 1, 1, generator(5)) == pytest.approx(expected, rel=1e-12)
    line = wasserstein_distance(a[:, 0].numpy(), b[:, 0].numpy())
    assert sliced_wasserstein(a[:, :1], b[:, :1], 3, 2, generator()) == pytest.approx(line, rel=1e-12)


def test_directions_are_a_mean_over_all_however_many_at_a_time(monkeypatch):
    a, b = (torch.randn(50, 6, generator=generator(seed), dtype=F64) for seed in (1, 2))
    rng = generator(5)
    ways = torch.cat([torch.randn(7, 6, generator=rng, dtype=F64) for _ in range(3)])
    each = [wasserstein_distance((a @ way / way.norm()).numpy(), (b @ way / way.norm()).numpy()) for way in ways]
    monkeypatch.setattr(module, "PROJECTED", 100)
    assert sliced_wasserstein(a, b, 7, 3, generator(5)) == pytest.approx(np.mean(each), rel=1e-12)


def test_a_shift_is_as_far_as_its_mean_projection():
    """E |m · θ| = ‖m‖ Γ(d/2) / (√π Γ((d+1)/2)), and E (m · θ)² = ‖m‖² / d, over the unit sphere."""
    n, d, directions = 4000, 8, 1000
    m = torch.linspace(-2, 5, d, dtype=F64)
    share = math.gamma(d / 2) / (math.sqrt(math.pi) * math.gamma((d + 1) / 2))
    spread = math.sqrt(1 / d - share**2)
    a, b = (torch.randn(n, d, generator=generator(seed), dtype=F64) for seed in (1, 2))
    moved = sliced_wasserstein(a, a + m, directions, 1, generator())
    assert abs(moved / float(m.norm()) - share) < 4 * spread / math.sqrt(directions)
    # Of independent samples: means differ by N(0, 2 θᵀθ / n); sorted values, where |m · θ| is small, by as much.
    assert abs(sliced_wasserstein(a, b + m, directions, 1, generator()) - moved) < 4 * math.sqrt(2 / n)


def test_equal_sets_are_at_distance_nought_and_seeds_repeat():
    x, y = textures(12, 32, 0), textures(12, 32, 1)
    found = pyramid_distance(x, x.clone(), patches=20)
    assert found.values == (0.0, 0.0)
    assert (found.levels, found.mean, found.n) == (((32, 32), (16, 16)), 0.0, 12)
    one = pyramid_distance(Images(x), Images(y), patches=20, seed=3)
    assert one == pyramid_distance(x, y, patches=20, seed=3)
    assert one.values != pyramid_distance(x, y, patches=20, seed=4).values
    assert one.mean == pytest.approx(sum(one.values) / 2)


def test_a_distance_does_not_depend_on_how_many_images_are_read_at_a_time(monkeypatch):
    x, y = textures(11, 32, 0), textures(11, 32, 1)
    one = pyramid_distance(x, y, patches=20)
    monkeypatch.setattr(module, "BLOCK", 4 * 3 * 32 * 32)
    assert pyramid_distance(x, y, patches=20).values == pytest.approx(one.values, rel=1e-5)


def by_hand(a, b, patches, directions, rng):
    """The metric of two sets of images of 32 x 32, with NumPy, SciPy and random numbers of its own."""
    values = []
    for level in range(2):
        sets = []
        for images in (a, b):
            found = []
            for image in images.double().numpy():
                maps = np.stack([scipy_pyramid(channel, 2)[level] for channel in image])
                side = maps.shape[1]
                for y, x in rng.integers(0, side - 6, (patches, 2)):
                    found.append(maps[:, y : y + 7, x : x + 7])
            found = np.stack(found)
            found = (found - found.mean((0, 2, 3), keepdims=True)) / found.std((0, 2, 3), keepdims=True)
            sets.append(found.reshape(len(found), -1))
        each = []
        for _ in range(directions):
            way = rng.normal(size=sets[0].shape[1])
            way /= np.linalg.norm(way)
            each.append(wasserstein_distance(sets[0] @ way, sets[1] @ way))
        values.append(1000 * np.mean(each))
    return values


def test_the_whole_is_that_of_another_implementation():
    a, b = textures(40, 32, 0), textures(40, 32, 1, smooth=1.2)
    ours = [pyramid_distance(a, b, patches=30, directions=100, repeats=1, seed=s).values for s in range(8)]
    theirs = [by_hand(a, b, 30, 100, np.random.default_rng(s)) for s in range(6)]
    error = np.sqrt(np.var(ours, axis=0, ddof=1) / 8 + np.var(theirs, axis=0, ddof=1) / 6)
    off = np.mean(ours, axis=0) - np.mean(theirs, axis=0)
    assert (abs(off) < 4 * error).all()
    assert (error < 0.05 * np.mean(theirs, axis=0)).all()


def test_a_change_of_colour_and_contrast_is_seen_only_without_normalisation():
    x = textures(20, 32, 0) // 4 + 10
    gain, shift = torch.tensor([1, 2, 2])[:, None, None], torch.tensor([90, 0, 20])[:, None, None]
    other = (x * gain + shift).byte()
    blind, seen = (pyramid_distance(x, other, patches=30, normalise=normalise) for normalise in (True, False))
    assert max(blind.values) < 0.01
    assert min(seen.values) > 100
    assert pyramid_distance(x, textures(20, 32, 1) // 4 + 10, patches=30).mean > 10


def test_without_normalisation_values_are_thousandths_of_a_grey_level():
    dark = torch.full((3, 1, 16, 16), 50, dtype=torch.uint8)
    found = pyramid_distance(dark, dark + 20, patches=5, size=1, normalise=False)
    assert (found.levels, found.values) == (((16, 16),), (20_000.0,))


@pytest.mark.parametrize("harm", ["noise", "blur"])
def test_the_distance_grows_with_harm_most_where_the_harm_is(harm):
    x = textures(40, 64, 0)
    noise = torch.randn(x.shape, generator=generator())
    found = []
    for size in (0.5, 0.8, 1.2):
        if harm == "noise":
            harmed = (x + 20 * size * noise).round().clamp(0, 255).byte()
        else:
            harmed = torch.from_numpy(gaussian_filter(x.numpy().astype(float), (0, 0, size, size)).round()).byte()
        found.append(pyramid_distance(x, harmed, patches=30, directions=100, repeats=1))
    assert found[0].mean < found[1].mean < found[2].mean
    for one in found:
        assert one.levels == ((64, 64), (32, 32), (16, 16))
        assert one.values[0] > 2 * one.values[2]


def pixels(n=2, c=3, h=16, w=16):
    return torch.randint(0, 256, (n, c, h, w), dtype=torch.uint8, generator=generator())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: pyramid_distance(pixels(3), pixels(2)), "as many images, got 3 and 2; take 2 of each"),
        (lambda: pyramid_distance(pixels(c=1), pixels()), "images of one shape"),
        (lambda: pyramid_distance(pixels().float(), pixels()), "uint8"),
        (lambda: pyramid_distance(pixels(h=8), pixels(h=8)), "at least 16, got 8 x 16"),
        (lambda: pyramid_distance(pixels(h=66, w=64), pixels(h=66, w=64)), "images of 66 x 64 .* since 33 x 32"),
        (lambda: pyramid_distance(pixels(), pixels(), size=17), "size must be a whole number from 1 to 16"),
        (lambda: pyramid_distance(pixels(), pixels(), patches=0), "patches must be"),
        (lambda: pyramid_distance(pixels(), pixels(), directions=0), "directions must be"),
        (lambda: pyramid_distance(pixels(), pixels(), repeats=0), "repeats must be"),
        (lambda: pyramid_distance(pixels(), pixels(), seed=-1), "seed must be"),
        (lambda: pyramid_distance(pixels() // 255 * 0, pixels()), "use normalise=False"),
        (lambda: laplacian_pyramid(pixels()), r"floats \(n, c, h, w\)"),
        (lambda: laplacian_pyramid(torch.ones(1, 1, 8, 8), 1), "least must be a whole number of at least 2"),
        (lambda: descriptors(torch.ones(1, 1, 8, 9), 3, 9, generator()), "from 1 to 8"),
        (lambda: normalise_(torch.randn(5, 8), 3), "a divisor of the 8 numbers"),
        (lambda: normalise_(torch.tensor([[1.0, 2.0], [torch.nan, 1.0]]), 2), "must be finite"),
        (lambda: sliced_wasserstein(torch.ones(3, 2), torch.ones(4, 2), 1, 1, generator()), "take as many of each"),
        (lambda: sliced_wasserstein(torch.ones(3, 2), torch.ones(3, 2).double(), 1, 1, generator()), "of one type"),
        (lambda: sliced_wasserstein(torch.ones(3, 2), torch.ones(3, 4), 1, 1, generator()), "same dimensions"),
        (lambda: sliced_wasserstein(torch.ones(3, 2), torch.full((3, 2), torch.nan), 1, 1, generator()), "finite"),
        (lambda: sliced_wasserstein(torch.ones(3, 2), torch.ones(3, 2), 0, 1, generator()), "directions must be"),
    ],
)
def test_what_has_no_distance_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()
