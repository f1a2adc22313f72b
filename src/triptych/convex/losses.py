"""Smooth convex losses of predictions z (b, n, ...): value, gradient, conjugate; one value a problem.

LeastSquares is half a sum; the losses of classifiers are means over the n images (axis 1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import real, whole, wrong
from triptych.convex.problem import inner, take


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """weight / 2 · ‖z - y‖₂² for targets y (b or 1, n, ...). Raises InputError unless weight > 0."""

    y: Tensor
    weight: float = 1.0

    def __post_init__(self) -> None:
        real("weight", self.weight, above=0.0)

    @property
    def smoothness(self) -> float:
        """weight."""
        return self.weight

    def value(self, z: Tensor) -> Tensor:
        """weight / 2 · ‖z - y‖₂², (b,)."""
        return self.weight / 2 * inner(z - self.y, z - self.y)

    def grad(self, z: Tensor) -> Tensor:
        """weight · (z - y)."""
        return self.weight * (z - self.y)

    def conjugate(self, theta: Tensor) -> Tensor:
        """‖theta‖₂² / (2 weight) + <theta, y>, (b,)."""
        return inner(theta, theta) / (2 * self.weight) + inner(theta, self.y.to(theta).expand_as(theta))

    def rows(self, index: Tensor) -> "LeastSquares":
        """The loss of some rows, times n / their number."""
        return LeastSquares(self.y[:, index], self.weight * self.y.shape[1] / len(index))

    def take(self, mask: Tensor) -> "LeastSquares":
        """Some of the problems."""
        return LeastSquares(take(self.y, mask), self.weight)


@dataclass(frozen=True, eq=False)
class Logistic:
    """Multinomial logistic loss, mean_i log Σ_k exp(z_ik) - z_{i, label_i}, z (b, n, K), in nats.

    Labels (n,) are int64 from 0 to classes - 1, the same for all problems. Raises InputError otherwise.
    """

    labels: Tensor
    classes: int

    def __post_init__(self) -> None:
        labels = self.labels
        whole("classes", self.classes, low=2)
        if labels.ndim != 1 or labels.dtype != torch.int64 or not len(labels):
            raise wrong("labels", "an int64 tensor (n,)", f"{labels.dtype} {tuple(labels.shape)}")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.classes:
            raise wrong("labels", f"from 0 to {self.classes - 1}", (low, high), "number the classes from 0")

    @property
    def smoothness(self) -> float:
        """1 / (2 n): the Hessian of log Σ exp is at most 1/2 (Böhning, Ann. Inst. Stat. Math. 1992)."""
        return 0.5 / len(self.labels)

    def value(self, z: Tensor) -> Tensor:
        """mean_i log(1 + Σ_{k != label} exp(z_ik - z_{i, label})), (b,): small losses keep their digits."""
        index = self._index(z)
        rest = z.scatter(2, index, -torch.inf).logsumexp(2) - z.gather(2, index).squeeze(2)
        return torch.logaddexp(rest, torch.zeros_like(rest)).mean(1)

    def grad(self, z: Tensor) -> Tensor:
        """(softmax(z) - one hot of the label) / n; the label's entry is minus the sum of the others, for its digits."""
        index = self._index(z)
        theta = torch.softmax(z, 2).scatter_(2, index, 0.0).div_(len(self.labels))
        return theta.scatter_(2, index, -theta.sum(2, keepdim=True))

    def conjugate(self, theta: Tensor) -> Tensor:
        """mean_i Σ_k s log s with s = n theta + one hot in the simplex (to rounding), else +inf, (b,)."""
        s = len(self.labels) * theta
        s = s.scatter_add(2, self._index(theta), torch.ones_like(s[:, :, :1]))
        tol = _tolerance(s)
        outside = ((s < -tol).any(2) | ((s.sum(2) - 1).abs() > tol)).any(1)
        s = s.clamp_min(0)
        return torch.special.xlogy(s, s).sum(2).mean(1).masked_fill(outside, torch.inf)

    def rows(self, index: Tensor) -> "Logistic":
        """The loss of some images."""
        return Logistic(self.labels[index], self.classes)

    def _index(self, z: Tensor) -> Tensor:
        """The labels as an index (b, n, 1) into z."""
        return self.labels.reshape(1, -1, 1).expand(len(z), -1, -1)


@dataclass(frozen=True, eq=False)
class BinaryLogistic:
    """mean_i log(1 + exp(-y_i z_i)) for signs y (b or 1, n, ...) of +1 and -1, summed over later axes, in nats."""

    y: Tensor

    def __post_init__(self) -> None:
        _signs(self.y)

    @property
    def smoothness(self) -> float:
        """1 / (4 n)."""
        return 0.25 / self.y.shape[1]

    def value(self, z: Tensor) -> Tensor:
        """mean_i log(1 + exp(-y_i z_i)), (b,)."""
        margin = -self.y * z
        return torch.logaddexp(margin, torch.zeros_like(margin)).flatten(1).sum(1) / self.y.shape[1]

    def grad(self, z: Tensor) -> Tensor:
        """-y · sigmoid(-y z) / n."""
        return -self.y * torch.sigmoid(-self.y * z) / self.y.shape[1]

    def conjugate(self, theta: Tensor) -> Tensor:
        """mean_i s log s + (1 - s) log(1 - s) with s = -n y theta in [0, 1] (to rounding), else +inf, (b,)."""
        s = (-self.y.shape[1] * self.y * theta).flatten(1)
        tol = _tolerance(s)
        outside = ((s < -tol) | (s > 1 + tol)).any(1)
        s = s.clamp(0, 1)
        entropy = torch.special.xlogy(s, s) + torch.special.xlogy(1 - s, 1 - s)
        return (entropy.sum(1) / self.y.shape[1]).masked_fill(outside, torch.inf)

    def rows(self, index: Tensor) -> "BinaryLogistic":
        """The loss of some images."""
        return BinaryLogistic(self.y[:, index])

    def take(self, mask: Tensor) -> "BinaryLogistic":
        """Some of the problems."""
        return BinaryLogistic(take(self.y, mask))


@dataclass(frozen=True, eq=False)
class SquaredHinge:
    """mean_i max(0, 1 - y_i z_i)² / 2 for signs y (b or 1, n, ...) of +1 and -1, summed over later axes."""

    y: Tensor

    def __post_init__(self) -> None:
        _signs(self.y)

    @property
    def smoothness(self) -> float:
        """1 / n."""
        return 1.0 / self.y.shape[1]

    def value(self, z: Tensor) -> Tensor:
        """mean_i max(0, 1 - y_i z_i)² / 2, (b,)."""
        return (1 - self.y * z).clamp_min(0).square().flatten(1).sum(1) / (2 * self.y.shape[1])

    def grad(self, z: Tensor) -> Tensor:
        """-y · max(0, 1 - y z) / n."""
        return -self.y * (1 - self.y * z).clamp_min(0) / self.y.shape[1]

    def conjugate(self, theta: Tensor) -> Tensor:
        """mean_i s² / 2 - s with s = -n y theta >= 0 (to rounding), else +inf, (b,)."""
        s = (-self.y.shape[1] * self.y * theta).flatten(1)
        outside = (s < -_tolerance(s)).any(1)
        s = s.clamp_min(0)
        return ((s.square() / 2 - s).sum(1) / self.y.shape[1]).masked_fill(outside, torch.inf)

    def rows(self, index: Tensor) -> "SquaredHinge":
        """The loss of some images."""
        return SquaredHinge(self.y[:, index])

    def take(self, mask: Tensor) -> "SquaredHinge":
        """Some of the problems."""
        return SquaredHinge(take(self.y, mask))


def _signs(y: Tensor) -> None:
    """Refuse labels that are not signs (b or 1, n, ...)."""
    if y.ndim < 2 or not bool((y.abs() == 1).all()):
        raise wrong("y", "a tensor (b, n) or (1, n) of +1 and -1", y, "map the two classes to +1 and -1")


def _tolerance(s: Tensor) -> float:
    """How far rounding may put a dual point outside the domain: 1e-9 in float64."""
    return max(1e-9, 32 * torch.finfo(s.dtype).eps)
