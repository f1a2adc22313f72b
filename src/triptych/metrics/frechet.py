"""The Fréchet distance of two Gaussians with the moments of features: FID where the features are Inception's."""

from math import isfinite

import torch
from torch import Tensor

from triptych.check import InputError
from triptych.metrics.features import Moments, same_width


def frechet_distance(a: Moments, b: Moments) -> float:
    """‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2 (Σ_a^½ Σ_b Σ_a^½)^½), the squared Wasserstein-2 distance of N(μ_a, Σ_a), N(μ_b, Σ_b).

    Dowson & Landau, J. Multivariate Analysis 1982; Heusel et al., NeurIPS 2017. The trace of the root is that of eigenvalues of a
    symmetric matrix, so that no root of a matrix without one is taken and nothing is added to singular covariances. Biased: of
    n samples it is above that of the laws, by about 1/n, so that scores of different n are not comparable. Raises InputError.
    """
    same_width(a.mean[None], b.mean[None])
    A, B = a.covariance, b.covariance
    root = _root(A)
    inner = root @ B @ root
    cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
    distance = float((a.mean - b.mean).square().sum() + A.trace() + B.trace() - 2 * cross)
    if not isfinite(distance):
        raise InputError("the moments must be finite, but their distance is not")
    return max(0.0, distance)


def _root(A: Tensor) -> Tensor:
    """The symmetric root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(A)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T
