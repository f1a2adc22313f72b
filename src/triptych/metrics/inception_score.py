"""The inception score: how sure a classifier is of each image, and how many classes it sees in all."""

from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import InputError, whole
from triptych.engine import Engine
from triptych.metrics.features import rows, same_width


@dataclass(frozen=True)
class InceptionScore:
    """The mean over the splits, their standard deviation (None with one), and how many images and splits there were."""

    mean: float
    std: float | None
    n: int
    splits: int


@dataclass(frozen=True)
class ClassMoments:
    """The sufficient statistics of the score in one split, in float64: ``count``, the mean of p(y | x) (classes,), and the mean of
    Σ p(y | x) log p(y | x), in nats.
    """

    count: int
    marginal: Tensor
    negentropy: float

    @classmethod
    def of(cls, logits: Tensor) -> "ClassMoments":
        """Those of a classifier's logits (n, classes). Raises InputError."""
        log_p = rows("logits", logits).double().log_softmax(1)
        p = log_p.exp()
        return cls(len(p), p.mean(0), float((p * log_p).sum(1).mean()))

    def __add__(self, other: "ClassMoments") -> "ClassMoments":
        """Those of both sets together. Raises InputError where their classes differ in number."""
        same_width(self.marginal[None], other.marginal[None])
        n = self.count + other.count
        share = other.count / n
        marginal = self.marginal + share * (other.marginal - self.marginal)
        return ClassMoments(n, marginal, self.negentropy + share * (other.negentropy - self.negentropy))

    def summed(self, engine: Engine) -> "ClassMoments":
        """Those of the images of all processes together; every process calls it."""
        mine = torch.cat([torch.tensor([1.0, self.negentropy], dtype=torch.float64), self.marginal.cpu()])
        total = engine.sum(self.count * mine.to(engine.device)).cpu()
        return ClassMoments(round(float(total[0])), total[2:] / total[0], float(total[1] / total[0]))

    @property
    def score(self) -> float:
        """exp(mean Σ p log p - Σ p̄ log p̄): the inception score in one split."""
        return float((self.negentropy - torch.special.xlogy(self.marginal, self.marginal).sum()).exp())


def inception_score(logits: Tensor, splits: int = 10) -> InceptionScore:
    """exp E KL(p(y | x) ‖ p(y)) of a classifier's logits (n, classes), over ``splits`` runs of consecutive images.

    Salimans et al., NeurIPS 2016, section 4: between 1 and the number of classes. The standard deviation is that of the splits,
    without Bessel's correction, as their code has it. Raises InputError.
    """
    logits = rows("logits", logits).double()
    if whole("splits", splits) > len(logits):
        raise InputError(f"splits must be at most the {len(logits)} images, got {splits}")
    scores = torch.stack([_score(part) for part in logits.tensor_split(splits)])
    std = float(scores.std(correction=0)) if splits > 1 else None
    return InceptionScore(float(scores.mean()), std, len(logits), splits)


def _score(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(1)
    log_marginal = log_p.logsumexp(0) - torch.tensor(len(log_p), dtype=log_p.dtype).log()
    return (log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp()
