"""The default extractor: the classifier's own maps and logits, images of other shapes, and what it is told."""

import numpy as np
import pytest
import torch

from triptych.ccnn.extractor import default_extractor, kept_extractor, teaches
from triptych.check import InputError
from triptych.data import load
from triptych.images import Images


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def extractor(digits):
    return default_extractor(digits.take(slice(0, 600)))


def test_features_are_the_averaged_maps_and_logits_the_classifiers(digits, extractor):
    x = digits.pixels[600:640]
    seen = extractor(x)
    maps = extractor.classifier.transform(x.numpy())
    if maps.shape[2] % 3 == 0:
        n, r, p, q = maps.shape
        np.testing.assert_allclose(
            seen.features.numpy(), maps.reshape(n, r, 3, p // 3, 3, q // 3).mean((3, 5)).reshape(n, -1), rtol=1e-5
        )
    assert seen.features.shape == (40, maps.shape[1] * min(3, maps.shape[2]) * min(3, maps.shape[3]))
    assert np.array_equal(seen.logits.argmax(1).numpy(), extractor.classifier.predict(x.numpy()))
    torch.testing.assert_close(seen.logits.exp().sum(1), torch.ones(40, dtype=torch.float64))
    assert (seen.logits.argmax(1) == digits.labels[600:640]).double().mean() > 0.85


def test_an_image_has_the_features_that_it_has_alone(digits, extractor):
    x = digits.pixels[700:706]
    torch.testing.assert_close(extractor(x).features[3:4], extractor(x[3:4]).features)


def test_colour_and_larger_images_are_brought_to_the_classifiers(digits, extractor):
    x = digits.pixels[600:610]
    assert torch.equal(extractor(x.expand(-1, 3, -1, -1).contiguous()).features, extractor(x).features)
    large = x.repeat_interleave(4, 2).repeat_interleave(4, 3)
    agree = extractor(large).logits.argmax(1) == extractor(x).logits.argmax(1)
    assert agree.double().mean() >= 0.8
    with pytest.raises(InputError, match="1 or 3 channels"):
        extractor(x.expand(-1, 4, -1, -1))


def test_its_name_says_what_it_was_trained_on(digits, extractor):
    start = f"CCNN of 10 classes, 600 images of 8 x 8 ({digits.take(slice(0, 600)).checksum()[:8]}), certified gap "
    assert extractor.name.startswith(start)


def test_large_colour_images_are_learned_at_32_pixels():
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (40, 3, 48, 40), dtype=torch.uint8, generator=g)
    x[20:, 0] = 0
    found = default_extractor(Images(x, (torch.arange(40) >= 20).long(), ("a", "b")))
    assert found.classifier.image_shape_ == (3, 32, 27)
    assert (found(x).logits.argmax(1) == (torch.arange(40) >= 20)).double().mean() > 0.9


def test_images_without_labels_are_refused(digits):
    with pytest.raises(InputError, match="at least two classes"):
        default_extractor(Images(digits.pixels))


def test_an_extractor_is_trained_once_and_kept(digits, extractor, monkeypatch, tmp_path):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    images = digits.take(slice(0, 600))
    first = kept_extractor(images)
    monkeypatch.setattr("triptych.ccnn.extractor.default_extractor", None)
    second = kept_extractor(images)
    x = digits.pixels[:20]
    assert first.name == second.name == extractor.name
    assert torch.equal(first(x).features, extractor(x).features)
    assert torch.equal(second(x).logits, extractor(x).logits)


def test_labels_teach_where_classes_have_ten_images_on_average():
    x = torch.zeros(30, 1, 8, 8, dtype=torch.uint8)
    assert not teaches(Images(x))
    assert not teaches(Images(x, torch.zeros(30, dtype=torch.int64), ("a", "b")))
    assert teaches(Images(x, torch.arange(30) % 3, ("a", "b", "c")))
    assert not teaches(Images(x, torch.arange(30) % 4, tuple("abcd")))


def test_labels_teach_nothing_where_few_images_of_a_class_are_trained_on(monkeypatch):
    monkeypatch.setattr("triptych.ccnn.extractor.TRAINED", 20)
    x, classes = torch.zeros(60, 1, 8, 8, dtype=torch.uint8), tuple("abc")
    assert not teaches(Images(x, torch.arange(60) % 3, classes))
    assert teaches(Images(x, torch.arange(60) % 2, classes[:2]))
