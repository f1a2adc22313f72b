"""Images: what is accepted as images and labels, and batches as a function of (seed, seen)."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from triptych.check import InputError
from triptych.images import Images


def numbered(n):
    """n images of one pixel, the pixel and the label being the image's number."""
    return Images(torch.arange(n, dtype=torch.uint8)[:, None, None, None], torch.arange(n), tuple(map(str, range(n))))


def test_the_four_axes_of_arrays():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (5, 3, 6, 7), dtype=np.uint8)
    for x in (first, first.transpose(0, 2, 3, 1), torch.from_numpy(first), first.tolist(), first.astype(">i4")):
        images = Images.from_arrays(x)
        assert images.shape == (5, 3, 6, 7)
        np.testing.assert_array_equal(images.pixels.numpy(), first)
    grey = Images.from_arrays(first[:, 0])
    assert grey.shape == (5, 1, 6, 7)
    np.testing.assert_array_equal(grey.pixels[:, 0].numpy(), first[:, 0])


def test_where_both_axes_could_be_channels_one_has_to_say():
    x = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    with pytest.raises(InputError, match='say channels="first"'):
        Images.from_arrays(x)
    assert Images.from_arrays(x, channels="first").shape == (2, 3, 4, 1)
    assert Images.from_arrays(x, channels="last").shape == (2, 1, 3, 4)
    assert Images.from_arrays(np.zeros((2, 9, 8, 7), np.uint8), channels="first").shape == (2, 9, 8, 7)


def test_floats_come_back_as_the_bytes_they_were():
    levels = np.arange(256).reshape(1, 16, 16)
    for dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(Images.from_arrays((levels / 255).astype(dtype)).pixels[0, 0].numpy(), levels[0])
    images = Images.from_arrays(levels.astype(np.uint8))
    np.testing.assert_array_equal(images.floats().numpy(), (levels[:, None].astype(np.float32) / np.float32(255)))
    assert images.floats().dtype == torch.float32
    assert Images.from_arrays([[[0.6 / 255, 1.4 / 255]]]).pixels.flatten().tolist() == [1, 1]
    assert Images.from_arrays(np.array([[[True, False]]])).pixels.flatten().tolist() == [255, 0]


def test_labels_are_numbers_that_stay_or_names_that_are_sorted():
    x = np.zeros((3, 2, 2), np.uint8)
    images = Images.from_arrays(x, [2, 0, 2])
    assert (images.labels.tolist(), images.classes) == ([2, 0, 2], ("0", "1", "2"))
    images = Images.from_arrays(x, ["dog", "cat", "dog"])
    assert (images.labels.tolist(), images.classes) == ([1, 0, 1], ("cat", "dog"))
    images = Images.from_arrays(x, ["dog", "cat", "dog"], ["dog", "emu", "cat"])
    assert (images.labels.tolist(), images.classes) == ([0, 2, 0], ("dog", "emu", "cat"))
    assert Images.from_arrays(x, torch.tensor([1, 0, 1], dtype=torch.uint8), ["a", "b"]).classes == ("a", "b")
    assert Images.from_arrays(x).labels is None


class Pictures(Dataset):
    classes = ("dark", "light")

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_dataset_of_pictures(mode):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    pictures = [Image.fromarray(one).convert(mode) for one in pixels]
    images = Images.from_dataset(Pictures([(one, i % 2) for i, one in enumerate(pictures)]))
    assert (images.labels.tolist(), images.classes) == ([0, 1, 0, 1], ("dark", "light"))
    expected = np.stack([np.asarray(one.convert("L" if mode == "L" else "RGB")) for one in pictures])
    expected = expected[:, None] if mode == "L" else expected.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(images.pixels.numpy(), expected)


def test_a_dataset_of_tensors():
    pixels = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 1, 3])
    images = Images.from_dataset(TensorDataset(pixels / 255, labels))
    assert torch.equal(images.pixels, pixels)
    assert torch.equal(images.labels, labels)
    assert Images.from_dataset(list(pixels)).labels is None


@given(st.integers(1, 9), st.integers(0, 3), st.integers(0, 40), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_a_batch_depends_on_seed_and_seen_alone(n, seed, seen, size):
    """The stream is the same however it is cut, and each epoch holds every image once."""
    images = numbered(n)
    batch = images.batch(seed, seen, size)
    one_by_one = [images.batch(seed, seen + i, 1) for i in range(size)]
    assert batch.labels.tolist() == [int(one.labels) for one in one_by_one]
    assert torch.equal(batch.pixels.flatten().long(), batch.labels)
    for epoch in range(3):
        assert sorted(images.batch(seed, epoch * n, n).labels.tolist()) == list(range(n))


def test_seeds_and_epochs_differ():
    images = numbered(50)
    orders = [tuple(images.batch(seed, 50 * epoch, 50).labels.tolist()) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == 16


def test_the_checksum_is_sha256_of_shape_pixels_labels():
    images = numbered(7)
    labels = b"".join(i.to_bytes(8, "little") for i in range(7))
    assert images.checksum() == hashlib.sha256(b"(7, 1, 1, 1) True" + bytes(range(7)) + labels).hexdigest()
    others = [
        Images(images.pixels, None),
        Images(images.pixels, images.labels.flip(0), images.classes),
        Images(images.pixels.flip(0), images.labels, images.classes),
        Images(torch.arange(8, dtype=torch.uint8).reshape(1, 1, 2, 4)),
        Images(torch.arange(8, dtype=torch.uint8).reshape(1, 1, 4, 2)),
    ]
    assert len({one.checksum() for one in [images, *others]}) == 6
    strided = Images(images.pixels.repeat(2, 1, 1, 1)[::2])
    assert strided.checksum() == Images(strided.pixels.contiguous()).checksum()


def test_take():
    images = numbered(6)
    for index in ([4, 0], np.array([4, 0]), torch.tensor([4, 0]), range(4, -1, -4)):
        assert images.take(index).labels.tolist() == [4, 0]
    assert images.take(slice(1, 3)).pixels.flatten().tolist() == [1, 2]
    assert images.take(np.arange(6) % 2 == 1).labels.tolist() == [1, 3, 5]
    assert len(images.take(torch.tensor([2]))) == 1
    assert repr(images) == "Images(6 x 1 x 1 x 1, 6 classes)"


PIXELS = torch.zeros((2, 1, 5, 5), dtype=torch.uint8)
BAD = {
    "pixels are no tensor": (lambda: Images(np.zeros((2, 1, 3, 3), np.uint8)), "pixels must be a uint8 tensor"),
    "pixels are floats": (
        lambda: Images(PIXELS.float()),
        "uint8 tensor (n, c, h, w), got 'torch.float32 (2, 1, 5, 5)'",
    ),
    "pixels of three axes": (lambda: Images(PIXELS[0]), "uint8 tensor (n, c, h, w)"),
    "no pixels": (lambda: Images(PIXELS[:0]), "at least one image"),
    "labels are int32": (lambda: Images(PIXELS, torch.zeros(2, dtype=torch.int32), ("a",)), "int64 tensor"),
    "labels too few": (lambda: Images(PIXELS, torch.zeros(1, dtype=torch.int64), ("a",)), "2 images but 1 labels"),
    "labels too high": (lambda: Images(PIXELS, torch.tensor([0, 1]), ("a",)), "labels must be from 0 to 0"),
    "labels negative": (lambda: Images(PIXELS, torch.tensor([0, -1]), ("a",)), "got -1"),
    "names twice": (lambda: Images(PIXELS, None, ("a", "a")), "distinct names"),
    "a row per image": (lambda: Images.from_arrays(np.zeros((2, 9), np.uint8)), "reshape it"),
    "one image": (lambda: Images.from_arrays(np.zeros((9,), np.uint8)), "x[None]"),
    "no axis of channels": (lambda: Images.from_arrays(np.zeros((2, 5, 6, 7))), 'channels="first"'),
    "unknown channels": (lambda: Images.from_arrays(PIXELS, channels="fist"), "did you mean first?"),
    "floats to 255": (lambda: Images.from_arrays(np.full((2, 3, 3), 255.0)), "floats from 0 to 1"),
    "negative floats": (lambda: Images.from_arrays(np.full((2, 3, 3), -0.5)), "floats from 0 to 1"),
    "not a number": (lambda: Images.from_arrays(np.full((2, 3, 3), np.nan)), "floats from 0 to 1"),
    "16 bits": (lambda: Images.from_arrays(np.full((2, 3, 3), 300, np.uint16)), "0 to 255"),
    "complex": (lambda: Images.from_arrays(np.zeros((2, 3, 3), complex)), "an array of numbers"),
    "objects": (lambda: Images.from_arrays(np.full((2, 3, 3), None)), "an array of numbers"),
    "ragged": (lambda: Images.from_arrays([[[0, 0]], [[0]]]), "an array of one shape"),
    "empty": (lambda: Images.from_arrays(np.zeros((0, 3, 3))), "at least one image"),
    "label column": (lambda: Images.from_arrays(PIXELS, [[0], [1]]), "y must be a row"),
    "float labels": (lambda: Images.from_arrays(PIXELS, [0.0, 1.0]), "y must be a row"),
    "object labels": (lambda: Images.from_arrays(PIXELS, np.array([None, "a"])), "y must be a row"),
    "a huge label": (lambda: Images.from_arrays(PIXELS, [0, 4_000_000_000]), "0 to 65535"),
    "a negative label": (lambda: Images.from_arrays(PIXELS, [0, -3]), "got -3"),
    "an unknown name": (lambda: Images.from_arrays(PIXELS, ["a", "c"], ["a", "b"]), "'c', which is not one of"),
    "index out of range": (lambda: Images(PIXELS).take([2]), "within the 2 images"),
    "no index": (lambda: Images(PIXELS).take([]), "non-empty row"),
    "index of floats": (lambda: Images(PIXELS).take([0.5]), "whole numbers"),
    "index is a number": (lambda: Images(PIXELS).take(1), "whole numbers"),
    "batch of none": (lambda: Images(PIXELS).batch(0, 0, 0), "n must be a whole number"),
    "negative seen": (lambda: Images(PIXELS).batch(0, -1, 1), "seen must be a whole number"),
    "iterable dataset": (lambda: Images.from_dataset(iter([])), "map-style"),
    "empty dataset": (lambda: Images.from_dataset([]), "len(dataset) must be"),
    "items differ": (
        lambda: Images.from_dataset([PIXELS[0], PIXELS[0, :, :2]]),
        "item 1 of the data set has shape (1, 2, 5)",
    ),
    "normalised items": (lambda: Images.from_dataset([PIXELS[0] - 0.5]), "item 0 of the data set cannot be used"),
}


@pytest.mark.parametrize(("make", "expected"), BAD.values(), ids=BAD)
def test_bad_images_are_one_sentence(make, expected):
    with pytest.raises(InputError) as caught:
        make()
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
