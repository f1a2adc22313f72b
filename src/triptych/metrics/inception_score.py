"""The inception score: how sure a classifier is of each image, and how many classes it sees in all."""

from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import InputError, whole
from triptych.metrics.features import rows


@dataclass(frozen=True)
class InceptionScore:
    """The mean over the splits, their standard deviation (None with one), and how many images and splits there were."""

    mean: float
    std: float | None
    n: int
    splits: int


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
