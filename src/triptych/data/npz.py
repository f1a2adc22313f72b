"""NumPy's ``.npz`` with images and labels under the usual names; no pickle is ever loaded.

Known names: ``x`` and ``y`` or ``images`` and ``labels``, alone or with ``train``, ``test`` or ``val`` before or after
them (``x_train``, ``train_images``, ...), and ``classes`` for the names of the classes.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triptych.check import InputError
from triptych.data.source import Size
from triptych.images import MOST_CLASSES, Images

X, Y = ("x", "images", "image", "data"), ("y", "labels", "label", "targets", "target")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Npz:
    """One file; for each split the key of the images and of the labels. ``None`` names the only part."""

    path: Path
    keys: dict[str | None, tuple[str, str | None]]
    names: tuple[str, ...] | None
    kind: str = "NumPy npz"

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(name for name in self.keys if name is not None)

    def read(self, split: str | None, limit: int | None, size: Size | None) -> Images:
        """The first ``limit`` images of a split. Raises InputError."""
        x, y = self.keys[split]
        with _opened(self.path) as file:
            pixels = np.atleast_1d(file[x])
            if y is None:
                return Images.from_arrays(pixels[:limit])
            labels = {key: _row(file[key]) for _, key in self.keys.values() if key is not None}
        if len(pixels) != len(labels[y]):
            raise InputError(f"{self.path}: {x} holds {len(pixels):,} images but {y} {len(labels[y]):,} labels")
        names = self.names
        if names is None and all(one.dtype.kind in "uib" and one.size for one in labels.values()):
            # Named by all splits, so that they agree where one lacks a class.
            highest = max(int(one.max()) for one in labels.values())
            names = tuple(str(number) for number in range(highest + 1)) if 0 <= highest < MOST_CLASSES else None
        elif names is None:
            names = tuple(sorted({str(label) for one in labels.values() for label in one.tolist()}))
        with _named(self.path):
            return Images.from_arrays(pixels[:limit], labels[y][:limit], names)


def from_file(path: Path) -> Npz:
    """Recognise the arrays in a file. Raises InputError."""
    with _opened(path) as file:
        keys = list(file.files)
        classes = next((key for key in keys if key.lower() in ("classes", "class_names")), None)
        names = None if classes is None else tuple(str(name) for name in file[classes].ravel())
    found: dict[str | None, tuple[str, str | None]] = {}
    for split in (*SPLITS, None):
        x = next((key for key in keys if key.lower() in _spellings(X, split)), None)
        if x is not None:
            found[split] = x, next((key for key in keys if key.lower() in _spellings(Y, split)), None)
    if not found:
        have = ", ".join(keys) or "nothing"
        raise InputError(
            f"{path} holds {have}, expected arrays named x and y, images and labels, or x_train, y_train, ..."
        )
    if None in found and len(found) > 1:
        del found[None]
    return Npz(path, found, names)


def is_npz(path: Path) -> bool:
    """Whether a zip file holds nothing but NumPy arrays."""
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (zipfile.BadZipFile, OSError):
        return path.suffix == ".npz"
    return path.suffix == ".npz" or (bool(names) and all(name.endswith(".npy") for name in names))


def _spellings(names: tuple[str, ...], split: str | None) -> set[str]:
    """How a key may be spelt."""
    if split is None:
        return set(names)
    return {f"{name}_{split}" for name in names} | {f"{split}_{name}" for name in names}


def _row(labels: np.ndarray) -> np.ndarray:
    """Labels (n,), also where they are stored as (n, 1)."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else np.atleast_1d(labels)


@contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """The file, every failure to read it worded as one sentence. Raises InputError."""
    try:
        # Opened here: NumPy leaves a file open that turns out to be no zip.
        with _named(path), path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            yield file
    except InputError:
        raise
    except ValueError as error:
        if "pickle" in str(error):
            raise InputError(
                f"{path} holds object arrays, which are pickles and can run any code when they are read; "
                "save arrays of numbers (dtype uint8)"
            ) from None
        raise InputError(f"{path} is a broken npz file ({error}); save it again") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, MemoryError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path} is a broken npz file ({error}); save it again") from None


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in errors about what it holds."""
    try:
        yield
    except InputError as error:
        text = str(error)
        raise (error if str(path) in text else InputError(f"{path}: {text}")) from None
