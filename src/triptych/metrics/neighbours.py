"""Nearest neighbours among features, exactly, a block of distances at a time."""

import torch
from torch import Tensor

from triptych.check import InputError, whole
from triptych.metrics.features import rows, same_width

BLOCK = 1 << 24  # distances at a time: 128 MB


def nearest(queries: Tensor, among: Tensor, k: int = 1, *, apart: bool = False) -> tuple[Tensor, Tensor]:
    """Euclidean distances and indices, both (n, k), of the k rows of ``among`` (m, d) nearest to each query (n, d), nearest first.

    ``apart``: both are the same rows, and none is its own neighbour. The candidates are found with squares in float64 and their
    distances then taken from differences, so that equal rows are at distance 0. Of equal distances the lower index comes first.
    Raises InputError.
    """
    queries, among = rows("queries", queries), rows("among", among)
    same_width(queries, among)
    most = len(among) - apart
    if whole("k", k) > most:
        raise InputError(f"k must be at most {most}, the rows that there are to be neighbours, got {k}")
    step = max(1, BLOCK // len(among))
    found = [
        _nearest(queries[first : first + step], among, k, first if apart else None)
        for first in range(0, len(queries), step)
    ]
    distances, indices = (torch.cat(parts) for parts in zip(*found))
    return distances, indices


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a_i - b_j‖² (n, m) in float64 by the product, around b's mean, at least 0."""
    centre = b.double().mean(0)
    a, b = a.double() - centre, b.double() - centre
    return torch.addmm(b.square().sum(1), a, b.T, alpha=-2).add_(a.square().sum(1, keepdim=True)).clamp_min_(0)


def _nearest(queries: Tensor, among: Tensor, k: int, first: int | None) -> tuple[Tensor, Tensor]:
    squares = squared_distances(queries, among)
    if first is not None:
        squares[torch.arange(len(queries)), first + torch.arange(len(queries))] = torch.inf
    # A few more than k: those whose squares are equal to rounding are put in order by their differences.
    chosen = squares.topk(min(k + 4, len(among) - (first is not None)), dim=1, largest=False).indices.sort(1).values
    exact = (queries.double()[:, None] - among.double()[chosen]).square().sum(2).sqrt()
    place = exact.argsort(dim=1, stable=True)[:, :k]
    return exact.gather(1, place), chosen.gather(1, place)
