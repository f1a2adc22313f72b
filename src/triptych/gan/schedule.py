"""What is trained on after so many images: the side, the batch, the fade. Constant here; growing networks have another."""

from dataclasses import dataclass
from typing import Protocol

from triptych.check import whole


@dataclass(frozen=True)
class Stage:
    """The batch (images a critic step, all processes together) and how far the newest layers have faded in."""

    batch: int
    fade: float = 1.0


class Schedule(Protocol):
    """The stage after ``seen`` images."""

    def at(self, seen: int) -> Stage:
        """The stage that the next step is in."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same batch throughout."""

    batch: int = 64

    def __post_init__(self) -> None:
        whole("batch", self.batch)

    def at(self, seen: int) -> Stage:
        """The one stage there is."""
        del seen
        return Stage(self.batch)
