"""The kernel distance: an unbiased estimate of the squared maximum mean discrepancy of features."""

from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import InputError, whole
from triptych.metrics.features import rows, same_width

SUBSETS, SIZE = 100, 1000
CHUNK = 2048  # rows of a kernel matrix at a time


@dataclass(frozen=True)
class KernelDistance:
    """The mean over the subsets, their standard deviation (None with one), and how many there were, of how many rows each."""

    mean: float
    std: float | None
    subsets: int
    size: int


def kernel_distance(a: Tensor, b: Tensor, *, subsets: int = SUBSETS, size: int = SIZE, seed: int = 0) -> KernelDistance:
    """KID of features (n, d), (m, d): ``squared_mmd`` of ``subsets`` random subsets of ``size`` rows of each.

    Bińkowski et al., ICLR 2018, section 4: kernel (x · y / d + 1)³. ``size`` is cut to the rows that there are; where that is all of both
    there is one subset, and no spread. Subsets overlap, so that of few rows the spread is too small. Raises InputError.
    """
    a, b = _pair(a, b)
    size = min(whole("size", size, low=2), len(a), len(b))
    if size == len(a) == len(b):  # every subset would be all there is
        return KernelDistance(_squared_mmd(a, b), None, 1, size)
    rng, found = torch.Generator().manual_seed(whole("seed", seed, low=0)), []
    for _ in range(whole("subsets", subsets)):
        i, j = (torch.randperm(len(x), generator=rng)[:size] for x in (a, b))
        found.append(_squared_mmd(a[i], b[j]))
    values = torch.tensor(found, dtype=torch.float64)
    return KernelDistance(float(values.mean()), float(values.std()) if subsets > 1 else None, subsets, size)


def squared_mmd(a: Tensor, b: Tensor) -> float:
    """The U-statistic of MMD² with the kernel (x · y / d + 1)³ from all rows (n, d), (m, d): of equal laws its mean is 0.

    Gretton et al., JMLR 2012, equation 3. It may be below 0. Raises InputError.
    """
    return _squared_mmd(*_pair(a, b))


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    a, b = rows("features", a).double(), rows("features", b).double()
    same_width(a, b)
    if min(len(a), len(b)) < 2:
        raise InputError(f"a kernel distance needs at least 2 rows of features of each, got {len(a)} and {len(b)}")
    return a, b


def _squared_mmd(a: Tensor, b: Tensor) -> float:
    n, m = len(a), len(b)
    within = (_sum(a, a) - _diagonal(a)) / (n * (n - 1)) + (_sum(b, b) - _diagonal(b)) / (m * (m - 1))
    return within - 2 * _sum(a, b) / (n * m)


def _sum(a: Tensor, b: Tensor) -> float:
    return float(sum((part @ b.T / a.shape[1] + 1).pow(3).sum() for part in a.split(CHUNK)))


def _diagonal(a: Tensor) -> float:
    return float((a.square().sum(1) / a.shape[1] + 1).pow(3).sum())
