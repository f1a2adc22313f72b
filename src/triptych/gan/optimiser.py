"""How a player takes its steps: the optimiser of a recipe and how its rate and momentum change, all of them plain numbers."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from triptych.check import InputError, choice, real, whole

KINDS = ("adam", "rmsprop", "sgd")
FALLS = ("constant", "linear", "late", "exponential")


@dataclass(frozen=True)
class Optimiser:
    """An optimiser's numbers.

    ``fall``: the rate stays 'constant', falls 'linear' to 0 over the run, stays for half of it and falls then ('late'), or
    is divided by ``factor`` at every step down to ``floor`` ('exponential'). The momentum of 'sgd' rises linearly to
    ``momentum_end`` while images ``momentum_from`` .. ``momentum_until`` are seen. Raises InputError.
    """

    kind: str = "adam"
    lr: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.999
    eps: float = 1e-8
    alpha: float = 0.99
    weight_decay: float = 0.0
    momentum: float = 0.0
    momentum_end: float | None = None
    momentum_from: int = 0
    momentum_until: int = 1
    fall: str = "constant"
    factor: float = 1.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        choice("kind", self.kind, KINDS)
        choice("fall", self.fall, FALLS)
        real("lr", self.lr, above=0, high=1e38)  # of larger ones float32 has none
        real("eps", self.eps, low=0)
        real("factor", self.factor, low=1)
        for name in ("weight_decay", "floor"):
            real(name, getattr(self, name), low=0)
        for name in ("beta1", "beta2", "alpha", "momentum", "momentum_end"):
            value = getattr(self, name)
            if value is not None and not real(name, value, low=0) < 1:
                raise InputError(f"{name} must be at least 0 and below 1, got {value!r}")
        whole("momentum_until", self.momentum_until, low=whole("momentum_from", self.momentum_from, low=0) + 1)

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser for these parameters."""
        chosen = list(parameters)
        if self.kind == "adam":
            betas = (float(self.beta1), float(self.beta2))
            return torch.optim.Adam(
                chosen, self.lr, betas, self.eps, self.weight_decay, fused=all(p.is_floating_point() for p in chosen)
            )
        if self.kind == "rmsprop":
            return torch.optim.RMSprop(chosen, self.lr, self.alpha, self.eps, self.weight_decay, foreach=True)
        return torch.optim.SGD(chosen, self.lr, self.momentum, weight_decay=self.weight_decay, foreach=True)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step ``step`` of ``steps``."""
        if self.fall == "exponential":
            return max(self.lr * self.factor**-step, self.floor)
        if self.fall == "constant":
            return self.lr
        left = max(0.0, 1 - step / steps)
        return self.lr * (left if self.fall == "linear" else min(1.0, 2 * left))

    def momentum_at(self, seen: int) -> float:
        """The momentum after ``seen`` images."""
        if self.momentum_end is None:
            return self.momentum
        share = (seen - self.momentum_from) / (self.momentum_until - self.momentum_from)
        return self.momentum + (self.momentum_end - self.momentum) * min(1.0, max(0.0, share))

    def set(self, optimiser: torch.optim.Optimizer, step: int, steps: int, seen: int, scale: float = 1.0) -> None:
        """Give an optimiser the rate and the momentum of this moment; ``scale`` multiplies the rate."""
        for group in optimiser.param_groups:
            group["lr"] = self.rate(step, steps) * scale
            if self.kind == "sgd":
                group["momentum"] = self.momentum_at(seen)
