"""What every reader is once it has recognised a path: a source of images with or without splits."""

from dataclasses import dataclass
from typing import Protocol

from triptych.check import choice, whole
from triptych.images import Images

MOST_PIXELS = 8192  # on a side
FITS = ("crop", "squash")


@dataclass(frozen=True)
class Size:
    """The side in pixels that images are resized to, and how others than squares become square.

    ``crop``: the shorter side becomes ``side`` and the centre is kept; ``squash``: both sides become ``side``.
    """

    side: int
    fit: str = "crop"

    def __post_init__(self) -> None:
        """Check both."""
        whole("side", self.side, high=MOST_PIXELS)
        choice("fit", self.fit, FITS)


class Source(Protocol):
    """A recognised path. ``splits`` names its parts, and is empty where there is only one."""

    @property
    def kind(self) -> str:
        """What it is, in words."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of its splits."""
        ...

    def read(self, split: str | None, limit: int | None, size: Size | None) -> Images:
        """The first ``limit`` images of one split; ``size`` may be left to the caller where decoding gains nothing by it."""
        ...
