"""What pursuits other than the working set share: codes that are made sparse when asked for, and certified as its are."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from triptych.check import wrong
from triptych.convex import Certificate, Problem
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.pursuits.working_set import Active, WorkingSet

Code = tuple[Tensor, Tensor]
"""Places (m,) in the flat ``(k, *code_shape)``, and values (m,), of one problem."""


class Walk(Protocol):
    """One problem of a pursuit: it goes a step further, and says what its code is."""

    def step(self) -> None:
        """A step."""
        ...

    def code(self) -> Code:
        """The code as it is."""
        ...

    def dual(self) -> Tensor | None:
        """A dual point of its own, ``(c, *shape)``; None: what the code leaves of the signal."""
        ...


class Judged:
    """A walk, and the working set's own look at what its code leaves of the signal, in blocks, in float64."""

    def __init__(self, walk: Walk, judge: Active) -> None:
        self.walk, self.judge = walk, judge
        self.now: Code | None = None

    def step(self) -> None:
        """A step of the walk."""
        self.walk.step()
        self.now = None

    def code(self) -> Code:
        """The code as it is."""
        if self.now is None:
            self.now = self.walk.code()
        return self.now

    def certificate(self) -> tuple[float, float]:
        """The objective and a lower bound on the least one."""
        judge, theta = self.judge, self.walk.dual()
        judge.begin(*self.code())
        return judge.certificate(None if theta is None else theta.double().reshape(judge.target.shape))


class Certified(Protocol):
    """A problem of a pursuit that certifies its code."""

    def step(self) -> None:
        """A step."""
        ...

    def code(self) -> Code:
        """The code as it is."""
        ...

    def certificate(self) -> tuple[float, float]:
        """The objective and a lower bound on the least one."""
        ...


@dataclass(eq=False)
class Lazy:
    """An iterate whose codes are made when they are looked at."""

    walks: Sequence[Certified]
    shape: tuple[int, ...]
    z: Tensor | None = None
    theta: Tensor | None = None

    @cached_property
    def x(self) -> Codes:
        """The codes as they are now."""
        index, value = zip(*(one.code() for one in self.walks))
        return Codes(self.shape, list(index), list(value))


def stream(coding: Coding, walk: Callable[[int], Walk]) -> Generator[Lazy, Tensor | None, None]:
    """Iterates of every problem's walk, ``walk(i)``, one step each at a time."""
    return steps(coding, [Judged(walk(i), Active(coding, i, WorkingSet())) for i in range(len(coding.signals))])


def steps(coding: Coding, walks: Sequence[Certified]) -> Generator[Lazy, Tensor | None, None]:
    """Iterates of walks, one a problem; those of solved problems end."""
    shape = (coding.dictionary.n_atoms, *coding.code_shape)
    while True:
        for one in walks:
            one.step()
        mask = yield Lazy(walks, shape)
        if mask is not None:
            walks = [one for one, stays in zip(walks, mask.tolist()) if stays]


def certify(problem: Problem, iterate: Lazy) -> Certificate:
    """Objective and bound of every code in float64, in blocks, without a dense code: see `working_set.certify`."""
    found = [one.certificate() for one in iterate.walks]
    objective, bound = (torch.tensor(part, dtype=torch.float64) for part in zip(*found))
    return Certificate(iterate.x, objective, bound)  # pyright: ignore[reportArgumentType]


def begun(coding: Coding, start: Codes | None, i: int) -> Code | None:
    """Where problem i starts. Raises InputError where the codes are not those of the problems."""
    if start is None:
        return None
    shape = (coding.dictionary.n_atoms, *coding.code_shape)
    if len(start) != len(coding.signals) or tuple(start.shape) != shape:
        raise wrong(
            "start", f"codes of {len(coding.signals)} problems of shape {shape}", f"{len(start)} of {start.shape}"
        )
    return start.index[i], start.value[i]


def dense(coding: Coding, code: Code) -> Tensor:
    """A code as a tensor ``(k, *code_shape)``, in the signals' dtype."""
    shape = (coding.dictionary.n_atoms, *coding.code_shape)
    out = coding.signals.new_zeros(prod(shape))
    out[code[0]] = code[1].to(out)
    return out.reshape(shape)


def weights_of(coding: Coding, i: int) -> Tensor | None:
    """Problem i's weights ``(k, *code_shape)``, a view; None: all are 1."""
    if coding.weights is None:
        return None
    weights = coding.weights.to(coding.signals).expand(len(coding.signals), *coding.weights.shape[1:])[i]
    return weights.expand(coding.dictionary.n_atoms, *coding.code_shape)
