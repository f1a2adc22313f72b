"""A folder of pictures as one array of bytes on the disk, made once: decoding takes a hundred times as long as reading.

Under the cache folder, ``shards/<what is read>-<its listing>/`` holds pixels.npy (n, c, h, w) and index.json. The second part
of the name hashes every picture's path, size, time of change and class: a folder that changed has another name, is read
anew, and what was made of it before is removed.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import write_array_header_1_0

from triptych import cache, store
from triptych.check import InputError, choice, whole
from triptych.data import picture
from triptych.data.folder import Folder
from triptych.data.recognise import load, recognise
from triptych.data.source import FITS, Size
from triptych.images import Images

Progress = Callable[[int, int], None]  # pictures decoded, pictures in all
VERSION = 1
PIXELS, INDEX = "pixels.npy", "index.json"
ABANDONED = 86_400  # seconds after which a half-made folder is taken for that of a process that was killed


@dataclass(frozen=True, eq=False, repr=False)
class MappedImages(Images):
    """Images whose pixels lie in a file and are read as they are asked for; the checksum was taken when it was made."""

    known_checksum: str = ""

    def checksum(self) -> str:
        """SHA-256 of the shape, the pixels and the labels, as that of images in memory."""
        return self.known_checksum


@dataclass(frozen=True)
class Wanted:
    """What is read of a folder: its pictures in order, and the side and the way that they are resized."""

    source: Folder
    split: str | None
    limit: int | None
    size: Size | None

    @property
    def place(self) -> Path:
        """The folder of the shard, named by what is read and by the listing."""
        size = None if self.size is None else [self.size.side, self.size.fit]
        what = [VERSION, os.path.realpath(self.source.path), self.split, self.limit, size]
        listing = hashlib.sha256()
        for one in self.source.chosen(self.split, self.limit):
            facts = one.path.stat()
            name = one.path.relative_to(self.source.path).as_posix()
            listing.update(json.dumps([name, facts.st_size, facts.st_mtime_ns, one.label]).encode())
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        return cache.folder() / "shards" / f"{key}-{listing.hexdigest()[:16]}"


def mapped(
    path: str | os.PathLike[str],
    *,
    side: int | None = None,
    fit: str = "crop",
    split: str | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Images:
    """The images at a path as ``load`` gives them, but those of a folder of pictures memory-mapped, and of any number.

    ``progress(done, total)`` is called while pictures are decoded, which happens once. Any number of processes may ask at the
    same time. Raises InputError, OSError where the disk is full.
    """
    choice("fit", fit, FITS)
    size = None if side is None else Size(side, fit)
    source = recognise(path)
    if not isinstance(source, Folder) or source.kind == "picture" or (split is not None and split not in source.splits):
        return load(path, side=side, fit=fit, split=split, limit=limit)
    wanted = Wanted(source, split, None if limit is None else whole("limit", limit), size)
    place = wanted.place
    images = _opened(place, source.classes)
    if images is None:
        _make(wanted, place, progress)
        _sweep(place)
        images = _opened(place, source.classes)
    if images is None:
        raise InputError(f"{place} is damaged; remove it, and it will be made again")
    return images


def _opened(place: Path, classes: tuple[str, ...]) -> Images | None:
    """The images of a shard; None where there is none, or not a whole one."""
    try:
        index, pixels = store.read_json(place / INDEX), _read(place / PIXELS)
        labels, checksum = index["labels"], index["checksum"]
        if list(pixels.shape) != index["shape"] or pixels.dtype != np.uint8 or not isinstance(checksum, str):
            return None
        labels = None if labels is None else torch.tensor(labels)
        return MappedImages(torch.from_numpy(pixels), labels, classes, checksum)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):  # missing, cut short, or something else
        return None


def _read(path: Path) -> np.ndarray:
    """The pixels in a file, copy-on-write, as torch warns of an array that it may not write to. Raises OSError, ValueError."""
    return np.load(path, mmap_mode="c", allow_pickle=False)


def _make(wanted: Wanted, place: Path, progress: Progress | None) -> None:
    """Decode all pictures into a folder that is renamed to its place when it is whole."""
    chosen = wanted.source.chosen(wanted.split, wanted.limit)
    c, h, w = wanted.source.shape(chosen, wanted.size)
    shape = (len(chosen), c, h, w)
    if place.exists():  # damaged, or it would have been opened
        shutil.rmtree(place)
    with _room(place.parent), store.filled(place) as folder:
        # Not through a mapping: where the disk is full, writing to memory ends the process.
        with (folder / PIXELS).open("xb") as file:
            write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for i, one in enumerate(_decoded([one.path for one in chosen], c == 1, wanted.size)):
                file.write(one.tobytes())
                if progress is not None:
                    progress(i + 1, len(chosen))
        labels = wanted.source.labels(chosen)
        images = Images(torch.from_numpy(_read(folder / PIXELS)), labels, wanted.source.classes)
        facts = {"version": VERSION, "shape": list(shape), "checksum": images.checksum()}
        source = {"path": os.path.realpath(wanted.source.path), "labels": None if labels is None else labels.tolist()}
        store.write_json(folder / INDEX, {**facts, **source})


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Where the disk is full, name the folder and say what to do. Raises OSError."""
    try:
        yield
    except OSError as error:
        if error.errno not in store.DISK_FULL:
            raise
        remedy = "make room there, or set TRIPTYCH_CACHE to a folder on another disk"
        raise OSError(error.errno, f"{error.strerror}; {remedy}", str(folder)) from None


def _decoded(paths: Sequence[Path], grey: bool, size: Size | None) -> Iterator[np.ndarray]:
    """The pixels of pictures in order, decoded on all processors: the decoders leave Python's lock."""
    ahead = 256  # so that an endless folder is not queued as a whole
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for start in range(0, len(paths), ahead):
            part = paths[start : start + ahead]
            yield from pool.map(lambda path: picture.read(path, grey=grey, size=size), part)


def _sweep(place: Path) -> None:
    """Remove what the same folder was before it changed, and what killed processes left half-made."""
    key = place.name.partition("-")[0]
    for other in place.parent.iterdir():
        stale = other.name.startswith(f"{key}-") and other.name != place.name
        with suppress(OSError):  # another process may be sweeping
            if stale or (other.name.endswith(".part") and time.time() - other.stat().st_mtime > ABANDONED):
                shutil.rmtree(other)
