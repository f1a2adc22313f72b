"""Laws of points in the plane that are known exactly: sources of batches, and what generated points are scored against."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from triptych.check import real, whole, wrong
from triptych.engine import Engine
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, BatchSource

BLOCK = 4096  # points that are drawn at a time


class Law(Protocol):
    """A law of points in the plane."""

    def sample(self, draw: Draw, like: Tensor | None = None) -> Tensor:
        """One point (count, 2) for each image of the draw."""
        ...


@dataclass(frozen=True)
class Mixture:
    """Gaussians of equal weight at ``centres`` (k points), each with the covariance std² I. Raises InputError."""

    centres: tuple[tuple[float, float], ...]
    std: float

    def __post_init__(self) -> None:
        if not self.centres or any(len(centre) != 2 for centre in self.centres):
            raise wrong("centres", "at least one pair of coordinates", self.centres)
        real("std", self.std, above=0)

    def sample(self, draw: Draw, like: Tensor | None = None) -> Tensor:
        """x = c_j + std · n, j uniform, n ~ N(0, I): (count, 2)."""
        noise = draw.normal("point", (2,), like)
        centres = torch.tensor(self.centres, dtype=noise.dtype, device=noise.device)
        j = draw.whole_number("mode", len(self.centres)).to(noise.device)
        return centres[j] + self.std * noise


@dataclass(frozen=True)
class SwissRoll:
    """The spiral t (cos t, sin t) for t uniform on [1.5 π, 4.5 π], blurred by N(0, noise²), over ``divisor``.

    It is scikit-learn's ``make_swiss_roll`` seen from the side, in Gulrajani et al.'s size.
    """

    noise: float = 0.25
    divisor: float = 7.5

    def __post_init__(self) -> None:
        real("noise", self.noise, low=0)
        real("divisor", self.divisor, above=0)

    def sample(self, draw: Draw, like: Tensor | None = None) -> Tensor:
        """Points (count, 2)."""
        noise = draw.normal("point", (2,), like)
        t = 1.5 * math.pi * (1 + 2 * draw.uniform("angle", like=noise))
        return (torch.stack([t * t.cos(), t * t.sin()], 1) + self.noise * noise) / self.divisor


def ring(count: int = 8, radius: float = 2.0, std: float = 0.02, divisor: float = 1.414) -> Mixture:
    """``count`` Gaussians on a circle, all over ``divisor``; Gulrajani et al.'s numbers.

    PacGAN's ring (Lin et al., NeurIPS 2018) is ``ring(radius=1, std=0.01, divisor=1)``.
    """
    real("divisor", divisor, above=0)
    angles = [2 * math.pi * j / count for j in range(whole("count", count))]
    r = real("radius", radius, above=0) / divisor
    return Mixture(tuple((r * math.cos(a), r * math.sin(a)) for a in angles), std / divisor)


def grid(side: int = 5, step: float = 2.0, std: float = 0.05, divisor: float = 2.828) -> Mixture:
    """side x side Gaussians on a grid around 0, all over ``divisor``; Gulrajani et al.'s numbers.

    PacGAN's grid (Lin et al., NeurIPS 2018) is ``grid(divisor=1)``.
    """
    unit = real("step", step, above=0) / real("divisor", divisor, above=0)
    places = [unit * (i - (side - 1) / 2) for i in range(whole("side", side))]
    return Mixture(tuple((x, y) for x in places for y in places), std / divisor)


def batches(law: Law, engine: Engine | None = None) -> BatchSource:
    """An endless stream of points of a law: point ``seen + i`` is a function of (seed, seen + i).

    Differs: Gulrajani et al. go round and round over 100,000 points of the grid; here no point comes twice.
    """
    engine = engine or Engine()

    def source(seed: int, seen: int, n: int) -> Batch:
        first, last = seen // BLOCK, (seen + n - 1) // BLOCK
        blocks = [_block(law, engine, seed, number) for number in range(first, last + 1)]
        start = seen - first * BLOCK
        return Batch((blocks[0] if len(blocks) == 1 else torch.cat(blocks))[start : start + n])

    return source


@lru_cache(maxsize=4)
def _block(law: Law, engine: Engine, seed: int, number: int) -> Tensor:
    """A block of the stream: a few points at a time would cost a tenth of a small network's step."""
    like = torch.empty(0, dtype=engine.dtype, device=engine.device)
    return law.sample(Draw(seed, 0, number * BLOCK, BLOCK, "points/"), like)


def blurred(real: Batch, draw: Draw) -> Batch:
    """The fixed generator of Gulrajani et al., NeurIPS 2017, Figure 1: the real points, each plus N(0, I)."""
    x = real.images
    return Batch(x + draw.normal("blur", tuple(x.shape[1:]), like=x), real.labels, draw)
