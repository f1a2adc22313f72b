"""CIFAR-10 and CIFAR-100 in their binary version.

A record is one label byte (CIFAR-100: coarse, then fine) and 3 x 32 x 32 pixels, channels first (Krizhevsky, Learning
multiple layers of features from tiny images, 2009). The Python version is a pickle and is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from triptych.check import InputError
from triptych.data.files import PICKLE, head, reading
from triptych.data.source import Size
from triptych.images import Images

SHAPE = (3, 32, 32)
VALUES = 3 * 32 * 32
NAMES = {10: "batches.meta.txt", 100: "fine_label_names.txt"}
PICKLED_NAMES = re.compile(r"data_batch_\d|test_batch|batches\.meta|train|test|meta")


@dataclass(frozen=True)
class Cifar:
    """Files of records, a tuple of them a split; ``None`` names the only part."""

    parts: dict[str | None, tuple[Path, ...]]
    n_classes: int
    names: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return f"CIFAR-{self.n_classes} binary"

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(name for name in self.parts if name is not None)

    def read(self, split: str | None, limit: int | None, size: Size | None) -> Images:
        """The first ``limit`` images of a split. Raises InputError."""
        files = self.parts[split]
        record = VALUES + _label_bytes(self.n_classes)
        counts = [_count(path, record) for path in files]
        n = sum(counts) if limit is None else min(limit, sum(counts))
        pixels, labels = torch.empty((n, *SHAPE), dtype=torch.uint8), torch.empty(n, dtype=torch.int64)
        done = 0
        for path, count in zip(files, counts, strict=True):
            take = min(count, n - done)
            if take:
                pixels[done : done + take], labels[done : done + take] = self._records(path, take, record)
            done += take
        return Images(pixels, labels, self.names)

    def _records(self, path: Path, n: int, record: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first n images and labels of one file."""
        with reading(path):
            rows = torch.from_numpy(np.fromfile(path, np.uint8, n * record).reshape(n, record))
        labels = rows[:, record - VALUES - 1].long()
        if int(labels.max()) >= self.n_classes:
            bad = int((labels >= self.n_classes).nonzero()[0])
            raise InputError(
                f"{path} is no CIFAR-{self.n_classes} file: record {bad} has label {int(labels[bad])}, "
                f"expected 0 to {self.n_classes - 1}"
            )
        return rows[:, record - VALUES :].reshape(n, *SHAPE), labels


def refuse_pickled(folder: Path, names: Sequence[str]) -> None:
    """Raise InputError where a folder holds CIFAR's Python version, which is pickled."""
    for name in sorted(filter(PICKLED_NAMES.fullmatch, names)):
        path = folder / name
        if path.is_file() and head(path, 2).startswith(PICKLE):
            refuse_python_version(path)


def refuse_python_version(path: Path) -> None:
    """Raise InputError that names the binary version."""
    raise InputError(
        f"{path} is CIFAR's Python version, a pickle, which can run any code when it is read; "
        "take the binary version (cifar-10-binary.tar.gz, or triptych data fetch cifar-10)"
    )


def from_folder(folder: Path) -> Cifar | None:
    """The CIFAR data set in a folder, or None where there is none. Raises InputError."""
    names = sorted(path.name for path in folder.iterdir())
    refuse_pickled(folder, names)
    batches = sorted(int(found[1]) for name in names if (found := re.fullmatch(r"data_batch_(\d+)\.bin", name)))
    ten: dict[str | None, tuple[Path, ...]] = {}
    if batches:
        if batches != list(range(1, len(batches) + 1)):
            raise InputError(f"{folder} lacks one of data_batch_1.bin to data_batch_{batches[-1]}.bin; fetch it again")
        ten["train"] = tuple(folder / f"data_batch_{number}.bin" for number in batches)
    if "test_batch.bin" in names:
        ten["test"] = (folder / "test_batch.bin",)
    if ten:
        return Cifar(ten, 10, class_names(folder, 10))
    hundred: dict[str | None, tuple[Path, ...]] = {
        split: (folder / f"{split}.bin",) for split in ("train", "test") if f"{split}.bin" in names
    }
    return Cifar(hundred, 100, class_names(folder, 100)) if hundred else None


def from_file(path: Path) -> Cifar:
    """One file of records. Raises InputError."""
    n_classes = 100 if path.name in ("train.bin", "test.bin") else 10
    return Cifar({None: (path,)}, n_classes, class_names(path.parent, n_classes))


def is_cifar(path: Path) -> bool:
    """Whether a file's name is one of CIFAR's."""
    return re.fullmatch(r"(data_batch_\d+|test_batch|train|test)\.bin", path.name) is not None


def class_names(folder: Path, n_classes: int) -> tuple[str, ...]:
    """The names of the classes from the text file beside the data, numbers where it is missing. Raises InputError."""
    path = folder / NAMES[n_classes]
    if not path.is_file():
        return tuple(str(number) for number in range(n_classes))
    with reading(path):
        names = tuple(line.strip() for line in path.read_text("utf-8", errors="replace").splitlines() if line.strip())
    if len(names) != n_classes or len(set(names)) != n_classes:
        raise InputError(f"{path} must hold {n_classes} distinct class names, one a line, and holds {len(names)} lines")
    return names


def _label_bytes(n_classes: int) -> int:
    """How many label bytes a record begins with."""
    return 1 if n_classes == 10 else 2


def _count(path: Path, record: int) -> int:
    """How many records a file holds. Raises InputError where it holds none or a part of one."""
    with reading(path):
        length = path.stat().st_size
    if not length:
        raise InputError(f"{path} is empty; fetch it again")
    if length % record:
        raise InputError(
            f"{path} is truncated: its {length:,} bytes are no whole number of records of {record:,}; fetch it again"
        )
    return length // record
