"""What pursuits other than the working set share: codes that are made sparse when asked for, and certified as its are."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from triptych.convex import Certificate, Problem
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.pursuits.working_set import Active, WorkingSet


class Walk(Protocol):
    """One problem of a pursuit: it goes a step further, and says what its code is."""

    def step(self) -> None:
        """A step."""
        ...

    def code(self) -> tuple[Tensor, Tensor]:
        """Places in the flat ``(k, *code_shape)``, and values (m,)."""
        ...


@dataclass(eq=False)
class Lazy:
    """An iterate whose codes are made when they are looked at."""

    walks: Sequence[Walk]
    judges: Sequence[Active]
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
    numbers = range(len(coding.signals))
    walks, judges = [walk(i) for i in numbers], [Active(coding, i, WorkingSet()) for i in numbers]
    while True:
        for one in walks:
            one.step()
        mask = yield Lazy(walks, judges, judges[0].shape)
        if mask is not None:
            stays = mask.tolist()
            walks, judges = ([one for one, s in zip(all_, stays) if s] for all_ in (walks, judges))


def certify(problem: Problem, iterate: Lazy) -> Certificate:
    """Objective and bound of every code in float64, in blocks, without a dense code: see `working_set.certify`."""
    codes, found = iterate.x, []
    for one, index, value in zip(iterate.judges, codes.index, codes.value):
        one.begin(index, value)
        found.append(one.certificate())
    objective, bound = (torch.tensor(part, dtype=torch.float64) for part in zip(*found))
    return Certificate(codes, objective, bound)  # pyright: ignore[reportArgumentType]
