"""NumPy archives under the usual names."""

import numpy as np
import pytest

from triptych.data import load, splits

X = np.random.default_rng(0).integers(0, 256, (5, 7, 6), dtype=np.uint8)
Y = np.array([0, 2, 1, 1, 0])


@pytest.mark.parametrize("names", [("x", "y"), ("X", "y"), ("images", "labels"), ("data", "target")])
def test_one_set(tmp_path, names):
    np.savez(tmp_path / "a.npz", **{names[0]: X, names[1]: Y})
    images = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(images.pixels[:, 0].numpy(), X)
    assert images.labels.tolist() == Y.tolist()
    assert splits(tmp_path / "a.npz") == ()
    assert load(tmp_path / "a.npz", limit=2).classes == ("0", "1", "2")


@pytest.mark.parametrize("names", ["x_{} y_{}", "{}_images {}_labels", "images_{} labels_{}", "{}_x {}_y"])
def test_two_splits(tmp_path, names):
    x, y = names.split()
    arrays = {x.format("train"): X, y.format("train"): Y[:, None], x.format("test"): X[:2], y.format("test"): Y[3:]}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    assert splits(tmp_path / "a.npz") == ("train", "test")
    test = load(tmp_path / "a.npz", split="test")
    assert (test.labels.tolist(), test.classes) == ([1, 0], ("0", "1", "2"))
    assert load(tmp_path / "a.npz").labels.tolist() == [*Y, 1, 0]


def test_names_floats_and_channels(tmp_path):
    np.savez(tmp_path / "a.npz", x=X / 255, y=Y, classes=["ant", "bee", "cow"])
    images = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(images.pixels[:, 0].numpy(), X)
    assert images.classes == ("ant", "bee", "cow")
    np.savez(tmp_path / "b.npz", x=np.repeat(X[..., None], 3, 3), y=np.array(["b", "a", "b", "a", "c"]))
    images = load(tmp_path / "b.npz")
    assert images.shape == (5, 3, 7, 6)
    assert (images.labels.tolist(), images.classes) == ([1, 0, 1, 0, 2], ("a", "b", "c"))
    np.savez(tmp_path / "c.npz", x=X)
    assert load(tmp_path / "c.npz").labels is None
    (tmp_path / "c.npz").rename(tmp_path / "no suffix")
    assert len(load(tmp_path / "no suffix", limit=3)) == 3
