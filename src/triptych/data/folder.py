"""A folder of pictures, with one sub-folder a class or none, with train/ and test/ above them or not.

Within a class pictures may lie at any depth. Hidden files and files that are no pictures by their suffix are passed over.
Classes are mixed as evenly as their sizes allow (the k-th of n pictures of a class stands at (k + 1/2) / n), so that the
first N images are a fair sample; within a class, and where there are none, the order is that of the paths.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from triptych.check import InputError
from triptych.data import picture
from triptych.data.source import Size
from triptych.images import Images

MOST_BYTES = 16 * 2**30
HELD_OUT = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class Picture:
    """A picture file and the number of its class."""

    path: Path
    label: int | None


@dataclass(frozen=True)
class Folder:
    """Pictures in the order in which they are read, a tuple of them a split; ``None`` names the only part."""

    path: Path
    parts: dict[str | None, tuple[Picture, ...]]
    classes: tuple[str, ...]
    kind: str = "folder of pictures"

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(name for name in self.parts if name is not None)

    def chosen(self, split: str | None, limit: int | None = None) -> tuple[Picture, ...]:
        """The first pictures of a split, or of all splits one after another."""
        if split is None and self.splits:
            return tuple(one for name in self.splits for one in self.parts[name])[:limit]
        return self.parts[split][:limit]

    def shape(self, chosen: Sequence[Picture], size: Size | None) -> tuple[int, int, int]:
        """The shape (c, h, w) that pictures have once they are read; one channel where all are grey. Raises InputError."""
        headers = [picture.header(one.path) for one in chosen]
        first = headers[0]
        if size is None:
            for one, head in zip(chosen, headers, strict=True):
                if (head.height, head.width) != (first.height, first.width):
                    raise InputError(
                        f"{self.path} holds pictures of different sizes, {chosen[0].path.name} {_pixels(first)} and "
                        f"{one.path.name} {_pixels(head)}; give --side N to resize them (in Python side=N)"
                    )
        h, w = (first.height, first.width) if size is None else (size.side, size.side)
        return (1 if all(head.grey for head in headers) else 3), h, w

    def labels(self, chosen: Sequence[Picture]) -> torch.Tensor | None:
        """The labels of pictures, None where they have no classes."""
        labels = [one.label for one in chosen if one.label is not None]
        return torch.tensor(labels) if labels else None

    def read(self, split: str | None, limit: int | None, size: Size | None) -> Images:
        """The first ``limit`` pictures of a split; grey where all of these are. Raises InputError."""
        chosen = self.parts[split][:limit]
        c, h, w = self.shape(chosen, size)
        if (total := len(chosen) * c * h * w) > MOST_BYTES:
            raise InputError(f"{self.path} would take {total / 2**30:.0f} GiB of memory; give --side N or --limit N")
        pixels = torch.empty((len(chosen), c, h, w), dtype=torch.uint8)
        for i, one in enumerate(chosen):
            pixels[i] = torch.from_numpy(picture.read(one.path, grey=c == 1, size=size).copy())
        return Images(pixels, self.labels(chosen), self.classes)


def from_picture(path: Path) -> Folder:
    """One picture, without a label."""
    return Folder(path, {None: (Picture(path, None),)}, (), "picture")


def from_folder(folder: Path) -> Folder | None:
    """The pictures in a folder, or None where there are none. Raises InputError."""
    above = frozenset({os.path.realpath(folder)})
    loose, folders = _listed(folder, above)
    split = _split_folders(folders)
    if split and not loose:
        trees = {name: _classes(path, above | {os.path.realpath(path)}) for name, path in split.items()}
        _check_alike(folder, split, trees)
    else:
        trees = {None: _classes(folder, above)}
    names = tuple(sorted({name for tree in trees.values() for name in tree if name is not None}))
    parts = {split: _mixed(tree, names) for split, tree in trees.items()}
    return Folder(folder, parts, names) if any(parts.values()) else None


def _split_folders(folders: list[Path]) -> dict[str | None, Path] | None:
    """train/ and test/ (or val/) among the sub-folders, named by split; None where they are not both there."""
    names = {path.name.lower(): path for path in folders}
    held_out = [name for name in HELD_OUT if name in names]
    if "train" not in names or not held_out or len(names) != 1 + len(held_out) or len(held_out) > 2:
        return None
    split: dict[str | None, Path] = {"train": names["train"], "test": names[held_out[0]]}
    if len(held_out) == 2:
        split["val"] = names[held_out[1]]
    return split


def _check_alike(
    folder: Path, split: dict[str | None, Path], trees: dict[str | None, dict[str | None, list[Path]]]
) -> None:
    """Raise InputError where one split is empty, or one has classes and another has none."""
    for name, path in split.items():
        if not any(trees[name].values()):
            raise InputError(f"{path} holds no pictures (JPEG, PNG, WebP, BMP or GIF); fill or remove it")
    if len({None in tree for tree in trees.values()}) > 1:
        raise InputError(f"{folder} has a class in some of {', '.join(map(str, split))} and loose pictures in others")


def _classes(folder: Path, above: frozenset[str]) -> dict[str | None, list[Path]]:
    """The pictures of each class, or of None where they lie loose in the folder. Raises InputError."""
    loose, folders = _listed(folder, above)
    found = {path.name: _below(path, above) for path in folders}
    if not loose and not any(found.values()):
        return {}
    if not loose:
        for path in folders:
            if not found[path.name]:
                raise InputError(f"{path} is a class without pictures; fill or remove it")
        return {**found}
    if any(found.values()):
        inner = next(name for name, pictures in found.items() if pictures)
        raise InputError(
            f"{folder} holds pictures both beside its sub-folders ({loose[0].name}) and within them ({inner}); "
            "move all of them into one sub-folder a class, or none"
        )
    return {None: loose}


def _below(folder: Path, above: frozenset[str]) -> list[Path]:
    """All pictures at any depth, in the order of their paths. Raises InputError where a link leads in a circle."""
    real = os.path.realpath(folder)
    if real in above:
        raise InputError(f"{folder} is a link that leads in a circle; remove it")
    loose, folders = _listed(folder, above | {real})
    return sorted(loose + [path for inner in folders for path in _below(inner, above | {real})])


def _listed(folder: Path, above: frozenset[str]) -> tuple[list[Path], list[Path]]:
    """The pictures and the sub-folders directly in a folder, sorted. Raises InputError."""
    pictures, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = folder / entry.name
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if entry.is_symlink() and not os.path.exists(path):
                    raise InputError(f"{path} is a link that leads nowhere or in a circle; remove it")
                if entry.is_dir():
                    folders.append(path)
                elif path.suffix.lower() in picture.SUFFIXES and entry.is_file():
                    pictures.append(path)
    except OSError as error:
        raise InputError(f"{folder} could not be read: {error.strerror or error}") from None
    return pictures, folders


def _mixed(tree: dict[str | None, list[Path]], names: tuple[str, ...]) -> tuple[Picture, ...]:
    """The pictures of all classes, each class spread evenly over the whole."""
    if None in tree:
        return tuple(Picture(path, None) for path in tree[None])
    number = {name: i for i, name in enumerate(names)}
    placed = [
        ((2 * k + 1) / len(pictures), number[name], path)
        for name, pictures in tree.items()
        if name is not None
        for k, path in enumerate(pictures)
    ]
    return tuple(Picture(path, label) for _, label, path in sorted(placed))


def _pixels(head: picture.Header) -> str:
    """A size in words."""
    return f"{head.width} x {head.height}"
