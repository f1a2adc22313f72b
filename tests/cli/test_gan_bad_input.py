"""Wrong use of the gan commands, one kind a line: status 2, one sentence on standard error, nothing written."""

import hashlib
import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from triptych import store
from triptych.cli import main

TRAIN = ["gan", "train", "dcgan", "--out", "new"]
SAMPLE = ["gan", "sample", "run", "--out", "g.png"]
WALK = ["gan", "walk", "run", "--out", "w.gif"]
RESUME = ["gan", "train", "--resume", "--out", "run"]
TINY = ["--width", "2", "--batch", "4", "--steps", "2", "--log-every", "1", "--checkpoint-every", "1", "--limit", "20"]


def nothing(folder):
    pass


def toml(text):
    return lambda folder: (folder / "f.toml").write_text(text)


def pictures(count, size=(16, 16), **where):
    """Pictures in a folder d, in sub-folders a class where there are some."""

    def make(folder):
        for name in where.get("classes", [""]):
            (folder / "d" / name).mkdir(parents=True)
            for i in range(count):
                Image.new("L", size).save(folder / "d" / name / f"{i}.png")

    return make


def npz(**arrays):
    return lambda folder: np.savez(folder / "d.npz", **arrays)


def checkpoint(change):
    """A maker of a run whose newest checkpoint ``change`` has been at."""
    return lambda folder: change(folder / "run" / "checkpoints" / "00000002")


def cut(path):
    data = (path / store.TENSORS).read_bytes()
    (path / store.TENSORS).write_bytes(data[: len(data) // 2])


def lost(path):
    """NaN in one weight, with a head that says the right checksum."""
    tensors = load_file(path / store.TENSORS)
    name = next(name for name, tensor in tensors.items() if name.startswith("average/") and tensor.ndim > 1)
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, path / store.TENSORS)
    head = json.loads((path / store.HEAD).read_text())
    head |= {"bytes": (path / store.TENSORS).stat().st_size, "sha256": store.sha256(path / store.TENSORS)}
    (path / store.HEAD).write_text(json.dumps(head))


def config(**changes):
    """A maker of a run with another config.json; a key of two words is one within the config."""

    def make(folder):
        path = folder / "run" / "config.json"
        head = json.loads(path.read_text())
        for key, value in changes.items():
            table = head
            *above, last = key.split("__")
            for name in above:
                table = table[name]
            table[last] = value
        path.write_text(json.dumps(head))

    return make


def files(**contents):
    def make(folder):
        for name, data in contents.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    return make


def no_ffmpeg(folder):
    pass


CASES = {
    # words
    "an unknown command": (nothing, ["gan", "trian"], "did you mean"),
    "an unknown option": (nothing, [*TRAIN, "--step", "3"], "(did you mean --steps?)"),
    "no recipe": (nothing, ["gan", "train", "--out", "new"], "recipe must be one of goodfellow, dcgan, "),
    "an unknown recipe": (nothing, ["gan", "train", "dcgn", "--out", "new"], "(did you mean dcgan?)"),
    "no place": (nothing, ["gan", "train", "dcgan"], "out must be the folder of the run, got none"),
    "steps in words": (nothing, [*TRAIN, "--steps", "many"], 'unable to convert "many" into a whole number'),
    # numbers
    "no steps": (nothing, [*TRAIN, "--steps", "0"], "steps must be a whole number of at least 1, got 0"),
    "no batch": (nothing, [*TRAIN, "--batch", "0"], "batch must be a whole number of at least 1, got 0"),
    "no width": (nothing, [*TRAIN, "--width", "0"], "width must be a whole number of at least 1, got 0"),
    "no pieces": (nothing, [*TRAIN, "--accumulate", "0"], "accumulate must be a whole number of at least 1, got 0"),
    "a negative seed": (nothing, [*TRAIN, "--seed", "-1"], "seed must be a whole number of at least 0, got -1"),
    "no interval": (nothing, [*TRAIN, "--log-every", "0"], "log must be a whole number of at least 1, got 0"),
    "nothing kept": (nothing, [*TRAIN, "--keep", "0"], "keep must be a whole number of at least 1, got 0"),
    "an unknown precision": (nothing, [*TRAIN, "--precision", "fp8"], "precision must be one of float32, bf16, float64"),
    "a device that is none": (nothing, [*TRAIN, "--device", "warp"], "device must be 'cpu', 'cuda' or 'cuda:N'"),
    "a device that is not there": (nothing, [*TRAIN, "--device", "cuda:99"], "device must be"),
    # data
    "missing data": (nothing, [*TRAIN, "--data", "nowhere"], "nowhere does not exist"),
    "a side that the networks cannot have": (nothing, [*TRAIN, "--side", "5"], "got 5 x 5"),
    "another side for residual networks": (
        nothing, ["gan", "train", "wgan-gp-resnet", "--out", "new", "--side", "9"], "9",
    ),
    "labels of unlabelled pictures": (pictures(9), [*TRAIN, "--data", "d", "--labels"], "the images have no labels"),
    "labels of unlabelled arrays": (
        npz(x=np.zeros((9, 8, 8), np.uint8)), [*TRAIN, "--data", "d.npz", "--labels"], "the images have no labels",
    ),
    "fewer images than a batch": (nothing, [*TRAIN, "--limit", "9"], "as many images as a batch of 128 takes, got 9"),
    "fewer images than a batch that is asked for": (
        nothing, [*TRAIN, "--limit", "9", "--batch", "10"], "as many images as a batch of 10 takes, got 9",
    ),
    "pictures of mixed sizes": (
        lambda folder: (pictures(2)(folder), Image.new("L", (9, 9)).save(folder / "d" / "z.png")),
        [*TRAIN, "--data", "d"],
        "give --side N",
    ),
    "no such split": (nothing, [*TRAIN, "--split", "test"], "digits has no splits"),
    "no such fit": (nothing, [*TRAIN, "--fit", "stretch"], "fit must be one of crop, squash"),
    # files of settings
    "no file of settings": (nothing, [*TRAIN, "--config", "f.toml"], "there is no file f.toml"),
    "a folder of settings": (
        lambda folder: (folder / "f.toml").mkdir(), [*TRAIN, "--config", "f.toml"], "config must be a TOML file",
    ),
    "a broken file of settings": (toml("steps = "), [*TRAIN, "--config", "f.toml"], "config must be a TOML file"),
    "settings that are no text": (
        lambda folder: (folder / "f.toml").write_bytes(b"\xff\xfe="), [*TRAIN, "--config", "f.toml"], "no text in UTF-8",
    ),
    "an unknown setting": (
        toml("stepz = 3"), [*TRAIN, "--config", "f.toml"], "f.toml: stepz is no setting (did you mean steps?)",
    ),
    "an unknown setting inside": (
        toml("[rules.critic_optimiser]\nlrr = 1"),
        [*TRAIN, "--config", "f.toml"],
        "f.toml: rules.critic_optimiser.lrr is no setting (did you mean lr?)",
    ),
    "a place in a file": (toml("out = 'x'"), [*TRAIN, "--config", "f.toml"], "f.toml: out is no setting"),
    "a setting of the wrong type": (
        toml("[rules.critic_optimiser]\nlr = 'fast'"),
        [*TRAIN, "--config", "f.toml"],
        "f.toml: rules.critic_optimiser.lr must be a number, got 'fast'",
    ),
    "an option of the wrong type": (
        toml("steps = 1.5"), [*TRAIN, "--config", "f.toml"], "f.toml: steps must be a whole number, got 1.5",
    ),
    "a switch of the wrong type": (
        toml("mirror = 1"), [*TRAIN, "--config", "f.toml"], "f.toml: mirror must be true or false, got 1",
    ),
    "an unknown way of labels": (
        toml("labels = 'projekt'"), [*TRAIN, "--config", "f.toml"], "labels must be one of concatenate, project, auxiliary",
    ),
    "an unknown objective": (
        toml("[objective]\nkind = 'Hnge'"), [*TRAIN, "--config", "f.toml"], "f.toml: objective.kind must be one of",
    ),
    "a setting out of range": (
        toml("[generator]\nwidth = 0"), [*TRAIN, "--config", "f.toml"], "f.toml: generator: width must be a whole number",
    ),
    # places
    "a place that is taken": (files(new__mine=b"1"), TRAIN, "new must be a new or empty folder, but it is not"),
    "a place that is a file": (files(new=b"1"), TRAIN, "new must be a new or empty folder"),
    "a place below a file": (files(f=b"1"), ["gan", "train", "dcgan", "--out", "f/new"], "f is a file"),
    "a place that is a run": (nothing, ["gan", "train", "dcgan", "--out", "run"], "run holds a run already; go on with --resume"),
    # going on
    "to go on without a place": (nothing, ["gan", "train", "--resume"], "out must be the folder of the run to go on with"),
    "to go on without a run": (nothing, ["gan", "train", "--resume", "--out", "new"], "new must be the folder of a run"),
    "to go on with another recipe": (
        nothing, ["gan", "train", "wgan", "--resume", "--out", "run"], "run was made with the recipe dcgan, got 'wgan'",
    ),
    "to go on with another seed": (nothing, [*RESUME, "--seed", "5"], "another seed (0, now 5)"),
    "to go on with another batch": (nothing, [*RESUME, "--batch", "5"], "another recipe.batch (4, now 5)"),
    "to go on with another width": (nothing, [*RESUME, "--width", "5"], "another width (2, now 5)"),
    "to go on with other data": (nothing, [*RESUME, "--limit", "19"], "another data.checksum"),
    "to go on with a run of the future": (config(version=99), RESUME, "is the run of a newer triptych"),
    "to go on with a run of Python's": (
        config(config__data={"checksum": "x"}), RESUME, "is no run that `triptych gan train` can go on with",
    ),
    "to go on with a broken config": (files(run__config_json=b""), ["gan", "train", "--resume", "--out", "new"], "new must be"),
    "to go on with a setting of another version": (
        config(config__recipe__rules__spin=3), RESUME, "config.json: rules.spin is no setting",
    ),
    "to go on with a cut checkpoint": (checkpoint(cut), RESUME, "00000002/tensors.safetensors is damaged"),
    "to go on with a lost checkpoint": (checkpoint(lost), RESUME, "must hold finite numbers, but its"),
    "to start from no run": (nothing, [*TRAIN, "--init-from", "nowhere"], "nowhere must be the folder of a run"),
    "to start from other networks": (nothing, [*TRAIN, *TINY[2:], "--width", "3", "--init-from", "run"], "must have the same networks"),
    # sampling
    "samples of no run": (nothing, ["gan", "sample", "nowhere", "--out", "g.png"], "nowhere must be the folder of a run"),
    "samples of a folder": (files(f__x=b"1"), ["gan", "sample", "f", "--out", "g.png"], "f must be the folder of a run"),
    "samples of a run of the future": (config(version=99), SAMPLE, "is the run of a newer triptych"),
    "samples of a cut checkpoint": (checkpoint(cut), SAMPLE, "00000002/tensors.safetensors is damaged"),
    "samples of a lost checkpoint": (checkpoint(lost), SAMPLE, "must hold finite numbers, but its average/"),
    "samples of no checkpoint": (lambda folder: shutil.rmtree(folder / "run" / "checkpoints"), SAMPLE, "must hold a checkpoint"),
    "samples of a step without one": (nothing, [*SAMPLE, "--checkpoint", "7"], "no checkpoint of step 7; it has 0, 1, 2"),
    "samples as a JPEG": (nothing, ["gan", "sample", "run", "--out", "g.jpg"], "out must be a file named *.png or *.npz or *.npy"),
    "samples among other files": (files(f__x=b"1"), ["gan", "sample", "run", "--out", "f"], "a folder that is not empty"),
    "samples below a file": (files(f=b"1"), ["gan", "sample", "run", "--out", "f/g.png"], "f is a file"),
    "no samples": (nothing, [*SAMPLE, "--n", "0"], "n must be a whole number of at least 1, got 0"),
    "too many samples for a grid": (nothing, [*SAMPLE, "--n", "9999"], "n must be at most 4096 in a grid, got 9999"),
    "too many samples of each class for a grid": (
        nothing,
        ["gan", "sample", "classed", "--out", "g.png", "--each-class", "--n", "500"],
        "the images of a grid must be at most 4,096, but 500 each of 10 classes are 5,000; give a folder or a .npz file",
    ),
    "no columns": (nothing, [*SAMPLE, "--columns", "0"], "columns must be a whole number of at least 1"),
    "samples of a negative seed": (nothing, [*SAMPLE, "--seed", "-1"], "seed must be a whole number of at least 0, got -1"),
    "labels of a run without": (nothing, [*SAMPLE, "--labels", "3"], "labels must be left away, as the run is not conditional"),
    "rows of a run without classes": (nothing, [*SAMPLE, "--each-class"], "one row a class needs a conditional run"),
    "an unknown class": (
        nothing, ["gan", "sample", "classed", "--out", "g.png", "--labels", "0,11"], "labels must name a class of the run",
    ),
    "a class in raised digits": (
        nothing, ["gan", "sample", "classed", "--out", "g.png", "--labels", "²"], "its number below 10, got '²'",
    ),
    "a class of 5,000 digits": (
        nothing, ["gan", "sample", "classed", "--out", "g.png", "--labels", "9" * 5000], "its number below 10, got '999",
    ),
    "an empty class": (nothing, ["gan", "sample", "classed", "--out", "g.png", "--labels", ""], "labels must name"),
    "labels and rows": (
        nothing, ["gan", "sample", "classed", "--out", "g.png", "--labels", "1", "--each-class"], "left away with --each-class",
    ),
    "truncation of a uniform law": (nothing, [*SAMPLE, "--truncation", "0.5"], "truncation must be left away, as the run's z"),
    "no truncation": (
        nothing, ["gan", "sample", "classed", "--out", "g.png", "--truncation", "0"], "truncation must be a finite number above 0",
    ),
    # walks
    "a walk as a picture": (nothing, ["gan", "walk", "run", "--out", "w.png"], "out must be a file named *.gif or *.mp4"),
    "a film without ffmpeg": (no_ffmpeg, ["gan", "walk", "run", "--out", "w.mp4"], "needs the program ffmpeg"),
    "an unknown walk": (nothing, [*WALK, "--kind", "lrep"], "kind must be one of smooth, slerp, lerp, got 'lrep' (did you mean lerp?)"),
    "one frame": (nothing, [*WALK, "--frames", "1"], "frames must be a whole number of at least 2, got 1"),
    "one point": (nothing, [*WALK, "--kind", "lerp", "--points", "1"], "points must be a whole number of at least 2"),
    "a standing film": (nothing, [*WALK, "--fps", "0"], "fps must be a finite number of at least 1"),
    "great circles in a cube": (nothing, [*WALK, "--kind", "slerp"], "kind must be lerp or smooth, as the run's z is uniform"),
    "a class of a run without": (nothing, [*WALK, "--label", "1"], "the run is not conditional"),
    "two classes for one walk": (
        nothing, ["gan", "walk", "classed", "--out", "w.gif", "--label", "1,2"], "label must be one class, got '1,2'",
    ),
    # sums
    "nothing to add": (nothing, ["gan", "arithmetic", "run", "--out", "a.png"], "plus must name at least one image number"),
    "words to add": (
        nothing, ["gan", "arithmetic", "run", "--out", "a.png", "--plus", "1,two"], "plus must be image numbers divided by commas",
    ),
    "raised digits to add": (
        nothing, ["gan", "arithmetic", "run", "--out", "a.png", "--plus", "²"], "plus must be image numbers divided by commas",
    ),
    "an image number of 83 digits": (
        nothing,
        ["gan", "arithmetic", "run", "--out", "a.png", "--plus", "1", "--minus", f"2,{'7' * 83}"],
        "minus must be image numbers below 9,223,372,036,854,775,808, got '2,777",
    ),
    "an image number of 5,000 digits": (
        nothing, ["gan", "arithmetic", "run", "--out", "a.png", "--plus", "7" * 5000], "plus must be image numbers below",
    ),
    "the first image number that is too large": (
        nothing, ["gan", "arithmetic", "run", "--out", "a.png", "--plus", str(2**63)], "plus must be image numbers below",
    ),
    "a sum as a film": (nothing, ["gan", "arithmetic", "run", "--out", "a.gif", "--plus", "1"], "out must be a file named *.png"),
    # reports
    "a report of a run of the future": (config(version=99), ["report", "run"], "is the run of a newer triptych"),
    "a report of another config": (files(f__config_json=b"{}"), ["report", "f"], "f holds none of them"),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run whose z is uniform, and a conditional one whose z is normal, of two steps each."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["gan", "train", "dcgan", *TINY, "--out", str(folder / "run")]) == 0
    assert main(["gan", "train", "wgan-gp", "--labels", *TINY, "--out", str(folder / "classed")]) == 0
    return folder


def listing(folder):
    """Every path below a folder with its time and, for files, its bytes."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


@pytest.mark.parametrize(("make", "words", "part"), CASES.values(), ids=CASES)
def test_wrong_use_is_refused_in_one_sentence(runs, tmp_path, monkeypatch, capsys, make, words, part):
    for name in {"run", "classed"} & set(words):
        shutil.copytree(runs / name, tmp_path / name)
    make(tmp_path)
    before = listing(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("triptych.gan.train.Turn.play", trained)
    if make is no_ffmpeg:
        monkeypatch.setenv("PATH", str(tmp_path))
    status = main(words)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert lines[-1].startswith("triptych: "), err
    assert part in lines[-1]
    assert "Traceback" not in err
    assert all(line.startswith(("pictures of ", "dcgan: 0 of ")) for line in lines[:-1])  # how far a bar came
    assert out == ""
    assert status == 2
    assert listing(tmp_path) == before


def trained(*_, **__):
    raise AssertionError("wrong input reached the training")


def test_a_missing_package_is_one_sentence(tmp_path, monkeypatch, capsys):
    import builtins

    real_import = builtins.__import__

    def without(name, *rest):
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["gan", "train", "dcgan", "--out", str(tmp_path / "new"), "--tensorboard"]) == 2
    assert capsys.readouterr().err == (
        "triptych: tensorboard must be installed for --tensorboard; run: pip install 'triptych[track]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_two_channels_are_arrays_alone(tmp_path, monkeypatch, capsys):
    """A run of images of two channels has no grids and no films, but its samples can be written as arrays."""
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).random((20, 2, 8, 8)).astype(np.float32)
    from triptych.engine import Engine
    from triptych.gan.folder import Run
    from triptych.gan.recipes import RECIPES
    from triptych.gan.run import play
    from triptych.gan.settings import to_json
    from triptych.images import Images

    images = Images.from_arrays(x, channels="first")
    recipe = RECIPES["dcgan"]((2, 8, 8), width=2).changed(batch=4, steps=1)
    play(Run.create("two", {"recipe": to_json(recipe), "seed": 0}, {}), recipe, images, engine=Engine())
    for words in (
        ["sample", "two", "--out", "g.png"],
        ["sample", "two", "--out", "g"],
        ["walk", "two", "--out", "w.gif"],
    ):
        assert main(["gan", *words]) == 2
        assert "as no picture can have 2 channels" in capsys.readouterr().err
    assert main(["gan", "sample", "two", "--out", "g.npy", "--n", "3"]) == 0
    assert np.load(io.BytesIO((tmp_path / "g.npy").read_bytes())).shape == (3, 2, 8, 8)
    assert torch.get_num_threads() > 0
