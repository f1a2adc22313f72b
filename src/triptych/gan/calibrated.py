"""How far generated images are from real ones, read from a critic: its gap over its own slope.

A critic under a gradient penalty is steeper than 1, and its gap is too large by as much: with a linear critic and weight λ both are
1 + W1/2λ times what they should be (`triptych gan selftest`), and their ratio is W1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import InputError
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, Critic
from triptych.gan.penalty import gradient_norms


@dataclass(frozen=True)
class Estimate:
    """``distance`` = ``gap`` / ``slope``, with its standard error from the spread of the critic's values; of ``n`` pairs.

    ``gap`` E D(x) - E D(x̃); ``slope`` E ‖∇D(x̂)‖ between pairs, where the penalty is taken. It is no bound: W1 is at least the gap over
    the *largest* slope, of which no sample tells.
    """

    distance: float
    standard_error: float
    gap: float
    slope: float
    n: int


def slopes_between(critic: Critic, real: Batch, fake: Batch, draw: Draw) -> Tensor:
    """‖∇D(x̂)‖ of each pair at a random point between its images, float64 (n,)."""
    alpha = draw.uniform("alpha", (1,) * (real.images.dim() - 1), like=real.images)
    between = real.images + alpha * (fake.images - real.images)
    return gradient_norms(critic, Batch(between, real.labels, draw.named("between"))).detach().double()


def wasserstein_estimate(critic: Critic, real: Batch, fake: Batch, draw: Draw) -> Estimate:
    """The estimate on as many real as generated images, real ones best held out: on those it was trained on a critic is too sure.

    Differs from the critic's gap, which Arjovsky et al., ICML 2017, section 4, and Gulrajani et al., NeurIPS 2017, section 5.3, plot.
    Raises InputError for fewer than two pairs, batches of unequal size, or a critic that is flat.
    """
    n = len(real.images)
    if n < 2 or len(fake.images) != n:
        raise InputError(
            f"there must be as many generated images as real ones, at least 2, got {len(fake.images)}, {n}"
        )
    with torch.no_grad():
        d_real, d_fake = critic(real).value.double(), critic(fake).value.double()
    gap, spread = float(d_real.mean() - d_fake.mean()), float(((d_real.var() + d_fake.var()) / n).sqrt())
    slope = float(slopes_between(critic, real, fake, draw).mean())
    if not slope > 0:
        raise InputError(
            "the critic is flat between real and generated images, so that its gap has no unit; train it first"
        )
    return Estimate(gap / slope, spread / slope, gap, slope, n)
