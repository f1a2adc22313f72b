"""A small lasso by its sparse Gram matrix: FISTA whose every step is one sparse product."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

GROWTH = 1.03  # of the step, an iteration: it follows the curvature along the path, far below the largest


@dataclass(frozen=True, eq=False)
class Quadratic:
    """½ x' G x + <g, x> + Σ level |x| up to a constant, about a point at which the smooth part's gradient is ``gradient``.

    With ``nonnegative`` over x >= 0.
    """

    G: csr_matrix
    gradient: np.ndarray
    level: np.ndarray
    nonnegative: bool

    def prox(self, v: np.ndarray, step: float) -> np.ndarray:
        """Soft thresholding at step · level."""
        t = self.level * v.dtype.type(step)
        return np.maximum(v - t, 0) if self.nonnegative else v - np.clip(v, -t, t)

    def error(self, x: np.ndarray, g: np.ndarray) -> float:
        """How far -g is from the subgradients of the penalty at x, at most, for the gradient g of the smooth part."""
        inactive = (-g if self.nonnegative else np.abs(g)) - self.level
        return float(np.where(x != 0, np.abs(g + self.level * np.sign(x)), np.maximum(inactive, 0)).max())


def descend(problem: Quadratic, x: np.ndarray, steps: int, tol: float) -> np.ndarray:
    """At most some steps of FISTA from x, the point of the gradient, until the error is at most tol.

    Beck & Teboulle, SIAM J. Imaging Sci. 2009, with O'Donoghue & Candès's restart. Differs: the step is tried against
    the exact curvature of every difference, <d, G d> <= ‖d‖² / step, which costs no product of its own.
    """
    g, t = problem.gradient, 1.0
    x_old, g_old, curvature = x, g, _first(problem, g)
    for _ in range(steps):
        t_next = (1 + (1 + 4 * t * t) ** 0.5) / 2
        beta = x.dtype.type((t - 1) / t_next)
        y, g_y = x + beta * (x - x_old), g + beta * (g - g_old)
        x_new, Gd, curvature = _step(problem, y, g_y, curvature)
        t = 1.0 if float((y - x_new) @ (x_new - x)) > 0 else t_next
        x_old, x, g_old, g = x, x_new, g, g_y + Gd
        curvature /= GROWTH
        if problem.error(x, g) <= tol:
            break
    return x


def _step(problem: Quadratic, y: np.ndarray, g: np.ndarray, curvature: float) -> tuple[np.ndarray, np.ndarray, float]:
    """The proximal step from y with the least curvature tried that holds along it; G times the difference; the curvature."""
    while True:
        x = problem.prox(y - g / y.dtype.type(curvature), 1 / curvature)
        d = x - y
        Gd = problem.G @ d
        length, bent = float(d @ d), float(d @ Gd)
        if bent <= 1.0001 * curvature * length:
            return x, Gd, curvature
        curvature = 1.05 * bent / length


def _first(problem: Quadratic, g: np.ndarray) -> float:
    """The curvature along the gradient."""
    length = float(g @ g)
    return max(float(g @ (problem.G @ g)) / length, 1e-12) if length > 0 else 1.0
