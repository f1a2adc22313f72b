"""How many modes of a known law a sample covers, how much of it is on them, and how evenly."""

from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import InputError, real, whole, wrong


@dataclass(frozen=True)
class ModeScores:
    """``modes`` with at least one sample near enough, the share of such samples, and how far from even they are spread.

    ``kl`` is KL(p ‖ uniform) in nats, p the shares of the modes among the samples that count; None where none does.
    """

    modes: int
    high_quality: float
    kl: float | None


def coverage(samples: Tensor, centres: Tensor, std: float, within: float = 3.0) -> ModeScores:
    """Scores of samples (n, d) against Gaussians at centres (k, d): one counts within ``within`` · std of its nearest centre.

    Srivastava et al., NeurIPS 2017, Section 4; Lin et al. (PacGAN), NeurIPS 2018, Section 4.1, whose reverse KL ``kl`` is.
    Raises InputError.
    """
    samples, centres = _points("samples", samples), _points("centres", centres)
    if samples.shape[1] != centres.shape[1]:
        raise InputError(f"samples are of {samples.shape[1]} dimensions, but centres of {centres.shape[1]}")
    distance, nearest = torch.cdist(samples, centres, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    near = distance <= real("within", within, above=0) * real("std", std, above=0)
    counts = torch.bincount(nearest[near], minlength=len(centres))
    return ModeScores(int((counts > 0).sum()), float(near.double().mean()), divergence(counts))


def stacked(classes: Tensor, each: int = 10) -> ModeScores:
    """Scores of images of several channels, of which a classifier read channel c of image i as ``classes[i, c]``: (n, c).

    Every combination is a mode, each^c of them, and every sample counts: Che et al. (Mode regularized GANs), ICLR 2017.
    Raises InputError.
    """
    if classes.ndim != 2 or classes.is_floating_point() or not classes.numel():
        raise wrong("classes", "whole numbers (n, channels)", f"{classes.dtype} {tuple(classes.shape)}")
    if int(classes.min()) < 0 or int(classes.max()) >= whole("each", each):
        raise wrong("classes", f"from 0 to {each - 1}", [int(classes.min()), int(classes.max())])
    channels = classes.shape[1]
    place = torch.tensor([each**c for c in reversed(range(channels))], device=classes.device)
    counts = torch.bincount((classes * place).sum(1), minlength=each**channels)
    return ModeScores(int((counts > 0).sum()), 1.0, divergence(counts))


def divergence(counts: Tensor) -> float | None:
    """KL(p ‖ uniform) = Σ p_j log(k p_j) of counts (k,), in nats; None where all are 0."""
    p = counts.double() / counts.sum()
    return float(torch.special.xlogy(p, p * len(p)).sum()) if int(counts.sum()) else None


def _points(name: str, points: Tensor) -> Tensor:
    if points.ndim != 2 or not points.numel() or not points.is_floating_point():
        raise wrong(name, "floats (n, d)", f"{points.dtype} {tuple(points.shape)}")
    if not bool(points.isfinite().all()):
        raise InputError(f"{name} must be finite numbers, but some are not")
    return points.double()
