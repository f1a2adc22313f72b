"""CIFAR's binary version, against records put together by hand."""

import numpy as np
import pytest

from triptych.data import load, splits


def records(n, label_bytes, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10 if label_bytes == 1 else 100, n)
    rows = [bytes([99] * (label_bytes - 1) + [y]) + x.tobytes() for x, y in zip(pixels, labels)]
    return pixels, labels, b"".join(rows)


@pytest.mark.parametrize("names", [True, False])
def test_cifar_10(tmp_path, names):
    parts = [records(n, 1, n) for n in (4, 3, 5)]
    for name, (_, _, data) in zip(("data_batch_1", "data_batch_2", "test_batch"), parts):
        (tmp_path / f"{name}.bin").write_bytes(data)
    if names:
        (tmp_path / "batches.meta.txt").write_text("\n".join(f"kind {i}" for i in range(10)) + "\n\n")
    assert splits(tmp_path) == ("train", "test")
    train = load(tmp_path, split="train")
    np.testing.assert_array_equal(train.pixels.numpy(), np.concatenate([parts[0][0], parts[1][0]]))
    np.testing.assert_array_equal(train.labels.numpy(), np.concatenate([parts[0][1], parts[1][1]]))
    assert train.classes[3] == ("kind 3" if names else "3")
    for limit in (1, 4, 6, 9):
        assert load(tmp_path, split="train", limit=limit).checksum() == train.take(slice(limit)).checksum()
    np.testing.assert_array_equal(load(tmp_path, split="test").labels.numpy(), parts[2][1])
    np.testing.assert_array_equal(load(tmp_path / "data_batch_2.bin").labels.numpy(), parts[1][1])


def test_ten_batches_are_in_their_order(tmp_path):
    for i in range(1, 11):
        (tmp_path / f"data_batch_{i}.bin").write_bytes(bytes([i - 1]) + bytes(3072))
    assert load(tmp_path).labels.tolist() == list(range(10))


def test_cifar_100_takes_the_fine_label(tmp_path):
    folder = tmp_path / "outer" / "cifar-100-binary"
    folder.mkdir(parents=True)
    pixels, labels, data = records(6, 2, 0)
    (folder / "train.bin").write_bytes(data)
    (folder / "test.bin").write_bytes(records(2, 2, 1)[2])
    (folder / "fine_label_names.txt").write_text("\n".join(f"fine {i}" for i in range(100)))
    for path in (folder, folder.parent):
        images = load(path, split="train")
        np.testing.assert_array_equal(images.pixels.numpy(), pixels)
        np.testing.assert_array_equal(images.labels.numpy(), labels)
        assert images.classes[99] == "fine 99"
