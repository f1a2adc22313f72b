"""Downloads with checksum and resume into one folder: the only door to the network.

A file is streamed to ``name.part``, which a broken download leaves behind and the next one goes on with, and gets its name
only when its checksum is right.
"""

import hashlib
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import BinaryIO

import platformdirs

from triptych.check import InputError, wrong

Progress = Callable[[int, int | None], None]  # bytes received, bytes in all where the server says
ATTEMPTS = 4  # connections in a row that bring nothing new
PAUSE = 0.5  # seconds before the second attempt, doubled each time
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 16
BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
PASSING = {408, 425, 429, 500, 502, 503, 504}  # what a server may answer now and not in a while
DIGITS = {"sha256": 64, "md5": 32}


class DownloadError(OSError):
    """A download failed for a reason that lies with the network or the server; one sentence."""


class _BrokeOff(ConnectionError):
    """The connection ended before all promised bytes came."""


def folder() -> Path:
    """The one cache folder: the environment variable TRIPTYCH_CACHE, else the user's cache folder of the platform."""
    return Path(os.environ.get("TRIPTYCH_CACHE") or platformdirs.user_cache_dir("triptych", appauthor=False))


def fetch(
    url: str,
    checksum: str,
    name: str,
    *,
    to: Path | None = None,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
    pause: float = PAUSE,
) -> Path:
    """The path of ``name`` in ``to`` or the cache folder, downloaded from a url unless it is there with this checksum.

    ``checksum``: ``sha256:`` or ``md5:`` and hexadecimal digits. ``timeout``, ``pause``: seconds without a byte, and
    before the second attempt. Two processes may fetch the same file: the second waits (where the platform has flock) and
    takes the first one's. Raises InputError for wrong arguments or another file in the way, DownloadError where the
    server cannot be reached or sends other bytes, OSError where the disk is full (what came is kept and gone on with).
    """
    if not url.startswith(("http://", "https://")):
        raise wrong("url", "an http or https address", url)
    algorithm = _algorithm(checksum)
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts or not name:
        raise wrong("name", "a relative path within the folder", name)
    path = (folder() if to is None else to) / name
    part = path.with_name(path.name + ".part")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _held(part) as file:
            if not path.exists():  # else another process was quicker
                if _checksum_of(part, algorithm) != checksum.lower():
                    _receive(url, checksum.lower(), part, file, progress, timeout, pause)
                os.fsync(file.fileno())
                if os.name == "nt":  # where an open file cannot be renamed
                    file.close()
                os.replace(part, path)
                return path
    if _checksum_of(path, algorithm) != checksum.lower():
        raise InputError(f"{path} is there but is not what {url} should give; move it away and fetch again")
    return path


def _receive(
    url: str, checksum: str, part: Path, file: BinaryIO, progress: Progress | None, timeout: float, pause: float
) -> None:
    """Fill the part file until its checksum is right. Raises DownloadError."""
    algorithm = _algorithm(checksum)
    resumed = file.seek(0, os.SEEK_END) > 0
    failures, furthest = 0, 0
    while True:
        reason: BaseException | None = None
        try:
            _stream(url, file, progress, timeout)
        except BROKEN as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in PASSING:
                raise DownloadError(f"{url} answered {error.code} {error.reason}; the file may have moved") from None
            reason = error
        file.flush()
        got = _checksum_of(part, algorithm)
        if got == checksum:  # whatever the server said about its length
            return
        if reason is None:
            _empty(file)
            if not resumed:
                raise DownloadError(f"{url} gave a file with the wrong checksum: expected {checksum}, got {got}")
            resumed = False  # what lay there may have been another version's start: once more, from nothing
            continue
        if (size := file.seek(0, os.SEEK_END)) > furthest:
            failures, furthest = 0, size
        failures += 1
        if failures >= ATTEMPTS:
            kept = f"; the first {size:,} bytes are kept and the next fetch goes on from there" if size else ""
            raise DownloadError(f"{url} could not be fetched ({_sentence(reason)}){kept}") from None
        resumed = resumed or size > 0
        time.sleep(pause * 2 ** (failures - 1))


def _stream(url: str, file: BinaryIO, progress: Progress | None, timeout: float) -> None:
    """Append to the file what the server sends, from where the file ends. Raises one of BROKEN."""
    start = file.seek(0, os.SEEK_END)
    headers = {"User-Agent": "triptych"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not start:
            raise
        # Nothing follows what is here, and that is not it: once more from nothing.
        _empty(file)
        return _stream(url, file, progress, timeout)
    with response:
        if start and not _continues(response, start):
            start = _empty(file)
        promised = response.headers.get("Content-Length")
        total = start + int(promised) if promised is not None and promised.isdigit() else None
        received = start
        while chunk := response.read(CHUNK):
            file.write(chunk)
            received += len(chunk)
            if progress is not None:
                progress(received, total)
    if total is not None and received < total:
        raise _BrokeOff(f"it broke off after {received:,} of {total:,} bytes")
    return None


def _continues(response: http.client.HTTPResponse, start: int) -> bool:
    """Whether a response goes on from byte ``start``: a server may ignore the range and send everything."""
    return response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _empty(file: BinaryIO) -> int:
    """Cut the file to nothing."""
    file.seek(0)
    return file.truncate(0)


def _algorithm(checksum: str) -> str:
    """The name of the hash. Raises InputError where the checksum is none."""
    algorithm, _, digits = checksum.partition(":")
    if not re.fullmatch(rf"[0-9a-fA-F]{{{DIGITS.get(algorithm, 0)}}}", digits) or not digits:
        raise wrong("checksum", "sha256: or md5: and its 64 or 32 hexadecimal digits", checksum)
    return algorithm


def _checksum_of(path: Path, algorithm: str) -> str:
    """The checksum of a file, written as ``algorithm:digits``."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{digest.hexdigest()}"


@contextmanager
def _held(part: Path) -> Iterator[BinaryIO]:
    """The part file, open for appending, which no other process holds; removed again where it stays empty."""
    while True:
        file = part.open("ab")
        _lock(file)
        if _is_at(file, part):  # who waited may hold a file that was renamed or removed meanwhile
            break
        file.close()
    try:
        yield file
    finally:
        if not file.closed:
            with suppress(OSError):  # the last buffer may find the disk full
                file.flush()
            if not os.fstat(file.fileno()).st_size and _is_at(file, part):
                part.unlink()
            with suppress(OSError):
                file.close()


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is the one that lies at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: BinaryIO) -> None:
    """Wait until no other process holds the file; without flock (Windows) the checksum alone guards the final name."""
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(file, fcntl.LOCK_EX)


def _sentence(error: BaseException) -> str:
    """The reason in an exception of the network, without its class."""
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason) or type(error).__name__
