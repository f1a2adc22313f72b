"""Bad data, one kind a line: each is refused by one sentence that names the file."""

import gzip
import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from triptych.check import InputError
from triptych.data import load, splits

X, Y = np.arange(75, dtype=np.uint8).reshape(3, 5, 5), np.array([0, 1, 0], np.uint8)
RUN_ME = b"\x80\x04cos\nsystem\n\x8c\x04true\x94\x85R."  # a pickle that would run a command


def idx(array, *, code=8, sizes=None):
    sizes = array.shape if sizes is None else sizes
    return struct.pack(f">BBBB{len(sizes)}I", 0, 0, code, len(sizes), *sizes) + array.tobytes()


def put(data, name="train-images-idx3-ubyte", labels=None):
    """A maker of a file of these bytes, and of labels beside it."""

    def make(folder):
        if labels is not None:
            (folder / "train-labels-idx1-ubyte").write_bytes(labels)
        (folder / name).write_bytes(data)
        return folder / name

    return make


def inside(*makers):
    """A maker of the folder that holds what others make."""

    def make(folder):
        for maker in makers:
            maker(folder)
        return folder

    return make


def npz(**arrays):
    def make(folder):
        np.savez(folder / "a.npz", **arrays)
        return folder / "a.npz"

    return make


def png(name="a.png", size=(4, 3), value=9):
    def make(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size, value).save(folder / name)
        return folder / name

    return make


def tiff(name):
    """A maker of a picture in a format that is not decoded."""

    def make(folder):
        Image.new("L", (4, 3)).save(folder / name, "TIFF")
        return folder / name

    return make


def png_bytes(width=4, height=3):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def link(name, to):
    def make(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(to)
        return folder / name

    return make


def packed(opener, name):
    """An archive with one picture in it."""

    def make(folder):
        file = io.BytesIO()
        Image.new("L", (4, 3)).save(file, "PNG")
        if opener == "zip":
            with zipfile.ZipFile(folder / name, "w") as archive:
                archive.writestr("cat/a.png", file.getvalue())
        else:
            with tarfile.open(folder / name, opener) as archive:
                member = tarfile.TarInfo("cat/a.png")
                member.size = len(file.getvalue())
                archive.addfile(member, io.BytesIO(file.getvalue()))
        return folder / name

    return make


def made(call):
    """A maker of what is neither a file nor a folder."""

    def make(folder):
        call(folder / "thing")
        return folder / "thing"

    return make


def truncated(data):
    return data[: len(data) * 2 // 3]


LABELS = idx(Y)
JPEG = io.BytesIO()
Image.effect_noise((64, 64), 90).save(JPEG, "JPEG")
LONG = np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8)
RECORD = bytes([3]) + bytes(3072)

BAD = {  # kind: (maker, what the sentence says beside the path)
    "missing path": (lambda folder: folder / "nothing", "does not exist"),
    "a misspelt path": (lambda folder: (folder / "mnist").mkdir() or folder / "mnits", "did you mean"),
    "empty file": (put(b"", "a.bin"), "is empty"),
    "empty folder": (inside(), "is an empty folder"),
    "a folder of text": (inside(put(b"1", "a.txt"), put(b"2", "b.txt")), "no pictures"),
    "a text file": (put(b"a,b,c\n1,2,3\n", "table.csv"), "nothing that is known"),
    "a pipe": (made(os.mkfifo), "neither a file nor a folder"),
    "a dangling link": (link("a", "nowhere"), "leads nowhere"),
    "a link to itself": (link("a", "a"), "leads nowhere or in a circle"),
    # IDX
    "idx truncated": (put(truncated(idx(X))), "is truncated: its header promises 3 x 5 x 5"),
    "idx cut in its header": (put(idx(X)[:9]), "ends within its header"),
    "idx too long": (put(idx(X) + b"\0"), "goes on after the 3 x 5 x 5 values"),
    "idx with a wrong magic": (put(b"\1\2\3\4" + idx(X)), "IDX magic number but with 01020304"),
    "idx folder with a wrong magic": (inside(put(b"<html>not found</html>")), "IDX magic number but with 3c68746d"),
    "idx of no images": (put(idx(X[:0])), "holds no values"),
    "idx of no pixels": (put(idx(X[:, :0])), "holds no values"),
    "idx of floats": (put(idx(X.astype(">f4"), code=0x0D)), "must be unsigned bytes"),
    "idx of one axis": (put(idx(Y), "images-idx1-ubyte"), "must be unsigned bytes of 3 axes"),
    "idx that promises the moon": (put(idx(X, sizes=(2**32 - 1, 2**32 - 1, 28))), "is truncated"),
    "gz that promises the moon": (
        put(gzip.compress(idx(X, sizes=(2**32 - 1, 9999, 28))), "i-images.gz"),
        "is truncated",
    ),
    "an empty idx in a folder": (inside(put(b"")), "is empty"),
    "labels for images": (put(LABELS, "train-labels-idx1-ubyte"), "holds labels, not images"),
    "a folder of labels": (inside(put(LABELS, "train-labels-idx1-ubyte")), "but no images"),
    "counts that differ": (put(idx(X), labels=idx(Y[:2])), "3 images but train-labels-idx1-ubyte 2 labels"),
    "labels truncated": (put(idx(X), labels=LABELS[:-1]), "is truncated"),
    "labels of two axes": (put(idx(X), labels=idx(Y[None])), "whole numbers on one axis"),
    "labels of floats": (put(idx(X), labels=idx(Y.astype(">f4"), code=0x0D)), "whole numbers on one axis"),
    "negative labels": (put(idx(X), labels=idx(np.array([0, -1, 0], np.int8), code=9)), "holds labels from -1 to 0"),
    "huge labels": (put(idx(X), labels=idx(np.array([0, 9**9, 0], ">i4"), code=0x0C)), "expected 0 to 65535"),
    "two data sets": (inside(put(idx(X)), put(idx(X), "b-train-images-idx3-ubyte")), "holds several data sets"),
    "a split and a stray": (inside(put(idx(X)), put(idx(X), "other-images-idx3-ubyte")), "is no split"),
    "gz truncated": (put(truncated(gzip.compress(idx(LONG))), "train-images-idx3-ubyte.gz"), "is truncated"),
    "gz broken": (
        put(gzip.compress(idx(X))[:10] + b"\xff" * 40, "train-images-idx3-ubyte.gz"),
        "is a broken gzip file",
    ),
    "gz with a wrong checksum": (
        put(gzip.compress(idx(X))[:-8] + bytes(8), "train-images-idx3-ubyte.gz"),
        "is a broken gzip file",
    ),
    "gz of nothing": (put(gzip.compress(b""), "a.gz"), "nothing that is known"),
    # CIFAR
    "cifar truncated": (put(RECORD * 2 + b"1", "data_batch_1.bin"), "no whole number of records of 3,073"),
    "cifar empty": (inside(put(b"", "data_batch_1.bin")), "is empty"),
    "cifar labels out of range": (put(RECORD + b"\x0b" + RECORD[1:], "test_batch.bin"), "record 1 has label 11"),
    "cifar-100 labels out of range": (put(b"\0\x64" + RECORD[1:], "train.bin"), "record 0 has label 100"),
    "cifar lacks a batch": (inside(put(RECORD, "data_batch_1.bin"), put(RECORD, "data_batch_3.bin")), "lacks one of"),
    "cifar names too few": (
        inside(put(RECORD, "data_batch_1.bin"), put(b"a\nb\n", "batches.meta.txt")),
        "must hold 10 distinct class names",
    ),
    "cifar's python version": (
        inside(put(RUN_ME, "data_batch_1"), put(b"", "readme.html")),
        "is CIFAR's Python version",
    ),
    "a file of cifar's python version": (put(RUN_ME, "data_batch_2"), "is CIFAR's Python version"),
    "cifar-100's python version": (inside(put(RUN_ME, "train"), put(RUN_ME, "meta")), "is CIFAR's Python version"),
    # pickles
    "a pickle": (put(pickle.dumps([1, 2]), "data.pkl"), "is a pickle"),
    "a pickle by another name": (put(pickle.dumps({"x": X}), "data.bin"), "is a pickle"),
    "a packed pickle": (put(gzip.compress(pickle.dumps({"x": X})), "mnist.gz"), "is a pickle"),
    "an old pickle": (put(pickle.dumps([1, 2], 0), "mnist.pkl.gz"), "is a pickle"),
    "a model of torch": (packed("zip", "model.pt"), "is a pickle"),
    "object arrays": (npz(x=np.array([X, None], object), y=Y[:2]), "object arrays, which are pickles"),
    "object labels": (npz(x=X, y=np.array([0, "a", None], object)), "object arrays, which are pickles"),
    # npz
    "npz of other names": (npz(a=X, b=Y), "holds a, b, expected arrays named x and y"),
    "npz with counts that differ": (npz(x=X, y=Y[:2]), "x holds 3 images but y 2 labels"),
    "npz of rows": (npz(x=X.reshape(3, 25), y=Y), "reshape it"),
    "npz of a number": (npz(x=np.uint8(3)), "(n, h, w)"),
    "npz of text": (npz(x=np.full((3, 5, 5), "a"), y=Y), "an array of numbers"),
    "npz of no images": (npz(x=X[:0], y=Y[:0]), "at least one image"),
    "npz of large numbers": (npz(x=X.astype(np.uint16) * 200, y=Y), "0 to 255"),
    "npz of large floats": (npz(x=X.astype(np.float32), y=Y), "floats from 0 to 1"),
    "npz of float labels": (npz(x=X, y=Y + 0.5), "whole numbers or of names"),
    "npz of one-hot labels": (npz(x=X, y=np.eye(3, dtype=int)), "whole numbers or of names"),
    "npz with labels beyond its classes": (npz(x=X, y=Y + 1, classes=["a", "b"]), "labels must be from 0 to 1"),
    "npz truncated": (lambda folder: cut(npz(x=LONG, y=Y)(folder)), "broken npz"),
    "npz that is text": (put(b"hello", "a.npz"), "broken npz"),
    "npz of no arrays": (put(b"PK\x05\x06" + bytes(18), "a.npz"), "holds nothing"),
    "npz with broken data": (lambda folder: scratched(npz(x=LONG, y=Y)(folder)), "broken npz"),
    "npz with a broken header": (lambda folder: zipped(folder, "x.npy", b"\x93NUMPY\1\0\x06\0{'a':"), "broken npz"),
    "a single array": (lambda folder: np.save(folder / "a.npy", X) or folder / "a.npy", "numpy.savez"),
    "a folder with one npz": (inside(npz(x=X)), "but one data file; give"),
    # archives
    "zip": (packed("zip", "data.zip"), "is an archive; unpack it"),
    "tar": (packed("w", "data.tar"), "is an archive; unpack it"),
    "tar.gz": (packed("w:gz", "data.tar.gz"), "is an archive; unpack it"),
    "tar.xz": (packed("w:xz", "data.tar.xz"), "is an archive; unpack it"),
    "a folder with one zip": (inside(packed("zip", "data.zip")), "is an archive; unpack it"),
    # pictures
    "a picture that is text": (put(b"hello", "a.jpg"), "is no picture that can be read"),
    "another format's picture": (inside(tiff("a.png")), "is no picture that can be read"),
    "a file of another format": (tiff("a.tif"), "is nothing that is known"),
    "an empty picture": (inside(png("b.png"), put(b"", "a.png")), "is no picture that can be read"),
    "a picture truncated": (
        inside(png(size=(64, 64)), put(truncated(JPEG.getvalue()), "a.jpg")),
        "could not be read as a picture",
    ),
    "a png with a wrong checksum": (
        inside(put(png_bytes().replace(b"IDAT", b"IDAT\xff"), "a.png")),
        "could not be read as a picture",
    ),
    "a decompression bomb": (put(png_bytes(10_000, 10_000), "a.png"), "as a decompression bomb does"),
    "a larger bomb": (inside(put(png_bytes(50_000, 50_000), "a.png")), "as a decompression bomb does"),
    "mixed sizes": (inside(png(), png("b.png", (3, 4))), "a.png 4 x 3 and b.png 3 x 4; give --side N"),
    "mixed sizes in two splits": (inside(png("train/c/a.png"), png("test/c/a.png", (9, 9))), "resize them to one side"),
    "a class without pictures": (
        inside(png("c/a.png"), put(b"", "notes"), lambda folder: (folder / "d").mkdir()),
        "d is a class without pictures",
    ),
    "pictures beside classes": (inside(png("a.png"), png("c/a.png")), "both beside its sub-folders"),
    "a split without pictures": (
        inside(png("train/c/a.png"), lambda folder: (folder / "test").mkdir()),
        "holds no pictures",
    ),
    "a split without classes": (inside(png("train/c/a.png"), png("test/a.png")), "loose pictures in others"),
    "links in a circle": (inside(png("c/a.png"), link("c/round", "..")), "leads in a circle"),
    "a class that is the folder": (inside(png("c/a.png"), link("d", ".")), "leads in a circle"),
    "a picture that is a dangling link": (inside(png(), link("b.png", "nowhere")), "leads nowhere"),
    "a class that links to itself": (inside(png("c/a.png"), link("d", "d")), "leads nowhere or in a circle"),
}


def cut(path):
    path.write_bytes(truncated(path.read_bytes()))
    return path


def scratched(path):
    data = bytearray(path.read_bytes())
    data[5000] ^= 255
    path.write_bytes(data)
    return path


def zipped(folder, name, data):
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        archive.writestr(name, data)
    return folder / "a.npz"


@pytest.mark.parametrize(("make", "expected"), BAD.values(), ids=BAD)
def test_bad_data_are_one_sentence_that_names_the_file(tmp_path, make, expected):
    path = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        load(path)
    text = str(caught.value)
    assert expected in text
    assert str(tmp_path) in text
    assert "\n" not in text
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"side": 0}, "side must be a whole number from 1"),
        ({"side": 10**6}, "side must be a whole number from 1 to 8192"),
        ({"fit": "stretch"}, "fit must be one of crop, squash"),
        ({"limit": 0}, "limit must be a whole number"),
        ({"split": "train"}, "digits has no splits"),
    ],
)
def test_bad_options(options, expected):
    with pytest.raises(InputError) as caught:
        load("digits", **options)
    assert expected in str(caught.value)


def test_an_unknown_split_is_told_the_known_ones(tmp_path):
    png("train/c/a.png")(tmp_path)
    png("test/c/a.png")(tmp_path)
    with pytest.raises(InputError, match=r"must be one of train, test, got 'tset' \(did you mean test\?\)"):
        load(tmp_path, split="tset")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "path must be"),
        (3, "path must be"),
        ("x" * 5000, "File name too long"),
        ("mnist", "run: triptych data fetch mnist"),
        ("digit", "did you mean digits?"),
    ],
)
def test_what_is_no_path(path, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError) as caught:
        splits(path)
    assert expected in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_what_may_not_be_read(tmp_path):
    path = put(idx(X))(tmp_path)
    path.chmod(0)
    with pytest.raises(InputError, match="could not be read: Permission denied"):
        load(path)


def test_more_than_16_gib_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("triptych.data.folder.MOST_BYTES", 20)
    png("a.png")(tmp_path)
    png("b.png")(tmp_path)
    with pytest.raises(InputError, match="give --side N or --limit N"):
        load(tmp_path)
    assert len(load(tmp_path, limit=1)) == 1
