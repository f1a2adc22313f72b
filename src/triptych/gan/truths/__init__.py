"""Games whose answers are known: what theory says of objectives, penalties and the loop, and what the code gives."""

from collections.abc import Callable, Iterator

from triptych.check import Case
from triptych.gan.truths.dirac import dirac_gans
from triptych.gan.truths.loop import averages, pieces, resumed
from triptych.gan.truths.optima import classes, gaussians, generators, optimal_critics
from triptych.gan.truths.penalties import derivatives, fused, known_penalties
from triptych.gan.truths.wasserstein import clipped_critics, line_critics, linear_critics, ring_critic

SUITE: tuple[Callable[[], Iterator[Case]], ...] = (
    dirac_gans,
    optimal_critics,
    gaussians,
    generators,
    classes,
    linear_critics,
    clipped_critics,
    line_critics,
    ring_critic,
    known_penalties,
    derivatives,
    fused,
    averages,
    pieces,
    resumed,
)
"""Every group of cases; all draw from fixed seeds."""
