"""Codes and atoms by turns, over a set of signals or a stream of them."""

from collections.abc import Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from triptych.check import InputError, whole
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.learning.statistics import Statistics
from triptych.sparse.learning.update import updated
from triptych.sparse.pursuits.working_set import Active, WorkingSet

SWEEPS = WorkingSet(sweeps=6)


@dataclass(frozen=True)
class Effort:
    """How codes and atoms take turns: the atoms after every ``batch`` signals, in ``passes`` passes; a visit to a signal is
    ``rounds`` rounds of the working set, the first visit ``first``. Raises InputError for wrong values.
    """

    batch: int = 1
    rounds: int = 1
    first: int = 3
    passes: int = 1

    def __post_init__(self) -> None:
        for name in ("batch", "rounds", "first", "passes"):
            whole(name, getattr(self, name))


@dataclass(frozen=True, eq=False)
class Signals:
    """What is learned from: signals ``(n, c, *shape)``, their mask (see `Coding`), and the weight λ of the l1 norm."""

    signals: Tensor
    lam: float
    mask: Tensor | None = None
    nonnegative: bool = False

    def __len__(self) -> int:
        return len(self.signals)

    def coding(self, dictionary: ConvDictionary, i: int | None = None) -> Coding:
        """The coding problem of signal i, or of all."""
        part = slice(None) if i is None else slice(i, i + 1)
        mask = self.mask if self.mask is None or len(self.mask) == 1 else self.mask[part]
        return Coding(dictionary, self.signals[part], self.lam, "absolute", mask, nonnegative=self.nonnegative)


@dataclass(frozen=True, eq=False)
class State:
    """Where learning stands after ``epoch`` visits to every signal: all that going on needs.

    ``objective`` is Σ ½ ‖mask · (D x - y)‖² + λ ‖x‖₁ at these atoms and these codes.
    """

    dictionary: ConvDictionary
    codes: Codes
    epoch: int = 0
    objective: float = float("inf")


def begun(dictionary: ConvDictionary, data: Signals) -> State:
    """The state before the first visit: all codes 0."""
    shape = (dictionary.n_atoms, *dictionary.code_shape(data.signals.shape[2:]))
    none = [torch.empty(0, dtype=torch.int64)] * len(data)
    return State(dictionary, Codes(shape, none, [data.signals.new_empty(0)] * len(data)))


def epochs(
    data: Signals, state: State, effort: Effort = Effort(), rank_one: bool = False, seed: int = 0
) -> Generator[State, None, None]:
    """States after one visit more to every signal each, in an order of its own; the objective falls or stays.

    Between visits the atoms are updated for the codes of all signals seen so far. An atom that no code uses any more becomes
    the part of a signal that is worst explained. The same state goes on to the same numbers. What is found is a point from
    which neither codes nor atoms alone improve much; the problem is not convex, and no optimum is claimed.
    """
    while True:
        state = _epoch(data, state, effort, rank_one, seed)
        yield state


def _epoch(data: Signals, state: State, effort: Effort, rank_one: bool, seed: int) -> State:
    """One visit to every signal."""
    D, codes = state.dictionary, state.codes.clone()
    known: list[Statistics | None] = [None] * len(data)
    total = Statistics.empty(D)
    if state.epoch:
        for i in range(len(data)):
            known[i] = visited(data.coding(D, i), codes.index[i], codes.value[i], 0)[1]
            total = total.plus(known[i])
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed + state.epoch)).tolist()
    rounds = effort.rounds if state.epoch else effort.first
    for number, i in enumerate(order, 1):
        (codes.index[i], codes.value[i]), new = visited(data.coding(D, i), codes.index[i], codes.value[i], rounds)
        old = known[i]
        total = total.plus(new) if old is None else total.plus(old, -1.0).plus(new)
        if number % effort.batch == 0 or number == len(data):
            D = updated(D, total, effort.passes, rank_one)
    return State(D, codes, state.epoch + 1, total.objective(D))


def visited(coding: Coding, index: Tensor, value: Tensor, rounds: int) -> tuple[tuple[Tensor, Tensor], Statistics]:
    """The code of the one signal of a coding problem after some rounds from a code, and its statistics.

    What a mask hides is taken from D x: with y' = m² y + (1 - m²) D x, ½ ‖y' - D' x‖² lies above ½ ‖m (y - D' x)‖² up to a
    constant and meets it at D' = D (Dempster, Laird & Rubin, J. R. Stat. Soc. B 1977).
    """
    one = Active(coding, 0, SWEEPS)
    one.begin(index, value)
    for _ in range(rounds):
        one.round()
    index, value = one.code()
    signal = coding.signals[0]
    if one.mask is not None:
        z = torch.from_numpy(one.synthesis()).reshape(one.target.shape)
        signal = (z + one.mask * one.residual).reshape(signal.shape).to(signal.dtype)
    return (index, value), Statistics.of(coding.dictionary, signal, index, value, float(coding.lam()[0]))
