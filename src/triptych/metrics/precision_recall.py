"""Precision and recall of generated images: how much of each law lies within the other's support, told by k-th neighbours."""

from dataclasses import dataclass

from torch import Tensor

from triptych.check import InputError, whole
from triptych.metrics.features import rows, same_width
from triptych.metrics.neighbours import BLOCK, nearest, squared_distances


@dataclass(frozen=True)
class PrecisionRecall:
    """The share of generated images near real ones, the share of real ones near generated, and of how many of each."""

    precision: float
    recall: float
    real: int
    generated: int


def precision_recall(real: Tensor, generated: Tensor, k: int = 3) -> PrecisionRecall:
    """Shares of features (n, d), (m, d) within the balls of the other set, each as large as its centre's k-th neighbour is far.

    Kynkäänniemi et al., NeurIPS 2019, equations 1 and 2. Both grow with n, so that scores of different n are not comparable.
    Raises InputError.
    """
    real, generated = rows("features", real), rows("features", generated)
    same_width(real, generated)
    most = min(len(real), len(generated)) - 1
    if whole("k", k) > most:
        raise InputError(f"k must be below the number of images of each set, {most + 1}, got {k}")
    precision, recall = covered(real, generated, k), covered(generated, real, k)
    return PrecisionRecall(precision, recall, len(real), len(generated))


def covered(centres: Tensor, points: Tensor, k: int) -> float:
    """The share of points (m, d) within a ball around one of the centres (n, d) that reaches to its k-th neighbour centre."""
    radii = nearest(centres, centres, k, apart=True)[0][:, -1].square()
    step, inside = max(1, BLOCK // len(centres)), 0
    for part in points.split(step):
        inside += int((squared_distances(part, centres) <= radii).any(1).sum())
    return inside / len(points)
