"""sparse learn: a model that the other commands read, written at every visit; stopped and resumed, the same bytes."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from triptych import ConvolutionalDictionaryLearning
from triptych.cli import main

ARGUMENTS = {"--atoms": "6", "--size": "4", "--side": "24", "--reg": "0.1"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of six pictures in colour."""
    folder = tmp_path_factory.mktemp("pictures")
    image = load_sample_images().images[0]
    for i in range(6):
        Image.fromarray(image[60 * i : 60 * i + 60, 100 : 100 + 60]).save(folder / f"{i}.png")
    return folder


def learn(pictures, out, *more, flags=()):
    given = {"--data": str(pictures), "--out": str(out), **ARGUMENTS, **dict(zip(more[::2], more[1::2]))}
    words = [word for pair in given.items() for word in pair]
    return main(["sparse", "learn", *words, *flags])


def test_it_learns_and_says_what(pictures, tmp_path, capsys):
    assert learn(pictures, tmp_path / "m", "--visits", "3", flags=["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"] == 6
    assert told["visits"] == 3
    assert told["objective"][0] > told["objective"][1] > told["objective"][2]
    learner = ConvolutionalDictionaryLearning.load(tmp_path / "m")
    assert learner.components_.shape == (6, 1, 4, 4)
    assert learner.objective_ == told["objective"]
    assert learner.reg_ == told["reg"]


def test_stopped_and_resumed_it_is_the_same_bytes(pictures, tmp_path):
    assert learn(pictures, tmp_path / "whole", "--visits", "4") == 0
    assert learn(pictures, tmp_path / "part", "--visits", "2") == 0
    assert learn(pictures, tmp_path / "part", "--visits", "4", flags=["--resume"]) == 0
    tensors = "tensors.safetensors"
    assert (tmp_path / "whole" / tensors).read_bytes() == (tmp_path / "part" / tensors).read_bytes()


def test_in_colour(pictures, tmp_path):
    assert learn(pictures, tmp_path / "m", "--visits", "1", flags=["--colour"]) == 0
    assert ConvolutionalDictionaryLearning.load(tmp_path / "m").components_.shape == (6, 3, 4, 4)


def test_other_commands_read_the_model(pictures, tmp_path):
    assert learn(pictures, tmp_path / "m", "--visits", "1") == 0
    assert main(["sparse", "show", str(tmp_path / "m"), "--out", str(tmp_path / "shown")]) == 0
    assert (tmp_path / "shown" / "atoms.png").is_file()
    out = tmp_path / "codes.safetensors"
    assert main(["sparse", "encode", str(pictures / "0.png"), "--out", str(out), "--model", str(tmp_path / "m")]) == 0
    assert out.is_file()


BAD = {
    "no data": (["--data", "nowhere"], [], "nowhere"),
    "reg 0": (["--reg", "0"], [], "reg must be a finite number above 0"),
    "no atoms": (["--atoms", "0"], [], "atoms"),
    "atoms larger than the pictures": (["--size", "30"], [], "at least as large as the atoms"),
    "nothing to resume": ([], ["--resume"], "must be a folder that triptych saved"),
}


@pytest.mark.parametrize(("more", "flags", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(more, flags, message, pictures, tmp_path, capsys):
    assert learn(pictures, tmp_path / "m", *more, flags=flags) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "m").exists()


def test_a_model_is_not_written_over_and_other_settings_do_not_resume(pictures, tmp_path, capsys):
    assert learn(pictures, tmp_path / "m", "--visits", "1") == 0
    before = (tmp_path / "m" / "tensors.safetensors").read_bytes()
    assert learn(pictures, tmp_path / "m", "--visits", "1") == 2
    assert "holds a model" in capsys.readouterr().err
    assert learn(pictures, tmp_path / "m", "--reg", "0.2", flags=["--resume"]) == 2
    assert "resume must be with the settings of the run: reg 0.1" in capsys.readouterr().err
    assert (tmp_path / "m" / "tensors.safetensors").read_bytes() == before


def test_grey_pictures_are_not_learned_from_in_colour(tmp_path, capsys):
    (tmp_path / "d").mkdir()
    for i in range(2):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (30, 30), np.uint8)).save(tmp_path / "d" / f"{i}.png")
    assert learn(tmp_path / "d", tmp_path / "m", flags=["--colour"]) == 2
    assert "leave it away" in capsys.readouterr().err
