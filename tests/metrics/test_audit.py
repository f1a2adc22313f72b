"""The audit: brute force, exact null on exchangeable images, and generators that copy, mirror and shift."""

import pytest
import torch
import torch.nn.functional as F

from triptych.check import InputError
from triptych.cli.console import console
from triptych.cli.gan_compare import _together
from triptych.cli.gan_judge import Judged
from triptych.data import load
from triptych.images import Images
from triptych.metrics.audit import InFeatures, UpToShifts, audit
from triptych.metrics.features import Pixels

PIXELS = InFeatures(Pixels())


@pytest.fixture(scope="module")
def digits():
    """1,797 digits of 8 x 8 in a random order."""
    images = load("digits").pixels
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(5))]


def blurred(images, by):
    """Images moved by a part of a pixel, which blurs them."""
    x = images.float()
    return ((1 - by) * x + by * F.pad(x, (1, 0, 0, 0), mode="replicate")[..., :-1]).round().byte()


def test_neighbours_and_ratios_are_those_of_brute_force(digits):
    samples, train, held = digits[:30], digits[100:180], digits[200:260]
    space = audit(samples, train, held, [PIXELS], draws=9).spaces[0]
    flat = [x.flatten(1).double() / 255 for x in (samples, train, held)]
    to_train, to_held = (torch.cdist(flat[0], other, compute_mode="donot_use_mm_for_euclid_dist") for other in flat[1:])
    torch.testing.assert_close(space.train_distance, to_train.min(1).values)
    torch.testing.assert_close(space.held_out_distance, to_held.min(1).values)
    assert torch.equal(space.train, to_train.argmin(1))
    assert torch.equal(space.held_out, to_held.argmin(1))
    assert space.nearer == (to_train.min(1).values < to_held.min(1).values).double().mean()
    assert space.expected == 80 / 140
    near = torch.cat([to_train, to_held], 1).min(1).values.median() * 1e-3
    expected = ((to_held.min(1).values + near) / (to_train.min(1).values + near)).log()
    torch.testing.assert_close(space.ratio, expected)


def test_a_shift_and_a_mirror_are_found_again_at_distance_nought():
    images = torch.randint(0, 256, (20, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    moved = images.roll((1, -2), (2, 3)).flip(3)
    distances, indices = UpToShifts(side=12, shift=2).nearest(moved, images, 3)
    assert torch.equal(indices[:, 0], torch.arange(20))
    assert (distances[:, 0] == 0).all()
    assert (distances[:, 1] > 0).all()
    plain = UpToShifts(side=12, shift=2, mirror=False).nearest(moved, images, 1)[0]
    assert (plain > 0).all()


def test_the_least_over_all_windows_is_that_of_a_loop():
    g = torch.Generator().manual_seed(1)
    a, b = (torch.randint(0, 256, (n, 1, 7, 8), dtype=torch.uint8, generator=g) for n in (6, 15))
    distances, indices = UpToShifts(side=8, shift=1).nearest(a, b, 4)
    x, y = a.double() / 255, b.double() / 255
    table = torch.full((6, 15), torch.inf, dtype=torch.float64)
    for flipped in (x, x.flip(3)):
        for i in range(3):
            for j in range(3):
                window = flipped[:, :, i : i + 5, j : j + 6].flatten(1)
                off = window[:, None] - y[:, :, 1:6, 1:7].flatten(1)[None]
                table = torch.minimum(table, off.square().sum(2).sqrt())
    torch.testing.assert_close(distances, table.sort(1).values[:, :4])
    assert torch.equal(indices, table.argsort(1)[:, :4])


@pytest.mark.parametrize("sizes", [(400, 400), (600, 200)])
@pytest.mark.parametrize("by", [0.0, 0.5])
def test_honest_samples_are_not_accused(digits, sizes, by):
    train, held, rest = digits.split([sizes[0], sizes[1], len(digits) - sum(sizes)])
    found = audit(blurred(rest[:300], by), train, held, [PIXELS, UpToShifts(8, 1)], seed=1)
    assert found.p_value > 0.01
    assert found.verdict().startswith("no sign of memorisation among 300 samples")
    for space in found.spaces:
        assert abs(space.nearer - space.expected) < 0.15
        assert len(space.suspicious()) <= 0.05 * 300


@pytest.mark.parametrize("change", ["copy", "mirror", "shift"])
@pytest.mark.parametrize("share", [1.0, 0.1])
@pytest.mark.parametrize("sizes", [(400, 400), (600, 200)])
def test_generators_that_copy_are_found(digits, change, share, sizes):
    train, held, rest = digits.split([sizes[0], sizes[1], len(digits) - sum(sizes)])
    copied = train[: round(300 * share)]
    copied = {"copy": copied, "mirror": copied.flip(3), "shift": F.pad(copied, (1, 0, 0, 0))[..., :-1]}[change]
    samples = torch.cat([copied, rest[: 300 - len(copied)]])
    found = audit(samples, train, held, [PIXELS, UpToShifts(8, 1)])
    assert found.p_value <= 0.01
    assert found.verdict().startswith("memorised")
    chosen = found.spaces[1].suspicious()
    if sizes[0] > sizes[1] and share < 1:  # of 30 copies no list can be made that is sure enough
        return
    assert len(chosen) > 0.3 * len(copied)
    assert (chosen < len(copied)).double().mean() > 0.8
    right = chosen[chosen < len(copied)]
    assert (found.spaces[1].train[right] == right).double().mean() > 0.9


def test_honest_conditional_samples_have_the_labels_of_all_images():
    """Classes of four images: labels that follow the training images alone would be evidence of memorisation."""
    g = torch.Generator().manual_seed(0)
    centres = torch.randint(0, 200, (50, 1, 4, 4), generator=g)

    def drawn(labels):
        return (centres[labels] + torch.randint(0, 56, (len(labels), 1, 4, 4), generator=g)).byte()

    judged = Judged.__new__(Judged)  # of a sampler that makes each class's law exactly
    p = []
    for seed in range(20):
        labels = torch.arange(200) % 50
        images, order = Images(drawn(labels), labels, tuple(map(str, range(50)))), torch.randperm(200, generator=g)
        train, unseen = images.take(order[20:]), images.take(order[:20])
        every = _together(train, unseen)
        assert every.labels is not None
        object.__setattr__(judged, "sampler", Exact(drawn))
        made = judged.generated(console(True), 400, seed, every)
        p.append(audit(made, train.pixels, unseen.pixels, [PIXELS], draws=99, seed=seed).p_value)
    assert sum(value <= 0.05 for value in p) <= 5  # P(Binomial(20, .05) > 5) = 3e-4; by training labels it is 13 of 20


class Exact:
    """A conditional sampler whose images of a class have its law."""

    def __init__(self, drawn):
        self.images = lambda z, labels: drawn(labels)

    def labels(self, first, count):
        return torch.arange(first, first + count) % 50

    def z(self, seed, first, count):
        return torch.zeros(count, 1)


def test_p_values_are_even_under_exchangeable_labels(digits):
    """Of 60 random splits no more are below a tenth than a binomial law allows, in either direction."""
    p = []
    for seed in range(60):
        order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))
        mixed = digits[order]
        p.append(audit(mixed[:60], mixed[60:200], mixed[200:340], [PIXELS], draws=99, seed=seed).p_value)
    p = torch.tensor(p)
    assert int((p <= 0.1).sum()) <= 14  # P(Binomial(60, .1) > 14) = 7e-4
    assert 17 <= int((p <= 0.5).sum()) <= 43  # 4e-4 on either side


def test_the_same_seed_draws_the_same_labels(digits):
    args = (digits[:50], digits[100:200], digits[200:300], [PIXELS])
    assert audit(*args, draws=50, seed=3).p_value == audit(*args, draws=50, seed=3).p_value
    assert len({audit(*args, draws=50, seed=seed).p_value for seed in range(4)}) > 1


def test_two_comparisons_together_are_never_surer_than_the_surest(digits):
    found = audit(digits[:60], digits[:300], digits[300:600], [PIXELS, UpToShifts(8, 1)], draws=199)
    assert found.p_value >= min(space.p_value for space in found.spaces) == 1 / 200


def test_what_cannot_be_audited_is_refused(digits):
    with pytest.raises(InputError, match="at least one, of distinct names"):
        audit(digits[:5], digits[:5], digits[:5], [])
    with pytest.raises(InputError, match="distinct names"):
        audit(digits[:5], digits[:5], digits[:5], [PIXELS, PIXELS])
    with pytest.raises(InputError, match="held_out must have the samples' shape"):
        audit(digits[:5], digits[:5], digits[:5, :, :7], [PIXELS])
    with pytest.raises(InputError, match="train must be at least 2 images"):
        audit(digits[:5], digits[:1], digits[:5], [PIXELS])
    with pytest.raises(InputError, match="uint8"):
        audit(digits[:5].float(), digits[:5], digits[:5], [PIXELS])
    with pytest.raises(InputError, match="less than half"):
        audit(digits[:5], digits[:5], digits[5:10], [UpToShifts(8, 4)])


def test_held_out_images_that_were_trained_on_are_refused(digits):
    """They would acquit a generator that copies."""
    train, held = digits[:100], digits[100:200].clone()
    held[:11] = train[50:61]
    with pytest.raises(InputError, match=r"11 of 100 are in both, pixel for pixel"):
        audit(train[:40], train, held, [PIXELS], draws=9)
    assert audit(train[:40], train, held[2:], [PIXELS], draws=199).p_value == 1 / 200


def test_a_hundred_equal_samples_are_one_piece_of_evidence(digits):
    """A collapsed generator whose one image happens to be nearer to a training image accuses nobody."""
    train, held, rest = digits.split([400, 400, len(digits) - 800])
    spaces = [
        audit(rest[i : i + 1].expand(100, -1, -1, -1).contiguous(), train, held, [PIXELS], draws=19).spaces[0]
        for i in range(6)
    ]
    nearer = [space for space in spaces if space.nearer == 1]
    assert nearer
    assert not any(len(space.suspicious()) for space in nearer)


def test_neighbours_of_very_unequal_sets_are_the_true_ones(digits):
    """Lists of neighbours often hold none of five held-out images."""
    samples, train, held = digits[:60], digits[100:1100], digits[1100:1105]
    space = audit(samples, train, held, [PIXELS], draws=9).spaces[0]
    flat = [x.flatten(1).double() / 255 for x in (samples, held)]
    distances = torch.cdist(*flat, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(space.held_out_distance, distances.min(1).values)
    assert torch.equal(space.held_out, distances.argmin(1))
