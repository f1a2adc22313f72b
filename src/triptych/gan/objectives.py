"""The games that papers play: the losses of critic and generator on logits or potentials, each a mean over the batch."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.check import choice, real, whole, wrong
from triptych.gan.composed import Auxiliary, Regularised
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, Critic, GameLoss
from triptych.gan.penalty import gradient_penalty

CLIPS = ("before", "after")


class _Turns:
    """What most games share: ``steps`` critic steps, then one of the generator; the critic is free."""

    steps: int
    simultaneous: bool = False

    def critic_steps(self, step: int) -> int:
        """``steps``, whatever the generator's step."""
        del step
        return self.steps

    def constrain(self, critic: nn.Module, when: str) -> None:
        """Nothing: the critic is free."""


@dataclass(frozen=True)
class Minimax(_Turns):
    """Goodfellow et al., NeurIPS 2014, equation 1: D minimises E s(-D(x)) + E s(D(x̃)), G -E s(D(x̃)), s(t) = log(1 + eᵗ).

    ``simultaneous`` takes both gradients at the same parameters and ``halved`` halves D's loss, as the authors' code does.
    Raises InputError.
    """

    steps: int = 1
    simultaneous: bool = False
    halved: bool = False

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        _flags(self, "simultaneous", "halved")

    def critic_loss(self, critic: Critic, real: Batch, fake: Batch, draw: Draw) -> GameLoss:
        """E s(-D(x)) + E s(D(x̃)), or half of it."""
        del draw
        d_real, d_fake = _value(critic, real), _value(critic, fake)
        loss = F.softplus(-d_real).mean() + F.softplus(d_fake).mean()
        return GameLoss(loss / 2 if self.halved else loss, _means(d_real, d_fake))

    def generator_loss(self, critic: Critic, fake: Batch, real: Batch) -> GameLoss:
        """-E s(D(x̃)) = E log(1 - sigmoid D(x̃))."""
        del real
        return GameLoss(F.logsigmoid(-_value(critic, fake)).mean())


@dataclass(frozen=True)
class NonSaturating(Minimax):
    """Goodfellow et al., NeurIPS 2014, section 3: D as in ``Minimax``; G minimises E s(-D(x̃)), s(t) = log(1 + eᵗ)."""

    def generator_loss(self, critic: Critic, fake: Batch, real: Batch) -> GameLoss:
        """E s(-D(x̃)) = -E log sigmoid D(x̃)."""
        del real
        return GameLoss(F.softplus(-_value(critic, fake)).mean())


@dataclass(frozen=True)
class LeastSquares(_Turns):
    """Mao et al., ICCV 2017, equation 2: D minimises E (D(x) - b)² + E (D(x̃) - a)², G E (D(x̃) - c)².

    b is ``real``, a ``fake``, c ``generator``; ``halved`` halves D's loss, as gan_64x64.py of Gulrajani et al. does.
    Differs: the paper has 1/2 before both losses. Raises InputError.
    """

    steps: int = 1
    real: float = 1.0
    fake: float = 0.0
    generator: float = 1.0
    halved: bool = False

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        for name in ("real", "fake", "generator"):
            real(name, getattr(self, name))
        _flags(self, "halved")

    def critic_loss(self, critic: Critic, real: Batch, fake: Batch, draw: Draw) -> GameLoss:
        """E (D(x) - b)² + E (D(x̃) - a)², or half of it."""
        del draw
        d_real, d_fake = _value(critic, real), _value(critic, fake)
        loss = (d_real - self.real).square().mean() + (d_fake - self.fake).square().mean()
        return GameLoss(loss / 2 if self.halved else loss, _means(d_real, d_fake))

    def generator_loss(self, critic: Critic, fake: Batch, real: Batch) -> GameLoss:
        """E (D(x̃) - c)²."""
        del real
        return GameLoss((_value(critic, fake) - self.generator).square().mean())


@dataclass(frozen=True)
class Wasserstein(_Turns):
    """Arjovsky et al., ICML 2017, Algorithm 1: D minimises E D(x̃) - E D(x), all weights in [-clip, clip]; G -E D(x̃).

    ``steps`` critic steps, but ``long_steps`` of them before the generator's steps 0 .. long_until - 1 and at every
    multiple of ``long_every`` (0: at none), as in the authors' code. ``clip_when``: weights are clipped 'before' a critic
    step, as in the code, or 'after' it, as in the paper. Raises InputError.
    """

    clip: float = 0.01
    steps: int = 5
    long_steps: int = 100
    long_until: int = 25
    long_every: int = 500
    clip_when: str = "before"

    def __post_init__(self) -> None:
        real("clip", self.clip, above=0)
        for name in ("steps", "long_steps"):
            whole(name, getattr(self, name))
        for name in ("long_until", "long_every"):
            whole(name, getattr(self, name), low=0)
        choice("clip_when", self.clip_when, CLIPS)

    def critic_steps(self, step: int) -> int:
        """``long_steps`` where D should be near its optimum first, else ``steps``."""
        long = step < self.long_until or (self.long_every > 0 and step % self.long_every == 0)
        return self.long_steps if long else self.steps

    def critic_loss(self, critic: Critic, real: Batch, fake: Batch, draw: Draw) -> GameLoss:
        """E D(x̃) - E D(x); the part "gap" is E D(x) - E D(x̃)."""
        del draw
        d_real, d_fake = _value(critic, real), _value(critic, fake)
        gap = d_real.mean() - d_fake.mean()
        return GameLoss(-gap, {"gap": gap, **_means(d_real, d_fake)})

    def generator_loss(self, critic: Critic, fake: Batch, real: Batch) -> GameLoss:
        """-E D(x̃)."""
        del real
        return GameLoss(-_value(critic, fake).mean())

    @torch.no_grad()
    def constrain(self, critic: nn.Module, when: str) -> None:
        """Clip every parameter to [-clip, clip], those of normalisation too."""
        if when == self.clip_when:
            for parameter in critic.parameters():
                parameter.clamp_(-self.clip, self.clip)


@dataclass(frozen=True)
class WassersteinGP(_Turns):
    """Gulrajani et al., NeurIPS 2017, Algorithm 1: D minimises E D(x̃) - E D(x) + weight · E (‖∇D(x̂)‖₂ - target)², G -E D(x̃).

    ``one_sided`` penalises norms above the target alone. ``drift`` adds drift · E D(x)² (Karras et al., ICLR 2018, who
    divide the penalty by target² as well: that is another weight). Raises InputError.
    """

    weight: float = 10.0
    steps: int = 5
    target: float = 1.0
    one_sided: bool = False
    drift: float = 0.0

    def __post_init__(self) -> None:
        for name in ("weight", "drift"):
            real(name, getattr(self, name), low=0)
        real("target", self.target, low=0)
        whole("steps", self.steps)
        _flags(self, "one_sided")

    def critic_loss(self, critic: Critic, real: Batch, fake: Batch, draw: Draw) -> GameLoss:
        """E D(x̃) - E D(x) + weight · penalty + drift · E D(x)²; the parts "gap", "penalty" (unweighted)."""
        d_real, d_fake = _value(critic, real), _value(critic, fake)
        gap = d_real.mean() - d_fake.mean()
        penalty = gradient_penalty(critic, real, fake, draw, target=self.target, one_sided=self.one_sided)
        loss = self.weight * penalty - gap
        if self.drift:
            loss = loss + self.drift * d_real.square().mean()
        return GameLoss(loss, {"gap": gap, "penalty": penalty, **_means(d_real, d_fake)})

    def generator_loss(self, critic: Critic, fake: Batch, real: Batch) -> GameLoss:
        """-E D(x̃)."""
        del real
        return GameLoss(-_value(critic, fake).mean())


@dataclass(frozen=True)
class Hinge(_Turns):
    """Lim & Ye, 2017 (arXiv 1705.02894); Miyato et al., ICLR 2018: D minimises E max(0, 1 - D(x)) + E max(0, 1 + D(x̃)), G -E D(x̃).

    Raises InputError.
    """

    steps: int = 1

    def __post_init__(self) -> None:
        whole("steps", self.steps)

    def critic_loss(self, critic: Critic, real: Batch, fake: Batch, draw: Draw) -> GameLoss:
        """E max(0, 1 - D(x)) + E max(0, 1 + D(x̃))."""
        del draw
        d_real, d_fake = _value(critic, real), _value(critic, fake)
        return GameLoss(F.relu(1 - d_real).mean() + F.relu(1 + d_fake).mean(), _means(d_real, d_fake))

    def generator_loss(self, critic: Critic, fake: Batch, real: Batch) -> GameLoss:
        """-E D(x̃)."""
        del real
        return GameLoss(-_value(critic, fake).mean())


@dataclass(frozen=True)
class Relativistic(_Turns):
    """Jolicoeur-Martineau, ICLR 2019: D minimises E s(D(x̃) - D(x)), G E s(D(x) - D(x̃)), s(t) = log(1 + eᵗ).

    Image i is compared with image i, as in R3GAN (Huang et al., NeurIPS 2024). ``averaged`` compares every image with the
    mean of the other side: D minimises E s(E D(x̃) - D(x)) + E s(D(x̃) - E D(x)), G the same with x and x̃ exchanged; the
    means are over the piece of the batch that is at hand, so that here alone pieces do not add up to the whole.
    Raises InputError.
    """

    steps: int = 1
    averaged: bool = False

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        _flags(self, "averaged")

    def critic_loss(self, critic: Critic, real: Batch, fake: Batch, draw: Draw) -> GameLoss:
        """How far real images fall short of generated ones."""
        del draw
        d_real, d_fake = _value(critic, real), _value(critic, fake)
        return GameLoss(self._short(d_real, d_fake), _means(d_real, d_fake))

    def generator_loss(self, critic: Critic, fake: Batch, real: Batch) -> GameLoss:
        """How far generated images fall short of real ones."""
        return GameLoss(self._short(_value(critic, fake), _value(critic, real)))

    def _short(self, above: Tensor, below: Tensor) -> Tensor:
        if self.averaged:
            return F.softplus(below.mean() - above).mean() + F.softplus(below - above.mean()).mean()
        return F.softplus(below - above).mean()


OBJECTIVES = (
    Minimax,
    NonSaturating,
    LeastSquares,
    Wasserstein,
    WassersteinGP,
    Hinge,
    Relativistic,
    Regularised,
    Auxiliary,
)


def _value(critic: Critic, batch: Batch) -> Tensor:
    """D(x) of each image (n,), in float32 at least: a loss's last digits matter."""
    value = critic(batch).value
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _means(d_real: Tensor, d_fake: Tensor) -> dict[str, Tensor]:
    return {"critic_real": d_real.mean(), "critic_fake": d_fake.mean()}


def _flags(objective: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(objective, name), bool):
            raise wrong(name, "true or false", getattr(objective, name))
