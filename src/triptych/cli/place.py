"""Places to write to, checked before anything is computed."""

import os
from collections.abc import Sequence
from pathlib import Path

from triptych.check import InputError


def check_place(name: str, path: Path, *, suffixes: Sequence[str] = ()) -> None:
    """Raise InputError unless a folder can be made at a path or, where there are suffixes, a file with one of them."""
    try:
        if suffixes and path.suffix.lower() not in suffixes:
            raise InputError(f"{name} must be a file named *{' or *'.join(suffixes)}, got {str(path)!r}")
        if suffixes and path.is_dir():
            raise InputError(f"{name} must be a file to write, but {path} is a folder; choose another name")
        there = next(one for one in ((path.parent if suffixes else path), *path.absolute().parents) if one.exists())
        if not there.is_dir():
            raise InputError(f"{name} must be in a folder, but {there} is a file; choose another name")
        if not os.access(there, os.W_OK | os.X_OK):
            raise InputError(f"{name} must be in a folder that can be written, but {there} cannot; choose another")
    except OSError as error:
        raise InputError(f"{name} must be a place to write, but {path}: {error.strerror or error}") from None
