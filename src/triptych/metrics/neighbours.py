"""Nearest neighbours among features, exactly, a block of distances at a time."""

import torch
from torch import Tensor

from triptych.check import InputError, whole
from triptych.metrics.features import rows, same_width

BLOCK = 1 << 24  # distances at a time: 128 MB


MORE = 4  # candidates beyond k, whose squares are equal to rounding
MORE_ROUGHLY = 16


def nearest(
    queries: Tensor, among: Tensor, k: int = 1, *, apart: bool = False, roughly: bool = False
) -> tuple[Tensor, Tensor]:
    """Euclidean distances and indices, both (n, k), of the k rows of ``among`` (m, d) nearest to each query (n, d), nearest first.

    ``apart``: both are the same rows, and none is its own neighbour. The candidates are found with squares in float64 (``roughly``: in
    float32, twice as fast, so that of neighbours that are equally far to seven digits another may be given) and their distances then
    taken from differences, so that equal rows are at distance 0. Of equal distances the lower index comes first.
    Raises InputError.
    """
    queries, among = rows("queries", queries), rows("among", among)
    same_width(queries, among)
    most = len(among) - apart
    if whole("k", k) > most:
        raise InputError(f"k must be at most {most}, the rows that there are to be neighbours, got {k}")
    step = max(1, BLOCK // len(among))
    found = [
        _nearest(queries[first : first + step], among, k, first if apart else None, roughly)
        for first in range(0, len(queries), step)
    ]
    distances, indices = (torch.cat(parts) for parts in zip(*found))
    return distances, indices


def squared_distances(a: Tensor, b: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """‖a_i - b_j‖² (n, m) by the product, around b's mean, at least 0."""
    centre = b.double().mean(0)
    a, b = (a - centre).to(dtype), (b - centre).to(dtype)
    return torch.addmm(b.square().sum(1), a, b.T, alpha=-2).add_(a.square().sum(1, keepdim=True)).clamp_min_(0)


def _nearest(queries: Tensor, among: Tensor, k: int, first: int | None, roughly: bool) -> tuple[Tensor, Tensor]:
    squares = squared_distances(queries, among, torch.float32 if roughly else torch.float64)
    if first is not None:
        squares[torch.arange(len(queries)), first + torch.arange(len(queries))] = torch.inf
    count = min(k + (MORE_ROUGHLY if roughly else MORE), len(among) - (first is not None))
    chosen = squares.topk(count, dim=1, largest=False).indices.sort(1).values
    exact = torch.stack([(x.double() - among[i].double()).square().sum(1).sqrt() for x, i in zip(queries, chosen)])
    place = exact.argsort(dim=1, stable=True)[:, :k]
    return exact.gather(1, place), chosen.gather(1, place)
