"""Shards against load: the same images, decoded once, made anew when the folder changes, whole whatever happens."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from triptych import cache
from triptych.check import InputError
from triptych.data import load, picture
from triptych.data.shards import INDEX, PIXELS, mapped


@pytest.fixture(autouse=True)
def shards(tmp_path, monkeypatch):
    """The folder of the shards."""
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    return cache.folder() / "shards"


def photos(folder, *, size=(9, 7), grey=False, classes=("cat", "dog"), count=3, splits=("",)):
    """Pictures of noise, JPEG and PNG."""
    rng = np.random.default_rng(0)
    for split in splits:
        for name in classes:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (size[1], size[0]) if grey else (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.{'png' if i else 'jpg'}")
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """The names of the pictures that are decoded."""
    seen, read = [], picture.read

    def counted(path, **options):
        seen.append(path.name)
        return read(path, **options)

    monkeypatch.setattr(picture, "read", counted)
    return seen


SORTS = {
    "classes": ({}, {}),
    "no classes": ({"classes": ("",)}, {}),
    "grey": ({"grey": True}, {}),
    "resized": ({"size": (40, 30)}, {"side": 8}),
    "squashed": ({"size": (40, 30)}, {"side": 8, "fit": "squash"}),
    "the first": ({}, {"limit": 4}),
    "one split": ({"splits": ("train", "test")}, {"split": "test"}),
    "all splits": ({"splits": ("train", "test")}, {}),
}


@pytest.mark.parametrize(("made", "asked"), SORTS.values(), ids=SORTS)
def test_a_shard_is_what_load_reads(tmp_path, decoded, made, asked):
    folder = photos(tmp_path / "photos", **made)
    expected = load(folder, **asked)
    decoded.clear()
    told = []
    first = mapped(folder, **asked, progress=lambda done, total: told.append((done, total)))
    assert told == [(i + 1, len(expected)) for i in range(len(expected))]
    assert len(decoded) == len(expected)
    again = mapped(folder, **asked, progress=lambda *_: pytest.fail("decoded again"))
    assert len(decoded) == len(expected)
    for images in (first, again):
        assert torch.equal(images.pixels, expected.pixels)
        assert images.classes == expected.classes
        assert (images.labels is None) == (expected.labels is None)
        if expected.labels is not None:
            assert torch.equal(images.labels, expected.labels)
        assert images.checksum() == expected.checksum()
        assert torch.equal(images.batch(1, 2, 3).pixels, expected.batch(1, 2, 3).pixels)


CHANGES = {
    "a picture more": lambda folder: Image.new("RGB", (9, 7)).save(folder / "cat" / "9.png"),
    "a picture less": lambda folder: (folder / "cat" / "1.png").unlink(),
    "another picture": lambda folder: Image.new("RGB", (9, 7), "red").save(folder / "cat" / "1.png"),
    "a picture touched": lambda folder: os.utime(folder / "cat" / "1.png", (1, 1)),
    "a picture renamed": lambda folder: (folder / "cat" / "1.png").rename(folder / "cat" / "11.png"),
    "a class renamed": lambda folder: (folder / "cat").rename(folder / "lion"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_folder_is_read_anew_and_the_old_shard_removed(tmp_path, shards, decoded, change):
    folder = photos(tmp_path / "photos")
    old = mapped(folder)
    (before,) = shards.iterdir()
    pixels = old.pixels.clone()
    change(folder)
    decoded.clear()
    new = mapped(folder)
    assert decoded
    assert torch.equal(new.pixels, load(folder).pixels)
    assert new.classes == load(folder).classes
    (after,) = shards.iterdir()
    assert after.name != before.name
    assert torch.equal(old.pixels, pixels)  # who has it open keeps it


def test_other_questions_of_the_same_folder_have_shards_of_their_own(tmp_path, shards):
    folder = photos(tmp_path / "photos")
    mapped(folder), mapped(folder, side=4), mapped(folder, side=4, fit="squash"), mapped(folder, limit=2)
    assert len(list(shards.iterdir())) == 4


def test_writing_to_the_images_changes_no_file(tmp_path):
    folder = photos(tmp_path / "photos")
    mapped(folder).pixels.zero_()
    assert mapped(folder).pixels.any()


def changed(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


DAMAGE = {
    "pixels cut short": lambda shard: (shard / PIXELS).write_bytes((shard / PIXELS).read_bytes()[:-9]),
    "no pixels": lambda shard: (shard / PIXELS).unlink(),
    "no index": lambda shard: (shard / INDEX).unlink(),
    "another shape": lambda shard: np.save(shard / PIXELS, np.zeros((2, 3, 7, 9), np.uint8)),
    "another type": lambda shard: np.save(shard / PIXELS, np.load(shard / PIXELS).astype(np.int16)),
    "an index of nothing": lambda shard: (shard / INDEX).write_text("{}"),
    "an index of another kind": lambda shard: (shard / INDEX).write_text("[]"),
    "an index cut short": lambda shard: (shard / INDEX).write_text((shard / INDEX).read_text()[:-9]),
    "an index of other labels": lambda shard: changed(shard / INDEX, labels=["cat"]),
    "an index of too few labels": lambda shard: changed(shard / INDEX, labels=[0]),
    "an index of no labels": lambda shard: changed(shard / INDEX, labels={}),
    "an index without a checksum": lambda shard: changed(shard / INDEX, checksum=None),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_shard_is_made_again(tmp_path, shards, damage):
    folder = photos(tmp_path / "photos")
    mapped(folder)
    damage(next(shards.iterdir()))
    assert torch.equal(mapped(folder).pixels, load(folder).pixels)
    index = json.loads((next(shards.iterdir()) / INDEX).read_text())
    assert index["checksum"] == load(folder).checksum()


def test_nothing_is_left_where_the_making_is_broken_off(tmp_path, shards):
    folder = photos(tmp_path / "photos")

    def interrupted(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mapped(folder, progress=interrupted)
    assert list(shards.iterdir()) == []
    assert torch.equal(mapped(folder).pixels, load(folder).pixels)


SMALL_DISK = """
import resource, sys
from triptych.data.shards import mapped
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
try:
    mapped(sys.argv[2])
except OSError as error:
    sys.exit(f"{error.filename}: {error.strerror}")
"""


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files as POSIX does")
@pytest.mark.parametrize("limit", [1, 500, 30_000])
def test_where_the_disk_is_full_one_sentence_says_so_and_nothing_is_left(tmp_path, shards, limit):
    """Full at the header, at the first picture, at the second; a process that a signal ends would say nothing."""
    folder = photos(tmp_path / "photos", size=(90, 70))
    words = [sys.executable, "-c", SMALL_DISK, str(limit), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    remedy = "File too large; make room there, or set TRIPTYCH_CACHE to a folder on another disk"
    assert done.stderr == f"{shards}: {remedy}\n"
    assert list(shards.iterdir()) == []
    assert torch.equal(mapped(folder).pixels, load(folder).pixels)


def test_what_a_killed_process_left_is_removed_when_it_is_old(tmp_path, shards):
    folder = photos(tmp_path / "photos")
    for name, age in ((".x-y.1.part", 2 * 86_400), (".x-y.2.part", 60)):
        (shards / name).mkdir(parents=True)
        os.utime(shards / name, (time.time() - age,) * 2)
    mapped(folder)
    assert sorted(path.name for path in shards.iterdir() if path.name.startswith(".")) == [".x-y.2.part"]


def test_who_is_overtaken_takes_the_shard_of_the_quicker(tmp_path, shards):
    folder, quicker = photos(tmp_path / "photos"), []

    def overtaken(done, total):
        if done == 3:
            quicker.append(mapped(folder))

    slower = mapped(folder, progress=overtaken)
    assert torch.equal(slower.pixels, quicker[0].pixels)
    assert slower.checksum() == quicker[0].checksum() == load(folder).checksum()
    (shard,) = shards.iterdir()
    assert sorted(path.name for path in shard.iterdir()) == [INDEX, PIXELS]


def test_what_is_no_folder_of_pictures_is_loaded(tmp_path, shards):
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 5, 5), np.uint8))
    Image.new("RGB", (4, 4)).save(tmp_path / "one.png")
    assert mapped(tmp_path / "d.npz").shape == (3, 1, 5, 5)
    assert mapped(tmp_path / "one.png").shape == (1, 3, 4, 4)
    assert mapped("digits", limit=7).shape == (7, 1, 8, 8)
    assert not shards.exists()


def test_what_load_refuses_is_refused_in_the_same_words(tmp_path, shards):
    folder = photos(tmp_path / "photos")
    (folder / "cat" / "bad.png").write_bytes(b"no picture")
    mixed = photos(tmp_path / "mixed")
    Image.new("RGB", (5, 5)).save(mixed / "cat" / "9.png")
    cases = [(folder, {}), (folder, {"side": 4}), (mixed, {}), (mixed, {"split": "train"}), (mixed, {"side": 0})]
    cases += [(mixed, {"fit": "stretch"}), (mixed, {"limit": 0}), (tmp_path / "nowhere", {})]
    for path, asked in cases:
        with pytest.raises(InputError) as expected:
            load(path, **asked)
        with pytest.raises(InputError) as said:
            mapped(path, **asked)
        assert str(said.value) == str(expected.value)
    assert not shards.exists() or list(shards.iterdir()) == []
