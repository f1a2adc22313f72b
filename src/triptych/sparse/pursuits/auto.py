"""The pursuit that looks first: a working set while codes are sparse, a method for dense codes where they turn out not to be."""

from collections.abc import Generator
from math import prod

import torch
from torch import Tensor

from triptych.convex import Problem, fista
from triptych.sparse.coding import Coding
from triptych.sparse.pursuits.admm import DEFAULT, Alternating
from triptych.sparse.pursuits.referee import Code, Judged, Lazy, Walk, dense, steps
from triptych.sparse.pursuits.working_set import Active, WorkingSet

SHARE = 0.015  # of all coefficients, that are active: from there on the working set goes no further
MANY = 20_000  # active coefficients that it solves for whatever their share
ITERATIONS = 10  # of FISTA, that count as a step


class Auto:
    """A solver for `triptych.convex.solve` with ``certify=referee.certify``; ``method`` says, a problem, what it has come to.

    Every problem begins with rounds of a working set. When more than ``MANY`` coefficients are active, and more than ``SHARE``
    of all, it goes over to ADMM, or under a mask to FISTA, from the code that it has. Without a penalty it does so at once.
    """

    def __init__(self, coding: Coding) -> None:
        self.coding = coding
        self.problems = [_Problem(coding, i) for i in range(len(coding.signals))]

    def __call__(self, problem: Problem, start: Tensor) -> Generator[Lazy, Tensor | None, None]:
        """The stream; its start is 0, whatever is given."""
        return steps(self.coding, self.problems)

    @property
    def method(self) -> tuple[str, ...]:
        """The method of every problem."""
        return tuple(one.method for one in self.problems)


class Accelerated:
    """Problem i by FISTA over all its coefficients."""

    def __init__(self, coding: Coding, i: int, start: Code) -> None:
        one = coding.take(torch.arange(len(coding.signals)) == i)
        self.x = dense(coding, start)
        self.stream = fista(one.problem(), self.x[None])

    def step(self) -> None:
        """Some iterations."""
        for _ in range(ITERATIONS):
            self.x = next(self.stream).x[0]

    def code(self) -> Code:
        """The code as it is."""
        x = self.x.flatten()
        index = x.nonzero().squeeze(1)
        return index, x[index]

    def dual(self) -> None:
        """None of its own."""


class _Problem:
    """Problem i, and the method that it has come to."""

    def __init__(self, coding: Coding, i: int) -> None:
        self.coding, self.i, self.method = coding, i, "working_set"
        self.active = Active(coding, i, WorkingSet())
        self.other: Judged | None = None
        if self.active.lam == 0 and bool((self.active.target != 0).any()):
            self._go_over()

    def step(self) -> None:
        """A round, or a step of the other method."""
        if self.other is None:
            count = len(self.active.active)
            if count > max(MANY, SHARE * prod(self.active.shape)):
                self._go_over()
        if self.other is None:
            self.active.round()
        else:
            self.other.step()

    def _go_over(self) -> None:
        """The method for dense codes, from the code as it is."""
        walk: Walk
        if self.coding.mask is None:
            self.method, walk = "admm", Alternating(self.coding, self.i, DEFAULT, self.active.code())
        else:
            self.method, walk = "fista", Accelerated(self.coding, self.i, self.active.code())
        self.other = Judged(walk, self.active)

    def code(self) -> Code:
        """The code as it is."""
        return self.active.code() if self.other is None else self.other.code()

    def certificate(self) -> tuple[float, float]:
        """The objective and a lower bound on the least one."""
        return self.active.certificate() if self.other is None else self.other.certificate()
