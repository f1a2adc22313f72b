"""IDX files: MNIST, Fashion-MNIST, KMNIST, EMNIST and their like, plain or gzip.

Format: two zero bytes, a type, the number of axes, the sizes as big-endian 32-bit numbers, the values (LeCun, Cortes &
Burges, The MNIST database, 1998). EMNIST stores its images transposed (Cohen et al., IJCNN 2017); nothing in the bytes
says so, and it is recognised by ``emnist`` in the file's name, Fashion-MNIST's class names by ``fashion`` in the name of
the file or of the folder that it lies in.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triptych.check import InputError
from triptych.data.files import GZIP, head, unpacked, unpacked_head
from triptych.data.source import Size
from triptych.images import MOST_CLASSES, Images

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
NAME = re.compile(r"(images|labels).*(idx\d|ubyte)(\.gz)?$")
BEST_GZIP = 1040  # gzip never packs tighter than 1032 : 1, so that a header that promises more lies


@dataclass(frozen=True)
class Idx:
    """Files of images with the files of their labels, one pair a split; ``None`` names the only part."""

    parts: dict[str | None, tuple[Path, Path | None]]
    kind: str = "IDX"

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(name for name in self.parts if name is not None)

    def read(self, split: str | None, limit: int | None, size: Size | None) -> Images:
        """The first ``limit`` images of a split. Raises InputError."""
        images, labels = self.parts[split]
        n = _header(images)[1][0]
        pixels = read_array(images, limit)
        if pixels.ndim not in (3, 4) or pixels.dtype != np.uint8:
            raise InputError(
                f"{images} holds {pixels.dtype} of {pixels.ndim} axes; images must be unsigned bytes of 3 axes (n, h, w)"
            )
        if "emnist" in images.name.lower():
            pixels = pixels.swapaxes(1, 2)
        every = {path: _labels(path) for _, path in self.parts.values() if path is not None}
        if labels is None:
            return Images.from_arrays(pixels)
        if len(every[labels]) != n:
            raise InputError(
                f"{images} holds {n:,} images but {labels.name} {len(every[labels]):,} labels; they do not belong together"
            )
        highest = max(int(one.max()) for one in every.values())
        return Images.from_arrays(pixels, every[labels][: len(pixels)], _class_names(images, highest))


def is_idx(start: bytes) -> bool:
    """Whether these first bytes are an IDX header's."""
    return len(start) >= 4 and start[:2] == b"\0\0" and start[2] in TYPES and 1 <= start[3] <= 4


def read_array(path: Path, limit: int | None = None) -> np.ndarray:
    """The array in an IDX file, of its first axis the first ``limit``. Raises InputError."""
    dtype, sizes, offset = _header(path)
    rows = sizes[0] if limit is None else min(limit, sizes[0])
    promised = math.prod(sizes) * dtype.itemsize
    wanted = rows * math.prod(sizes[1:]) * dtype.itemsize
    there = path.stat().st_size
    packed = head(path, 2) == GZIP
    shape = " x ".join(f"{size:,}" for size in sizes)
    short = f"{path} is truncated: its header promises {shape} values, and it ends before; fetch it again"
    if (packed and promised > there * BEST_GZIP) or (not packed and there < offset + promised):
        raise InputError(short)
    with unpacked(path) as file:
        file.seek(offset)
        data = file.read(wanted)
        # Reading to the end also checks gzip's own checksum.
        more = file.read(1) if rows == sizes[0] else b""
    if len(data) < wanted:
        raise InputError(short)
    if more:
        raise InputError(f"{path} goes on after the {shape} values that its header promises; fetch it again")
    # A copy: frombuffer's arrays are read-only, and torch wants its own byte order.
    return np.frombuffer(data, dtype).astype(dtype.newbyteorder("=")).reshape(rows, *sizes[1:])


def from_folder(folder: Path) -> Idx | None:
    """The IDX data set in a folder, or None where no file's name looks like one. Raises InputError."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), reverse=True):  # reversed: a plain file wins over its .gz
        if NAME.search(path.name) and path.is_file():
            files[path.name.removesuffix(".gz")] = path
    if not files:
        return None
    parts: dict[str | None, tuple[Path, Path | None]] = {}
    for name, path in sorted(files.items(), key=lambda item: "train" not in item[0]):
        _check_magic(path)
        if "images" not in name:
            continue
        split = _split(name)
        if split in parts:
            first = parts[split][0].name
            raise InputError(f"{folder} holds several data sets, {first} and {path.name}; give one file of images")
        parts[split] = path, _beside(path)
    if not parts:
        raise InputError(f"{folder} holds labels ({next(iter(files))}) but no images; put the images file beside them")
    if None in parts and len(parts) > 1:
        raise InputError(f"{folder} holds several data sets, of which {parts[None][0].name} is no split; give one file")
    return Idx(parts)


def from_file(path: Path) -> Idx:
    """One file of images, with the labels where they lie beside it. Raises InputError."""
    _check_magic(path)
    if "labels" in path.name and len(_header(path)[1]) == 1:
        raise InputError(f"{path} holds labels, not images; give the file of images or the folder of both")
    return Idx({None: (path, _beside(path))})


def _check_magic(path: Path) -> None:
    """Raise InputError where a file does not begin as IDX does."""
    start = unpacked_head(path, 4)
    if not start:
        raise InputError(f"{path} is empty; fetch it again")
    if not is_idx(start):
        raise InputError(f"{path} does not begin with an IDX magic number but with {start.hex()}; fetch it again")


def _header(path: Path) -> tuple[np.dtype, tuple[int, ...], int]:
    """The type of the values, the sizes of the axes and where the values start. Raises InputError."""
    _check_magic(path)
    start = unpacked_head(path, 20)
    axes = start[3]
    if len(start) < 4 + 4 * axes:
        raise InputError(f"{path} is truncated: it ends within its header; fetch it again")
    sizes = tuple(int(size) for size in np.frombuffer(start, ">u4", axes, 4))
    if 0 in sizes:
        raise InputError(f"{path} holds no values: its header says {' x '.join(map(str, sizes))}")
    return np.dtype(TYPES[start[2]]), sizes, 4 + 4 * axes


def _labels(path: Path) -> np.ndarray:
    """The labels (n,) in a file. Raises InputError."""
    labels = read_array(path)
    if labels.ndim != 1 or labels.dtype.kind not in "ui":
        raise InputError(f"{path} holds {labels.dtype} of {labels.ndim} axes; labels must be whole numbers on one axis")
    if labels.min() < 0 or labels.max() >= MOST_CLASSES:
        raise InputError(f"{path} holds labels from {labels.min()} to {labels.max()}, expected 0 to {MOST_CLASSES - 1}")
    return labels


def _split(name: str) -> str | None:
    """The split that a file's name says."""
    if "train" in name:
        return "train"
    return "test" if re.search(r"t10k|test", name) else None


def _beside(images: Path) -> Path | None:
    """The file of labels beside a file of images, plain or gzip."""
    name = images.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
    if "images" not in images.name:
        return None
    return next((path for path in (images.with_name(name), images.with_name(name + ".gz")) if path.is_file()), None)


def _class_names(images: Path, highest: int) -> tuple[str, ...]:
    """The classes' names: Fashion-MNIST's own, else numbers."""
    inner = images.resolve().parent
    outer = inner.parent if inner.name == "raw" else inner  # torchvision's FashionMNIST/raw
    if "fashion" in f"{images.name} {outer.name}".lower() and highest < len(FASHION):
        return FASHION
    return tuple(str(number) for number in range(highest + 1))
