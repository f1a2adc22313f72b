"""The referee: runs a solver, certifies its iterates at geometric steps, stops the problems that are solved."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from triptych.check import InputError, real, whole, wrong
from triptych.convex.problem import Certificate, Certifier, Iterate, Problem, Solver, certify


class Status(Enum):
    """How the work on a problem ended; the value is the sentence for people."""

    CONVERGED = "the certified gap is within the tolerance"
    MAX_STEPS = "the steps ran out before the tolerance was reached"
    STALLED = "the certified gap stopped falling before the tolerance was reached"


class Check(NamedTuple):
    """The best objective and lower bound (b,) known at a step, and the seconds since the start."""

    step: int
    objective: Tensor
    lower_bound: Tensor
    seconds: float


@dataclass(frozen=True, eq=False)
class Solution:
    """The best certified x (b, ...) in float64, and what is known of each of the b problems.

    ``gap`` is ``objective`` - ``lower_bound``, in the units of the loss; ``steps`` (b,) counts the solver's steps.
    """

    x: Tensor
    status: tuple[Status, ...]
    steps: Tensor
    objective: Tensor
    lower_bound: Tensor
    history: tuple[Check, ...]

    @property
    def gap(self) -> Tensor:
        """objective - lower_bound, (b,)."""
        return self.objective - self.lower_bound

    @property
    def converged(self) -> bool:
        """Whether every problem is within its tolerance."""
        return all(status is Status.CONVERGED for status in self.status)


def solve(
    problem: Problem,
    solver: Solver,
    start: Tensor,
    *,
    certify: Certifier = certify,
    tol: float | Tensor = 1e-6,
    max_steps: int = 1000,
    patience: int = 8,
    relative: bool = False,
    every_step: bool = False,
    progress: Callable[[int, Certificate], None] | None = None,
) -> Solution:
    """Run a solver from start (b, ...) until objective - lower bound <= tol, a number or (b,), in the units of the loss.

    With ``relative`` the tolerance is a fraction of the objective. Certificates are made at steps 1, 2, 4, 7, 11, ... and
    the last, or at ``every_step`` where they cost little; the best objective and the best bound are kept, and
    ``progress`` is called with them. A problem whose gap fell by less than 1 % over ``patience`` certificates, or whose
    solver ended, has stalled. Raises InputError for wrong arguments, ArithmeticError where an objective is no number.
    """
    if start.ndim < 2 or not start.is_floating_point():
        raise wrong("start", "a floating-point tensor (b, ...)", f"{start.dtype} {tuple(start.shape)}")
    whole("max_steps", max_steps)
    ledger = _Ledger(_tolerance(tol, start), whole("patience", patience), relative)
    step, due, mask = 0, 1, None
    with closing(solver(problem, start)) as stream:
        while True:
            iterate, taken = _advance(stream, mask, due - step)
            step += taken
            if iterate is not None:
                ledger.enter(_finite(certify(problem, iterate), step), step)
                if progress is not None:
                    progress(step, ledger.best)
            mask = ledger.close(ended=step < due, last=step == max_steps)
            if not bool(mask.any()):
                return ledger.solution()
            problem, mask = (problem, None) if bool(mask.all()) else (problem.take(mask), mask)
            due = min(step + 1 if every_step else 7 * (step + 1) // 5, max_steps)


@dataclass(eq=False)
class _Ledger:
    """What the referee knows: the best certificate of every problem, and which problems are still open."""

    tol: Tensor
    patience: int
    relative: bool
    began: float = field(default_factory=perf_counter)
    history: list[Check] = field(default_factory=list)

    def __post_init__(self) -> None:
        b = len(self.tol)
        self.open = torch.arange(b, device=self.tol.device)
        self.status = [Status.MAX_STEPS] * b
        self.steps = torch.zeros(b, dtype=torch.int64, device=self.tol.device)
        self.best: Certificate

    def enter(self, found: Certificate, step: int) -> None:
        """Keep the better of the known and the found, for the open problems."""
        if not self.history:
            self.best = Certificate(found.x.clone(), found.objective.clone(), found.lower_bound.clone())
        x, objective, bound = self.best.x.clone(), self.best.objective.clone(), self.best.lower_bound.clone()
        better = found.objective < objective[self.open]
        x[self.open[better]] = found.x[better]
        objective[self.open] = torch.minimum(objective[self.open], found.objective)
        bound[self.open] = torch.maximum(bound[self.open], found.lower_bound)
        self.best = Certificate(x, objective, bound)
        self.steps[self.open] = step
        self.history.append(Check(step, objective, bound, perf_counter() - self.began))

    def close(self, *, ended: bool, last: bool) -> Tensor:
        """Close the problems that are done; returns the mask of those that go on, among those that were open."""
        if not self.history:
            raise InputError(
                "solver must yield at least one iterate, it yielded none; check its start and its settings"
            )
        gap = self.best.gap[self.open]
        tol = self.tol[self.open]
        solved = gap <= (tol * self.best.objective[self.open] if self.relative else tol)
        stalled = ~solved & (ended | (gap > 0.99 * self._gap_before()))
        for i in self.open[solved].tolist():
            self.status[i] = Status.CONVERGED
        for i in self.open[stalled].tolist():
            self.status[i] = Status.STALLED
        mask = ~(solved | stalled) & (not last)
        self.open = self.open[mask]
        return mask

    def _gap_before(self) -> Tensor:
        """The open problems' gaps ``patience`` certificates ago; +inf before there were that many."""
        if len(self.history) <= self.patience:
            return torch.full_like(self.best.objective[self.open], torch.inf)
        before = self.history[-1 - self.patience]
        return (before.objective - before.lower_bound)[self.open]

    def solution(self) -> Solution:
        """The books as a result."""
        best = self.best
        return Solution(best.x, tuple(self.status), self.steps, best.objective, best.lower_bound, tuple(self.history))


def _advance(
    stream: Generator[Iterate, Tensor | None, None], mask: Tensor | None, steps: int
) -> tuple[Iterate | None, int]:
    """Send the mask, then go on to the last of some steps; returns its iterate and how many steps there were."""
    iterate, taken = None, 0
    for taken in range(steps):
        try:
            iterate = stream.send(mask)
        except StopIteration:
            return iterate, taken
        mask = None
    return iterate, steps


def _tolerance(tol: float | Tensor, start: Tensor) -> Tensor:
    """The tolerance as float64 (b,)."""
    if not isinstance(tol, Tensor):
        tol = torch.tensor(real("tol", tol, low=0.0))
    if tol.shape not in ((), (1,), start.shape[:1]) or not bool((tol >= 0).all()):
        raise wrong("tol", f"a number of at least 0, or a tensor ({len(start)},) of them", tol)
    return tol.to(start.device, torch.float64).expand(len(start))


def _finite(found: Certificate, step: int) -> Certificate:
    """The certificate, or ArithmeticError where its objective is no number."""
    if bool(found.objective.isnan().any()):
        raise ArithmeticError(f"the objective is not a number at step {step}; scale the data, or take a smaller step")
    return found
