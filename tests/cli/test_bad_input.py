"""Wrong use of every command, one kind a line: status 2, one sentence on standard error, nothing printed, nothing written."""

import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from triptych import CCNNClassifier, store
from triptych.ccnn.settings import Layer
from triptych.cli import main

X, Y = np.arange(4 * 36, dtype=np.uint8).reshape(4, 6, 6), np.array([0, 1, 0, 1], np.uint8)
FIT = ["ccnn", "fit", "--out", "new"]
PREDICT = ["ccnn", "predict", "model"]
RUN = ["run", "zhang2017.table1", "--out", "rows"]


def idx(array, *, sizes=None):
    sizes = array.shape if sizes is None else sizes
    return struct.pack(f">BBBB{len(sizes)}I", 0, 0, 8, len(sizes), *sizes) + array.tobytes()


def files(**contents):
    """A maker of files by their names, in which __ is / and _DOT_ is a dot."""

    def make(folder):
        for name, content in contents.items():
            path = folder / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    return make


def npz(name="d.npz", **arrays):
    return lambda folder: np.savez(folder / name, **arrays)


def png(size=(6, 6), mode="L"):
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


def pickled_cifar(folder):
    (folder / "d").mkdir()
    (folder / "d" / "data_batch_1").write_bytes(pickle.dumps({b"data": [1], b"labels": [0]}))


def archive(folder):
    with zipfile.ZipFile(folder / "d.zip", "w") as file:
        file.writestr("cat/a.png", png())


def circle(folder):
    (folder / "d" / "cat").mkdir(parents=True)
    (folder / "d" / "cat" / "a.png").write_bytes(png())
    (folder / "d" / "cat" / "b").symlink_to(folder / "d")


def nothing(folder):
    pass


def damaged(change):
    """A maker of a model that ``change`` has been at."""

    def make(folder):
        change(folder / "model")

    return make


def head(**changes):
    def change(model):
        facts = json.loads((model / store.HEAD).read_text())
        (model / store.HEAD).write_text(json.dumps(facts | changes))

    return damaged(change)


def meta(**changes):
    def change(model):
        facts = json.loads((model / store.HEAD).read_text())
        facts["meta"] |= changes
        (model / store.HEAD).write_text(json.dumps(facts))

    return damaged(change)


def flipped(model):
    data = bytearray((model / store.TENSORS).read_bytes())
    data[-1] ^= 1
    (model / store.TENSORS).write_bytes(data)


def cut(model):
    data = (model / store.TENSORS).read_bytes()
    (model / store.TENSORS).write_bytes(data[: len(data) // 2])


def other_kind(folder):
    store.save(folder / "gan", {"w": torch.zeros(1)}, {}, kind="gan")


def broken_row(folder):
    (folder / "rows").mkdir()
    (folder / "rows" / f"{'0' * 16}.json").write_text('{"experiment": ')


def wide_model(folder):
    X = np.random.default_rng(0).integers(0, 255, (8, 4, 9), dtype=np.uint8)
    CCNNClassifier(Layer(width=4), tol=0.5).fit(X[:, None], np.arange(8) % 2).save(folder / "wide")


ROWS = np.zeros((40, 6, 6), np.uint8)
ONE = {"x": X, "y": np.zeros(4, int)}

CASES = {
    # the words of a command line
    "an unknown command": (nothing, ["fit"], "command must be one of demo, list"),
    "an unknown sub-command": (nothing, ["ccnn", "fti"], '(did you mean "fit"?)'),
    "an unknown option": (nothing, [*FIT, "--layer", "2"], "(did you mean --layers?)"),
    "an option without its value": (nothing, [*FIT, "--layers"], "--layers"),
    "a command without what it needs": (nothing, ["ccnn", "fit"], "--out"),
    "a model is not named": (nothing, ["ccnn", "show"], "--model requires an argument"),
    "a word too many": (nothing, ["demo", "digits", "out", "3", "more"], "digits"),
    "no path to predict": (nothing, PREDICT, "paths must name at least one picture"),
    "a name of no experiment": (nothing, ["run", "zhang2017.tabel1", "--out", "rows"], "did you mean zhang2017.table1?"),
    # values of the wrong type
    "layers in words": (nothing, [*FIT, "--layers", "two"], 'unable to convert "two" into a whole number'),
    "half a limit": (nothing, [*FIT, "--limit", "1.5"], 'unable to convert "1.5" into a whole number'),
    "half a seed": (nothing, ["demo", "--seed", "1.5"], 'unable to convert "1.5" into a whole number'),
    "half a side": (nothing, [*PREDICT, "digits", "--side", "6.5"], 'unable to convert "6.5" into a whole number'),
    "a radius in words": (nothing, [*FIT, "--radius", "wide"], '"wide"'),
    "a seed in words": (nothing, ["demo", "--seed", "x"], '"x"'),
    "a side in words": (nothing, ["data", "info", "digits", "--side", "8px"], '"8px"'),
    "no such scale": (nothing, [*RUN, "--scale", "huge"], '"huge"'),
    # values out of range, of every option
    "no layers": (nothing, [*FIT, "--layers", "0"], "layers must be a whole number from 1 to 8, got 0"),
    "too many layers": (nothing, [*FIT, "--layers", "9"], "layers must be a whole number from 1 to 8, got 9"),
    "no radius": (nothing, [*FIT, "--radius", "0"], "radius must be a finite number above 0"),
    "a radius that is no number": (nothing, [*FIT, "--radius", "nan"], "radius must be a finite number above 0"),
    "an endless radius": (nothing, [*FIT, "--radius", "inf"], "radius must be a finite number above 0"),
    "no tolerance": (nothing, [*FIT, "--tol", "0"], "tol must be a finite number above 0"),
    "a negative tolerance": (nothing, [*FIT, "--tol", "-0.1"], "tol must be a finite number above 0"),
    "no steps": (nothing, [*FIT, "--max-iter", "0"], "max_iter must be a whole number of at least 1"),
    "no images asked for": (nothing, [*FIT, "--limit", "0"], "limit must be a whole number of at least 1"),
    "a negative seed": (nothing, [*FIT, "--seed", "-1"], "seed must be a whole number from 0 to 4294967295, got -1"),
    "a seed too large": (nothing, ["demo", "--seed", "4294967296"], "seed must be a whole number from 0"),
    "a negative seed of a run": (nothing, [*RUN, "--seed", "-1"], "seed must be a whole number of at least 0"),
    "no side": (nothing, [*FIT, "--side", "0"], "side must be a whole number from 1 to 8192, got 0"),
    "a side too large": (nothing, [*FIT, "--side", "9000"], "side must be a whole number from 1 to 8192"),
    "no such fit": (nothing, [*FIT, "--fit", "stretch"], "fit must be one of crop, squash, got 'stretch'"),
    "no such precision": (nothing, [*FIT, "--precision", "half"], "precision must be one of auto, bfloat16"),
    "no such device": (nothing, [*FIT, "--device", "warp"], "device must be a torch device that this machine has"),
    "negative memory": (nothing, [*FIT, "--memory-limit", "-1"], "memory_limit must be a finite number of at least 0"),
    "a split where there is none": (nothing, [*FIT, "--split", "train"], "digits has no splits"),
    "a split that is not there": (
        npz(x_train=X, y_train=Y, x_test=X, y_test=Y),
        [*FIT, "--data", "d.npz", "--split", "trian"],
        "split of d.npz must be one of train, test, got 'trian' (did you mean train?)",
    ),
    "a field that no cell has": (nothing, [*RUN, "--where", "sistem=CCNN-1"], "sistem"),
    "a field without a value": (nothing, [*RUN, "--where", "system"], "where"),
    "a value that no cell has": (nothing, [*RUN, "--where", "system=CCNN-9"], "system must be one of"),
    # data
    "missing data": (nothing, [*FIT, "--data", "nowhere"], "nowhere does not exist"),
    "data of a run that are missing": (nothing, [*RUN, "--data", "digit"], "did you mean digits?"),
    "data of a run that are needed": (nothing, [*RUN, "--scale", "laptop"], "needs --data"),
    "a set that was not fetched": (nothing, ["demo", "--data", "mnist"], "triptych data fetch mnist"),
    "a set that nobody knows": (nothing, ["data", "fetch", "mnits"], "did you mean mnist?"),
    "an empty folder": (lambda folder: (folder / "d").mkdir(), [*FIT, "--data", "d"], "d is an empty folder"),
    "an empty file": (files(d=b""), [*FIT, "--data", "d"], "d is empty"),
    "a text": (files(d_DOT_csv=b"a,b\n1,2\n"), ["data", "info", "d.csv"], "is nothing that is known"),
    "an archive": (archive, [*FIT, "--data", "d.zip"], "d.zip is an archive; unpack it"),
    "a pickle": (pickled_cifar, [*FIT, "--data", "d"], "is CIFAR's Python version"),
    "arrays of objects": (
        npz(x=np.array([X, None], dtype=object), y=Y[:2]), [*FIT, "--data", "d.npz"], "object arrays, which are pickles",
    ),
    "an IDX file cut short": (
        files(**{"d-images-idx3-ubyte": idx(X)[:-7]}), [*FIT, "--data", "d-images-idx3-ubyte"], "is truncated",
    ),
    "an IDX file that is none": (
        files(**{"d__train-images-idx3-ubyte": b"<html>404"}), [*FIT, "--data", "d"], "IDX magic number",
    ),
    "more images than labels": (
        files(**{"d-images-idx3-ubyte": idx(X), "d-labels-idx1-ubyte": idx(Y[:3])}),
        [*FIT, "--data", "d-images-idx3-ubyte"],
        "4 images but d-labels-idx1-ubyte 3 labels",
    ),
    "a broken picture": (
        files(d__a__1_DOT_png=png(), d__b__1_DOT_png=png()[:40]), [*FIT, "--data", "d"], "b/1.png",
    ),
    "pictures of mixed sizes": (
        files(d__a__1_DOT_png=png(), d__b__1_DOT_png=png((7, 6))), [*FIT, "--data", "d"], "give --side N",
    ),
    "a link in a circle": (circle, [*FIT, "--data", "d"], "is a link that leads in a circle"),
    "pictures without labels": (files(d__1_DOT_png=png()), [*FIT, "--data", "d"], "d has no labels to train on"),
    "arrays without labels": (npz(x=ROWS), ["demo", "--data", "d.npz"], "d.npz has no labels to train on"),
    "one class only": (npz(**ONE), [*FIT, "--data", "d.npz"], "must hold at least two classes, got only '0' in 4 images"),
    "one class in the first images": (nothing, [*FIT, "--limit", "1"], "digits must hold at least two classes, got only '0'"),
    "one class for a demo": (npz(**ONE), ["demo", "--data", "d.npz"], "must hold at least two classes"),
    "too few images for a demo": (npz(x=X[:2], y=Y[:2]), ["demo", "--data", "d.npz"], "must hold at least 3 images"),
    # where to write
    "a model where a file is": (files(new=b"mine"), FIT, "out must be in a folder, but new is a file"),
    "a model below a file": (files(f=b"mine"), ["ccnn", "fit", "--out", "f/a/b"], "f is a file"),
    "a model among other files": (files(new__notes=b"mine"), FIT, "but new holds other files"),
    "a model where something else was saved": (other_kind, ["ccnn", "fit", "--out", "gan"], "but gan holds 'gan'"),
    "a model where a broken one is": (files(new__triptych_DOT_json=b"{"), FIT, "new/triptych.json must be a JSON file"),
    "a name too long": (nothing, ["ccnn", "fit", "--out", "n" * 300], "File name too long"),
    "a demo where a file is": (files(demo=b"mine"), ["demo"], "demo is a file"),
    "a demo where its model's place is taken": (files(demo__model__x=b"mine"), ["demo"], "demo/model holds other files"),
    "predictions as a spreadsheet": (
        nothing, [*PREDICT, "digits", "--out", "p.xlsx"], "out must be a file named *.csv or *.json, got 'p.xlsx'",
    ),
    "predictions where a folder is": (
        lambda folder: (folder / "p.csv").mkdir(), [*PREDICT, "digits", "--out", "p.csv"], "but p.csv is a folder",
    ),
    "predictions below a file": (files(f=b"mine"), [*PREDICT, "digits", "--out", "f/p.csv"], "f is a file"),
    "filters as a JPEG": (nothing, ["ccnn", "show", "model", "--out", "f.jpg"], "out must be a file named *.png"),
    "filters below a file": (files(f=b"mine"), ["ccnn", "show", "model", "--out", "f/f.png"], "f is a file"),
    # models
    "no model": (nothing, ["ccnn", "predict", "nowhere", "digits"], "there is no such folder"),
    "a file for a model": (files(f=b"mine"), ["ccnn", "show", "f"], "there is no such folder"),
    "a folder that is no model": (files(m__a=b"mine"), ["ccnn", "show", "m"], "it holds no triptych.json"),
    "a model of another kind": (other_kind, ["ccnn", "predict", "gan", "digits"], "must hold 'ccnn', but it holds 'gan'"),
    "a model without its tensors": (
        damaged(lambda model: (model / store.TENSORS).unlink()), ["ccnn", "show", "model"], "tensors.safetensors is missing",
    ),
    "a model cut short": (damaged(cut), [*PREDICT, "digits"], "model/tensors.safetensors is damaged"),
    "a model with one wrong bit": (damaged(flipped), [*PREDICT, "digits"], "its checksum is not the one"),
    "a model of the future": (head(version=99), ["ccnn", "show", "model"], "was saved by a newer triptych"),
    "a model with no layer": (meta(layers=[{}]), ["ccnn", "show", "model"], "is no model of this version"),
    "a head that is no JSON": (files(m__triptych_DOT_json=b"{"), ["ccnn", "show", "m"], "damaged"),
    "a report of nothing": (nothing, ["report", "nowhere"], "there is no folder nowhere"),
    "a report of an empty folder": (lambda folder: (folder / "d").mkdir(), ["report", "d"], "holds none of them"),
    "a report of a broken row": (broken_row, ["report", "rows"], f"{'0' * 16}.json"),
    "a report of a broken model": (damaged(cut), ["report", "model"], "is damaged"),
    # what a model is asked about
    "a picture that is missing": (nothing, [*PREDICT, "a.png"], "a.png does not exist"),
    "a second picture that is missing": (files(a_DOT_png=png((9, 9))), [*PREDICT, "a.png", "b.png"], "b.png does not exist"),
    "a picture that is broken": (files(a_DOT_png=png()[:30]), [*PREDICT, "a.png"], "a.png"),
    "images of two channels": (
        npz(x=np.zeros((3, 2, 6, 6), np.uint8)), [*PREDICT, "d.npz"], "x must be an array with 1, 3 or 4 channels",
    ),
    "images of four channels": (
        npz(x=np.zeros((3, 4, 6, 6), np.uint8)), [*PREDICT, "d.npz"], "has images of 4 channels, but the model takes 1",
    ),
    "another side than the model's": (nothing, [*PREDICT, "digits", "--side", "9"], "side must be that of the model's images"),
    "another shape than a wide model's": (
        wide_model, ["ccnn", "predict", "wide", "digits"], "digits has images of 8 x 8 pixels (height x width), but",
    ),
    "pictures of another shape than a wide model's": (
        lambda folder: (wide_model(folder), files(a_DOT_png=png())(folder)),
        ["ccnn", "predict", "wide", "a.png"],
        "a.png has images of 6 x 6 pixels (height x width), but the model takes 4 x 9",
    ),
    "no such split to predict": (nothing, [*PREDICT, "digits", "--split", "test"], "digits has no splits"),
    "no such fit to predict": (nothing, [*PREDICT, "digits", "--fit", "stretch"], "fit must be one of crop, squash"),
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of grey pictures of 6 x 6."""
    X = np.random.default_rng(0).integers(0, 255, (8, 1, 6, 6), dtype=np.uint8)
    folder = tmp_path_factory.mktemp("model") / "model"
    return CCNNClassifier(Layer(width=4), tol=0.5).fit(X, np.arange(8) % 2).save(folder)


def listing(folder):
    """Every path below a folder with its time and, for files, its bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (path.lstat().st_mtime_ns, content)
    return found


def test_there_are_many_kinds():
    assert len(CASES) >= 40
    assert len({tuple(words) for _, words, _ in CASES.values()}) > 60


@pytest.mark.parametrize(("make", "words", "part"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("form", ["text", "json"])
def test_wrong_use_costs_nothing(make, words, part, form, model, tmp_path, monkeypatch, capsys):
    shutil.copytree(model, tmp_path / "model")
    make(tmp_path)
    before = listing(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("triptych.ccnn.estimator.fit_layer", trained)
    status = main([*words, "--json"] if form == "json" else words)
    out, err = capsys.readouterr()
    assert err.startswith("triptych: "), err
    assert part in err
    assert "Traceback" not in err
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert out == ""
    assert status == 2
    assert listing(tmp_path) == before


def trained(*_, **__):
    raise AssertionError("wrong input reached the training")


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch, capsys):
    (tmp_path / "shut").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("triptych.ccnn.estimator.fit_layer", trained)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the superuser may write anywhere
    assert main(["ccnn", "fit", "--out", "shut/new"]) == 2
    out, err = capsys.readouterr()
    assert (
        err
        == f"triptych: out must be in a folder that can be written, but {tmp_path / 'shut'} cannot; choose another\n"
    )
    assert out == ""
