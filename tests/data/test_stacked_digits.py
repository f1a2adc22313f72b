"""Stacked digits: each channel is the embedded digit that the label says, and the set is a function of its seed."""

import pytest
import torch
from sklearn.datasets import load_digits

from triptych.check import InputError
from triptych.data import load
from triptych.data.stacked_digits import COUNT, stack, stacked_digits
from triptych.images import Images


def test_every_channel_is_a_digit_of_the_class_that_the_label_says():
    images = stacked_digits(400)
    assert images.shape == (400, 3, 8, 8)
    bunch = load_digits()
    known = {
        (bytes(pixels), int(label))
        for pixels, label in zip(load("digits").pixels.flatten(1).numpy(), bunch.target, strict=True)
    }
    for pixels, label in zip(images.pixels, images.labels.tolist(), strict=True):
        assert images.classes[label] == f"{label:03d}"
        for channel, digit in zip(pixels, images.classes[label], strict=True):
            assert (bytes(channel.flatten().numpy()), int(digit)) in known


def test_the_channels_are_drawn_independently_and_evenly():
    labels = stacked_digits(20_000).labels
    a, b, c = labels // 100, labels // 10 % 10, labels % 10
    share = torch.bincount(load("digits").labels) / 1797
    for one, other in ((a, b), (a, c), (b, c)):
        expected = 20_000 * share[:, None] * share
        seen = torch.bincount(10 * one + other, minlength=100).view(10, 10)
        chi_square = float(((seen - expected) ** 2 / expected).sum())
        assert 50 < chi_square < 160, chi_square  # 99 degrees of freedom


def test_it_is_a_function_of_the_seed_and_the_first_images_stay_whatever_n():
    assert stacked_digits(50, 3).checksum() == stacked_digits(50, 3).checksum()
    assert stacked_digits(50, 3).checksum() == stacked_digits(400, 3).take(slice(50)).checksum()
    assert stacked_digits(50, 3).checksum() != stacked_digits(50, 4).checksum()


def test_it_does_not_touch_the_global_random_state():
    before = torch.get_rng_state()
    stacked_digits(10)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_side():
    images = stacked_digits(6, side=16)
    assert images.shape == (6, 3, 16, 16)
    assert torch.equal(images.labels, stacked_digits(6).labels)
    small = images.pixels.float().reshape(6, 3, 8, 2, 8, 2).mean((3, 5))
    assert (small - stacked_digits(6).pixels).abs().mean() < 12


def test_the_word():
    assert load("stacked_digits", limit=9).checksum() == stacked_digits(9).checksum()
    images = load("stacked_digits")
    assert images.shape == (COUNT, 3, 8, 8)
    assert len(images.labels.unique()) == 1000


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stacked_digits(0), "n must be"),
        (lambda: stacked_digits(3, -1), "seed must be"),
        (lambda: stacked_digits(3, 0, 0), "side must be"),
        (lambda: stack(Images(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)), 5), "grey and of ten classes"),
        (lambda: stack(Images(torch.zeros(2, 1, 4, 4, dtype=torch.uint8)), 5), "grey and of ten classes"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
