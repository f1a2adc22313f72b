"""Bytes on disk: what a file begins with, and how a failure to read it is worded."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from triptych.check import InputError

GZIP = b"\x1f\x8b"
ZIPS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
PACKED = {  # what other archives begin with
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"\x28\xb5\x2f\xfd": "zstandard",
}
PICKLE = tuple(bytes([0x80, protocol]) for protocol in (2, 3, 4, 5))
PICKLED_SUFFIXES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".joblib"})


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every failure to read a file into one sentence that names it. Raises InputError."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error):
        raise InputError(f"{path} is a broken gzip file; fetch it again") from None
    except EOFError:
        raise InputError(f"{path} is truncated: its compressed data end too early; fetch it again") from None
    except OSError as error:
        raise InputError(f"{path} could not be read: {error.strerror or error}") from None


def head(path: Path, n: int = 512) -> bytes:
    """The first n bytes of a file. Raises InputError."""
    with reading(path), path.open("rb") as file:
        return file.read(n)


def unpacked_head(path: Path, n: int = 512) -> bytes:
    """The first n bytes of a file, of what is inside where it is gzip. Raises InputError."""
    start = head(path, n)
    if not start.startswith(GZIP):
        return start
    with reading(path), gzip.open(path) as file:
        return file.read(n)


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The file for reading, through gzip where it is gzip. Raises InputError, for failures within the block too."""
    packed = head(path, 2) == GZIP
    with reading(path), gzip.open(path) if packed else path.open("rb") as file:
        yield file  # type: ignore[misc]  # GzipFile reads like a BinaryIO


def refuse_pickle(path: Path, start: bytes) -> None:
    """Raise InputError where the file is a pickle, by its first bytes or its name."""
    if start.startswith(PICKLE) or path.name.removesuffix(".gz").endswith(tuple(PICKLED_SUFFIXES)):
        raise InputError(
            f"{path} is a pickle, which can run any code when it is read; save the arrays with numpy.savez(x=..., y=...)"
        )
