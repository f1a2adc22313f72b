"""The pursuit that looks first: a working set while codes are sparse, a method for dense codes where they turn out not to be."""

from collections.abc import Generator
from math import prod

import torch
from torch import Tensor

from triptych.convex import LineSearch, Problem, fista
from triptych.sparse.coding import Coding
from triptych.sparse.pursuits.admm import DEFAULT, Alternating
from triptych.sparse.pursuits.referee import Code, Judged, Lazy, Walk, dense, steps
from triptych.sparse.pursuits.working_set import Active, WorkingSet

ROUNDS = 6  # of the working set, before its size says much
SHARE = (
    0.05  # of all coefficients, that are not 0: from there on the working set is slower than ADMM or, strided, FISTA
)
MASKED = 0.2  # the same, against FISTA under a mask with short strides
STRIDE = 2  # the largest at which ADMM, which knows no places between, is not slower than FISTA
ITERATIONS = 10  # of FISTA, that count as a step
SEARCH = LineSearch(refresh=20)  # in float32 the predictions drift, and the gap with them


class Auto:
    """A solver for `triptych.convex.solve` with ``certify=referee.certify``; ``method`` says, a problem, what it has come to.

    Every problem begins with a working set. When after ``ROUNDS`` rounds, or later, more than ``SHARE`` of all coefficients are
    not 0 (``MASKED`` under a mask), it goes over from the code that it has: to ADMM, or under a mask or with a long stride to
    FISTA. Without a penalty it does so at once.
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
        self.stream = fista(one.problem(), self.x[None], SEARCH)

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
        short = coding.dictionary.stride <= STRIDE
        self.other_method = "admm" if short and coding.mask is None else "fista"
        self.share = MASKED if short and coding.mask is not None else SHARE
        self.active = Active(coding, i, WorkingSet())
        self.other: Judged | None = None
        if self.active.lam == 0 and bool((self.active.target != 0).any()):
            self._go_over()

    def step(self) -> None:
        """A round, or a step of the other method."""
        if self.other is None and self.active.rounds >= ROUNDS and self._dense():
            self._go_over()
        if self.other is None:
            self.active.round()
        else:
            self.other.step()

    def _dense(self) -> bool:
        """Whether so much of the code is not 0 that another method is faster."""
        return len(self.active.code()[0]) > self.share * prod(self.active.shape)

    def _go_over(self) -> None:
        """The method for dense codes, from the code as it is."""
        self.method, start = self.other_method, self.active.code()
        walk: Walk
        if self.method == "admm":
            walk = Alternating(self.coding, self.i, DEFAULT, start)
        else:
            walk = Accelerated(self.coding, self.i, start)
        self.other = Judged(walk, self.active)

    def code(self) -> Code:
        """The code as it is."""
        return self.active.code() if self.other is None else self.other.code()

    def certificate(self) -> tuple[float, float]:
        """The objective and a lower bound on the least one."""
        return self.active.certificate() if self.other is None else self.other.certificate()
