"""MS-SSIM against torchmetrics, SciPy and loops over windows; which pairs a set's diversity is of."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from triptych.check import InputError
from triptych.data import load
from triptych.images import Images
from triptych.metrics import ms_ssim as module
from triptych.metrics.ms_ssim import Diversity, diversity, ms_ssim, pairs_of, scales_of, weights_of

F64 = torch.float64
THREE = (0.3, 0.3, 0.4)
FIVE = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al., section 3.2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def alike(n, c, h, w, dtype=F64):
    """Random images in [0, 1] that are smooth at several scales, and others more and less like them."""
    rng = generator()
    shape = (n, c, h, w)
    coarse = torch.rand(n, c, h // 8 + 1, w // 8 + 1, generator=rng, dtype=F64)
    a = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, :h, :w]
    a = 0.6 * a + 0.4 * torch.rand(shape, generator=rng, dtype=F64)
    share = torch.linspace(0.1, 1, n, dtype=F64).view(n, 1, 1, 1)
    return a.to(dtype), ((1 - share) * a + share * torch.rand(shape, generator=rng, dtype=F64)).to(dtype)


@pytest.mark.parametrize(
    ("c", "h", "w", "weights"),
    [(3, 176, 181, FIVE), (1, 200, 176, FIVE), (3, 64, 64, THREE), (3, 64, 64, (1.0,)), (2, 45, 61, THREE)],
)
@pytest.mark.parametrize(("data_range", "dtype", "off"), [(1, F64, 1e-7), (255, torch.float32, 1e-5)])
def test_the_values_are_those_of_torchmetrics(c, h, w, weights, data_range, dtype, off):
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    a, b = (data_range * x for x in alike(4, c, h, w, dtype))
    # Its weights are float32 whatever the images are.
    expected = multiscale_structural_similarity_index_measure(
        a, b, data_range=float(data_range), betas=weights, reduction=None
    )
    found = ms_ssim(a, b, data_range=data_range, weights=weights)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=off)
    assert found.max() - found.min() > 0.1


def test_negative_similarity_counts_as_nought_as_in_torchmetrics():
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    a, _ = alike(3, 1, 64, 64)
    expected = multiscale_structural_similarity_index_measure(a, 1 - a, data_range=1.0, betas=THREE, reduction=None)
    assert (expected == 0).any()
    assert torch.equal(ms_ssim(a, 1 - a, data_range=1, weights=THREE), expected)


def by_loops(x, y, data_range, size, sigma):
    """SSIM, and its contrast and structure alone, as means over every window inside one map (h, w): loops over pixels."""
    middle = (size - 1) / 2
    g = np.array(
        [
            [math.exp(-((i - middle) ** 2 + (j - middle) ** 2) / (2 * sigma**2)) for j in range(size)]
            for i in range(size)
        ]
    )
    g /= g.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    whole, contrast = [], []
    for i in range(x.shape[0] - size + 1):
        for j in range(x.shape[1] - size + 1):
            p, q = x[i : i + size, j : j + size], y[i : i + size, j : j + size]
            mp, mq = (g * p).sum(), (g * q).sum()
            vp, vq, cov = (g * (p - mp) ** 2).sum(), (g * (q - mq) ** 2).sum(), (g * (p - mp) * (q - mq)).sum()
            contrast.append((2 * cov + c2) / (vp + vq + c2))
            whole.append((2 * mp * mq + c1) / (mp**2 + mq**2 + c1) * contrast[-1])
    return np.mean(whole), np.mean(contrast)


@pytest.mark.parametrize(("h", "w", "side"), [(20, 25, 11), (9, 14, 9), (6, 6, 6), (2, 3, 2)])
def test_one_scale_is_a_loop_over_windows_that_shrink_with_the_image(h, w, side):
    a, b = (200 * x for x in alike(2, 2, h, w))
    found = ms_ssim(a, b, data_range=200, weights=(1.0,), small="shrink")
    for i in range(2):
        each = [by_loops(a[i, c].numpy(), b[i, c].numpy(), 200, side, 1.5 * side / 11)[0] for c in range(2)]
        assert float(found[i]) == pytest.approx(np.mean(each), rel=1e-10)


def by_scipy(a, b, data_range, weights):
    """What Karras et al. compute for images (c, h, w): SciPy's convolutions, windows inside the image, cut to its side."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    product = 1.0
    for scale, weight in enumerate(weights):
        if scale:
            a, b = ((z[:, ::2, ::2] + z[:, 1::2, ::2] + z[:, ::2, 1::2] + z[:, 1::2, 1::2]) / 4 for z in (a, b))
        size = min(11, *a.shape[1:])
        line = np.exp(-((np.arange(size) - (size - 1) / 2) ** 2) / (2 * (1.5 * size / 11) ** 2))
        window = np.outer(line, line) / line.sum() ** 2
        terms = []
        for x, y in zip(a, b):
            mx, my, xx, yy, xy = (convolve2d(z, window, mode="valid") for z in (x, y, x * x, y * y, x * y))
            term = (2 * (xy - mx * my) + c2) / (xx - mx**2 + yy - my**2 + c2)
            if scale == len(weights) - 1:
                term = term * (2 * mx * my + c1) / (mx**2 + my**2 + c1)
            terms.append(term.mean())
        product *= max(0.0, float(np.mean(terms))) ** weight
    return product


@pytest.mark.parametrize(("h", "w"), [(32, 32), (64, 32), (128, 128), (176, 192)])
def test_five_scales_of_small_images_are_those_of_windows_cut_to_the_side(h, w):
    a, b = (255 * x for x in alike(2, 3, h, w))
    found = ms_ssim(a, b, data_range=255, small="shrink")
    for i in range(2):
        assert float(found[i]) == pytest.approx(by_scipy(a[i].numpy(), b[i].numpy(), 255, FIVE), rel=1e-9)


def test_an_image_is_like_itself_and_alike_either_way():
    a, b = alike(3, 3, 64, 48)
    for small, weights in (("shrink", FIVE), ("error", THREE)):
        one = ms_ssim(a, a, data_range=1, weights=weights, small=small)
        torch.testing.assert_close(one, torch.ones(3, dtype=F64), rtol=0, atol=1e-12)
        there, back = (ms_ssim(*pair, data_range=1, weights=weights, small=small) for pair in ((a, b), (b, a)))
        torch.testing.assert_close(there, back, rtol=1e-12, atol=0)
        assert (there < 0.999).all()


@pytest.mark.parametrize("small", ["error", "shrink"])
def test_even_images_differ_by_the_luminance_of_the_last_scale_alone(small):
    a, b = (torch.full((1, 3, 176, 176), value, dtype=F64) for value in (60.0, 200.0))
    luminance = (2 * 60 * 200 + 2.55**2) / (60**2 + 200**2 + 2.55**2)
    assert float(ms_ssim(a, b, data_range=255, small=small)) == pytest.approx(luminance ** FIVE[-1], rel=1e-9)


def test_scales_and_weights_follow_the_side():
    assert [scales_of(n, 200) for n in (1, 2, 8, 28, 31, 32, 128)] == [1, 1, 3, 4, 4, 5, 5]
    assert weights_of(5) == FIVE
    assert weights_of(3) == pytest.approx(np.array(FIVE[:3]) / sum(FIVE[:3]))


def test_pairs_are_of_different_images_each_as_likely():
    found = pairs_of(7, 21_000, generator())
    assert (found[:, 0] != found[:, 1]).all()
    counts = torch.bincount(found[:, 0] * 7 + found[:, 1], minlength=49).reshape(7, 7)
    off = counts[~torch.eye(7, dtype=torch.bool)] - 500
    assert float(off.square().sum() / 500) < 41 + 5 * math.sqrt(82)


def test_pairs_of_one_class_come_evenly_from_all_classes_that_have_two():
    labels = torch.tensor([5, 2, 9, 2, 5, 2, 2, 2])
    found = pairs_of(8, 6000, generator(), labels)
    assert (labels[found[:, 0]] == labels[found[:, 1]]).all()
    assert (found[:, 0] != found[:, 1]).all()
    assert set(found.flatten().tolist()) == {0, 1, 3, 4, 5, 6, 7}
    share = (labels[found[:, 0]] == 5).double().mean()
    assert abs(float(share) - 0.5) < 4 * 0.5 / math.sqrt(6000)


def test_diversity_is_the_mean_over_the_pairs_of_its_seed(monkeypatch):
    images = load("digits").pixels[:50]
    pairs = pairs_of(50, 40, generator(3))
    each = [by_scipy(images[i].double().numpy(), images[j].double().numpy(), 255, weights_of(3)) for i, j in pairs]
    found = diversity(images, pairs=40, seed=3)
    assert (found.pairs, found.scales) == (40, 3)
    assert found.mean == pytest.approx(np.mean(each), abs=1e-5)
    assert found.standard_error == pytest.approx(np.std(each, ddof=1) / math.sqrt(40), abs=1e-5)
    assert diversity(Images(images), pairs=40, seed=3) == found
    assert diversity(images, pairs=40, seed=4).mean != found.mean
    monkeypatch.setattr(module, "BLOCK", 7 * 64)
    assert diversity(images, pairs=40, seed=3).mean == pytest.approx(found.mean, abs=1e-6)


def test_a_set_of_one_image_has_the_value_one_and_varied_ones_less():
    a, _ = alike(30, 3, 32, 32)
    images = (255 * a).round().byte()
    same = diversity(images[:1].repeat(20, 1, 1, 1), pairs=50)
    assert same.mean == pytest.approx(1, abs=1e-6)
    assert same.standard_error < 1e-6
    assert same.scales == 5
    few = images[:3].repeat(10, 1, 1, 1)
    assert diversity(images, pairs=400).mean + 0.05 < diversity(few, pairs=400).mean < 0.95


def test_within_classes_digits_are_more_alike():
    digits = load("digits")
    within = diversity(digits, pairs=2000, labels=digits.labels)
    across = diversity(digits, pairs=2000)
    assert isinstance(within, Diversity)
    assert within.mean - across.mean > 5 * math.hypot(within.standard_error, across.standard_error)
    assert diversity(digits, pairs=2000, labels=digits.labels) == within


A = torch.ones(2, 3, 64, 64)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ms_ssim(A, A, data_range=1), r'5 scales need sides of at least 176, got 64 x 64; .*small="shrink"'),
        (
            lambda: ms_ssim(A[..., :15], A[..., :15], data_range=1, small="shrink"),
            "at least 16, got 64 x 15; give fewer",
        ),
        (lambda: ms_ssim(A, A, data_range=1, small="pad"), "small must be one of error, shrink"),
        (lambda: ms_ssim(A, A, data_range=0, weights=(1,)), "data_range must be a finite number above 0"),
        (lambda: ms_ssim(A, A, data_range=1, weights=()), "at least one weight"),
        (lambda: ms_ssim(A, A, data_range=1, weights=(0.5, -1)), "weights must be"),
        (lambda: ms_ssim(A, A, data_range=1, weights=(1,), size=8), "size must be an odd number"),
        (lambda: ms_ssim(A, A, data_range=1, weights=(1,), sigma=0), "sigma must be"),
        (lambda: ms_ssim(A, A[:1], data_range=1, weights=(1,)), "one shape and type"),
        (lambda: ms_ssim(A, A.double(), data_range=1, weights=(1,)), "one shape and type"),
        (lambda: ms_ssim(A, A.byte(), data_range=1, weights=(1,)), r"b must be floats \(n, c, h, w\)"),
        (lambda: ms_ssim(A * torch.nan, A, data_range=1, weights=(1,)), "a must be finite"),
        (lambda: weights_of(6), "scales must be a whole number from 1 to 5"),
        (lambda: diversity(A), "uint8"),
        (lambda: diversity(A.byte(), pairs=1), "pairs must be a whole number of at least 2"),
        (lambda: diversity(A.byte(), seed=-1), "seed must be"),
        (lambda: diversity(A[:1].byte()), "two images of one class at least, got 1 of 1"),
        (lambda: diversity(A.byte(), labels=torch.tensor([0, 1])), "two images of one class at least, got 2 of 2"),
        (lambda: diversity(A.byte(), labels=torch.tensor([0, 1, 1])), r"labels must be whole numbers \(2,\)"),
        (lambda: diversity(A.byte(), labels=torch.tensor([0.0, 1.0])), "labels must be whole numbers"),
    ],
)
def test_what_has_no_similarity_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()
