"""One convexified layer: maps -> features -> convex problem -> certified solution -> filters -> maps."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from triptych.ccnn.features import PatchFeatures, fit_features
from triptych.ccnn.problem import FeatureRows, certify_layer
from triptych.ccnn.settings import Layer
from triptych.convex import Certificate, Check, Logistic, NuclearBall, Problem, Solution, Status, fista, solve

ROUGH_STEPS = 150  # of bf16 products, before float32 takes over
RANK_TOLERANCE = 1e-6  # singular values above this times the largest count


class Effort(NamedTuple):
    """How far a layer is solved: certified gap (relative to log K), solver's steps, bytes for features, precision."""

    tol: float = 1e-3
    max_steps: int = 1000
    memory: int = 4 << 30
    precision: torch.dtype | None = None
    progress: Callable[[int, Certificate], None] | None = None


@dataclass(frozen=True, eq=False)
class ConvexLayer:
    """A solved layer: A (q, P · K) in float64 with its certificate, and the filters (q, r) of its singular vectors."""

    features: PatchFeatures
    A: Tensor
    filters: Tensor
    map_scale: float  # what brings the maps to root mean square 1: the scale of the next layer's features
    solution: Solution

    @property
    def settings(self) -> Layer:
        """The settings, with nothing left open."""
        return self.features.settings

    @property
    def classes(self) -> int:
        """K."""
        return self.A.shape[1] // self.features.positions

    @property
    def maps(self) -> PatchFeatures:
        """The features whose rows, (n, P, r), are the maps that the next layer reads."""
        s = self.settings
        return self.features.filtered(self.filters, s.map_window or 1, s.map_stride or 1)

    def logits(self, maps: Tensor) -> Tensor:
        """Logits (n, K) of maps (n, c, h, w), from features rounded as those that were trained on, in float32 products."""
        f, stored = self.features, stored_dtype(self.features)
        W = FeatureRows(torch.empty(0, f.positions * f.components), components=f.components, classes=self.classes)
        weights = W.weights(self.A[None])
        exact = torch.promote_types(stored, torch.float32)
        weights = weights.to(maps.device, exact)
        logits = torch.empty(len(maps), self.classes, dtype=exact, device=maps.device)
        for first in range(0, len(maps), f.chunk):
            part = slice(first, first + f.chunk)
            logits[part] = f(maps[part]).flatten(1).to(stored).to(exact) @ weights
        return logits

    def transform(self, maps: Tensor) -> Tensor:
        """The layer's maps (n, r, P0, P1) of maps (n, c, h, w), in the dtype of its features."""
        features, dtype = self.maps, stored_dtype(self.features)
        out = torch.empty(len(maps), self.filters.shape[1], *features.grid, dtype=dtype, device=maps.device)
        for first in range(0, len(maps), features.chunk):
            rows = features(maps[first : first + features.chunk])
            out[first : first + len(rows)] = rows.mT.reshape(len(rows), -1, *features.grid)
        return out


def stored_dtype(features: PatchFeatures) -> torch.dtype:
    """The dtype in which a layer's features are held, and by which its problem is defined: that of its products."""
    return features.dtype


def fit_layer(
    maps: Tensor,
    labels: Tensor,
    classes: int,
    settings: Layer,
    rng: torch.Generator,
    effort: Effort,
    scale: float = 1.0,
) -> ConvexLayer:
    """Algorithm 1 on maps (n, c, h, w) times ``scale`` with labels (n,): features, solution to ``effort.tol``, filters.

    Zhang, Liang & Wainwright, ICML 2017. Differs: multinomial logistic loss with K free classes, solved by accelerated
    proximal gradient with a certificate; filters are the leading left singular vectors times sqrt(singular value).
    """
    features = fit_features(maps, settings, rng, scale=scale, precision=effort.precision)
    problem = layer_problem(features, maps, labels, classes, effort.memory)
    solution = solve_layer(problem, effort, effort.tol * math.log(classes))
    return read_filters(features, solution, maps)


def solve_layer(problem: Problem, effort: Effort, tol: float) -> Solution:
    """A layer's problem solved from 0 to a certified gap of ``tol`` nats, by FISTA.

    Products of bf16 features are rounded to bf16, which limits how small the gap can become: what is not solved after
    ``ROUGH_STEPS`` steps goes on with float32 products of the same stored features, three to five times as slow.
    """
    K: FeatureRows = problem.map  # pyright: ignore[reportAssignmentType]
    dtype = K.stored.dtype
    start = torch.zeros(K.shape, dtype=torch.promote_types(dtype, torch.float32), device=K.stored.device)
    rough = min(effort.max_steps, ROUGH_STEPS) if dtype == torch.bfloat16 else effort.max_steps
    first = solve(
        problem, fista, start, certify=certify_layer, tol=tol, max_steps=rough, progress=effort.progress
    )  # fmt: skip
    done = int(first.steps)
    if first.converged or dtype != torch.bfloat16 or done >= effort.max_steps:
        return first

    def progress(step: int, certificate: Certificate) -> None:
        if effort.progress is not None:
            effort.progress(done + step, certificate)

    second = solve(
        replace(problem, map=K.exactly()), fista, first.x.to(start.dtype), certify=certify_layer, tol=tol,
        max_steps=effort.max_steps - done, progress=progress,
    )  # fmt: skip
    return _joined(first, second, tol)


def _joined(first: Solution, second: Solution, tol: float) -> Solution:
    """One solution of two runs, the second of which began where the first ended: the best point, the best bound."""
    done, seconds, bound = int(first.steps), first.history[-1].seconds, first.lower_bound
    history = first.history + tuple(
        Check(
            done + check.step,
            torch.minimum(check.objective, first.objective),
            torch.maximum(check.lower_bound, bound),
            seconds + check.seconds,
        )
        for check in second.history
    )
    last, better = history[-1], first if bool(first.objective < second.objective) else second
    solved = bool(last.objective - last.lower_bound <= tol)
    status = (Status.CONVERGED,) if solved else second.status
    return Solution(better.x, status, first.steps + second.steps, last.objective, last.lower_bound, history)


def layer_problem(features: PatchFeatures, maps: Tensor, labels: Tensor, classes: int, memory: int) -> Problem:
    """The convex problem of fitted features on maps (n, c, h, w); features beyond ``memory`` bytes are made every pass."""
    dtype, chunk = stored_dtype(features), features.chunk
    width = features.positions * features.components

    def make(first: int, last: int) -> Tensor:
        return features(maps[first:last]).flatten(1).to(dtype)

    held = min(len(maps), memory // (width * dtype.itemsize))
    stored = torch.empty(held, width, dtype=dtype, device=maps.device)
    for first in range(0, held, chunk):
        last = min(first + chunk, held)
        stored[first:last] = make(first, last)
    K = FeatureRows(stored, components=features.components, classes=classes, count=len(maps), make=make)
    return Problem(Logistic(labels, classes), K, NuclearBall(features.settings.radius))


def read_filters(features: PatchFeatures, solution: Solution, maps: Tensor) -> ConvexLayer:
    """The layer of a solution: filters from the singular vectors of A, maps scaled to root mean square 1 on some images."""
    A = solution.x[0].cpu().contiguous()
    left, values, _ = torch.linalg.svd(A, full_matrices=False)
    keep = max(1, min(features.settings.filters, int((values > RANK_TOLERANCE * values[0]).sum())))
    layer = ConvexLayer(features, A, (left[:, :keep] * values[:keep].sqrt()).contiguous(), 1.0, solution)
    scale = layer.transform(maps[:500]).double().square().mean().sqrt()
    return replace(layer, map_scale=1.0 / float(scale) if scale > 0 else 1.0)


def nuclear_norm_and_rank(A: Tensor) -> tuple[float, int]:
    """‖A‖_* and the number of singular values above `RANK_TOLERANCE` of the largest."""
    values = torch.linalg.svdvals(A)
    return float(values.sum()), int((values > RANK_TOLERANCE * values[0]).sum())
