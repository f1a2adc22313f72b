"""Many layers on the command line: learn, resume, show, guarantees, report, from-torch; and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

from triptych import MultiLayerSparseCoder
from triptych.cli import main

pytestmark = pytest.mark.xdist_group("sparse_layers")  # one worker learns what the tests share
LEARN = [
    "--layers",
    "6x3,8x3",
    "--density",
    "0.2",
    "--side",
    "8",
    "--count",
    "40",
    "--keep-low",
    "--visits",
    "3",
    "--reg",
    "0.03",
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Forty digits as PNG, 8 x 8."""
    folder = tmp_path_factory.mktemp("digits")
    for i, image in enumerate(load_digits().images[:40]):
        Image.fromarray(np.uint8(15 * image)).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def model(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "m"
    assert main(["sparse", "learn", "--data", str(pictures), "--out", str(out), *LEARN]) == 0
    return out


def test_it_learns_and_says_what(pictures, tmp_path, capsys):
    assert main(["sparse", "learn", "--data", str(pictures), "--out", str(tmp_path / "m"), *LEARN, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"] == 40
    assert told["visits"] == 3
    assert told["low_frequencies"] == "kept"
    assert [layer["atoms"] for layer in told["layers"]] == [6, 8]
    assert told["layers"][1]["density"] == pytest.approx(10 / 54)
    assert told["layers"][1]["effective_size"] == [5, 5]
    coder = MultiLayerSparseCoder.load(tmp_path / "m")
    assert coder.objective_ == told["objective"]
    assert coder.objective_[-1] < coder.objective_[0]


def test_a_stopped_run_goes_on_to_the_same_bytes(pictures, model, tmp_path, monkeypatch):
    saves, real = [], MultiLayerSparseCoder.save

    def stopping(self, folder, resumable=True):
        saves.append(real(self, folder, resumable))
        if len(saves) == 2:
            raise KeyboardInterrupt
        return saves[-1]

    out = tmp_path / "m"
    words = ["sparse", "learn", "--data", str(pictures), "--out", str(out), *LEARN]
    with monkeypatch.context() as patched:
        patched.setattr(MultiLayerSparseCoder, "save", stopping)
        assert main(words) != 0
    assert main([*words, "--resume"]) == 0
    for path in sorted(model.iterdir()):
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_show_writes_each_layers_atoms(model, tmp_path, capsys):
    assert main(["sparse", "show", str(model), "--out", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [layer["layer"] for layer in told["layers"]] == [1, 2]
    for i in (1, 2):
        with Image.open(tmp_path / f"atoms-{i}.png") as image:
            assert image.size[0] > 20


def test_sample_draws_pictures_from_the_model_and_says_how_sparse_they_are(model, tmp_path, capsys):
    out = tmp_path / "drawn.png"
    words = ["sparse", "sample", str(model), "--n", "6", "--columns", "3", "--nonzeros", "4"]
    assert main([*words, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row[-1] for row in told["nonzeros"]] == [4] * 6
    assert all(row[0] >= row[1] for row in told["nonzeros"])  # the layer before is as sparse, or less
    with Image.open(out) as image:
        assert image.size[0] / image.size[1] == pytest.approx(1.5, abs=0.2)
        assert np.ptp(np.asarray(image.convert("L"), dtype=float)) > 200
    for seed, same in (("0", True), ("1", False)):
        again = tmp_path / f"{seed}.png"
        assert main([*words, "--out", str(again), "--seed", seed]) == 0
        assert (again.read_bytes() == out.read_bytes()) is same
    assert "layer 2: 4 coefficients that are not 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "drawn.jpg"], "out must be a file that ends in .png"),
        (["--out", "drawn.png", "--nonzeros", "1000"], "nonzeros must be"),
        (["--out", "drawn.png", "--n", "0"], "n must be"),
    ],
)
def test_sample_refuses(words, says, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sparse", "sample", str(model), *words]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(["sparse", "sample", str(tmp_path), "--out", "drawn.png"]) == 2
    assert "model must be a folder that `triptych sparse learn --layers` wrote" in capsys.readouterr().err


def test_guarantees_speak_of_every_layer(model, pictures, capsys):
    assert main(["sparse", "guarantees", str(model), str(pictures / "00.png"), "--keep-low", "--noise", "2"]) == 0
    out = capsys.readouterr().out
    assert "Layer 1: coherence" in out
    assert "Layer 2: coherence" in out
    assert "Recovery by the forward pass: not promised" in out
    assert main(["sparse", "guarantees", str(model), str(pictures / "00.png"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["codes"][0]["stripes"]) == 2


def test_the_report_shows_atoms_codes_and_reconstructions(model, tmp_path, capsys):
    assert main(["report", str(model), "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for words in (
        "The layers",
        "atoms of D_1 D_2",
        "Signals and reconstructions",
        "Layer 1: the code",
        "Layer 2: the code",
        "Drawn, not coded",
        "at random places",
        "λ",
    ):
        assert words in text
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A module in the current folder, and the weights of its network."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets_of_this_test.py").write_text(
        "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), "
        "nn.MaxPool2d(2))\n\n\ndef number():\n    return 3\n",
        encoding="utf-8",
    )
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.MaxPool2d(2))
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_a_network_is_read_and_reported_on(network, pictures, capsys):
    words = [
        "sparse",
        "from-torch",
        str(network),
        "--net",
        "nets_of_this_test:make",
        "--data",
        str(pictures),
        "--count",
        "6",
    ]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "Layer 2, 2 (Conv2d)" in out
    assert "it ends before 4 (MaxPool2d)" in out
    assert "theory speaks of fewer than" in out
    assert main([*words, "--rescale", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"] == 6
    assert all(layer["lipschitz"] <= 1.05 for layer in told["layers"])
    assert all(layer["forward"] <= layer["at_zero"] for layer in told["layers"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net": "nets_of_this_test"}, "net must be module:function"),
        ({"net": "nets_of_this_test:missing"}, "did not (AttributeError"),
        ({"net": "no_such_module:make"}, "did not (ModuleNotFoundError"),
        ({"net": "nets_of_this_test:number"}, "made a int"),
        ({"weights": "net.pt"}, "weights must be a .safetensors file"),
        ({"weights": "other.safetensors"}, "weights must be the state_dict of"),
        ({"weights": "missing.safetensors"}, "missing.safetensors"),
    ],
)
def test_wrong_networks_are_refused_in_a_sentence(network, pictures, change, message, capsys):
    save_file({"a": torch.zeros(2)}, network.parent / "other.safetensors")
    given = {"weights": "net.safetensors", "net": "nets_of_this_test:make", **change}
    assert main(["sparse", "from-torch", given["weights"], "--net", given["net"], "--data", str(pictures)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--layers", "6y3"], "layers must be like"),
        (["--layers", "6x3", "--atoms", "32"], "atoms is for one layer"),
        (["--layers", "6x3,8x9"], "layer 2: signals must be at least"),
        (["--layers", "6x3", "--density", "0"], "density"),
        (["--layers", "6x3", "--reg", "0"], "reg"),
    ],
)
def test_wrong_wishes_are_refused_in_a_sentence(pictures, tmp_path, more, message, capsys):
    words = [
        "sparse",
        "learn",
        "--data",
        str(pictures),
        "--out",
        str(tmp_path / "m"),
        "--side",
        "8",
        "--keep-low",
        *more,
    ]
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_a_model_is_not_written_over_and_not_resumed_with_other_settings(pictures, model, capsys):
    words = ["sparse", "learn", "--data", str(pictures), "--out", str(model), *LEARN]
    assert main(words) == 2
    assert "out must be a new or empty folder" in capsys.readouterr().err
    assert main([*words, "--resume", "--seed", "7"]) == 2
    assert "another seed" in capsys.readouterr().err
    for flags in (["--count", "39"], ["--keep-low"]):
        other = [word for word in words if word not in flags[:1]] if flags == ["--keep-low"] else list(words)
        if flags[0] == "--count":
            other[other.index("--count") + 1] = "39"
        assert main([*other, "--resume"]) == 2
        assert "the signals that fit had" in capsys.readouterr().err
    at = words.index("--density") + 1
    assert main([*words[:at], "0.5", *words[at + 1 :], "--resume"]) == 2
    assert "resume must be with the settings of the run: density" in capsys.readouterr().err


def test_a_picture_of_other_channels_and_a_damaged_model_are_refused(model, pictures, tmp_path, capsys):
    small = tmp_path / "small.png"
    Image.new("L", (4, 4)).save(small)
    assert main(["sparse", "guarantees", str(model), str(small), "--keep-low"]) == 2
    assert "must be at least as large as the atoms" in capsys.readouterr().err
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in model.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    config = next(path for path in broken.iterdir() if path.suffix == ".json")
    config.write_text(config.read_text(encoding="utf-8").replace('"signal_shape"', '"signal_form"'), encoding="utf-8")
    for words in (["sparse", "show", str(broken)], ["report", str(broken)]):
        assert main(words) == 2
        assert "Traceback" not in capsys.readouterr().err
