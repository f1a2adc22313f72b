"""The problem of coding signals in a dictionary, as a convex problem: basis pursuit, masked, weighted, non-negative."""

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from triptych.check import InputError, choice, real, wrong
from triptych.convex import L1, LeastSquares, NonNegativeL1, Problem, Term, WeightedL1, take
from triptych.sparse.dictionary import ConvDictionary, Synthesis

SCALES = ("lambda_max", "absolute")
TOGETHER = 1 << 25  # correlations that are held at a time


@dataclass(frozen=True, eq=False)
class Masked:
    """The map codes -> mask · (D codes), for a mask ``(b or 1, c or 1, *shape)`` of numbers in [0, 1]."""

    synthesis: Synthesis
    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """mask · (D x)."""
        return self.mask.to(x) * self.synthesis.forward(x)

    def adjoint(self, z: Tensor) -> Tensor:
        """D* (mask · z)."""
        return self.synthesis.adjoint(self.mask.to(z) * z)

    def take(self, mask: Tensor) -> "Masked":
        """Some of the problems."""
        return Masked(self.synthesis, take(self.mask, mask))


@dataclass(frozen=True, eq=False)
class Coding:
    """Minimise ½ ‖mask · (D x - signals)‖₂² + lam · Σ weights |x| over codes x ``(b, k, *code_shape)``, b problems at once.

    Parameters
    ----------
    dictionary : the ConvDictionary D.
    signals : floating-point tensor ``(b, c, *shape)``; where the mask is 0 they are not read, and may be NaN.
    reg : the weight of the l1 norm, at least 0, a number or a tensor (b,).
    reg_scale : "lambda_max": ``reg`` is a fraction of the least weight at which the code is 0, problem by problem;
        "absolute": it is the weight, in the units of the signals.
    mask : numbers in [0, 1] that broadcast to the signals, 1 where a sample is known; None: all are.
    weights : numbers above 0 that broadcast to the codes; None: 1.
    nonnegative : whether x >= 0.

    Raises InputError for wrong values. Chen, Donoho & Saunders, SIAM J. Sci. Comput. 1998; convolutional: Bristow, Eriksson &
    Lucey, CVPR 2013.
    """

    dictionary: ConvDictionary
    signals: Tensor
    reg: float | Tensor = 0.1
    reg_scale: str = "lambda_max"
    mask: Tensor | None = None
    weights: Tensor | None = None
    nonnegative: bool = False

    def __post_init__(self) -> None:
        choice("reg_scale", self.reg_scale, SCALES)
        signals, b = self.signals, len(self.signals)
        self.dictionary.on(self.shape)
        self.dictionary.expect("signals", signals, self.dictionary.channels)
        if isinstance(self.reg, Tensor):
            if self.reg.shape not in ((), (1,), (b,)) or not bool((self.reg.isfinite() & (self.reg >= 0)).all()):
                raise wrong("reg", f"a finite number of at least 0, or a tensor ({b},) of them", self.reg)
        else:
            real("reg", self.reg, low=0.0)
        if self.mask is not None:
            _masks(self.mask, signals)
        known = signals if self.mask is None else signals[(self.mask > 0).expand_as(signals)]
        if not bool(known.isfinite().all()):
            raise InputError("signals must be finite, got NaN or infinity; mask what is not known")
        if self.weights is not None:
            _broadcasts("weights", self.weights, (b, self.dictionary.n_atoms, *self.code_shape))
            if not bool((self.weights.isfinite() & (self.weights > 0)).all()):
                raise wrong("weights", "of finite numbers above 0", self.weights)

    @property
    def shape(self) -> tuple[int, ...]:
        """The signals' shape in space."""
        return tuple(self.signals.shape[2:])

    @property
    def code_shape(self) -> tuple[int, ...]:
        """The codes' shape in space."""
        return self.dictionary.code_shape(self.shape)

    @property
    def target(self) -> Tensor:
        """mask · signals, 0 where nothing is known, ``(b, c, *shape)``."""
        if self.mask is None:
            return self.signals
        mask = self.mask.to(self.signals).expand_as(self.signals)
        return torch.where(mask > 0, mask * self.signals, 0.0)

    @property
    def map(self) -> Synthesis | Masked:
        """The map from codes to what is compared with ``target``."""
        synthesis = self.dictionary.on(self.shape)
        return synthesis if self.mask is None else Masked(synthesis, self.mask)

    def lambda_max(self) -> Tensor:
        """The least weight at which the code is 0, (b,): the largest |D* mask · target| / weights (of D* itself for x >= 0)."""
        return self._lambda_max

    @cached_property
    def _lambda_max(self) -> Tensor:
        """A few atoms at a time, so that no dense code is held."""
        seen, k = self.target, self.dictionary.n_atoms
        if self.mask is not None:
            seen = seen * self.mask.to(seen)
        per = max(1, TOGETHER // max(1, len(seen) * prod(self.code_shape)))
        largest = seen.new_zeros(len(seen))
        for part in (slice(start, start + per) for start in range(0, k, per)):
            u = replace(self.dictionary, atoms=self.dictionary.atoms[part]).on(self.shape).adjoint(seen)
            if self.weights is not None:
                u = u / (self.weights if self.weights.shape[1] == 1 else self.weights[:, part]).to(u)
            largest = torch.maximum(largest, (u if self.nonnegative else u.abs()).flatten(1).amax(1))
        return largest

    def lam(self) -> Tensor:
        """The weight of the l1 norm, (b,), in the units of the signals."""
        reg = torch.as_tensor(self.reg, dtype=self.signals.dtype, device=self.signals.device).expand(len(self.signals))
        return reg if self.reg_scale == "absolute" else reg * self.lambda_max()

    def term(self) -> Term:
        """lam · Σ weights |x|."""
        if self.weights is not None:
            return WeightedL1(self.lam(), self.weights, self.nonnegative)
        return NonNegativeL1(self.lam()) if self.nonnegative else L1(self.lam())

    def problem(self) -> Problem:
        """The convex problem; its certificate is a duality gap in the units of the squared signals."""
        return Problem(LeastSquares(self.target), self.map, self.term())

    def start(self) -> Tensor:
        """The code 0, ``(b, k, *code_shape)``."""
        return self.signals.new_zeros(len(self.signals), self.dictionary.n_atoms, *self.code_shape)

    def take(self, mask: Tensor) -> "Coding":
        """Some of the problems; weights of the l1 norm keep their value."""
        return Coding(
            self.dictionary,
            self.signals[mask],
            self.lam()[mask],
            "absolute",
            take(self.mask, mask),
            take(self.weights, mask),
            self.nonnegative,
        )

    def residual(self, x: Tensor) -> Tensor:
        """target - mask · (D x), ``(b, c, *shape)``."""
        z = self.map.forward(x)
        return self.target.to(z) - z

    def objective(self, x: Tensor) -> Tensor:
        """½ ‖residual‖₂² + lam · Σ weights |x|, (b,), in the dtype of x."""
        r = self.residual(x).flatten(1)
        return r.square().sum(1) / 2 + self.term().value(x)

    def reconstruct(self, x: Tensor) -> Tensor:
        """D x, ``(b, c, *shape)``, also where the mask is 0."""
        return self.dictionary.synthesise(x, self.shape)


def _masks(mask: Tensor, signals: Tensor) -> None:
    """Refuse a mask that does not broadcast, is not in [0, 1], or knows nothing of some signal."""
    _broadcasts("mask", mask, tuple(signals.shape))
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise wrong("mask", "of numbers from 0 (not known) to 1 (known)", (float(mask.min()), float(mask.max())))
    known = mask.expand_as(signals).flatten(1).amax(1)
    if not bool((known > 0).all()):
        raise InputError(
            f"mask must know at least one sample of every signal, it is 0 everywhere for signal {int(known.argmin())}; "
            "1 stands for known"
        )


def _broadcasts(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse what does not broadcast to a shape, or has not as many axes."""
    if not isinstance(x, Tensor) or x.ndim != len(shape) or any(m not in (1, n) for m, n in zip(x.shape, shape)):
        raise wrong(name, f"a tensor that broadcasts to {shape}", tuple(x.shape) if isinstance(x, Tensor) else x)
