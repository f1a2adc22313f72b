"""Kernels on patches, and finite expansions phi with <phi(z), phi(z')> ~ K(z, z').

A kernel is its Gram matrix and a random expansion; `nystrom` makes the other kind of any kernel. An expansion is a
pointwise part (``raw``) and a linear part (``finish``) that commutes with average pooling and may be applied after it.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from triptych.check import real

HIGHEST_DEGREE = 24  # of a random monomial; a higher one has probability 2^-25


class Expansion(Protocol):
    """A finite phi of patches, defined by its ``tensors``; ``dtype`` is the coarsest one that is safe to compute in."""

    dtype: torch.dtype

    @property
    def width(self) -> int:
        """The number of features m."""
        ...

    def raw(self, z: Tensor) -> Tensor:
        """The part that is not linear: (N, m) for patches z (N, d), in the dtype of z."""
        ...

    def finish(self, raw: Tensor) -> Tensor:
        """The linear rest: phi = finish(raw), (..., m)."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What is saved of it."""
        ...


class Kernel(Protocol):
    """A positive definite kernel of patches; ``ball`` says that it is defined for ‖z‖₂ <= 1 alone."""

    name: str
    ball: bool

    def gram(self, z: Tensor, other: Tensor) -> Tensor:
        """K(z_i, other_j): (N, M) for z (N, d) and other (M, d)."""
        ...

    def random(self, dim: int, width: int, rng: torch.Generator) -> Expansion:
        """A random expansion of ``width`` features for patches of ``dim`` entries."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """K(z, z') = exp(-gamma ‖z - z'‖₂²). Raises InputError unless gamma > 0."""

    gamma: float = 0.2
    name = "gaussian"
    ball = False

    def __post_init__(self) -> None:
        real("gamma", self.gamma, above=0.0)

    def gram(self, z: Tensor, other: Tensor) -> Tensor:
        """exp(-gamma ‖z_i - other_j‖₂²), (N, M)."""
        norms = z.square().sum(1)[:, None] + other.square().sum(1)
        return norms.addmm_(z, other.mT, alpha=-2).clamp_min_(0).mul_(-self.gamma).exp_()

    def random(self, dim: int, width: int, rng: torch.Generator) -> "Cosine":
        """Random Fourier features (Rahimi & Recht, NeurIPS 2007): w ~ N(0, 2 gamma I), b ~ U[0, 2 pi)."""
        weight = torch.randn(dim, width, generator=rng, dtype=torch.float64) * math.sqrt(2 * self.gamma)
        bias = torch.rand(width, generator=rng, dtype=torch.float64) * (2 * math.pi)
        return Cosine(weight.float(), bias.float())


@dataclass(frozen=True)
class InversePolynomial:
    """K(z, z') = 1 / (2 - <z, z'>) for ‖z‖₂ <= 1. Zhang, Lee & Jordan, ICML 2016; Zhang et al., ICML 2017, eq. (12)."""

    name = "inverse-polynomial"
    ball = True

    def gram(self, z: Tensor, other: Tensor) -> Tensor:
        """1 / (2 - <z_i, other_j>), (N, M)."""
        return torch.mm(z, other.mT).neg_().add_(2).reciprocal_()

    def random(self, dim: int, width: int, rng: torch.Generator) -> "Monomials":
        """Random Maclaurin features (Kar & Karnick, AISTATS 2012): degree J with probability 2^-(J+1), J random signs.

        1 / (2 - t) = Σ_j 2^-(j+1) t^j, so that the product of J random projections has the kernel as its mean.
        """
        uniform = torch.rand(width, generator=rng, dtype=torch.float64).clamp_min(1e-300)
        degrees = (-uniform.log2()).floor().clamp_max(HIGHEST_DEGREE).long().sort(descending=True).values
        signs = torch.randint(0, 2, (int(degrees.sum()), dim), generator=rng, dtype=torch.int8)
        return Monomials((signs * 2 - 1).float(), degrees)


@dataclass(frozen=True)
class Linear:
    """K(z, z') = <z, z'>: linear activations; its expansion is the patch itself, exactly."""

    name = "linear"
    ball = False

    def gram(self, z: Tensor, other: Tensor) -> Tensor:
        """<z_i, other_j>, (N, M)."""
        return z @ other.mT

    def random(self, dim: int, width: int, rng: torch.Generator) -> "Identity":
        """The identity, whatever the width: nothing is random about it."""
        return Identity(dim)


@dataclass(frozen=True, eq=False)
class Cosine:
    """phi(z) = sqrt(2 / m) cos(z W + b), W (d, m), b (m,)."""

    weight: Tensor
    bias: Tensor
    dtype = torch.bfloat16

    @property
    def width(self) -> int:
        """m."""
        return len(self.bias)

    def raw(self, z: Tensor) -> Tensor:
        """cos(z W + b)."""
        return torch.addmm(self.bias.to(z), z, self.weight.to(z)).cos_()

    def finish(self, raw: Tensor) -> Tensor:
        """sqrt(2 / m) · raw."""
        return raw * math.sqrt(2 / self.width)

    def tensors(self) -> dict[str, Tensor]:
        """weight (d, m), bias (m,)."""
        return {"weight": self.weight, "bias": self.bias}


@dataclass(frozen=True, eq=False)
class Monomials:
    """phi_i(z) = m^(-1/2) Π_{j <= degree_i} <s_ij, z> with signs s_ij (d,); degrees (m,) descend, signs go by factor."""

    signs: Tensor
    degrees: Tensor
    dtype = torch.float32

    @property
    def width(self) -> int:
        """m."""
        return len(self.degrees)

    def raw(self, z: Tensor) -> Tensor:
        """The products, (N, m)."""
        products, signs = z.new_ones(len(z), self.width), self.signs.to(z)
        first = 0
        for level in range(int(self.degrees.max())):
            count = int((self.degrees > level).sum())
            products[:, :count] *= z @ signs[first : first + count].mT
            first += count
        return products

    def finish(self, raw: Tensor) -> Tensor:
        """raw / sqrt(m)."""
        return raw / math.sqrt(self.width)

    def tensors(self) -> dict[str, Tensor]:
        """signs (sum of degrees, d), degrees (m,)."""
        return {"signs": self.signs, "degrees": self.degrees}


@dataclass(frozen=True, eq=False)
class Nystrom:
    """phi(z) = K(z, landmarks) root, root = K(landmarks, landmarks)^(-1/2): (Williams & Seeger, NeurIPS 2000).

    On the landmarks themselves <phi, phi> equals the kernel. Rounding to bf16 does not survive the root: float32.
    """

    kernel: Kernel
    landmarks: Tensor
    root: Tensor
    dtype = torch.float32

    @property
    def width(self) -> int:
        """m."""
        return len(self.landmarks)

    def raw(self, z: Tensor) -> Tensor:
        """K(z, landmarks)."""
        return self.kernel.gram(z, self.landmarks.to(z))

    def finish(self, raw: Tensor) -> Tensor:
        """Raw @ root."""
        return raw @ self.root.to(raw)

    def tensors(self) -> dict[str, Tensor]:
        """landmarks (m, d), root (m, m)."""
        return {"landmarks": self.landmarks, "root": self.root}


@dataclass(frozen=True)
class Identity:
    """phi(z) = z."""

    dim: int
    dtype = torch.float64

    @property
    def width(self) -> int:
        """d."""
        return self.dim

    def raw(self, z: Tensor) -> Tensor:
        """z."""
        return z

    def finish(self, raw: Tensor) -> Tensor:
        """Raw."""
        return raw

    def tensors(self) -> dict[str, Tensor]:
        """The dimension, as a tensor."""
        return {"dim": torch.tensor(self.dim)}


def nystrom(kernel: Kernel, sample: Tensor, width: int, rng: torch.Generator, rounds: int = 8) -> Nystrom:
    """A Nystrom expansion on landmarks that k-means (``rounds`` of Lloyd) finds in a sample of patches (N, d).

    Zhang, Tsang & Kwok, ICML 2008. Eigenvalues of the landmarks' Gram matrix below 1e-6 of the largest are left out.
    """
    width = min(width, len(sample))
    centres = sample[torch.randperm(len(sample), generator=rng)[:width].to(sample.device)].clone()
    for _ in range(rounds):
        nearest = (centres.square().sum(1) - 2 * sample @ centres.mT).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, sample)
        counts = torch.bincount(nearest, minlength=width)[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    values, vectors = torch.linalg.eigh(kernel.gram(centres.double(), centres.double()))
    inverse = torch.where(values > 1e-6 * values[-1], values.clamp_min(1e-300).rsqrt(), 0.0)
    return Nystrom(kernel, centres, ((vectors * inverse) @ vectors.mT).float())
