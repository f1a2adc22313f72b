"""A row: what one cell of an experiment measured, at which scale, from which seed and data, on which machine."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from triptych.check import InputError, wrong
from triptych.store import read_json, read_tensors, sha256, write_json, write_tensors

Number = int | float | None
Metrics = Mapping[str, Number]


class Scale(Enum):
    """How large an experiment is run: SMOKE in seconds, LAPTOP in minutes to hours, PAPER at the paper's own sizes."""

    SMOKE = "smoke"
    LAPTOP = "laptop"
    PAPER = "paper"


@dataclass(frozen=True)
class Source:
    """The data of a run: its name and checksum, which identify it, and its path (None: what the package embeds)."""

    name: str = "digits"
    checksum: str = "embedded"
    path: Path | None = None

    @classmethod
    def of(cls, path: str | Path) -> "Source":
        """Identify a file or folder by its name and the SHA-256 over its files. Raises InputError where there is none."""
        path = Path(path)
        if not path.exists():
            raise InputError(f"data must be a file or folder, but there is no {path}")
        digest = hashlib.sha256()
        for file in _files(path):
            name = file.name if file == path else file.relative_to(path).as_posix()
            digest.update(f"{name}\0{sha256(file)}\n".encode())
        return cls(path.resolve().name, digest.hexdigest()[:16], Path(os.path.abspath(path)))


@dataclass(frozen=True)
class Context:
    """What a cell is measured under: scale, seed, data, device."""

    scale: Scale = Scale.SMOKE
    seed: int = 0
    data: Source = field(default_factory=Source)
    device: str = "cpu"


@dataclass(frozen=True)
class Row:
    """One saved measurement; ``seconds`` are wall time, ``peak_rss_mb`` is in 10^6 bytes, artefacts are files in ``folder``."""

    experiment: str
    scale: Scale
    seed: int
    cell: Mapping[str, Any]
    metrics: Metrics
    published: Metrics | None
    seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    artefacts: Mapping[str, str]
    provenance: Mapping[str, Any]
    folder: Path = field(default=Path(), compare=False)

    def __post_init__(self) -> None:
        checked_metrics(self.metrics)

    @property
    def data(self) -> str:
        """The name of the data that the row was measured on."""
        return str(self.provenance.get("data", {}).get("name", "unknown data"))

    def artefact(self, name: str) -> Any:
        """Read an artefact: the JSON value, or a dict of tensors. Raises InputError where the row has none of that name."""
        if name not in self.artefacts:
            known = ", ".join(self.artefacts) or "none"
            raise InputError(f"artefact must be one that the row of {self.experiment} has ({known}), got {name!r}")
        path = self.folder / self.artefacts[name]
        return read_tensors(path) if path.suffix == ".safetensors" else read_json(path)

    def to_json(self) -> dict[str, Any]:
        """Give the row as a JSON object."""
        values = {name: getattr(self, name) for name in _FIELDS}
        return {**values, "scale": self.scale.value}


_FIELDS = tuple(name for name in Row.__dataclass_fields__ if name != "folder")


def key(experiment: str, version: int, cell: Mapping[str, Any], context: Context) -> str:
    """Hash what a row depends on into 16 hexadecimal digits: experiment and its version, cell, scale, seed, data."""
    data = [context.data.name, context.data.checksum]
    parts = [experiment, version, dict(cell), context.scale.value, context.seed, data]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def read_row(path: Path) -> Row:
    """Read one row file. Raises InputError where it is damaged or no row."""
    value = read_json(path)
    try:
        scale = Scale(value["scale"])
        return Row(**{**{name: value[name] for name in _FIELDS}, "scale": scale}, folder=path.parent)
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path} must be a saved row, but it is something else; remove it, or run with --force"
        ) from None


def read_rows(folder: str | Path) -> list[Row]:
    """Read the rows in a folder and in its sub-folders one deep, sorted by experiment, cell and seed."""
    folder = Path(folder)
    paths = [path for pattern in ("*.json", "*/*.json") for path in sorted(folder.glob(pattern)) if is_row(path)]
    return sorted(
        map(read_row, paths), key=lambda row: (row.experiment, row.scale.value, str(sorted(row.cell.items())), row.seed)
    )


def is_row(path: Path) -> bool:
    """Whether a file is named as rows are: 16 hexadecimal digits and .json."""
    return path.suffix == ".json" and len(path.stem) == 16 and set(path.stem) <= set("0123456789abcdef")


def write_row(path: Path, row: Row) -> None:
    """Write a row as JSON, beside and renamed."""
    write_json(path, row.to_json())


def write_artefact(folder: Path, stem: str, value: Any) -> str:
    """Write an artefact (a dict of tensors or arrays as safetensors, anything else as JSON); return its file's name."""
    import numpy as np
    import torch

    arrays = torch.Tensor | np.ndarray
    if isinstance(value, Mapping) and value and all(isinstance(item, arrays) for item in value.values()):
        write_tensors(folder / f"{stem}.safetensors", {name: torch.as_tensor(item) for name, item in value.items()})
        return f"{stem}.safetensors"
    write_json(folder / f"{stem}.json", value)
    return f"{stem}.json"


def checked_metrics(metrics: Metrics) -> dict[str, Number]:
    """Give metrics as plain numbers. Raises InputError where one is neither a finite number nor None."""
    plain: dict[str, Number] = {}
    for name, value in metrics.items():
        number = getattr(value, "item", lambda value=value: value)()  # a NumPy or torch scalar as a plain number
        if number is not None and (
            not isinstance(number, int | float) or isinstance(number, bool) or not math.isfinite(number)
        ):
            raise wrong(f"metric {name!r}", "a finite number or None", value)
        plain[name] = number
    return plain


def _files(path: Path) -> Sequence[Path]:
    """List the files below a path, hidden ones and links to folders left out, in an order of their names alone."""
    if path.is_file():
        return [path]
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder) / name for name in sorted(names) if not name.startswith(".")]
    return [file for file in found if file.is_file()]
