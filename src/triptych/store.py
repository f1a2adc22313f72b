"""Folders of safetensors and JSON, and single files, written beside and renamed: the only writer of state."""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.check import InputError, wrong

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
HEAD = "triptych.json"
TENSORS = "tensors.safetensors"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write a file beside its place, flush it to the disk and rename it, so that no reader sees half of it."""
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    _sync(path.parent)
    return path


def write_text_atomic(path: str | Path, text: str) -> Path:
    """Write a text file as UTF-8, beside and renamed."""
    return write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> Path:
    """Write a value as JSON, beside and renamed. Raises InputError where it holds NaN, infinity or a type that JSON lacks."""
    return write_text_atomic(path, _json(value))


def read_json(path: str | Path) -> Any:
    """Read a JSON file. Raises InputError where it is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} must be a JSON file, but there is none") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} must be a JSON file, but it is damaged; remove it and make it again") from None


def write_tensors(path: str | Path, tensors: "Mapping[str, Tensor]") -> Path:
    """Write named tensors (any device, strides or shared storage) as one safetensors file, beside and renamed."""
    from safetensors.torch import save

    return write_bytes(path, save(_own_storage(tensors)))


def read_tensors(path: str | Path) -> "dict[str, Tensor]":
    """Read a safetensors file. Raises InputError where it is missing, cut short or something else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} must be a safetensors file, but there is none") from None
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{path} must be a whole safetensors file, but it is damaged ({error})") from None


def save(
    folder: str | Path, tensors: "Mapping[str, Tensor]", meta: Mapping[str, Any], *, kind: str = "tensors"
) -> Path:
    """Save tensors (safetensors) and meta (JSON) as a folder, written beside and renamed.

    An existing folder is replaced only when it is of the same kind; what else lies in it is carried over.
    Raises InputError for any other folder that is not empty, and for meta that JSON cannot hold.
    """
    folder = Path(os.path.realpath(folder))
    _replaceable(folder, kind)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        beside.mkdir()
        path = write_tensors(beside / TENSORS, tensors)
        head = {
            "format": "triptych",
            "version": VERSION,
            "kind": kind,
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }
        write_json(beside / HEAD, {**head, "meta": meta})
        _put(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    _sync(folder.parent)
    return folder


def load(folder: str | Path, *, kind: str | None = None) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Load (tensors, meta) from a folder that ``save`` wrote. Raises InputError for any other folder and any damage."""
    folder = Path(folder)
    head = _head(folder)
    if kind is not None and head["kind"] != kind:
        raise InputError(f"{folder} must hold {kind!r}, but it holds {head['kind']!r}")
    path = folder / TENSORS
    if not path.is_file():
        raise InputError(f"{folder} is damaged: its file {TENSORS} is missing; make the folder again")
    if path.stat().st_size != head["bytes"]:
        raise InputError(
            f"{path} is damaged: {path.stat().st_size} bytes, {head['bytes']} were written; make the folder again"
        )
    if sha256(path) != head["sha256"]:
        raise InputError(f"{path} is damaged: its checksum is not the one that was written; make the folder again")
    return read_tensors(path), head["meta"]


def kind_of(folder: str | Path) -> str | None:
    """Name the kind of a folder that ``save`` wrote; None where it is something else. Raises InputError where it is damaged."""
    return str(_head(Path(folder))["kind"]) if (Path(folder) / HEAD).is_file() else None


def sha256(path: Path) -> str:
    """Hash a file's bytes with SHA-256, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(value: Any) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"the value must be one that JSON can hold, finite numbers only: {error}") from None


def _own_storage(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Give every tensor dense memory of its own: safetensors refuses strides, and storage that two names share."""
    from torch import Tensor

    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise wrong(f"tensors[{name!r}]", "a torch tensor", tensor)
        dense = tensor.detach().cpu().contiguous()
        if dense.untyped_storage().data_ptr() in seen:
            dense = dense.clone()
        seen.add(dense.untyped_storage().data_ptr())
        result[name] = dense
    return result


def _head(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"{folder} must be a folder that triptych saved, but there is no such folder")
    if not (folder / HEAD).is_file():
        raise InputError(f"{folder} must be a folder that triptych saved, but it holds no {HEAD}")
    head = read_json(folder / HEAD)
    if not isinstance(head, dict) or head.get("format") != "triptych" or not isinstance(head.get("version"), int):
        raise InputError(f"{folder / HEAD} must be the head of a folder that triptych saved, but it is something else")
    if head["version"] > VERSION:
        raise InputError(
            f"{folder} was saved by a newer triptych (format {head['version']}, this one knows {VERSION}); update triptych"
        )
    if not {"kind", "meta", "bytes", "sha256"} <= head.keys():
        raise InputError(f"{folder / HEAD} is damaged: a field is missing; make the folder again")
    return head


def _replaceable(folder: Path, kind: str) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} must be a folder to write, but it is a file; choose another name")
    if any(folder.iterdir()):
        found = kind_of(folder)
        if found != kind:
            what = "files of another origin" if found is None else f"{found!r}"
            raise InputError(
                f"{folder} must be a new or empty folder or one that holds {kind!r}, but it holds {what}; choose another"
            )


def _put(beside: Path, folder: Path) -> None:
    """Rename ``beside`` to ``folder``; an older folder steps aside first, and comes back where that fails."""
    if not folder.exists():
        beside.rename(folder)
        return
    with _aside(folder) as old:
        beside.rename(folder)
        for path in old.iterdir():
            if path.name not in (HEAD, TENSORS):
                path.rename(folder / path.name)


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.old")
    folder.rename(old)
    try:
        yield old
    except BaseException:
        if not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def filled(folder: str | Path) -> Iterator[Path]:
    """Give a folder to fill beside a place where there is none yet; at the end its files are flushed, and it is renamed.

    For folders that their name says the content of: where another process was quicker, its folder stays. After an error
    nothing is left.
    """
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        beside.mkdir()
        yield beside
        for path in beside.rglob("*"):
            _flush(path)
        try:
            beside.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename survives a power cut (POSIX only)."""
    if os.name == "posix":
        _flush(folder)


def _flush(path: Path) -> None:
    """Flush what was written to a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
