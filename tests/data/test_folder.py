"""Folders of pictures: what is found, in which order, with which labels."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from triptych.data import load, splits


def save(path, value, size=(4, 3), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).convert(mode).save(path)


def values(images):
    return images.pixels[:, 0, 0, 0].tolist()


def test_without_sub_folders_there_are_no_labels(tmp_path):
    for i, name in enumerate(["b.png", "a.PNG", "c.bmp"]):
        save(tmp_path / name, i)
    (tmp_path / "notes.txt").write_text("no picture")
    save(tmp_path / ".hidden.png", 9)
    images = load(tmp_path)
    assert values(images) == [1, 0, 2]
    assert images.labels is None
    assert images.shape == (3, 1, 3, 4)
    assert splits(tmp_path) == ()


def test_a_class_a_sub_folder_at_any_depth(tmp_path):
    save(tmp_path / "dog" / "1.png", 10)
    save(tmp_path / "cat" / "deep" / "deeper" / "2.png", 20)
    save(tmp_path / "cat" / "1.png", 30)
    save(tmp_path / ".git" / "1.png", 40)
    save(tmp_path / "__MACOSX" / "1.png", 50)
    images = load(tmp_path)
    assert images.classes == ("cat", "dog")
    assert {value: int(label) for value, label in zip(values(images), images.labels)} == {10: 1, 20: 0, 30: 0}


@pytest.mark.parametrize("sizes", [(4, 4, 4), (1, 7, 3), (12, 2, 5)])
def test_the_first_images_are_a_fair_sample(tmp_path, sizes):
    """Of a class with a share p, the first N images hold N p, to within the number of classes."""
    for label, size in enumerate(sizes):
        for k in range(size):
            save(tmp_path / f"class {label}" / f"{k:02}.png", 20 * label + k)
    images = load(tmp_path)
    shown = np.array(values(images))
    for label, size in enumerate(sizes):
        of_class = shown[images.labels.numpy() == label]
        np.testing.assert_array_equal(of_class, 20 * label + np.arange(size))
    for limit in range(1, sum(sizes) + 1):
        first = load(tmp_path, limit=limit)
        assert first.checksum() == images.take(slice(limit)).checksum()
        assert first.classes == images.classes
        for label, size in enumerate(sizes):
            held = int((first.labels == label).sum())
            assert abs(held - Fraction(limit * size, sum(sizes))) <= Fraction(len(sizes), 2)


@pytest.mark.parametrize("held_out", ["test", "val", "valid", "validation", "Test"])
def test_two_splits(tmp_path, held_out):
    save(tmp_path / "train" / "cat" / "1.png", 10)
    save(tmp_path / "train" / "dog" / "1.png", 20)
    save(tmp_path / held_out / "dog" / "1.png", 30)
    assert splits(tmp_path) == ("train", "test")
    test = load(tmp_path, split="test")
    assert (values(test), test.labels.tolist(), test.classes) == ([30], [1], ("cat", "dog"))
    assert values(load(tmp_path, split="train")) == [10, 20]
    assert values(load(tmp_path)) == [10, 20, 30]


def test_three_splits(tmp_path):
    for value, split in enumerate(("train", "val", "test")):
        save(tmp_path / split / "cat" / "1.png", value)
    assert splits(tmp_path) == ("train", "test", "val")
    assert values(load(tmp_path, split="val")) == [1]


def test_two_splits_of_loose_pictures_are_unlabelled(tmp_path):
    save(tmp_path / "train" / "1.png", 10)
    save(tmp_path / "test" / "1.png", 20)
    assert splits(tmp_path) == ("train", "test")
    assert load(tmp_path, split="test").labels is None


def test_train_beside_other_classes_is_a_class(tmp_path):
    for name in ("train", "test", "aeroplane"):
        save(tmp_path / name / "1.png", 1)
    assert load(tmp_path).classes == ("aeroplane", "test", "train")


def test_one_picture_in_colour_makes_all_rgb(tmp_path):
    save(tmp_path / "1.png", 10)
    assert load(tmp_path).shape[1] == 1
    save(tmp_path / "2.png", 20, mode="RGB")
    images = load(tmp_path)
    assert images.shape[1] == 3
    assert images.pixels[0].unique().tolist() == [10]


def test_side_makes_mixed_sizes_one(tmp_path):
    save(tmp_path / "1.png", 10)
    save(tmp_path / "2.png", 20, size=(9, 30))
    for fit in ("crop", "squash"):
        assert load(tmp_path, side=6, fit=fit).shape == (2, 1, 6, 6)


def test_links_to_elsewhere_are_followed(tmp_path):
    save(tmp_path / "elsewhere" / "1.png", 10)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    assert load(tmp_path / "data").labels.tolist() == [0, 1]
