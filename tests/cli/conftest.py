"""What the tests of the gan commands share: two tiny runs."""

import json
import shutil

import pytest

from triptych.cli import main

GAN = [
    "gan",
    "train",
    "wgan-gp",
    "--width",
    "2",
    "--batch",
    "4",
    "--log-every",
    "1",
    "--limit",
    "40",
    "--measure-every",
    "2",
]


@pytest.fixture(scope="session")
def gan_runs(tmp_path_factory):
    """A run of four steps, ``run``, and a conditional one of two, ``classed``."""
    folder = tmp_path_factory.mktemp("runs")
    words = ["--steps", "4", "--checkpoint-every", "2", "--grid-every", "2", "--out", str(folder / "run")]
    assert main([*GAN, *words]) == 0
    assert main([*GAN, "--labels", "--steps", "2", "--out", str(folder / "classed")]) == 0
    return folder


@pytest.fixture
def gan_run(gan_runs, tmp_path):
    """A copy of the run."""
    shutil.copytree(gan_runs / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def said(capsys):
    """A function that runs a command line and gives its JSON object and what it said on standard error."""

    def said(*words, status=0):
        assert main([*map(str, words), "--json"]) == status
        out, err = capsys.readouterr()
        return json.loads(out), err

    return said
