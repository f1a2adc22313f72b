"""Wrong use of the sparse commands, one kind a line: status 2, one sentence on standard error, nothing written."""

import hashlib
import io
import json
import os
import pickle
import shutil
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from triptych import ConvolutionalDictionaryLearning, store
from triptych.cli import main
from triptych.data import png16

DENOISE = ["sparse", "denoise", "a.png", "--out", "new.png"]
INPAINT = ["sparse", "inpaint", "a.png", "--out", "new.png", "--mask"]
ENCODE = ["sparse", "encode", "a.png", "--out", "new.safetensors"]
SHOW = ["sparse", "show", "--out", "new"]
PROMISE = ["sparse", "guarantees"]


def nothing(folder):
    pass


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
    return file.getvalue()


def put(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def tensors(**named):
    return lambda folder: store.write_tensors(folder / "m.safetensors", named)


def mask(pixels):
    return put("m.png", png(pixels))


def cut(folder):
    path = folder / "model" / store.TENSORS
    path.write_bytes(path.read_bytes()[:100])


def meta(**changes):
    def change(folder):
        path = folder / "model" / store.HEAD
        facts = json.loads(path.read_text())
        facts["meta"] |= changes
        path.write_text(json.dumps(facts))

    return change


def other_kind(folder):
    store.save(folder / "gan", {"w": torch.zeros(1)}, {}, kind="gan")


def pickled(folder):
    (folder / "m.pt").write_bytes(pickle.dumps({"atoms": [1.0]}))


def saved_by_torch(folder):
    torch.save({"atoms": torch.ones(2, 1, 4, 4)}, folder / "m.pt")


def colour16(folder):
    data = bytearray(png16.written(np.zeros((9, 9, 3), np.uint16)))
    data[-20] ^= 1
    (folder / "b.png").write_bytes(bytes(data))


def bomb(folder):
    head = bytearray(png(np.zeros((9, 9))))
    head[16:24] = (60000).to_bytes(4, "big") * 2
    head[29:33] = zlib.crc32(bytes(head[12:29])).to_bytes(4, "big")
    (folder / "b.png").write_bytes(bytes(head))


FILE = ["--model", "m.safetensors"]
HALF = np.kron(np.eye(2), np.ones((6, 6))) * 255
ATOM = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))

CASES = {
    # words and values
    "an unknown command": (nothing, ["sparse", "denois", "a.png"], "denoise"),
    "no place to write": (nothing, ["sparse", "denoise", "a.png"], "--out"),
    "no mask": (nothing, ["sparse", "inpaint", "a.png", "--out", "new.png"], "--mask"),
    "sigma in words": (nothing, [*DENOISE, "--sigma", "much"], '"much"'),
    "negative sigma": (nothing, [*DENOISE, "--sigma", "-1"], "sigma must be a finite number of at least 0"),
    "sigma that is no number": (nothing, [*DENOISE, "--sigma", "nan"], "sigma must be a finite number"),
    "endless sigma": (nothing, [*DENOISE, "--sigma", "inf"], "sigma must be a finite number"),
    "no such method": (nothing, [*DENOISE, "--method", "best"], "method must be one of shifts, plain, unfolding, got 'best'"),
    "a dictionary for the unfolding": (
        nothing, [*DENOISE, "--method", "unfolding", "--model", "model"], "dictionary must be left away",
    ),
    "negative noise of an inpainting": (mask(HALF), [*INPAINT, "m.png", "--noise", "-3"], "noise must be a finite number"),
    "negative lambda": (nothing, [*ENCODE, "--reg", "-0.1"], "reg must be a finite number above 0 and at most 1"),
    "no lambda": (nothing, [*ENCODE, "--reg", "0"], "reg must be a finite number above 0"),
    "lambda above its largest": (nothing, [*ENCODE, "--reg", "1.5"], "reg must be a finite number above 0 and at most 1"),
    "lambda that is no number": (nothing, [*PROMISE, "model", "a.png", "--reg", "nan"], "reg must be a finite number"),
    "no tolerance": (nothing, [*ENCODE, "--tol", "0"], "tol must be a finite number above 0"),
    "no stride": (nothing, [*ENCODE, "--stride", "0"], "stride must be a whole number of at least 1, got 0"),
    "half a stride": (nothing, [*ENCODE, "--stride", "1.5"], 'unable to convert "1.5" into a whole number'),
    "negative noise of a promise": (nothing, [*PROMISE, "model", "a.png", "--noise", "-1"], "noise must be a finite number"),
    # pictures
    "a picture that is missing": (nothing, ["sparse", "denoise", "b.png", "--out", "new.png"], "b.png does not exist"),
    "a folder for a picture": (nothing, ["sparse", "denoise", "model", "--out", "new.png"], "model is a folder; give one"),
    "an empty file": (put("b.png", b""), ["sparse", "denoise", "b.png", "--out", "new.png"], "b.png is no picture"),
    "a text": (put("b.png", b"no picture"), ["sparse", "encode", "b.png", "--out", "new.safetensors"], "b.png is no picture"),
    "a picture cut short": (
        put("b.png", png(np.random.default_rng(0).integers(0, 255, (30, 30)))[:200]),
        ["sparse", "denoise", "b.png", "--out", "new.png"],
        "b.png could not be read as a picture",
    ),
    "a damaged picture of 16 bits": (colour16, ["sparse", "denoise", "b.png", "--out", "new.png"], "b.png could not be read"),
    "a decompression bomb": (bomb, ["sparse", "denoise", "b.png", "--out", "new.png"], "decompression bomb"),
    "a dictionary larger than the picture": (
        put("b.png", png(np.zeros((7, 20)))),
        ["sparse", "denoise", "b.png", "--out", "new.png"],
        "signals must be at least as large as the atoms (8 x 8), got 7 x 20",
    ),
    "a dictionary larger than what is coded": (
        put("b.png", png(np.zeros((3, 3)))),
        ["sparse", "encode", "b.png", "--out", "new.safetensors", "--model", "model"],
        "at least as large as the atoms (4 x 4), got 3 x 3",
    ),
    # masks
    "a mask that is missing": (nothing, [*INPAINT, "m.png"], "m.png does not exist"),
    "a mask of another size": (
        mask(np.full((12, 11), 255)), [*INPAINT, "m.png"], "mask must have the size of the image, 12 x 12 pixels, but m.png",
    ),
    "an empty mask": (mask(np.zeros((12, 12))), [*INPAINT, "m.png"], "m.png is black everywhere"),
    "a grey mask": (mask(np.full((12, 12), 128)), [*INPAINT, "m.png"], "but 144 pixels of m.png are in between"),
    "a mask that is no picture": (put("m.png", b"1 0 1"), [*INPAINT, "m.png"], "m.png is no picture"),
    # models
    "no such model": (nothing, [*DENOISE, "--model", "kodac"], "or kodak for the one that ships with triptych"),
    "a folder that is no model": (
        lambda folder: (folder / "d").mkdir(), [*DENOISE, "--model", "d"], "d must be a folder that triptych saved",
    ),
    "a model of another kind": (other_kind, [*DENOISE, "--model", "gan"], "gan must hold 'sparse', but it holds 'gan'"),
    "a corrupt model": (cut, [*DENOISE, "--model", "model"], "tensors.safetensors is damaged"),
    "a model of another version": (meta(parameters={}), [*SHOW, "model"], "model is no dictionary of this version"),
    "a model whose numbers do not fit": (
        meta(signal_shape=[2, 12, 12]), [*DENOISE, "--model", "model"], "model is no dictionary of this version",
    ),
    "a pickle": (pickled, [*DENOISE, "--model", "m.pt"], "m.pt is a pickle, which can run any code"),
    "a file of torch's": (saved_by_torch, [*DENOISE, "--model", "m.pt"], "m.pt is a pickle, which can run any code"),
    "a file cut short": (put("m.safetensors", b"\x80\0\0\0\0\0\0\0{"), [*DENOISE, *FILE], "it is damaged"),
    "a picture for a model": (nothing, [*DENOISE, "--model", "a.png"], "a.png must be a whole safetensors file"),
    "a file without atoms": (tensors(w=ATOM), [*DENOISE, *FILE], "must hold a tensor named atoms, but it holds w"),
    "atoms of three axes too many": (
        tensors(atoms=ATOM[None, None]), [*DENOISE, *FILE], "m.safetensors is no dictionary: atoms must be",
    ),
    "atoms of lines": (tensors(atoms=ATOM[..., 0].contiguous()), [*DENOISE, *FILE], "pictures of 1 or 1 channels"),
    "no atoms": (tensors(atoms=torch.zeros(0, 1, 4, 4)), [*DENOISE, *FILE], "m.safetensors is no dictionary: atoms must be"),
    "atoms of NaN": (tensors(atoms=ATOM * torch.nan), [*DENOISE, *FILE], "atoms must be finite"),
    "atoms that are flat": (tensors(atoms=torch.ones(2, 1, 4, 4)), [*DENOISE, *FILE], "an atom that is not flat"),
    "atoms of two channels": (
        tensors(atoms=ATOM.expand(3, 2, 4, 4).contiguous()), [*DENOISE, *FILE], "pictures of 1 or 1 channels",
    ),
    "atoms of two channels to code": (
        tensors(atoms=ATOM.expand(3, 2, 4, 4).contiguous()), [*ENCODE, *FILE], "image must have the 2 channels of the model",
    ),
    "atoms of two channels to draw": (
        tensors(atoms=ATOM.expand(3, 2, 4, 4).contiguous()), [*SHOW, "m.safetensors"], "atoms of 1 or 3 channels",
    ),
    "a stride of 0": (tensors(atoms=ATOM, stride=torch.tensor(0)), [*DENOISE, *FILE], "stride must be a whole number"),
    "a zero atom": (tensors(atoms=ATOM * 0), [*SHOW, "m.safetensors"], "atoms must be different from 0"),
    # where to write
    "a JPEG to write": (nothing, ["sparse", "denoise", "a.png", "--out", "new.jpg"], "out must be a file named *.png"),
    "codes as a picture": (nothing, ["sparse", "encode", "a.png", "--out", "c.png"], "out must be a file named *.safetensors"),
    "a folder to write to": (
        lambda folder: (folder / "new.png").mkdir(), DENOISE, "out must be a file to write, but new.png is a folder",
    ),
    "a place below a file": (nothing, ["sparse", "denoise", "a.png", "--out", "a.png/b.png"], "a.png is a file; choose"),
    "no folder for the pictures of kodak": (nothing, ["sparse", "show", "kodak"], "out must name a folder for the pictures"),
    "pictures of a dictionary below a file": (nothing, ["sparse", "show", "--out", "a.png"], "but a.png is a file"),
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A dictionary of 3 atoms of 4 x 4."""
    X = np.random.default_rng(0).standard_normal((2, 12, 12))
    learner = ConvolutionalDictionaryLearning(3, size=4, max_iter=2, tol=0.9, random_state=0)
    return learner.fit(X).save(tmp_path_factory.mktemp("model") / "model")


def listing(folder):
    """Every path below a folder with its time and, for files, its bytes."""
    return {
        str(path): (path.lstat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in sorted(folder.rglob("*"))
    }


def prepared(folder, model, make):
    shutil.copytree(model, folder / "model")
    (folder / "a.png").write_bytes(png(np.random.default_rng(1).integers(0, 256, (12, 12))))
    make(folder)
    return listing(folder)


def test_there_are_many_kinds():
    assert len(CASES) >= 50


@pytest.mark.parametrize(("make", "words", "part"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("form", ["text", "json"])
def test_wrong_use_writes_nothing(make, words, part, form, model, tmp_path, monkeypatch, capsys):
    before = prepared(tmp_path, model, make)
    monkeypatch.chdir(tmp_path)
    status = main([*words, "--json"] if form == "json" else words)
    out, err = capsys.readouterr()
    assert err.startswith("triptych: "), err
    assert part in err
    assert "Traceback" not in err
    assert err.count("\n") == 1
    assert out == ""
    assert status == 2
    assert listing(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(model, tmp_path, monkeypatch, capsys):
    before = prepared(tmp_path, model, nothing)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the superuser may write anywhere
    monkeypatch.setattr("triptych.data.raster.read", None)
    assert main(DENOISE) == 2
    assert "out must be in a folder that can be written" in capsys.readouterr().err
    assert listing(tmp_path) == before


def test_a_disk_that_is_full_leaves_nothing_behind(model, tmp_path, monkeypatch, capsys):
    before = prepared(tmp_path, model, nothing)
    monkeypatch.chdir(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main([*DENOISE, "--sigma", "5", "--model", "model"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert listing(tmp_path) == before
