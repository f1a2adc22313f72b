"""ML-ISTA and ML-FISTA: unrolled they are recurrent convolutional networks; solved, near minimisers of multi-layer basis pursuit.

With hat_i = D_{i+1} ... D_L g, steps μ_i and g_0 = y, one iteration is

    g_i <- T(hat_i - μ_i D_i* (D_i hat_i - g_{i-1})),   i = 1 .. L,        T soft thresholding

(Sulam, Aberdam, Beck & Elad, IEEE TPAMI 2020, Algorithms 1 and 2). Differs: the published listing thresholds at μ_i λ_i,
which belongs to the problem with λ_i / (μ_1 ... μ_{i-1}) in place of λ_i. Here the threshold is λ_i μ_1 ... μ_i; the other is
``weighting="published"``. Either way the fixed point is not the minimiser, but goes to it as μ_1 ... μ_{L-1} go to 0.
"""

from collections.abc import Generator

import torch
from torch import Tensor

from triptych.check import choice, real
from triptych.convex import Iterate, Solver, per_problem
from triptych.sparse.deep.coding import MultiLayerCoding

WEIGHTINGS = ("product", "published")


def ml_ista(coding: MultiLayerCoding, shorten: float = 1.0, weighting: str = "product") -> Solver:
    """Iterates of ML-ISTA. ``shorten``: μ_i = shorten / ‖D_i‖² for i < L, above 0 to 1; smaller is nearer to the minimiser, and
    slower. Raises InputError for wrong values.
    """
    return _solver(coding, False, shorten, weighting)


def ml_fista(coding: MultiLayerCoding, shorten: float = 1.0, weighting: str = "product") -> Solver:
    """The same with the momentum of Beck & Teboulle, SIAM J. Imaging Sci. 2009, on the deepest code."""
    return _solver(coding, True, shorten, weighting)


def _solver(coding: MultiLayerCoding, momentum: bool, shorten: float, weighting: str) -> Solver:
    real("shorten", shorten, above=0.0, high=1.0)
    choice("weighting", weighting, WEIGHTINGS)
    steps = step_sizes(coding, shorten)
    return lambda problem, start: _stream(coding, start, steps, momentum, weighting == "product")


def step_sizes(coding: MultiLayerCoding, shorten: float) -> list[float]:
    """μ_1, ..., μ_L: 1 / ‖D_i‖² (0 dictionaries: 1), all but the last ``shorten`` times that."""
    model, shapes = coding.model, (coding.shape, *coding.model.code_shapes(coding.shape))
    steps = [1 / (model.lipschitz(i, shape) or 1.0) for i, shape in enumerate(shapes[:-1], 1)]
    return [shorten * step for step in steps[:-1]] + steps[-1:]


def _stream(
    coding: MultiLayerCoding, g: Tensor, steps: list[float], momentum: bool, product: bool
) -> Generator[Iterate, Tensor | None, None]:
    """Both, from deepest codes g; with each comes the dual point that its thresholds imply."""
    v, t = g, 1.0
    while True:
        new, theta = _step(coding, v, steps, product)
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2 if momentum else 1.0
        v = new + ((t - 1) / following) * (new - g)
        g, t = new, following
        mask = yield Iterate(g, theta=theta)
        if mask is not None:
            coding, g, v = coding.take(mask), g[mask], v[mask]


def _step(coding: MultiLayerCoding, v: Tensor, steps: list[float], product: bool) -> tuple[Tensor, Tensor]:
    """One iteration from deepest codes v, and (D^(L) v - y, q_1, ..., q_{L-1}) with q_i = (u_i - g_i) / (μ_1 ... μ_i)."""
    model, hats, scale = coding.model, coding.model.cascade(v, coding.shape), 1.0
    below = coding.signals
    theta = [(hats[0] - below).flatten(1)]
    for i, (step, lam) in enumerate(zip(steps, coding.lam()), 1):
        scale *= step
        u = hats[i] - step * model.up(i, hats[i - 1] - below)
        level = per_problem(lam * (scale if product else step), u)
        if i == len(model):
            return ((u - level).clamp_min(0) if coding.nonnegative else u - u.clamp(-level, level)), torch.cat(theta, 1)
        cut = u.clamp(-level, level)
        below = u - cut
        bound = lam.to(u)[:, None]
        theta.append((cut.flatten(1) / scale).clamp(-bound, bound))
    raise AssertionError("a model has at least one layer")
