"""A path in, images out: what it is is told by its content."""

import os
from difflib import get_close_matches
from pathlib import Path

from triptych.check import InputError, choice, whole, wrong
from triptych.data import cifar, digits, folder, idx, npz, picture, stacked_digits
from triptych.data.fetch import SETS, fetched
from triptych.data.files import GZIP, PACKED, ZIPS, head, reading, refuse_pickle, unpacked_head
from triptych.data.source import FITS, Size, Source
from triptych.data.split import concatenate
from triptych.images import Images

WORDS = {digits.WORD: digits.Digits, stacked_digits.WORD: stacked_digits.StackedDigits}
KNOWN = "IDX files, CIFAR's binary version, a folder of pictures, a picture or an .npz file"


def load(
    path: str | os.PathLike[str],
    *,
    side: int | None = None,
    fit: str = "crop",
    split: str | None = None,
    limit: int | None = None,
) -> Images:
    """The images (n, c, h, w) at a path, of the word ``digits`` or ``stacked_digits``, or of a fetched set such as ``mnist``.

    ``side``: resize to side x side pixels, by ``fit`` ("crop": the shorter side, then the centre; "squash": both sides).
    ``split``: one of ``splits(path)``, by default all of them one after another. ``limit``: the first images only.
    Raises InputError, one sentence that names the file, where anything is wrong with it.
    """
    choice("fit", fit, FITS)
    size = None if side is None else Size(side, fit)
    left = None if limit is None else whole("limit", limit)
    source = recognise(path)
    if split is not None and not source.splits:
        raise InputError(f"{path} has no splits, so that {split!r} is not to be had; leave the split away")
    if split is not None:
        choice(f"split of {path}", split, source.splits)
    parts: list[Images] = []
    for name in (split,) if split is not None else source.splits or (None,):
        with reading(Path(path)):
            part = source.read(name, left, size)
        parts.append(part if size is None else picture.resized(part, size))
        left = None if left is None else left - len(part)
        if left == 0:
            break
    try:
        return concatenate(parts)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def splits(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of the splits at a path, such as ("train", "test"); none where it is one set. Raises InputError."""
    return recognise(path).splits


def recognise(path: str | os.PathLike[str]) -> Source:
    """What lies at a path. Raises InputError where it is missing or nothing that is known."""
    if isinstance(path, str) and path in WORDS:
        return WORDS[path]()
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise wrong("path", "the path of a data set or one of the words " + ", ".join([*WORDS, *SETS]), path)
    place = Path(path)
    with reading(place):
        if place.is_dir():
            return _folder(place)
        if place.is_file():
            return _file(place)
        if place.exists():
            raise InputError(f"{place} is neither a file nor a folder; expected {KNOWN}")
    if path in SETS:
        there = fetched(str(path))
        if there is None:
            raise InputError(f"{path} has not been fetched yet; run: triptych data fetch {path}")
        return recognise(there)
    raise _missing(place)


def _folder(place: Path) -> Source:
    """What a folder holds. Raises InputError."""
    inner = [path for path in place.iterdir() if not path.name.startswith(".")]
    # Archives unpack to a folder within a folder (MNIST/raw, cifar-10-binary/cifar-10-batches-bin).
    for one in [place, *inner] if len(inner) == 1 and inner[0].is_dir() else [place]:
        if (found := idx.from_folder(one) or cifar.from_folder(one)) is not None:
            return found
    pictures = folder.from_folder(place)
    if pictures is not None:
        return pictures
    if not inner:
        raise InputError(f"{place} is an empty folder; expected {KNOWN}")
    if len(inner) == 1 and inner[0].is_file():
        _file(inner[0])  # a sentence of its own for an archive, a pickle, a broken file
        raise InputError(f"{place} holds no pictures but one data file; give {inner[0]}")
    raise InputError(f"{place} holds {len(inner)} files and folders but no pictures; expected {KNOWN}")


def _file(place: Path) -> Source:
    """What a file holds. Raises InputError."""
    start = head(place)
    if not start:
        raise InputError(f"{place} is empty; expected {KNOWN}")
    inside = unpacked_head(place) if start.startswith(GZIP) else start
    _refuse_archive(place, start, inside)
    if cifar.PICKLED_NAMES.fullmatch(place.name) and start.startswith(tuple(cifar.PICKLE)):
        cifar.refuse_python_version(place)
    if start.startswith(ZIPS):
        if npz.is_npz(place):
            return npz.from_file(place)
        refuse_pickle(place, start)
        raise InputError(f"{place} is an archive; unpack it and give the folder")
    refuse_pickle(place, inside)
    if idx.is_idx(inside) or idx.NAME.search(place.name):
        return idx.from_file(place)
    if cifar.is_cifar(place):
        return cifar.from_file(place)
    if place.suffix.lower() in picture.SUFFIXES:
        picture.header(place)
        return folder.from_picture(place)
    if start.startswith(b"\x93NUMPY"):
        raise InputError(f"{place} is a single array; save it as numpy.savez(x=..., y=...) and give the .npz file")
    if place.suffix == ".npz":
        raise InputError(f"{place} is a broken npz file; save it again")
    try:
        picture.header(place)
    except InputError:
        raise InputError(f"{place} is nothing that is known; expected {KNOWN}") from None
    return folder.from_picture(place)


def _refuse_archive(place: Path, start: bytes, inside: bytes) -> None:
    """Raise InputError where a file is a tar or another archive than a zip."""
    if inside[257:262] == b"ustar" or any(start.startswith(magic) for magic in PACKED):
        raise InputError(f"{place} is an archive; unpack it and give the folder")


def _missing(place: Path) -> InputError:
    """The error for a path that is not there, with the nearest name beside it."""
    if place.is_symlink():
        return InputError(f"{place} is a link that leads nowhere or in a circle; give the data themselves")
    known = [*WORDS, *SETS]
    try:
        beside = {path.name: str(path) for path in place.parent.iterdir()}
    except OSError:
        beside = {}
    close = get_close_matches(place.name, beside, n=1)
    words = get_close_matches(str(place), known, n=1)
    meant = beside[close[0]] if close else words[0] if words else None
    hint = f"did you mean {meant}?" if meant else f"give {KNOWN}, or one of the words {', '.join(known)}"
    return InputError(f"{place} does not exist; {hint}")
