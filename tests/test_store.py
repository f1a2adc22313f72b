import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych import store
from triptych.check import InputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def tensors():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    return {
        "plain": base,
        "transposed": base.T,
        "slice": base[1:3, ::2],
        "shared": base,
        "expanded": torch.tensor([1.5]).expand(3),
        "bf16": base.bfloat16(),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "scalar": torch.tensor(2.0, dtype=torch.float64),
        "none": torch.empty(0, 3),
        "grad": torch.ones(2, requires_grad=True),
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path):
    meta = {"classes": ["ä", 3], "tol": 1e-3, "none": None}
    store.save(tmp_path / "deep" / "model", tensors(), meta, kind="ccnn")
    found, back = store.load(tmp_path / "deep" / "model", kind="ccnn")
    assert back == meta
    assert found.keys() == tensors().keys()
    for name, tensor in tensors().items():
        if name != "channels_last":
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor.detach())
    assert store.kind_of(tmp_path / "deep" / "model") == "ccnn"
    assert store.kind_of(tmp_path) is None
    assert names(tmp_path / "deep") == ["model"]


def test_the_same_tensors_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        store.save(tmp_path / name, {"w": torch.arange(6.0), "v": torch.ones(2)}, {"k": 1})
    for file in (store.HEAD, store.TENSORS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_folder_of_the_same_kind_is_replaced_and_foreign_files_in_it_stay(tmp_path):
    folder = tmp_path / "m"
    store.save(folder, {"w": torch.zeros(3)}, {"run": 1}, kind="ccnn")
    (folder / "notes.txt").write_text("mine")
    store.save(folder, {"v": torch.ones(2)}, {"run": 2}, kind="ccnn")
    found, meta = store.load(folder)
    assert (list(found), meta) == (["v"], {"run": 2})
    assert (folder / "notes.txt").read_text() == "mine"
    assert names(tmp_path) == ["m"]


def test_a_link_keeps_pointing_where_it_did(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store.save(tmp_path / "link", {"w": torch.zeros(1)}, {})
    assert (tmp_path / "link").is_symlink()
    assert store.load(tmp_path / "real")[1] == {}


def test_unrelated_folders_are_refused_and_untouched(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("a")
    (tmp_path / "file").write_text("f")
    store.save(tmp_path / "run", {}, {}, kind="gan")
    for name, message in (("photos", "files of another origin"), ("file", "it is a file"), ("run", "holds 'gan'")):
        with pytest.raises(InputError, match=message):
            store.save(tmp_path / name, {"w": torch.zeros(1)}, {}, kind="ccnn")
    assert names(tmp_path) == ["file", "photos", "run"]
    assert names(tmp_path / "photos") == ["a.jpg"]
    (tmp_path / "empty").mkdir()
    store.save(tmp_path / "empty", {}, {})
    assert store.load(tmp_path / "empty") == ({}, {})


@pytest.mark.parametrize("where", ["write_json", "write_tensors", "_put"])
def test_an_interrupted_save_leaves_the_old_folder(tmp_path, monkeypatch, where):
    folder = tmp_path / "m"
    store.save(folder, {"w": torch.zeros(3)}, {"run": 1})

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, where, stop)
    with pytest.raises(KeyboardInterrupt):
        store.save(folder, {"w": torch.ones(3)}, {"run": 2})
    assert names(tmp_path) == ["m"]
    assert store.load(folder)[1] == {"run": 1}


def test_a_failing_rename_puts_the_old_folder_back(tmp_path, monkeypatch):
    folder = tmp_path / "m"
    store.save(folder, {"w": torch.zeros(3)}, {"run": 1})
    rename = store.Path.rename

    def failing(self, target):
        if self.name.endswith(".part"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(store.Path, "rename", failing)
    with pytest.raises(OSError, match="no"):
        store.save(folder, {"w": torch.ones(3)}, {"run": 2})
    assert names(tmp_path) == ["m"]
    assert store.load(folder)[1] == {"run": 1}


def head(**changes):
    def change(folder):
        path = folder / store.HEAD
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def cut(folder):
    path = folder / store.TENSORS
    path.write_bytes(path.read_bytes()[:-1])


def flip(folder):
    path = folder / store.TENSORS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "no folder": (shutil.rmtree, "there is no such folder"),
    "no head": (lambda f: (f / store.HEAD).unlink(), "holds no triptych.json"),
    "no tensors": (lambda f: (f / store.TENSORS).unlink(), "is missing"),
    "cut": (cut, "bytes, .* were written"),
    "flipped": (flip, "checksum"),
    "head cut": (lambda f: (f / store.HEAD).write_text("{"), "damaged"),
    "head of another": (lambda f: (f / store.HEAD).write_text('{"version": 1}'), "something else"),
    "head a list": (lambda f: (f / store.HEAD).write_text("[]"), "something else"),
    "head deep": (lambda f: (f / store.HEAD).write_text("[" * 100_000), "damaged"),
    "field missing": (
        lambda f: (f / store.HEAD).write_text('{"format": "triptych", "version": 1}'),
        "a field is missing",
    ),
    "newer": (head(version=99), "newer triptych .format 99"),
    "other kind": (head(kind="gan"), "must hold 'ccnn', but it holds 'gan'"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_one_sentence_that_names_the_folder(tmp_path, damage, message):
    folder = tmp_path / "model"
    store.save(folder, {"w": torch.arange(5.0)}, {"a": 1}, kind="ccnn")
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        store.load(folder, kind="ccnn")
    assert "model" in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_are_written_whole(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("bytes")
    store.write_bytes(folder / "new" / "file", b"old")
    store.write_bytes(folder / "new" / "file", data)
    assert (folder / "new" / "file").read_bytes() == data
    assert names(folder / "new") == ["file"]


def test_a_reader_of_the_old_file_keeps_it(tmp_path):
    """The new file takes the old one's place; nothing is written into the old one."""
    store.write_text_atomic(tmp_path / "file", "old")
    with (tmp_path / "file").open() as reader:
        store.write_text_atomic(tmp_path / "file", "new")
        assert reader.read() == "old"
    assert (tmp_path / "file").read_text() == "new"


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    store.write_text_atomic(tmp_path / "file", "old")
    monkeypatch.setattr(store.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        store.write_text_atomic(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {1, 2}, b"bytes"], ids=repr)
def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path, value):
    with pytest.raises(InputError, match="JSON"):
        store.write_json(tmp_path / "file", value)
    with pytest.raises(InputError, match="JSON"):
        store.save(tmp_path / "folder", {}, {"value": value})
    assert names(tmp_path) == []


def test_single_files_are_read_back_or_refused(tmp_path):
    store.write_tensors(tmp_path / "t.safetensors", {"w": torch.ones(2, 2).T})
    assert torch.equal(store.read_tensors(tmp_path / "t.safetensors")["w"], torch.ones(2, 2))
    (tmp_path / "bad").write_bytes(b"12345678")
    with pytest.raises(InputError, match="damaged"):
        store.read_tensors(tmp_path / "bad")
    for read in (store.read_tensors, store.read_json):
        with pytest.raises(InputError, match="there is none"):
            read(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"tensors\['w'\] must be a torch tensor"):
        store.write_tensors(tmp_path / "x", {"w": [1.0]})
