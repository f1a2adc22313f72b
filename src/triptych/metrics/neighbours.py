"""Nearest neighbours among features, exactly, a block of distances at a time."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import InputError, whole
from triptych.metrics.features import rows, same_width

BLOCK = 1 << 24  # distances at a time: 128 MB
CHUNK = 4096  # rows that are brought to another type at a time

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
    step, centred = max(1, BLOCK // len(among)), Centred.of(among, torch.float32 if roughly else torch.float64)
    found = [
        _nearest(queries[first : first + step], among, centred, k, first if apart else None, roughly)
        for first in range(0, len(queries), step)
    ]
    distances, indices = (torch.cat(parts) for parts in zip(*found))
    return distances, indices


def nearest_in_parts(queries: Tensor, parts: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """``nearest`` among rows that come in parts, of which no more than two are in memory at a time; indices count through all of them.

    Raises InputError where there are fewer than k rows.
    """
    count = 0
    distances, indices = (queries.new_empty(len(queries), 0, dtype=kind) for kind in (torch.float64, torch.int64))
    for part in parts:
        far, index = nearest(queries, part, min(whole("k", k), len(part)))
        distances, indices = torch.cat([distances, far], 1), torch.cat([indices, index + count], 1)
        place = distances.argsort(dim=1, stable=True)[:, :k]
        distances, indices, count = distances.gather(1, place), indices.gather(1, place), count + len(part)
    if k > count:
        raise InputError(f"k must be at most {count}, the rows that there are to be neighbours, got {k}")
    return distances, indices


@dataclass(frozen=True, eq=False)
class Centred:
    """Rows (m, d) around their mean, in a type to multiply them in, with their squares (m,): what distances to them need, found once."""

    rows: Tensor
    squares: Tensor
    centre: Tensor

    @classmethod
    def of(cls, rows: Tensor, dtype: torch.dtype) -> "Centred":
        """That of rows, whose float64 copies are of ``CHUNK`` of them at a time."""
        parts = rows.split(CHUNK)
        centre = torch.stack([part.double().sum(0) for part in parts]).sum(0) / len(rows)
        centred = torch.cat([(part - centre).to(dtype) for part in parts])
        return cls(centred, torch.cat([part.square().sum(1) for part in centred.split(CHUNK)]), centre)

    def squared_distances(self, a: Tensor) -> Tensor:
        """‖a_i - b_j‖² (n, m) of rows a (n, d) by the product, at least 0."""
        a = (a - self.centre).to(self.rows.dtype)
        return torch.addmm(self.squares, a, self.rows.T, alpha=-2).add_(a.square().sum(1, keepdim=True)).clamp_min_(0)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a_i - b_j‖² (n, m) in float64 by the product, around b's mean, at least 0."""
    return Centred.of(b, torch.float64).squared_distances(a)


def _nearest(
    queries: Tensor, among: Tensor, centred: Centred, k: int, first: int | None, roughly: bool
) -> tuple[Tensor, Tensor]:
    squares = centred.squared_distances(queries)
    if first is not None:
        squares[torch.arange(len(queries)), first + torch.arange(len(queries))] = torch.inf
    count = min(k + (MORE_ROUGHLY if roughly else MORE), len(among) - (first is not None))
    chosen = squares.topk(count, dim=1, largest=False).indices.sort(1).values
    exact = torch.stack([(x.double() - among[i].double()).square().sum(1).sqrt() for x, i in zip(queries, chosen)])
    place = exact.argsort(dim=1, stable=True)[:, :k]
    return exact.gather(1, place), chosen.gather(1, place)
