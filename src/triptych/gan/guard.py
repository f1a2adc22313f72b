"""A guard against divergence: it reads every step's losses and their parts, and says when the game is lost."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from triptych.check import NotConverged, real, whole


class Diverged(NotConverged):
    """The run diverged once more than it may be rolled back."""


@dataclass
class Guard:
    """Says whether a step's numbers show divergence.

    A number is lost where it is NaN or infinite, where its size is above ``bound``, and where it is above ``factor`` times
    the median of its last ``window`` sizes, or ``factor`` itself where that median is below 1, once there are ``least`` of
    them. Losses are means over images of logits, potentials or squared norms: 1 to 1,000 in healthy games, whose steps
    differ by factors below 100, whereas an exploding critic multiplies them from step to step until they overflow. The
    median follows a slow drift; the bound stops one that has no end. ``recent`` is saved with the run.
    """

    factor: float = 1e4
    bound: float = 1e9
    window: int = 100
    least: int = 20
    recent: dict[str, list[float]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        real("factor", self.factor, above=1)
        real("bound", self.bound, above=0)
        whole("window", self.window, low=whole("least", self.least))

    def reason(self, numbers: Mapping[str, float]) -> str | None:
        """Why the run is lost, in a few words; None where it is not, and the numbers are then remembered."""
        for name, value in numbers.items():
            if not math.isfinite(value):
                return f"{name} is {value}"
            limit = self.limit(name)
            if abs(value) > limit:
                return f"{name} is {value:.3g}, above {limit:.3g}"
        for name, value in numbers.items():
            sizes = self.recent.setdefault(name, [])
            sizes.append(abs(value))
            del sizes[: -self.window]
        return None

    def limit(self, name: str) -> float:
        """The size above which a number is lost."""
        sizes = self.recent.get(name, [])
        return self.bound if len(sizes) < self.least else min(self.bound, self.factor * max(1.0, median(sizes)))

    def state(self) -> dict[str, list[float]]:
        """What a checkpoint keeps."""
        return {name: list(sizes) for name, sizes in self.recent.items()}

    def restore(self, state: Mapping[str, list[float]]) -> None:
        """Go back to what a checkpoint kept."""
        self.recent = {name: list(sizes) for name, sizes in state.items()}
