"""Data sets that can be downloaded: their files, and how they are fetched and unpacked."""

import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from triptych import cache
from triptych.check import InputError

Progress = Callable[[str, int, int | None], None]  # name of the file, bytes received, bytes in all where known


@dataclass(frozen=True)
class Download:
    """One file: its address, its name and its checksum (``sha256:...`` or ``md5:...``)."""

    url: str
    name: str
    checksum: str


@dataclass(frozen=True)
class DownloadSet:
    """The files of one data set; ``unpacks_to`` names the folder in the one archive, where it is an archive."""

    name: str
    files: tuple[Download, ...]
    unpacks_to: str | None = None

    def fetch(self, to: Path | None = None, progress: Progress | None = None) -> Path:
        """Download what is missing into ``to``, or into the cache, and return the folder to load.

        Files that are there are checked again and kept. Raises cache.DownloadError, or InputError where another file is
        in the way.
        """
        folder = cache.folder() / self.name if to is None else to
        if self.unpacks_to is not None and (folder / self.unpacks_to).is_dir():
            return folder / self.unpacks_to
        paths = [
            cache.fetch(file.url, file.checksum, file.name, to=folder, progress=_named(file.name, progress))
            for file in self.files
        ]
        if self.unpacks_to is None:
            return folder
        unpack(paths[0], folder, self.unpacks_to)
        paths[0].unlink(missing_ok=True)  # another process may have been quicker
        return folder / self.unpacks_to


def unpack(archive: Path, folder: Path, name: str) -> None:
    """Unpack the folder ``name`` of a tar archive beside its place and rename it: ``folder / name`` is whole or missing.

    Only regular files are written, and only within that folder: links, devices, absolute paths and ``..`` are refused.
    Raises InputError.
    """
    beside = Path(tempfile.mkdtemp(dir=folder, prefix=f".{name}."))
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                _unpack_member(tar, member, archive, beside)
        if not (beside / name).is_dir():
            raise InputError(f"{archive} does not hold the folder {name}; fetch it again")
        try:
            os.rename(beside / name, folder / name)
        except OSError:
            if not (folder / name).is_dir():  # else another process was quicker: its folder is as good
                raise
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{archive} is a broken archive ({error}); remove it and fetch it again") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, archive: Path, beside: Path) -> None:
    """Write one regular file. Raises InputError where it is something else or lies outside."""
    if member.isdir():
        return
    path = PurePosixPath(member.name)
    if not member.isfile() or path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name:
        raise InputError(f"{archive} holds {member.name!r}, which is no plain file within it; do not trust it")
    target = beside / path
    target.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    if source is not None:
        with source, target.open("xb") as file:
            shutil.copyfileobj(source, file)


def _named(name: str, progress: Progress | None) -> cache.Progress | None:
    """The progress of one file."""
    return None if progress is None else lambda received, total: progress(name, received, total)
