"""What the tests of the convex core share: seeded numbers, a problem of classification, a map that counts its calls."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from triptych.convex import Linear, Logistic, Matrix, NuclearBall, Problem, take


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@dataclass
class Counting:
    """Counts the calls of a map, and the problems they were made for (with those of the maps taken from it)."""

    inner: Linear
    calls: dict[str, int] = field(default_factory=lambda: {"forward": 0, "adjoint": 0, "problems": 0})

    def forward(self, x: Tensor) -> Tensor:
        self.calls["forward"] += 1
        self.calls["problems"] += len(x)
        return self.inner.forward(x)

    def adjoint(self, z: Tensor) -> Tensor:
        self.calls["adjoint"] += 1
        return self.inner.adjoint(z)

    def take(self, mask: Tensor) -> "Counting":
        return Counting(take(self.inner, mask), self.calls)


@pytest.fixture
def counting() -> type[Counting]:
    return Counting


@pytest.fixture
def logistic(rng):
    """Makes a problem with three classes, whose labels come from a noisy linear model; x is (b, d, 3)."""

    def make(term=None, n=60, d=8, noise=1.0, condition=1.0):
        scales = torch.logspace(0, -condition, d, dtype=torch.float64)
        K = torch.randn(1, n, d, generator=rng, dtype=torch.float64) * scales
        scores = K @ torch.randn(1, d, 3, generator=rng, dtype=torch.float64)
        scores += noise * torch.randn(1, n, 3, generator=rng, dtype=torch.float64)
        return Problem(Logistic(scores[0].argmax(1), 3), Matrix(K), term or NuclearBall(3.0))

    return make
