"""The random numbers of a run: each image's own, a function of (seed, step, name, image), whatever process asks."""

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from triptych.check import choice, real, whole

NUMBERS_A_BLOCK = 4  # Philox4x64 makes four numbers of 64 bits from one value of its counter


@dataclass(frozen=True)
class Draw:
    """Random numbers for the images first .. first + count - 1 of a step.

    Image i's numbers are those of counter-based Philox4x64 (Salmon et al., SC 2011) at a counter that i sets, under a key
    that hashes (seed, step, name): any slice of a batch, on any number of processes, has the same numbers.
    """

    seed: int
    step: int = 0
    first: int = 0
    count: int = 1
    path: str = ""

    def __post_init__(self) -> None:
        for name in ("seed", "step", "first"):
            whole(name, getattr(self, name), low=0)
        whole("count", self.count)

    def named(self, name: str) -> "Draw":
        """The same images' other numbers: those under a path of names."""
        return replace(self, path=f"{self.path}{name}/")

    def part(self, first: int, count: int) -> "Draw":
        """The numbers of ``count`` images from the ``first`` of this draw's on."""
        return replace(self, first=self.first + whole("first", first, low=0), count=count)

    def uniform(self, name: str, shape: tuple[int, ...] = (), like: Tensor | None = None) -> Tensor:
        """Uniform multiples of 2^-53 below 1: ``(count, *shape)``, rounded to the type of ``like``, else to float32 (so up to 1)."""
        return _given(torch.from_numpy((self._bits(name, shape) >> np.uint64(11)) * 2.0**-53), like)

    def normal(self, name: str, shape: tuple[int, ...] = (), like: Tensor | None = None) -> Tensor:
        """Standard normal, by the inverse of the distribution function: ``(count, *shape)``, as ``uniform``."""
        middle = ((self._bits(name, shape) >> np.uint64(12)) + 0.5) * 2.0**-52
        return _given(torch.special.ndtri(torch.from_numpy(middle)), like)

    def whole_number(self, name: str, below: int) -> Tensor:
        """Whole numbers in [0, below): int64 (count,)."""
        return (self.uniform(name, like=torch.empty(0, dtype=torch.float64)) * whole("below", below)).long()

    def _bits(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """64 random bits for each entry of (count, *shape)."""
        size = math.prod(shape)
        blocks = -(-size // NUMBERS_A_BLOCK)
        key = hashlib.sha256(f"{self.seed} {self.step} {self.path}{name}".encode()).digest()[:16]
        stream = np.random.Philox(key=int.from_bytes(key, "little"), counter=self.first * blocks)
        raw = stream.random_raw(self.count * blocks * NUMBERS_A_BLOCK)
        return raw.reshape(self.count, -1)[:, :size].reshape(self.count, *shape)


@dataclass(frozen=True)
class Latent:
    """The law of z: 'normal', 'sphere' (normal, scaled to length sqrt(size)), or 'uniform' on [-half_width, half_width]."""

    size: int = 128
    law: str = "normal"
    half_width: float = 1.0

    def __post_init__(self) -> None:
        whole("size", self.size)
        choice("law", self.law, ("normal", "uniform", "sphere"))
        real("half_width", self.half_width, above=0)

    def sample(self, draw: Draw, like: Tensor | None = None) -> Tensor:
        """z (count, size) for the images of a draw."""
        if self.law == "uniform":
            return (2 * draw.uniform("z", (self.size,), like) - 1) * self.half_width
        z = draw.normal("z", (self.size,), like)
        return z if self.law == "normal" else z * (self.size**0.5 / torch.linalg.vector_norm(z, dim=1, keepdim=True))


def _given(numbers: Tensor, like: Tensor | None) -> Tensor:
    return numbers.float() if like is None else numbers.to(like.device, like.dtype)
