"""What is added to another objective: penalties on the critic's gradient at its data, and a head that tells classes."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.check import InputError, real, wrong
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, Critic, GameLoss, Objective, Scores
from triptych.gan.penalty import r1 as squared_gradient


@dataclass(frozen=True)
class Regularised:
    """Another objective, its critic's loss plus r1/2 · E ‖∇D(x)‖² + r2/2 · E ‖∇D(x̃)‖² (Mescheder et al., ICML 2018, equation 9).

    The parts "r1" and "r2" are the means of the squared norms, unweighted. Raises InputError.
    """

    objective: Objective
    r1: float = 0.0
    r2: float = 0.0

    def __post_init__(self) -> None:
        check_objective("objective", self.objective)
        if real("r1", self.r1, low=0) == real("r2", self.r2, low=0) == 0:
            raise InputError("r1 or r2 must be above 0, got 0 for both; without them take the inner objective alone")

    @property
    def simultaneous(self) -> bool:
        """As the inner objective."""
        return self.objective.simultaneous

    def critic_steps(self, step: int) -> int:
        """As the inner objective."""
        return self.objective.critic_steps(step)

    def constrain(self, critic: nn.Module, when: str) -> None:
        """As the inner objective."""
        self.objective.constrain(critic, when)

    def critic_loss(self, critic: Critic, real: Batch, fake: Batch, draw: Draw) -> GameLoss:
        """The inner loss + r1/2 · E ‖∇D(x)‖² + r2/2 · E ‖∇D(x̃)‖²."""
        loss = self.objective.critic_loss(critic, real, fake, draw)
        total, parts = loss.total, dict(loss.parts)
        for name, weight, batch in (("r1", self.r1, real), ("r2", self.r2, fake)):
            if weight:
                parts[name] = squared_gradient(critic, batch)
                total = total + weight / 2 * parts[name]
        return GameLoss(total, parts)

    def generator_loss(self, critic: Critic, fake: Batch, real: Batch) -> GameLoss:
        """The inner loss."""
        return self.objective.generator_loss(critic, fake, real)


@dataclass(frozen=True)
class Auxiliary:
    """Another objective plus the cross-entropy H of the critic's class head (AC-GAN, Odena et al., ICML 2017).

    D minimises the inner loss + critic_weight · E H(C(x), y), G the inner loss + generator_weight · E H(C(x̃), y).
    Differs: as in Gulrajani et al.'s code, D's head learns from real images alone; ``on_fake`` adds E H(C(x̃), y) to its
    part, as the paper does. Raises InputError, also where images have no labels or the critic has no such head.
    """

    objective: Objective
    critic_weight: float = 1.0
    generator_weight: float = 0.1
    on_fake: bool = False

    def __post_init__(self) -> None:
        check_objective("objective", self.objective)
        for name in ("critic_weight", "generator_weight"):
            real(name, getattr(self, name), low=0)
        if not isinstance(self.on_fake, bool):
            raise wrong("on_fake", "true or false", self.on_fake)

    @property
    def simultaneous(self) -> bool:
        """As the inner objective."""
        return self.objective.simultaneous

    def critic_steps(self, step: int) -> int:
        """As the inner objective."""
        return self.objective.critic_steps(step)

    def constrain(self, critic: nn.Module, when: str) -> None:
        """As the inner objective."""
        self.objective.constrain(critic, when)

    def critic_loss(self, critic: Critic, real: Batch, fake: Batch, draw: Draw) -> GameLoss:
        """The inner loss + critic_weight · E H(C(x), y); the part "class_loss" is the cross-entropy, unweighted."""
        heard = _Heard(critic)
        loss = self.objective.critic_loss(heard, real, fake, draw)
        parts = {**loss.parts, "class_loss": heard.cross_entropy(real)}
        total = loss.total + self.critic_weight * parts["class_loss"]
        if self.on_fake:
            parts["class_loss_fake"] = heard.cross_entropy(fake)
            total = total + self.critic_weight * parts["class_loss_fake"]
        return GameLoss(total, parts)

    def generator_loss(self, critic: Critic, fake: Batch, real: Batch) -> GameLoss:
        """The inner loss + generator_weight · E H(C(x̃), y)."""
        heard = _Heard(critic)
        loss = self.objective.generator_loss(heard, fake, real)
        parts = {**loss.parts, "generator_class_loss": heard.cross_entropy(fake)}
        return GameLoss(loss.total + self.generator_weight * parts["generator_class_loss"], parts)


def check_objective(name: str, value: object) -> None:
    """Raise InputError unless the value has what an objective has."""
    if isinstance(value, type):
        raise wrong(name, "an objective, not the class of one", value, "call it")
    needed = ("simultaneous", "critic_steps", "critic_loss", "generator_loss", "constrain")
    missing = [member for member in needed if not hasattr(value, member)]
    if missing:
        raise wrong(name, "an objective", value, f"it lacks {', '.join(missing)}")


class _Heard:
    """A critic that remembers what it said of a batch, so that the class head costs no second pass."""

    def __init__(self, critic: Critic) -> None:
        self.critic: Critic = critic
        self.said: dict[int, tuple[Batch, Scores]] = {}

    def __getattr__(self, name: str) -> Any:
        """Whatever else the critic offers, such as a pass of its own for the gradient by its input."""
        return getattr(self.critic, name)

    def __call__(self, batch: Batch) -> Scores:
        """The critic's scores."""
        self.said[id(batch)] = batch, self.critic(batch)
        return self.said[id(batch)][1]

    def cross_entropy(self, batch: Batch) -> Tensor:
        """E H(C(x), y). Raises InputError where there are no labels or no class logits."""
        _, scores = self.said.get(id(batch)) or (batch, self(batch))
        if batch.labels is None:
            raise InputError("images must be labelled for an auxiliary classifier, got unlabelled ones")
        if scores.classes is None:
            raise InputError(
                "the critic must have a class head for an auxiliary classifier, got one without; "
                "build it with labels='auxiliary'"
            )
        return F.cross_entropy(
            scores.classes.to(torch.promote_types(scores.classes.dtype, torch.float32)), batch.labels
        )


def classifies(objective: object) -> bool:
    """Whether an objective, or one within it, is ``Auxiliary``."""
    while objective is not None and not isinstance(objective, Auxiliary):
        objective = getattr(objective, "objective", None)
    return objective is not None
