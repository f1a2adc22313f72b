"""The benchmark of kills sees every file that differs."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

from triptych.cli import main
from triptych.gan.folder import Run

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "kill.py"
WORDS = ["gan", "train", "wgan-gp", "--steps", "2", "--width", "2", "--batch", "4", "--limit", "40", "--log-every", "1"]
EVERY = ["--checkpoint-every", "1", "--grid-every", "1"]


@pytest.fixture(scope="module")
def kill():
    spec = importlib.util.spec_from_file_location("kill", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["kill"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill") / "never"
    assert main([*WORDS, *EVERY, "--out", str(folder)]) == 0
    return folder


def spoilt(name):
    """What turns the last byte of a file."""

    def spoil(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    return spoil


def logged(**values):
    """What changes the last line of metrics.jsonl."""

    def spoil(folder):
        *lines, last = (folder / "metrics.jsonl").read_text().splitlines()
        lines.append(json.dumps({**json.loads(last), **values}))
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")

    return spoil


SPOILT = {
    "nothing": (lambda folder: None, ""),
    "a time": (logged(time_seconds=99.0), ""),
    "tensors": (spoilt("checkpoints/00000001/tensors.safetensors"), "checkpoints/00000001/tensors.safetensors"),
    "numbers of a checkpoint": (spoilt("checkpoints/00000002/triptych.json"), "checkpoints/00000002/triptych.json"),
    "a grid": (spoilt("samples/00000001.png"), "samples/00000001.png"),
    "a lost grid": (lambda folder: (folder / "samples/00000002.png").unlink(), "samples/00000002.png"),
    "a grid more": (lambda folder: (folder / "samples/00000003.png").touch(), "samples/00000003.png"),
    "a lost checkpoint": (lambda folder: shutil.rmtree(folder / "checkpoints/00000001"), "checkpoints ["),
    "a number logged": (logged(gap=99.0), "metrics.jsonl"),
    "a step twice": (logged(step=1), "a step that is there twice"),
}


@pytest.mark.parametrize(("spoil", "told"), SPOILT.values(), ids=SPOILT)
def test_every_difference_is_told(kill, run, tmp_path, spoil, told):
    shutil.copytree(run, tmp_path / "killed")
    spoil(tmp_path / "killed")
    said = kill.differences(Run.open(run), Run.open(tmp_path / "killed"))
    assert said.startswith(told)
    assert bool(said) == bool(told)
