"""IDX files, against a writer of the format's own."""

import gzip
import struct

import numpy as np
import pytest

from triptych.data import load, splits
from triptych.data.idx import read_array

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def write(path, array):
    code = CODES[array.dtype.str[1:]]
    data = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    data += array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def pixels(n, h=5, w=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, h, w), dtype=np.uint8)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_all_types_are_read(tmp_path, code, name):
    array = (np.random.default_rng(0).normal(size=(3, 2, 4)) * 50).astype(code)
    read = read_array(write(tmp_path / name, array))
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.dtype(code).newbyteorder("=")
    np.testing.assert_array_equal(read_array(tmp_path / name, 2), array[:2])


@pytest.mark.parametrize("names", ["{}-{}-idx{}-ubyte", "{}-{}-idx{}-ubyte.gz", "{}-{}.idx{}-ubyte"])
@pytest.mark.parametrize("test", ["t10k", "test"])
@pytest.mark.parametrize("inner", ["", "raw"])
def test_a_folder_with_two_splits(tmp_path, names, test, inner):
    train, held_out = pixels(6), pixels(4, seed=1)
    for split, x, y in (("train", train, [0, 1, 2, 0, 1, 2]), (test, held_out, [1, 1, 0, 3])):
        write(tmp_path / inner / names.format(split, "images", 3), x)
        write(tmp_path / inner / names.format(split, "labels", 1), np.array(y, np.uint8))
    (tmp_path / inner / "readme.txt").write_text("not data")
    assert splits(tmp_path if not inner else tmp_path / inner) == ("train", "test")
    folder = tmp_path / inner
    images = load(folder, split="train")
    np.testing.assert_array_equal(images.pixels[:, 0].numpy(), train)
    assert images.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert images.classes == ("0", "1", "2", "3"), "the classes of both splits"
    assert load(folder, split="test").labels.tolist() == [1, 1, 0, 3]
    both = load(folder)
    np.testing.assert_array_equal(both.pixels[:, 0].numpy(), np.concatenate([train, held_out]))
    assert load(folder, limit=8).labels.tolist() == [0, 1, 2, 0, 1, 2, 1, 1]
    assert load(folder, limit=2).classes == images.classes


def test_a_folder_around_the_only_folder(tmp_path):
    write(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte", pixels(3))
    assert load(tmp_path / "MNIST", split="train").shape == (3, 1, 5, 7)


def test_a_plain_file_wins_over_its_gz(tmp_path):
    write(tmp_path / "train-images-idx3-ubyte", pixels(3))
    write(tmp_path / "train-images-idx3-ubyte.gz", pixels(4))
    assert len(load(tmp_path)) == 3


@pytest.mark.parametrize("suffixes", [("", ".gz"), (".gz", ""), (".gz", ".gz"), ("", "")])
def test_one_file_finds_its_labels(tmp_path, suffixes):
    path = write(tmp_path / f"t10k-images-idx3-ubyte{suffixes[0]}", pixels(3))
    assert load(path).labels is None
    write(tmp_path / f"t10k-labels-idx1-ubyte{suffixes[1]}", np.array([2, 0, 1], np.uint8))
    assert load(path).labels.tolist() == [2, 0, 1]
    assert load(path, limit=2).labels.tolist() == [2, 0]
    assert splits(path) == ()


def test_any_name_is_read_by_its_content(tmp_path):
    x = pixels(3)
    np.testing.assert_array_equal(load(write(tmp_path / "whatever.bin", x)).pixels[:, 0].numpy(), x)


def test_emnist_is_transposed(tmp_path):
    x = pixels(3)
    path = write(tmp_path / "emnist-letters-train-images-idx3-ubyte.gz", x)
    write(tmp_path / "emnist-letters-train-labels-idx1-ubyte.gz", np.array([1, 26, 3], np.uint8))
    images = load(path)
    np.testing.assert_array_equal(images.pixels[:, 0].numpy(), x.transpose(0, 2, 1))
    assert images.labels.tolist() == [1, 26, 3]


def test_fashion_mnist_has_its_class_names(tmp_path):
    for folder in ("fashion-mnist", "mnist"):
        write(tmp_path / folder / "train-images-idx3-ubyte", pixels(2))
        write(tmp_path / folder / "train-labels-idx1-ubyte", np.array([9, 0], np.uint8))
    assert load(tmp_path / "fashion-mnist").classes[9] == "Ankle boot"
    assert load(tmp_path / "mnist").classes[9] == "9"


def test_wide_labels_are_read(tmp_path):
    path = write(tmp_path / "images-idx3-ubyte", pixels(2))
    write(tmp_path / "labels-idx1-ubyte", np.array([300, 7], np.int32))
    assert load(path).labels.tolist() == [300, 7]
