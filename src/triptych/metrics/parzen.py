"""How likely test points are under a kernel density of samples: the score of Goodfellow et al.'s Table 1, in nats.

A density estimate in hundreds of dimensions says little about a model: k-means centroids score above the data that they
are the centroids of (Theis et al., ICLR 2016). It is here to compare with the numbers that papers print.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import InputError, real, whole, wrong

SIGMAS = tuple(10 ** (-1 + i / 9) for i in range(10))  # ten widths from 0.1 to 1, evenly spread in the logarithm
CHUNK = 500  # test points at a time: 500 x 10,000 distances are 40 MB


@dataclass(frozen=True)
class ParzenScore:
    """The mean log-likelihood of the test points in nats, its standard error over them, and the width of the kernel."""

    mean: float
    standard_error: float
    sigma: float


def parzen(
    samples: Tensor, test: Tensor, *, validation: Tensor, sigmas: Sequence[float] = SIGMAS, chunk: int = CHUNK
) -> ParzenScore:
    """The score of samples (n, d) on test points (m, d), with the width that does best on other points, ``validation``.

    Breuleux et al., Neural Computation 2011; Goodfellow et al., NeurIPS 2014, section 5. Raises InputError.
    """
    sigma = choose_sigma(samples, validation, sigmas, chunk=chunk)
    found = log_likelihoods(samples, test, sigma, chunk=chunk)
    if len(found) < 2:
        raise wrong("test", "at least two points, so that they have a standard error", len(found))
    return ParzenScore(float(found.mean()), float(found.std() / len(found) ** 0.5), sigma)


def choose_sigma(samples: Tensor, validation: Tensor, sigmas: Sequence[float] = SIGMAS, *, chunk: int = CHUNK) -> float:
    """The width among ``sigmas`` under which validation points (m, d) are likeliest. Raises InputError."""
    if not len(sigmas):
        raise wrong("sigmas", "at least one width", sigmas)
    means = _log_likelihoods(samples, validation, sigmas, chunk).mean(1)
    return float(sigmas[int(means.argmax())])


def log_likelihoods(samples: Tensor, points: Tensor, sigma: float, *, chunk: int = CHUNK) -> Tensor:
    """log (1/n) Σ_i N(x; s_i, sigma² I) of each point x (m, d) under samples s (n, d): float64 (m,), in nats.

    Raises InputError where they are no finite floats of as many dimensions, or sigma is not above 0.
    """
    return _log_likelihoods(samples, points, (sigma,), chunk)[0]


def _log_likelihoods(samples: Tensor, points: Tensor, sigmas: Sequence[float], chunk: int) -> Tensor:
    """A row for each sigma, (len(sigmas), m); the distances, which are the work, are shared by all."""
    samples, points = _checked("samples", samples), _checked("points", points)
    if samples.shape[1] != points.shape[1]:
        raise InputError(f"samples are of {samples.shape[1]} dimensions, but points of {points.shape[1]}")
    widths = [real("sigma", sigma, above=0) for sigma in sigmas]
    n, d = samples.shape
    # Around the samples' mean the squares are small, and x² - 2 x s + s² loses fewer digits.
    centre = samples.mean(0)
    samples, points = samples - centre, points - centre
    squares = samples.square().sum(1)
    rows = []
    for x in points.split(whole("chunk", chunk)):
        distances = torch.addmm(squares, x, samples.T, alpha=-2).add_(x.square().sum(1, keepdim=True)).clamp_min_(0)
        rows.append(torch.stack([(distances / (-2 * s**2)).logsumexp(1) - d * math.log(s) for s in widths]))
    return torch.cat(rows, 1) - math.log(n) - d / 2 * math.log(2 * math.pi)


def _checked(name: str, points: Tensor) -> Tensor:
    if not isinstance(points, Tensor) or points.ndim != 2 or not points.numel() or not points.is_floating_point():
        shape = f"{points.dtype} {tuple(points.shape)}" if isinstance(points, Tensor) else type(points).__name__
        raise wrong(name, "floats (n, d)", shape)
    if not bool(points.isfinite().all()):
        raise InputError(f"{name} must be finite numbers, but some are not")
    return points.double()
