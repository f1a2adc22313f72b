"""Words, sizes and splits, whatever the format; real data where they are to be had."""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from triptych.data import load, splits
from triptych.data.recognise import recognise

REAL = os.environ.get("TRIPTYCH_DATA")
real = pytest.mark.skipif(not REAL, reason="needs the environment variable TRIPTYCH_DATA, a folder of real data sets")


def test_digits():
    images = load("digits")
    bunch = load_digits()
    assert images.shape == (1797, 1, 8, 8)
    np.testing.assert_array_equal(images.labels.numpy(), bunch.target)
    assert np.abs(images.pixels[:, 0].numpy() - bunch.images * 255 / 16).max() <= 0.5
    assert int(images.pixels.max()) == 255
    assert splits("digits") == ()
    assert load("digits", limit=5).checksum() == images.take(slice(5)).checksum()


def test_the_word_means_the_embedded_digits_even_beside_a_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(load("digits")) == 1797


def test_sides_are_honoured_by_every_format():
    images = load("digits", side=16, limit=20)
    assert images.shape == (20, 1, 16, 16)
    small = images.pixels.float().reshape(20, 8, 2, 8, 2).mean((2, 4))
    assert (small - load("digits", limit=20).pixels[:, 0]).abs().mean() < 10, "twice the size, the same picture"
    assert load("digits", side=8, limit=20).checksum() == load("digits", limit=20).checksum()


@real
def test_mnist():
    folder = Path(str(REAL)) / "mnist"
    if not folder.is_dir():
        pytest.skip("no mnist in TRIPTYCH_DATA")
    train, test = load(folder, split="train"), load(folder, split="test")
    assert (train.shape, test.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert abs(float(train.pixels.double().mean()) / 255 - 0.1306605) < 1e-6


@real
def test_cifar_10():
    folder = Path(str(REAL)) / "cifar-10-batches-bin"
    if not folder.is_dir():
        pytest.skip("no cifar-10-batches-bin in TRIPTYCH_DATA")
    assert recognise(folder).kind == "CIFAR-10 binary"
    test = load(folder, split="test")
    assert test.labels.bincount().tolist() == [1000] * 10
    assert (test.classes[0], test.classes[9]) == ("airplane", "truck")
    assert len(load(folder, limit=20_000, split="train")) == 20_000


@real
def test_a_folder_of_rooms():
    folder = Path(str(REAL)) / "rooms128"
    if not folder.is_dir():
        pytest.skip("no rooms128 in TRIPTYCH_DATA")
    images = load(folder, side=32, limit=100)
    assert images.shape == (100, 3, 32, 32)
    assert images.labels.bincount().tolist() == [25, 25, 25, 25]
