"""gan sample, walk, arithmetic against the sampler: the same pixels in every form."""

import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from triptych import load
from triptych.cli import main
from triptych.gan.run import load_generator
from triptych.gan.sample import Sampler
from triptych.gan.walk import path


def size(path):
    with Image.open(path) as picture:
        return picture.size


def test_samples_are_the_samplers_in_every_form(gan_runs, tmp_path, said):
    recipe, generator = load_generator(gan_runs / "run")
    expected = torch.cat(list(Sampler(recipe, generator).sample(5, 20)))
    words = ["gan", "sample", gan_runs / "run", "--seed", "5", "--n", "20", "--out"]
    data, err = said(*words, tmp_path / "s.npz")
    assert (data["images"], data["shape"], data["labels"]) == (20, [1, 8, 8], None)
    assert err.startswith("images: 20 of 20, ")
    assert (np.load(tmp_path / "s.npz")["x"] == expected.numpy()).all()
    said(*words, tmp_path / "s.npy")
    assert (np.load(tmp_path / "s.npy") == expected.numpy()).all()
    said(*words, tmp_path / "s")
    assert torch.equal(load(tmp_path / "s").pixels, expected)
    said(*words, tmp_path / "s.png", "--columns", "5")
    picture = np.asarray(Image.open(tmp_path / "s.png"))
    assert picture.shape == (4 * 66 - 2, 5 * 66 - 2)
    assert (picture[66 : 66 + 64 : 8, :64:8] == expected[5, 0].numpy()).all()
    _, generator = load_generator(gan_runs / "run", 2)
    old = torch.cat(list(Sampler(recipe, generator).sample(5, 3)))
    said(*words[:-3], "--n", "3", "--checkpoint", "2", "--out", tmp_path / "old.npy")
    assert (np.load(tmp_path / "old.npy") == old.numpy()).all()
    assert not torch.equal(old, expected[:3])


def test_classes_are_sampled_by_name_and_row(gan_runs, tmp_path, said):
    words = ["gan", "sample", gan_runs / "classed", "--out"]
    data, _ = said(*words, tmp_path / "s.npz", "--n", "5", "--labels", "7,2")
    assert data["labels"] == np.load(tmp_path / "s.npz")["y"].tolist() == [7, 2, 7, 2, 7]
    data, _ = said(*words, tmp_path / "e.npz", "--each-class", "--n", "2")
    assert data["labels"] == [label for label in range(10) for _ in range(2)]
    assert load(tmp_path / "e.npz").shape == (20, 1, 8, 8)
    said(*words, tmp_path / "e.png", "--each-class", "--n", "2", "--truncation", "0.5")
    assert size(tmp_path / "e.png") == (2 * 66 - 2, 10 * 66 - 2)
    cut, whole = (np.asarray(Image.open(tmp_path / "e.png"))[:64:8, :64:8], np.load(tmp_path / "e.npz")["x"][0, 0])
    assert (cut != whole).any()


def test_of_many_classes_a_grid_has_as_many_images_as_it_holds(gan_runs, tmp_path, monkeypatch, capsys, said):
    words = ["gan", "sample", gan_runs / "classed", "--each-class", "--out"]
    for most, n in ((80, 8), (79, 7), (10, 1)):
        monkeypatch.setattr("triptych.cli.gan_sample.MOST_IN_A_GRID", most)
        data, _ = said(*words, tmp_path / "e.png")
        assert data["images"] == 10 * n
        assert size(tmp_path / "e.png") == (n * 66 - 2, 10 * 66 - 2)
    monkeypatch.setattr("triptych.cli.gan_sample.MOST_IN_A_GRID", 9)
    assert main([*map(str, words), str(tmp_path / "no.png")]) == 2
    assert "at most 9, but 1 each of 10 classes are 10; give a folder" in capsys.readouterr().err
    data, _ = said(*words, tmp_path / "e.npz")
    assert data["images"] == 80


def test_the_last_image_number_of_a_seed_can_be_added(gan_runs, tmp_path, said):
    data, _ = said("gan", "arithmetic", gan_runs / "run", "--plus", 2**63 - 1, "--out", tmp_path / "a.png")
    assert data["plus"] == [[2**63 - 1]]


def test_a_walk_is_a_film_of_its_frames(gan_runs, tmp_path, said):
    words = [
        "gan",
        "walk",
        gan_runs / "classed",
        "--frames",
        "18",
        "--seed",
        "2",
        "--kind",
        "slerp",
        "--label",
        "4",
        "--fps",
        "10",
    ]
    data, _ = said(*words, "--out", tmp_path / "w.gif")
    assert (data["frames"], data["kind"]) == (18, "slerp")
    recipe, generator = load_generator(gan_runs / "classed")
    sampler = Sampler(recipe, generator)
    frames = sampler.images(path(sampler, "slerp", frames=18, seed=2, points=6), torch.full((18,), 4))
    with Image.open(tmp_path / "w.gif") as film:
        assert film.n_frames == 18
        assert film.info["duration"] == 100
        for i in (0, 17):
            film.seek(i)
            shown = np.asarray(film.convert("L"))[4::8, 4::8]
            assert (shown == frames[i, 0].numpy()).all()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the program ffmpeg")
def test_a_walk_is_an_mp4_where_there_is_ffmpeg(gan_runs, tmp_path, said):
    said("gan", "walk", gan_runs / "run", "--frames", "5", "--out", tmp_path / "w.mp4")
    assert (tmp_path / "w.mp4").read_bytes()[4:8] == b"ftyp"


FAKE = """#!/bin/sh
[ "$1" = -v ] || exit 9
for last; do :; done
if [ -e {folder}/broken ]; then echo "no such codec" >&2; exit 1; fi
cat > "$last"
"""


def test_ffmpeg_is_given_every_frame_and_its_failure_is_one_sentence(gan_runs, tmp_path, monkeypatch, capsys, said):
    """A stand-in writes the raw frames that it is given: 3 bytes a pixel, no more and no fewer frames."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ffmpeg"
    program.write_text(FAKE.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    words = ["gan", "walk", str(gan_runs / "run"), "--frames", "5", "--out", str(tmp_path / "w.mp4")]
    said(*words)
    assert len((tmp_path / "w.mp4").read_bytes()) == 5 * 64 * 64 * 3
    (tmp_path / "w.mp4").unlink()
    (tmp_path / "broken").touch()
    assert main(words) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "triptych: ffmpeg could not write the film (no such codec); write a .gif instead"
    )
    assert not (tmp_path / "w.mp4").exists()


def test_a_sum_is_drawn_with_its_terms(gan_runs, tmp_path, said):
    words = [
        "gan",
        "arithmetic",
        gan_runs / "run",
        "--plus",
        "1,2,3",
        "--plus",
        "7",
        "--minus",
        "4, 5",
        "--out",
        tmp_path / "a.png",
    ]
    data, _ = said(*words)
    assert (data["plus"], data["minus"]) == ([[1, 2, 3], [7]], [[4, 5]])
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape == (4 * 66 - 2, 9 * 66 - 2)  # a row a term, and the sum with eight neighbours
    recipe, generator = load_generator(gan_runs / "run")
    sampler = Sampler(recipe, generator)
    z = sampler.z(0, 0, 8)
    total = z[1:4].mean(0) + z[7] - z[4:6].mean(0)
    assert (picture[3 * 66 : 3 * 66 + 64 : 8, :64:8] == sampler.images(total[None])[0, 0].numpy()).all()
    assert (picture[:64:8, 2 * 66 : 2 * 66 + 64 : 8] == sampler.images(z[3:4])[0, 0].numpy()).all()


def test_an_array_file_is_what_numpy_reads():
    from triptych.cli.gan_sample import _array_file

    images = torch.arange(24, dtype=torch.uint8).reshape(2, 1, 3, 4)
    with np.load(io.BytesIO(_array_file(".npz", images, torch.tensor([1, 0])))) as arrays:
        assert (arrays["x"] == images.numpy()).all()
        assert arrays["y"].tolist() == [1, 0]
