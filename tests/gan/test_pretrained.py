"""Generators for others and from others: folders, ONNX files against onnxruntime, weights of pytorch/examples' DCGAN."""

import json
import os
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from triptych.check import InputError
from triptych.cli import main
from triptych.gan.imported import import_dcgan
from triptych.gan.pretrained import from_pretrained, is_pretrained, save_pretrained
from triptych.gan.recipes import RECIPES
from triptych.gan.run import load_generator
from triptych.gan.sample import Sampler
from triptych.store import read_json, write_json, write_tensors


def stirred(network, seed=0):
    """A network with random statistics and weights that no initialisation gives."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=rng))
                if name.endswith("running_mean"):
                    tensor.sub_(0.1)
    return network.eval()


def made(name, shape=(3, 16, 16), classes=0, width=4):
    recipe = RECIPES[name](shape, classes, width)
    return recipe, stirred(recipe.networks(1)[0])


def examples(nz=11, ngf=3, nc=3, side=32):
    """The generator of pytorch/examples' dcgan/main.py, at any side."""
    widths = [ngf * side // 8 // 2**i for i in range(side.bit_length() - 3)]
    layers = [nn.ConvTranspose2d(nz, widths[0], 4, 1, 0, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(True)]
    for a, b in pairwise(widths):
        layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(True)]
    layers += [nn.ConvTranspose2d(widths[-1], nc, 4, 2, 1, bias=False), nn.Tanh()]
    net = nn.Module()
    net.main = nn.Sequential(*layers)
    return stirred(net, 2)


@pytest.mark.parametrize(("name", "classes"), [("dcgan", 0), ("wgan-gp", 5), ("goodfellow", 0), ("wgan-gp-resnet", 0)])
def test_a_folder_gives_the_generator_back(tmp_path, name, classes):
    recipe, generator = made(name, (3, 32, 32), classes)
    save_pretrained(tmp_path / "g", recipe, generator, card="# A card\n", about={"data": {"name": "x"}})
    again, other = from_pretrained(tmp_path / "g")
    assert again == recipe
    a, b = (next(Sampler(recipe, one).sample(3, 5)) for one in (generator, other))
    assert torch.equal(a, b)
    assert sorted(os.listdir(tmp_path / "g")) == ["README.md", "config.json", "model.safetensors"]
    assert load_generator(tmp_path / "g")[0] == recipe


def test_what_is_no_such_folder_is_refused(tmp_path):
    recipe, generator = made("dcgan")
    save_pretrained(tmp_path / "g", recipe, generator)
    with pytest.raises(InputError, match="new or empty folder"):
        save_pretrained(tmp_path / "g", recipe, generator)
    with pytest.raises(InputError, match="gan export"):
        from_pretrained(tmp_path)
    config = read_json(tmp_path / "g" / "config.json")
    write_json(tmp_path / "g" / "config.json", {**config, "version": 99})
    with pytest.raises(InputError, match="newer triptych"):
        from_pretrained(tmp_path / "g")
    write_json(tmp_path / "g" / "config.json", config)
    tensors = generator.state_dict()
    first = next(iter(tensors))
    write_tensors(tmp_path / "g" / "model.safetensors", {**tensors, first: tensors[first][:1]})
    with pytest.raises(InputError, match=f"its {first} is not theirs"):
        from_pretrained(tmp_path / "g")
    (tmp_path / "g" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="damaged"):
        from_pretrained(tmp_path / "g")
    assert not is_pretrained(tmp_path)


@pytest.mark.xdist_group("onnx")
@pytest.mark.parametrize(("name", "classes"), [("dcgan", 0), ("wgan-gp", 5), ("wgan-gp-resnet", 0)])
def test_an_onnx_file_makes_the_same_images(tmp_path, name, classes):
    onnxruntime = pytest.importorskip("onnxruntime")
    from triptych.gan.onnx import export_onnx

    recipe, generator = made(name, (3, 32, 32) if "resnet" in name else (3, 16, 16), classes)
    worst = export_onnx(recipe, generator, tmp_path / "g.onnx")
    assert worst < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "g.onnx"), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == (["z", "labels"] if classes else ["z"])
    sampler = Sampler(recipe, generator)
    z = sampler.z(0, 0, 9)
    labels = sampler.labels(0, 9)
    feed = {"z": z.float().numpy(), **({} if labels is None else {"labels": labels.numpy()})}
    (images,) = session.run(None, feed)
    ours = sampler.images(z, labels).numpy()
    assert images.shape == ours.shape
    assert np.abs(images * 255 - ours).max() <= (1.01 if recipe.scale == "dequantised" else 0.51)


@pytest.mark.parametrize("side", [16, 32, 64])
def test_weights_of_the_examples_make_the_same_images(tmp_path, side):
    theirs = examples(side=side)
    torch.save(theirs.state_dict(), tmp_path / "netG_epoch_9.pth")
    recipe, generator = import_dcgan(tmp_path / "netG_epoch_9.pth")
    assert recipe.shape == (3, side, side)
    z = torch.randn(6, 11, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.main(z[:, :, None, None])
        found = generator(z)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    parallel = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    write_tensors(tmp_path / "g.safetensors", parallel)
    _, again = import_dcgan(tmp_path / "g.safetensors")
    with torch.no_grad():
        assert torch.equal(again(z), found)


class Weapon:
    """A pickle that would make a folder."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


def test_other_files_are_refused_and_run_no_code(tmp_path):
    torch.save({"main.0.weight": Weapon(tmp_path / "hit")}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="must hold tensors alone"):
        import_dcgan(tmp_path / "w.pth")
    assert not (tmp_path / "hit").exists()
    state = examples().state_dict()
    cases = {
        "a tensor 'head.weight'": {**state, "head.weight": torch.ones(3)},
        "3 convolutions and 3 norm": {k: v for k, v in state.items() if not k.startswith("main.4.")},
        "no transposed convolution of kernel 4": {**state, "main.0.weight": torch.ones(11, 12, 3, 3)},
        "its layers.0.weight is of": {**state, "main.3.weight": torch.ones(12, 7, 4, 4)},
        "holds something else": [1, 2],
    }
    for says, given in cases.items():
        torch.save(given, tmp_path / "b.pth")
        with pytest.raises(InputError, match=says):
            import_dcgan(tmp_path / "b.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(InputError, match=r"torch\.save"):
        import_dcgan(tmp_path / "text.pth")
    with pytest.raises(InputError, match="there is no file"):
        import_dcgan(tmp_path / "none.pth")


@pytest.mark.xdist_group("onnx")
def test_the_commands_write_what_the_others_read(tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    assert (
        main(
            [
                "gan",
                "train",
                "dcgan",
                "--width",
                "2",
                "--steps",
                "2",
                "--limit",
                "200",
                "--batch",
                "8",
                "--out",
                str(run),
            ]
        )
        == 0
    )
    assert main(["gan", "score", str(run), "--features", "pixels", "--metrics", "fid"]) == 0
    assert main(["gan", "audit", str(run), "--features", "pixels", "--n", "20"]) == 0
    capsys.readouterr()
    words = ["gan", "export", str(run), "--onnx", str(tmp_path / "g.onnx"), "--folder", str(tmp_path / "g"), "--json"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["difference"] < 1e-5
    text = (tmp_path / "g" / "README.md").read_text()
    for word in ("digits, 200 images", "| fid |", "no sign of memorisation", "2 generator steps", "pixels at 32"):
        assert word in text
    for source in (run, tmp_path / "g"):
        assert main(["gan", "sample", str(source), "--n", "4", "--out", str(tmp_path / f"{source.name}.npy")]) == 0
    assert (np.load(tmp_path / "run.npy") == np.load(tmp_path / "g.npy")).all()
    assert main(["gan", "sample", str(tmp_path / "g"), "--checkpoint", "2", "--out", str(tmp_path / "x.png")]) == 2
    assert "checkpoint must be left away" in capsys.readouterr().err
    assert main(["gan", "export", str(run)]) == 2
    assert "give --onnx FILE or --folder FOLDER" in capsys.readouterr().err


def test_an_import_is_a_run(tmp_path, capsys):
    theirs = examples(side=16)
    torch.save(theirs.state_dict(), tmp_path / "netG.pth")
    assert main(["gan", "import", str(tmp_path / "netG.pth"), "--out", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [3, 16, 16]
    assert main(["gan", "sample", str(tmp_path / "run"), "--n", "5", "--out", str(tmp_path / "s.npy")]) == 0
    sampler = Sampler(*load_generator(tmp_path / "run"))
    z = sampler.z(0, 0, 5).float()
    with torch.no_grad():
        expected = ((theirs.main(z[:, :, None, None]) + 1) * 127.5).round().clamp(0, 255)
    assert np.abs(np.load(tmp_path / "s.npy").astype(float) - expected.numpy()).max() <= 1
    assert main(["report", str(tmp_path / "run")]) == 0
    assert main(["gan", "import", str(tmp_path / "netG.pth"), "--out", str(tmp_path / "run")]) == 2
