"""triptych data deduplicate."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from triptych.cli import data_deduplicate, main
from triptych.data.deduplicate import deduplicate

GROUPS = [["a/0.png", "b/copy.png", "b/darker.png"], ["a/1.png", "a/1again.png"]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A few steps of training: what is tested is what is said of the pairs."""
    monkeypatch.setattr(data_deduplicate, "deduplicate", partial(deduplicate, steps=10))


@pytest.fixture
def pictures(tmp_path):
    """Two classes of eight pictures of smooth noise each; of a/0 and a/1 there are copies."""
    noise = gaussian_filter(np.random.default_rng(0).standard_normal((16, 40, 40, 3)), (0, 2, 2, 0))
    pixels = (128 + 45 * noise / noise.std()).clip(0, 255).astype(np.uint8)
    made = {f"{'ab'[i // 8]}/{i % 8}.png": x for i, x in enumerate(pixels)}
    made |= {"b/copy.png": pixels[0], "b/darker.png": (0.9 * pixels[0]).astype(np.uint8)}
    made |= {"a/1again.png": np.roll(pixels[1], 1, 0)}
    for name, x in made.items():
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(path)
    return tmp_path / "pictures"


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(groups):
    return sorted(sorted(group["images"]) for group in groups)


def test_json_names_the_pictures_of_each_group(capsys, pictures):
    assert main(["data", "deduplicate", str(pictures), "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert set(said) == {"path", "images", "near_duplicates", "radius", "distance", "groups", "out"}
    assert (said["path"], said["images"], said["near_duplicates"], said["out"]) == (str(pictures), 19, 3, None)
    assert names(said["groups"]) == GROUPS
    for group in said["groups"]:
        for a, b, distance in group["pairs"]:
            assert {a, b} <= set(group["images"])
            assert 0 <= distance <= said["distance"]
            assert (distance == 0) == ({a, b} == {"a/0.png", "b/copy.png"})
    assert err.startswith("near duplicates among 19 images")


def test_out_has_a_list_and_a_picture_and_nothing_is_deleted(capsys, pictures, tmp_path):
    before, out = files(pictures), tmp_path / "new" / "found"
    assert main(["data", "deduplicate", str(pictures), "--out", str(out), "--seed", "4", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert files(pictures) == before
    assert sorted(files(out)) == ["duplicates.json", "duplicates.png"]
    written = json.loads((out / "duplicates.json").read_text())
    assert written.pop("seed") == 4
    assert [written.pop(name) for name in ("side", "limit")] == [None, None]
    assert said.pop("out") == str(out)
    assert written == said
    with Image.open(out / "duplicates.png") as picture:
        pairs = sum(len(group["pairs"]) for group in said["groups"])
        assert picture.size == (80 * pairs + 4 * (pairs - 1), 40)


def test_the_picture_has_the_pairs_side_by_side_the_least_alike_first(capsys, pictures, tmp_path):
    assert main(["data", "deduplicate", str(pictures), "--out", str(tmp_path / "out"), "--json"]) == 0
    pairs = [pair for group in json.loads(capsys.readouterr().out)["groups"] for pair in group["pairs"]]
    pairs.sort(key=lambda pair: -pair[2])
    drawn = np.asarray(Image.open(tmp_path / "out" / "duplicates.png").convert("RGB"))
    for k, (a, b, _) in enumerate(pairs):
        tile = drawn[:, 84 * k : 84 * k + 80]
        expected = np.concatenate([np.asarray(Image.open(pictures / name)) for name in (a, b)], 1)
        np.testing.assert_array_equal(tile, expected)


def test_it_says_how_many_and_which(capsys, pictures, tmp_path):
    assert main(["data", "deduplicate", str(pictures), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "19 images, 3 near duplicates in 2 groups; one of each group and all others are 16"
    rows = [sorted(line.replace(",", "").split()[2:]) for line in lines[2:4]]
    assert sorted(rows) == GROUPS
    assert str(tmp_path / "out" / "duplicates.json") in lines[4]


def test_twenty_groups_are_shown_and_the_rest_counted(capsys, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (23, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", x=np.concatenate([x, x]))
    assert main(["data", "deduplicate", str(tmp_path / "set.npz"), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("46 images, 23 near duplicates in 23 groups")
    assert [line.split()[2:] for line in lines[2:22]] == [[f"{i},", f"{i + 23}"] for i in range(20)]
    assert lines[22] == "and 3 more groups; --json lists them all"
    assert len(json.loads((tmp_path / "out" / "duplicates.json").read_text())["groups"]) == 23


def test_large_pictures_are_drawn_small(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (2, 300, 200, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", x=x[[0, 1, 0]])
    assert main(["data", "deduplicate", str(tmp_path / "set.npz"), "--out", str(tmp_path)]) == 0
    with Image.open(tmp_path / "duplicates.png") as picture:
        assert picture.size[1] == 128
        assert np.asarray(picture)[:, :170].any()


def test_side_and_limit_are_those_of_the_set(capsys, pictures):
    Image.new("RGB", (50, 60)).save(pictures / "a" / "other.png")
    assert main(["data", "deduplicate", str(pictures), "--side", "36", "--limit", "9", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["images"] == 9
    assert {name for group in said["groups"] for name in group["images"]} <= set(files(pictures))


def test_where_there_are_none_it_says_so(capsys, tmp_path):
    assert main(["data", "deduplicate", "digits", "--limit", "60", "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "60 images, 0 near duplicates in 0 groups"
    assert len(lines) == 2
    assert json.loads((tmp_path / "out" / "duplicates.json").read_text())["groups"] == []
    drawn = np.asarray(Image.open(tmp_path / "out" / "duplicates.png"))
    assert (drawn == 255).all()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["digits", "--limit", "0"], "limit must be a whole number of at least 1"),
        (["digits", "--seed", "-1"], "seed must be a whole number of at least 0"),
        (["digits", "--seed", "1.5"], "whole number"),
        (["digits", "--side", "0"], "side must be a whole number from 1"),
        (["digits", "--out", "file"], "out must be in a folder, but file is a file; choose another name"),
    ],
)
def test_wrong_use_is_one_sentence_and_writes_nothing(capsys, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    assert (
        main(
            ["data", "deduplicate", "--out", "new", *words] if "--out" not in words else ["data", "deduplicate", *words]
        )
        == 2
    )
    out, err = capsys.readouterr()
    assert expected in err
    assert (out, err.count("\n")) == ("", 1)
    assert files(tmp_path) == {"file": b"kept"}


def test_mixed_sizes_name_the_option(capsys, pictures):
    Image.new("RGB", (50, 60)).save(pictures / "a" / "other.png")
    assert main(["data", "deduplicate", str(pictures)]) == 2
    assert "give --side N" in capsys.readouterr().err


def test_pictures_with_transparency_in_an_array_are_refused(capsys, tmp_path):
    np.savez(tmp_path / "set.npz", x=np.zeros((3, 8, 8, 4), np.uint8))
    assert main(["data", "deduplicate", str(tmp_path / "set.npz")]) == 2
    assert "images must have 1 or 3 channels, got 4; make them grey or RGB" in capsys.readouterr().err
