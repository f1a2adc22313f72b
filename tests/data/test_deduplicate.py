"""Near duplicates: exact answers; Pillow, NumPy and SciPy as oracles; planted copies; the stated rate of false ones."""

import io
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from triptych.check import InputError
from triptych.data import load
from triptych.data.deduplicate import (
    LEAST,
    Candidates,
    Code,
    Law,
    components,
    correlate,
    deduplicate,
    details,
    learn,
    search,
    windows,
)
from triptych.images import Images

QUICK = {"steps": 15}


def clouds(n, seed=0, *, side=48, channels=1, width=2.5):
    """Unrelated images: smooth noise, whose law mirroring does not change."""
    noise = np.random.default_rng(seed).standard_normal((n, channels, side, side))
    smooth = gaussian_filter(noise, (0, 0, width, width))
    return torch.from_numpy((128 + 45 * smooth / smooth.std()).clip(0, 255).astype(np.uint8))


def moved(pixels, down, right):
    """Moved by a few pixels, the edge cut off on one side and drawn out on the other."""
    h, w = pixels.shape[-2:]
    rows, columns = (torch.arange(h) + down).clamp(0, h - 1), (torch.arange(w) + right).clamp(0, w - 1)
    return pixels[..., rows, :][..., columns]


def compressed(pixels, quality):
    """Through JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy().squeeze()).save(file, "JPEG", quality=quality)
    found = np.array(Image.open(file))
    return torch.from_numpy(found.reshape(*pixels.shape[1:], -1)).permute(2, 0, 1)


def planted(pixels, which, seed=0):
    """The images, and a changed copy of each of some: moved, compressed, darker or brighter, or all three, by turns."""
    rng, side = np.random.default_rng(seed), pixels.shape[-1]
    far = max(1, round(side / 32))
    copies = []
    for k, i in enumerate(which):
        x = pixels[i]
        if k % 4 in (0, 3):
            x = moved(x, int(rng.choice([-far, far])), int(rng.integers(-far, far + 1)))
        if k % 4 in (1, 3):
            x = (rng.uniform(0.8, 1.2) * x.float()).round().clamp(0, 255).byte()
        copies.append(compressed(x, int(rng.integers(30, 71))) if k % 4 in (2, 3) else x)
    return Images(torch.cat([pixels, torch.stack(copies)]))


def test_the_same_bytes_are_at_distance_nought_and_one_group():
    pixels = clouds(4, side=8)
    found = deduplicate(Images(pixels[[0, 1, 0, 2, 1, 0, 3]]), **QUICK)
    assert found.pairs.tolist() == [[0, 2], [0, 5], [1, 4]]
    assert found.distances.tolist() == [0, 0, 0]
    assert found.groups == ((0, 2, 5), (1, 4))
    assert found.keep.tolist() == [True, True, False, True, False, False, True]


def test_flat_images_are_duplicates_of_the_same_bytes_alone():
    flat = torch.tensor([100, 200, 100, 50]).byte()[:, None, None, None].expand(4, 1, 20, 20)
    found = deduplicate(Images(torch.cat([flat, clouds(20, side=20, channels=1)])), **QUICK)
    assert found.groups == ((0, 2),)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_images_that_are_distinct_are_kept(n):
    found = deduplicate(Images(clouds(n)), **QUICK)
    assert found.pairs.shape == (0, 2)
    assert found.groups == ()
    assert found.keep.tolist() == [True] * n


@pytest.mark.parametrize(("channels", "side"), [(3, 48), (1, 96)])
def test_changed_copies_are_found_and_nothing_else(channels, side):
    pixels = clouds(60, side=side, channels=channels, width=side / 20)
    found = deduplicate(planted(pixels, range(32)), **QUICK)
    assert found.groups == tuple((i, 60 + i) for i in range(32))
    assert found.keep.tolist() == [True] * 60 + [False] * 32
    assert found.distances.max() < found.distance


@pytest.mark.skipif("TRIPTYCH_DATA" not in os.environ, reason="TRIPTYCH_DATA is not set")
def test_changed_copies_of_photographs_are_found():
    path = Path(os.environ["TRIPTYCH_DATA"]) / "rooms128"
    if not path.exists():
        pytest.skip("no rooms128 in TRIPTYCH_DATA")
    found = deduplicate(planted(load(path, limit=100).pixels, range(40)), steps=40)
    group = {i: members for members in found.groups for i in members}
    assert sum(100 + i in group.get(i, ()) for i in range(40)) >= 38
    assert sum(i in group for i in range(40, 100)) <= 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nothing_is_flagged_where_all_images_are_noise(seed):
    pixels = torch.randint(0, 256, (80, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    assert deduplicate(Images(pixels), **QUICK).groups == ()
    found = search(Images(clouds(80, seed, width=5)), **QUICK)
    assert len(found.pairs) > 5
    assert found.duplicates().groups == ()


def test_nothing_is_flagged_among_digits_though_they_are_much_alike():
    found = search(load("digits", limit=400), **QUICK)
    assert found.correlations.max() > 0.95
    assert found.duplicates().groups == ()


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator_alone():
    images = planted(clouds(60), range(20))
    state = torch.get_rng_state()
    one, other = deduplicate(images, seed=3, **QUICK), deduplicate(images, seed=3, **QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.pairs, other.pairs)
    assert torch.equal(one.distances, other.distances)
    assert (one.radius, one.distance, one.groups) == (other.radius, other.distance, other.groups)
    crops = windows(images.pixels)
    bits = [learn(crops, seed=seed, steps=5).bits(crops) for seed in (3, 3, 4)]
    assert torch.equal(bits[0], bits[1])
    assert not torch.equal(bits[0], bits[2])


def test_chunks_give_the_pairs_of_the_whole():
    images = planted(clouds(60), range(20))
    whole, parts = (search(images, chunk=size, candidates=10, **QUICK) for size in (1000, 7))
    assert len(whole.pairs) >= 20
    assert torch.equal(whole.pairs, parts.pairs)
    assert torch.equal(whole.correlations, parts.correlations)


def test_pairs_are_those_of_brute_force():
    """Hamming distances and correlations of all pairs, by NumPy; the first of equal images stands for them."""
    pixels = planted(clouds(26, side=36, width=6), range(10)).pixels
    found = search(Images(pixels[[0, 0, *range(1, 36), 1]]), candidates=8, seed=1, **QUICK)
    assert found.first.tolist() == [0, 0, *range(2, 37), 2]
    place = [0, *range(2, 37)]
    crops = windows(pixels)
    bits, fine = learn(crops, seed=1, **QUICK).bits(crops).numpy(), details(crops).double().numpy()
    expected = {}
    for i, j in itertools.combinations(range(36), 2):
        alike = max(correlation(fine[i], fine[j]), correlation(fine[j], fine[i]))
        if (bits[i] != bits[j]).sum() <= found.radius and alike >= LEAST:
            expected[place[i], place[j]] = alike
    assert len(expected) > 10
    assert [tuple(pair) for pair in found.pairs.tolist()] == list(expected)
    np.testing.assert_allclose(found.correlations, list(expected.values()), atol=1e-5)


def correlation(a, b):
    """The correlation of two windows (c, 36, 36), the first moved to its best place."""
    middle = b[:, 2:34, 2:34].ravel()
    return max(np.corrcoef(a[:, y : y + 32, x : x + 32].ravel(), middle)[0, 1] for y in range(5) for x in range(5))


def test_the_radius_lets_through_as_many_unrelated_images_as_it_is_asked_to():
    images = Images(clouds(200))
    narrow, wide = (search(images, candidates=count, **QUICK).radius for count in (2, 30))
    assert narrow < wide < 128
    assert search(images.take(range(20)), candidates=19, **QUICK).radius == 128
    crops = windows(images.pixels)
    bits = learn(crops, **QUICK).bits(crops).float()
    within = (torch.cdist(bits, bits, p=0) <= wide).sum(1) - 1
    assert 15 < within.float().mean() < 45


def test_bits_are_those_of_the_formula():
    rng = np.random.default_rng(0)
    crops = windows(clouds(9))
    weight, bias, above = rng.normal(size=(128, 1024)), rng.normal(size=128), rng.uniform(0, 3, 128)
    code = Code(*(torch.from_numpy(x).float() for x in (weight, bias, above)))
    rows = crops.numpy()[:, :, 2:34, 2:34].reshape(9, -1) / 255
    rows = (rows - rows.mean(1, keepdims=True)) / rows.std(1, ddof=1, keepdims=True)
    values = np.maximum(rows @ weight.T + bias, 0)
    np.testing.assert_allclose(code.values(crops), values, atol=1e-3)
    sure = abs(values - above) > 1e-3
    assert np.array_equal(code.bits(crops).numpy()[sure], (values > above)[sure])


def test_a_unit_is_on_for_at_most_half_of_the_images_and_most_are_on_for_many():
    crops = windows(clouds(200))
    share = learn(crops, **QUICK).bits(crops).float().mean(0)
    assert share.max() <= 0.5
    assert share.median() > 0.1


@pytest.mark.parametrize(("h", "w", "channels"), [(128, 128, 3), (100, 140, 1), (45, 36, 3)])
def test_windows_are_those_of_pillow(h, w, channels):
    """Its bilinear filter is antialiased; the middle square comes first."""
    rng, short = np.random.default_rng(0), min(h, w)
    pixels = rng.integers(0, 256, (3, channels, h, w), dtype=np.uint8)
    top, left = (h - short) // 2, (w - short) // 2
    found = windows(torch.from_numpy(pixels), torch.tensor([2, 0]))
    for one, i in zip(found, (2, 0)):
        for got, channel in zip(one, pixels[i]):
            square = Image.fromarray(channel).crop((left, top, left + short, top + short))
            small = np.asarray(square.resize((36, 36), Image.Resampling.BILINEAR))
            assert abs(got.numpy().astype(int) - small).max() <= 1


def test_details_are_a_difference_of_gaussians_of_mean_square_one():
    crops = windows(clouds(4))
    x = crops.numpy() / 255
    band = sum(
        sign * gaussian_filter(x, (0, 0, s, s), mode="nearest", radius=(0, 0, int(np.ceil(3 * s)), int(np.ceil(3 * s))))
        for sign, s in ((1, 0.7), (-1, 2.7))
    )
    band /= np.sqrt(np.square(band).mean((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(details(crops).float(), band, atol=4e-3)


def test_what_is_moved_by_two_pixels_correlates_perfectly_and_by_three_does_not():
    noise = torch.randn(5, 3, 50, 50, generator=torch.Generator().manual_seed(0))
    still = noise[:, :, 5:41, 5:41]
    for down, right in ((2, -2), (-1, 2), (0, 0)):
        other = noise[:, :, 5 + down : 41 + down, 5 + right : 41 + right]
        torch.testing.assert_close(correlate(other, still).diag(), torch.ones(5))
    assert correlate(noise[:, :, 8:44, 5:41], still).max() < 0.2


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_the_connected_components(seed):
    n, rng = 60, np.random.default_rng(seed)
    pairs = rng.integers(0, n, (12 * (seed + 1), 2))
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], 1), axis=0)
    _, labels = connected_components(coo_array((np.ones(len(pairs)), pairs.T), (n, n)), directed=False)
    expected = sorted(tuple(np.flatnonzero(labels == k).tolist()) for k in set(labels.tolist()))
    assert components(n, torch.from_numpy(pairs)) == tuple(group for group in expected if len(group) > 1)
    assert components(n, torch.from_numpy(pairs).flip(0)) == components(n, torch.from_numpy(pairs))


def nearest(pixels):
    """The correlation of each image with its nearest neighbour, by all pairs."""
    fine = details(windows(pixels))
    table = correlate(fine, fine)
    return torch.maximum(table, table.T).fill_diagonal_(-1).amax(1)


def test_unrelated_images_have_neighbours_as_seldom_as_the_law_says():
    pixels = clouds(600, width=4)
    law = search(Images(pixels), steps=1).law
    highest = nearest(pixels)
    for share in (0.1, 0.03):
        assert 0.5 * share < float((highest >= law.correlation(share)).double().mean()) < 1.8 * share


def test_the_law_knows_that_digits_are_handed():
    """By their mirror images alone one digit in ten would have such a neighbour."""
    digits = load("digits", limit=500)
    law = search(digits, steps=1).law
    assert (nearest(digits.pixels) >= law.correlation(0.03)).double().mean() < 0.04


def test_duplicates_do_not_make_the_law_stricter():
    pixels = clouds(200, width=4)
    alone, among = (search(images, steps=1).law for images in (Images(pixels), planted(pixels, range(130))))
    assert among.correlation(0.01) == pytest.approx(alone.correlation(0.01), abs=0.05)


def test_share_and_correlation_are_inverse():
    law = Law(0.6, 0.2)
    assert law.correlation(0.1) == pytest.approx(np.tanh(0.6))
    assert law.correlation(0.001) == pytest.approx(np.tanh(1.0))
    shares = torch.tensor([0.5, 0.02, 1e-5], dtype=torch.float64)
    back = law.share(torch.tensor([law.correlation(float(share)) for share in shares], dtype=torch.float64))
    torch.testing.assert_close(back, shares)
    assert law.share(torch.tensor([-1.0, 0.0])).tolist() == [1, 1]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("false_share", [0.01, 0.1])
def test_the_threshold_is_the_lowest_that_the_share_allows(seed, false_share):
    """Of all correlations as thresholds, tried one by one."""
    rng, n = np.random.default_rng(seed), 200
    pairs = np.unique(np.sort(rng.integers(0, n, (90, 2)), 1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    values = np.tanh(rng.uniform(0.6, 3, len(pairs))).astype(np.float32)
    law = Law(0.9, 0.25)
    found = Candidates(torch.arange(n), torch.from_numpy(pairs), torch.from_numpy(values), 9, law)
    kept = 0
    for least in values:
        flagged = len(set(pairs[values >= least].ravel().tolist()))
        if n * 10 ** ((0.9 - np.arctanh(least)) / 0.25 - 1) <= false_share * flagged:
            kept = max(kept, int((values >= least).sum()))
    duplicates = found.duplicates(false_share)
    assert len(duplicates.pairs) == kept > 0
    assert duplicates.distances.max() <= duplicates.distance + 1e-6


def test_few_candidates_must_be_as_good_as_one_false_pair_in_a_hundred_sets():
    law, n = Law(0.6, 0.2), 1000
    z = 0.6 + 0.2 * (np.log10(n / (2 * 0.01)) - 1)
    for offset, count in ((0.01, 1), (-0.01, 0)):
        correlations = torch.tensor([np.tanh(z + offset)], dtype=torch.float32)
        found = Candidates(torch.arange(n), torch.tensor([[3, 8]]), correlations, 9, law).duplicates()
        assert len(found.pairs) == count
        assert found.distance == pytest.approx(1 - np.tanh(z), abs=1e-6)


@pytest.mark.parametrize(
    ("pixels", "words", "expected"),
    [
        (torch.zeros(2, 4, 8, 8), {}, "images must have 1 or 3 channels, got 4; make them grey or RGB"),
        (torch.zeros(2, 1, 8, 8), {"seed": -1}, "seed must be a whole number of at least 0"),
        (torch.zeros(2, 1, 8, 8), {"steps": 0}, "steps must be a whole number of at least 1"),
        (torch.zeros(2, 1, 8, 8), {"candidates": 0}, "candidates must be a whole number of at least 1"),
        (torch.zeros(2, 1, 8, 8), {"chunk": 0}, "chunk must be a whole number of at least 1"),
        (torch.zeros(2, 1, 8, 8), {"false_share": 0}, "false_share must be a finite number above 0 and at most 1"),
        (torch.zeros(2, 1, 8, 8), {"false_share": 1.5}, "false_share must be a finite number above 0 and at most 1"),
    ],
)
def test_bad_input_is_refused(pixels, words, expected):
    with pytest.raises(InputError, match=expected):
        deduplicate(Images(pixels.byte()), **words)
