"""The sets that can be fetched: their addresses and checksums, and unpacking that writes nothing outside."""

import io
import re
import tarfile

import pytest

from triptych import cache
from triptych.check import InputError
from triptych.data import fetch, load
from triptych.data.download import Download, DownloadSet, unpack

FOLDER = "cifar-10-batches-bin"
RECORDS = {f"{FOLDER}/data_batch_1.bin": bytes([3]) + bytes(3072), f"{FOLDER}/readme.html": b"<html>"}


def tar(path, members):
    """Write a .tar.gz of files (bytes) and of other members (TarInfo)."""
    with tarfile.open(path, "w:gz") as archive:
        for name, member in members.items():
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(member, tarfile.TarInfo) else member
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def odd(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("one", fetch.SETS.values(), ids=fetch.SETS)
def test_every_set_has_addresses_and_checksums(one):
    for file in one.files:
        assert re.fullmatch(r"https?://\S+/" + re.escape(file.name), file.url)
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", file.checksum)
    assert len({file.checksum for file in one.files}) == len(one.files)


def test_an_archive_is_unpacked_whole(tmp_path):
    folder = odd(FOLDER, tarfile.DIRTYPE)
    unpack(tar(tmp_path / "a.tar.gz", {FOLDER: folder, **RECORDS}), tmp_path, FOLDER)
    assert (tmp_path / FOLDER / "data_batch_1.bin").read_bytes() == RECORDS[f"{FOLDER}/data_batch_1.bin"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", FOLDER]
    assert load(tmp_path / FOLDER).labels.tolist() == [3]


BAD = {
    "above": ({"../evil": b"1"}, "'../evil', which is no plain file"),
    "absolute": ({"/tmp/evil": b"1"}, "'/tmp/evil', which is no plain file"),
    "a drive": ({"C:\\evil": b"1"}, "which is no plain file"),
    "a link": ({"l": odd(f"{FOLDER}/l", tarfile.SYMTYPE, "/etc/passwd")}, "which is no plain file"),
    "a hard link": ({"l": odd(f"{FOLDER}/l", tarfile.LNKTYPE, "../../x")}, "which is no plain file"),
    "a device": ({"l": odd(f"{FOLDER}/l", tarfile.CHRTYPE)}, "which is no plain file"),
    "another folder": ({"else/a": b"1"}, f"does not hold the folder {FOLDER}"),
}


@pytest.mark.parametrize(("members", "expected"), BAD.values(), ids=BAD)
def test_an_archive_that_reaches_out_is_refused(tmp_path, members, expected):
    inner = tmp_path / "inner"
    inner.mkdir()
    archive = tar(inner / "a.tar.gz", {**({} if "folder" in expected else RECORDS), **members})
    with pytest.raises(InputError) as caught:
        unpack(archive, inner, FOLDER)
    assert expected in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["inner", "a.tar.gz"]


@pytest.mark.parametrize("data", [b"no archive", None])
def test_a_broken_archive_is_refused(tmp_path, data):
    archive = tar(tmp_path / "a.tar.gz", RECORDS)
    archive.write_bytes(archive.read_bytes()[:80] if data is None else data)
    with pytest.raises(InputError, match="is a broken archive"):
        unpack(archive, tmp_path, FOLDER)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.fixture
def pretended(monkeypatch, tmp_path):
    """cache.fetch that takes files from a folder instead of the network; the fixture counts them."""
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    asked = []

    def take(url, checksum, name, *, to, progress):
        asked.append(url)
        to.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes((tmp_path / name).read_bytes())
        if progress is not None:
            progress(1, 1)
        return to / name

    monkeypatch.setattr(cache, "fetch", take)
    return asked


def test_a_fetched_archive_is_unpacked_once_and_known_by_its_name(tmp_path, pretended, monkeypatch):
    one = DownloadSet("ten", (Download("http://x/a.tar.gz", "a.tar.gz", ""),), unpacks_to=FOLDER)
    monkeypatch.setitem(fetch.SETS, "ten", one)
    tar(tmp_path / "a.tar.gz", RECORDS)
    assert fetch.fetched("ten") is None
    told = []
    folder = fetch.fetch("ten", progress=lambda *step: told.append(step))
    assert folder == tmp_path / "cache" / "ten" / FOLDER
    assert told == [("a.tar.gz", 1, 1)]
    assert fetch.fetch("ten") == folder
    assert pretended == ["http://x/a.tar.gz"]
    assert [path.name for path in folder.parent.iterdir()] == [FOLDER]
    assert load("ten").labels.tolist() == [3]
    assert fetch.fetch("ten", tmp_path / "elsewhere") == tmp_path / "elsewhere" / FOLDER


def test_a_set_of_files_is_known_when_all_are_there(tmp_path, pretended, monkeypatch):
    files = tuple(Download(f"http://x/{name}", name, "") for name in ("a", "b"))
    monkeypatch.setitem(fetch.SETS, "two", DownloadSet("two", files))
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    assert fetch.fetch("two") == tmp_path / "cache" / "two" == fetch.fetched("two")
    (tmp_path / "cache" / "two" / "a").unlink()
    assert fetch.fetched("two") is None


def test_an_unknown_set():
    with pytest.raises(InputError, match=r"mnist, fashion-mnist, cifar-10.*did you mean cifar-10\?"):
        fetch.fetch("cifar10")
