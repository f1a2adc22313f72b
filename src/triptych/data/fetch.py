"""The data sets that ``triptych data fetch`` knows."""

from pathlib import Path

from triptych import cache
from triptych.check import choice
from triptych.data.cifar10 import CIFAR10
from triptych.data.download import DownloadSet, Progress
from triptych.data.fashion_mnist import FASHION_MNIST
from triptych.data.mnist import MNIST

SETS: dict[str, DownloadSet] = {one.name: one for one in (MNIST, FASHION_MNIST, CIFAR10)}


def fetch(name: str, to: Path | None = None, progress: Progress | None = None) -> Path:
    """Download a data set by name into ``to`` or the cache and return its folder. Raises InputError, cache.DownloadError."""
    return SETS[choice("data set", name, SETS)].fetch(to, progress)


def fetched(name: str) -> Path | None:
    """Where a data set lies in the cache, None where it has not been fetched."""
    one = SETS[name]
    folder = cache.folder() / name
    there = folder / one.unpacks_to if one.unpacks_to else folder
    whole = there.is_dir() and (one.unpacks_to is not None or all((there / file.name).is_file() for file in one.files))
    return there if whole else None
