"""One call for all pursuits: codes of signals, sparse, with a certificate for every signal."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import InputError, choice
from triptych.convex import Certificate, Certifier, Solution, Solver, fista, solve
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.pursuits import referee, working_set
from triptych.sparse.pursuits.admm import admm
from triptych.sparse.pursuits.auto import SEARCH, Auto
from triptych.sparse.pursuits.greedy import greedy
from triptych.sparse.pursuits.slices import slices

METHODS = ("auto", "working_set", "fista", "admm", "greedy", "slices")


@dataclass(frozen=True, eq=False)
class Pursuit:
    """Codes of b signals, and what is known of each: ``solution`` has status, steps, objective, lower_bound and history (b,);
    ``method`` has the name of the method that each was solved by in the end.
    """

    codes: Codes
    solution: Solution
    method: tuple[str, ...]

    @property
    def gap(self) -> Tensor:
        """objective - lower bound, (b,): no code has an objective lower by more than that."""
        return self.solution.gap

    @property
    def converged(self) -> bool:
        """Whether every problem is within its tolerance."""
        return self.solution.converged


def pursue(
    coding: Coding,
    method: str = "auto",
    *,
    tol: float | Tensor = 1e-3,
    max_steps: int = 1000,
    progress: Callable[[int, Certificate], None] | None = None,
) -> Pursuit:
    """Solve coding problems to a duality gap of ``tol`` times the objective, a number or (b,).

    ``method``:

    - "auto": a working set; a problem whose code turns out not to be sparse goes over to "admm", or "fista" under a mask or with
      a stride of more than 2; on other devices than the CPU it is "fista" from the start;
    - "working_set": for codes of which few coefficients are not 0, in memory that grows with those few; needs ``reg`` above 0;
    - "admm": all coefficients at once in the Fourier domain, a step is 10 iterations; for dense codes without a mask;
    - "fista": all coefficients at once, on any device;
    - "greedy": the largest changes first, wherever they do not meet, a step is 20 sweeps; for very sparse codes, no mask;
    - "slices": the codes of one place after the other; a step visits all places once.

    ``progress`` is called with the step and the certificates whenever they are made. Raises InputError for wrong arguments, and
    where a method cannot do what it is asked for.
    """
    choice("method", method, METHODS)
    device = coding.signals.device
    if device.type != "cpu" and method not in ("auto", "fista"):
        raise InputError(
            f'method="{method}" runs on the CPU, and the signals are on {device}; use "fista", or move them'
        )
    problem, b = coding.problem(), len(coding.signals)
    limits = {"tol": tol, "max_steps": max_steps, "relative": True, "progress": progress}
    if method == "fista" or device.type != "cpu":
        found = solve(problem, lambda problem, x: fista(problem, x, SEARCH), coding.start(), **limits)
        return Pursuit(Codes.of(found.x), found, ("fista",) * b)
    solver, certify = _solver(coding, method)
    start = torch.zeros(b, 1, dtype=coding.signals.dtype)
    found = solve(problem, solver, start, certify=certify, patience=30, every_step=True, **limits)
    names = solver.method if isinstance(solver, Auto) else (method,) * b
    return Pursuit(found.x, found, names)  # pyright: ignore[reportArgumentType]


def _solver(coding: Coding, method: str) -> tuple[Solver, Certifier]:
    """What `solve` needs; the solvers start from 0."""
    if method == "working_set":
        return working_set.solver(coding), working_set.certify
    if method == "auto":
        return Auto(coding), referee.certify  # pyright: ignore[reportReturnType]
    streams = {"admm": admm, "greedy": greedy, "slices": slices}
    return lambda problem, start: streams[method](coding), referee.certify  # pyright: ignore[reportReturnType]
