"""Codes and atoms by turns, over a set of signals or a stream of them."""

from collections.abc import Generator
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from triptych.check import whole
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.learning.statistics import Statistics
from triptych.sparse.learning.update import updated
from triptych.sparse.pursuits.working_set import Active, WorkingSet

SWEEPS = WorkingSet(sweeps=6)
_CONV = {1: F.conv1d, 2: F.conv2d}


@dataclass(frozen=True)
class Effort:
    """How codes and atoms take turns: the atoms after every ``batch`` signals, in ``passes`` passes; a visit to a signal is
    ``rounds`` rounds of the working set, the first visit ``first``. Raises InputError for wrong values.
    """

    batch: int = 1
    rounds: int = 2
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

    @property
    def known(self) -> Tensor:
        """The signals, 0 where nothing is known."""
        return (
            self.signals if self.mask is None else torch.where(self.mask.expand_as(self.signals) > 0, self.signals, 0.0)
        )

    def coding(self, dictionary: ConvDictionary, i: int | None = None) -> Coding:
        """The coding problem of signal i, or of all."""
        part = slice(None) if i is None else slice(i, i + 1)
        mask = self.mask if self.mask is None or len(self.mask) == 1 else self.mask[part]
        return Coding(dictionary, self.signals[part], self.lam, "absolute", mask, nonnegative=self.nonnegative)


@dataclass(frozen=True, eq=False)
class State:
    """Where learning stands after ``epoch`` visits to every signal, or parts of a stream: all that going on needs.

    ``statistics`` are those of all signals so far, each weighted as it counts; of masked ones as they were filled in last.
    """

    dictionary: ConvDictionary
    codes: Codes
    statistics: Statistics
    epoch: int = 0

    @property
    def objective(self) -> float:
        """Σ ½ ‖mask · (D x - y)‖² + λ ‖x‖₁ at these atoms and these codes, or with masks a bound above it."""
        return self.statistics.objective(self.dictionary)


def begun(dictionary: ConvDictionary, data: Signals) -> State:
    """The state before the first visit: all codes 0."""
    shape = (dictionary.n_atoms, *dictionary.code_shape(data.signals.shape[2:]))
    none = [torch.empty(0, dtype=torch.int64)] * len(data)
    return State(dictionary, Codes(shape, none, [data.signals.new_empty(0)] * len(data)), Statistics.empty(dictionary))


def epochs(
    data: Signals, state: State, effort: Effort = Effort(), rank_one: bool = False, seed: int = 0
) -> Generator[State, None, None]:
    """States after one visit more to every signal each, in an order of its own; the objective falls or stays.

    Between visits the atoms are updated for the codes of all signals seen so far. An atom that no code uses any more becomes
    the part of a signal that is worst explained. The same state goes on to the same numbers. What is found is a point from
    which neither codes nor atoms alone improve much; the problem is not convex, and no optimum is claimed.
    """
    while True:
        turns = visits(data, state, effort, rank_one, seed)
        while isinstance(turn := next(turns), ConvDictionary):
            pass
        state = turn
        yield state


def visits(
    data: Signals, state: State, effort: Effort = Effort(), rank_one: bool = False, seed: int = 0
) -> Generator[ConvDictionary | State, None, None]:
    """One visit to every signal: the atoms after every update, and the state at the end."""
    D, codes, total = state.dictionary, state.codes.clone(), state.statistics
    signals = list(data.signals)
    if data.mask is not None and state.epoch:
        signals = [filled(data.coding(D, i), codes.index[i], codes.value[i]) for i in range(len(data))]
        old = (Statistics.of(D, signals[i], codes.index[i], codes.value[i], data.lam) for i in range(len(data)))
        total = reduce(Statistics.plus, old)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed + state.epoch)).tolist()
    rounds = effort.rounds if state.epoch else effort.first
    for number, i in enumerate(order, 1):
        before = codes.index[i], codes.value[i]
        if state.epoch:
            total = total.plus(Statistics.of(D, signals[i], *before, data.lam), -1.0)
        codes.index[i], codes.value[i], signal = visited(data.coding(D, i), *before, rounds)
        total = total.plus(Statistics.of(D, signal, codes.index[i], codes.value[i], data.lam))
        if number % effort.batch == 0 or number == len(data):
            D = updated(D, total, effort.passes, rank_one)
            yield D
    yield State(revived(D, total, data, codes), codes, total, state.epoch + 1)


def streamed(
    data: Signals, state: State, effort: Effort = Effort(), rank_one: bool = False, forget: float = 1.0
) -> State:
    """The state after signals that are seen once, in their order, ``batch`` of them between two updates of the atoms.

    Before the t-th part the sums of all earlier ones are multiplied by (1 - 1/t) ** forget; 0 forgets nothing (Mairal et al.
    2010, section 3.4). No code is kept.
    """
    D, total, t = state.dictionary, state.statistics, state.epoch
    codes = begun(D, data).codes
    for part in torch.arange(len(data)).split(effort.batch):
        t += 1
        total = total.scaled((1 - 1 / t) ** forget)
        for i in part.tolist():
            codes.index[i], codes.value[i], signal = visited(
                data.coding(D, i), codes.index[i], codes.value[i], effort.first
            )
            total = total.plus(Statistics.of(D, signal, codes.index[i], codes.value[i], data.lam))
        D = updated(D, total, effort.passes, rank_one)
    return State(revived(D, total, data, codes), begun(D, data).codes, total, t)


def revived(dictionary: ConvDictionary, statistics: Statistics, data: Signals, codes: Codes) -> ConvDictionary:
    """The dictionary with each atom that no code uses made anew: what a signal has where it is explained worst, unit.

    No two are taken where they would meet. The objective of these codes stays as it is.
    """
    idle = (~statistics.used).nonzero().flatten().tolist()
    if not idle:
        return dictionary
    atoms = dictionary.atoms.clone()
    for k, patch in zip(idle, worst(dictionary, data, codes, len(idle))):
        atoms[k] = patch / torch.linalg.vector_norm(patch)
    return ConvDictionary(atoms, dictionary.stride, dictionary.boundary)


def worst(dictionary: ConvDictionary, data: Signals, codes: Codes, count: int) -> Generator[Tensor, None, None]:
    """At most so many patches ``(c, *size)`` of what is left of the signals, those with most energy first, none overlapping."""
    size = dictionary.size
    ones = torch.ones(1, dictionary.channels, *size, dtype=torch.float64)
    left, energy = [], []
    for i in range(len(data)):
        one = Active(data.coding(dictionary, i), 0, SWEEPS)
        one.begin(codes.index[i], codes.value[i])
        rest = one.residual.reshape(data.signals.shape[1:])
        left.append(rest)
        energy.append(_CONV[len(size)](rest[None].square(), ones)[0, 0])
    found = torch.stack(energy)
    for _ in range(count):
        i, *at = (int(n) for n in torch.unravel_index(found.argmax(), found.shape))
        if not found[i, *at] > 0:
            return
        yield left[i][:, *(slice(p, p + n) for p, n in zip(at, size))]
        found[i, *(slice(max(0, p - n + 1), p + n) for p, n in zip(at, size))] = 0


def visited(coding: Coding, index: Tensor, value: Tensor, rounds: int) -> tuple[Tensor, Tensor, Tensor]:
    """The code of the one signal of a coding problem after some rounds from another one, and the signal, `filled`."""
    one = Active(coding, 0, SWEEPS)
    one.begin(index, value)
    for _ in range(rounds):
        one.round()
    return *one.code(), _filled(coding, one)


def filled(coding: Coding, index: Tensor, value: Tensor) -> Tensor:
    """The one signal of a coding problem ``(c, *shape)``, with what a mask hides taken from D x.

    With y' = m² y + (1 - m²) D x, ½ ‖y' - D' x‖² lies above ½ ‖m (y - D' x)‖² but for a constant, and meets it at D' = D
    (Dempster, Laird & Rubin, J. R. Stat. Soc. B 1977).
    """
    one = Active(coding, 0, SWEEPS)
    one.begin(index, value)
    return _filled(coding, one)


def _filled(coding: Coding, one: Active) -> Tensor:
    signal = coding.signals[0]
    if one.mask is None:
        return signal
    z = torch.from_numpy(one.synthesis()).reshape(one.target.shape)
    return (z + one.mask * one.residual).reshape(signal.shape).to(signal.dtype)
