"""What any objective owes, a user's own too: finite gradients, means over images, a critic and a generator that improve."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import Case
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, GameLoss, Objective, scorer
from triptych.gan.truths.dirac import RATE, play
from triptych.gan.truths.small import F64, Slope, normal

ROUNDING = "float64 rounding of sums of up to 64 images"


class Telling(Slope):
    """D(x) = w · x, and two classes with the logits D(x) and -D(x)."""

    def logits(self, value: Tensor) -> Tensor:
        """Logits (n, 2)."""
        return torch.stack([value, -value], 1)


@dataclass(frozen=True)
class Losses:
    """Both losses of one pair of batches, and their derivatives by the critic's weights and by generated images."""

    critic: GameLoss
    generator: GameLoss
    by_weights: Tensor
    by_images: Tensor


def losses(objective: Objective, critic: Slope, real: Tensor, fake: Tensor) -> Losses:
    """The losses at a linear critic; image i has label i mod 2."""
    fake, draw = fake.clone().requires_grad_(), Draw(0, count=len(real))
    batches = [Batch(x, torch.arange(len(x)) % 2, draw.named(name)) for name, x in (("real", real), ("fake", fake))]
    said = objective.critic_loss(
        scorer(critic), batches[0], Batch(fake.detach(), batches[1].labels, batches[1].draw), draw
    )
    (by_weights,) = torch.autograd.grad(said.total, critic.w, allow_unused=True, materialize_grads=True)
    asked = objective.generator_loss(scorer(critic), batches[1], batches[0])
    (by_images,) = torch.autograd.grad(asked.total, fake, allow_unused=True, materialize_grads=True)
    return Losses(said, asked, by_weights, by_images)


def owed(objective: Objective) -> Iterator[Case]:
    """Every case that an objective has to pass, whatever it is."""
    yield from shapes(objective)
    yield from means(objective)
    yield from penalties(objective)
    yield from play_out(objective)


def shapes(objective: Objective) -> Iterator[Case]:
    """Steps, parts, finite gradients, also where the critic is flat, and no random numbers but the draw's."""
    steps = [objective.critic_steps(step) for step in range(1001)]
    odd = sum(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in steps)
    yield Case(
        "critic steps before steps 0 to 1000 that are no whole number of at least 1", 0.0, float(odd), 0.0, "a count"
    )
    real, fake = normal("real", 8, 3), normal("fake", 8, 3) + 1
    before = torch.get_rng_state()
    for name, w in (("a slope of 1", F64.new_tensor([0.6, 0.0, 0.8])), ("a flat critic", F64.new_zeros(3))):
        found = losses(objective, Telling(w), real, fake)
        numbers = [found.critic.total, found.generator.total, found.by_weights, found.by_images]
        numbers += [*found.critic.parts.values(), *found.generator.parts.values()]
        bad = sum(int((~torch.as_tensor(n).isfinite()).sum()) for n in numbers)
        yield Case(f"losses, parts and gradients at {name} that are not finite", 0.0, float(bad), 0.0, "a count")
    again = losses(objective, Telling(w), real, fake)
    differ = (again.critic.total.item() != found.critic.total.item()) + (not torch.equal(before, torch.get_rng_state()))
    yield Case("the same draw, another loss; PyTorch's own random numbers used", 0.0, float(differ), 0.0, "a count")
    shared = set(found.critic.parts) & set(found.generator.parts)
    vectors = [
        part for loss in (found.critic, found.generator) for part in (loss.total, *loss.parts.values()) if part.dim()
    ]
    name = "names of parts that both players have, and losses and parts that are no single number"
    yield Case(name, 0.0, float(len(shared) + len(vectors)), 0.0, "a count")


def means(objective: Objective) -> Iterator[Case]:
    """A mean over images: a batch given twice has the same loss, in another order too, and one image counts as 64 of it.

    The critic is linear, so that interpolation has no say.
    """
    w = F64.new_tensor([0.9, -0.3, 1.2])
    real, fake = normal("real", 8, 3), normal("fake", 8, 3) + 0.5
    order = torch.tensor([2, 5, 0, 7, 4, 1, 6, 3])  # labels are the index mod 2: 2, 5, 0, 7, 4, 1, 6, 3 keep theirs
    changed = {"twice": (real.repeat(2, 1), fake.repeat(2, 1)), "in another order": (real[order], fake[order])}
    base = losses(objective, Telling(w), real, fake)
    for name, (x, y) in changed.items():
        other = losses(objective, Telling(w), x, y)
        for player in ("critic", "generator"):
            one, two = (getattr(found, player).total.item() for found in (base, other))
            yield Case(f"the {player}'s loss of a batch given {name}", one, two, 1e-13 * max(1, abs(one)), ROUNDING)
    base = losses(objective, Telling(w), real[:2], fake[:2])
    for n in (8, 64):
        other = losses(objective, Telling(w), real[:2].repeat(n // 2, 1), fake[:2].repeat(n // 2, 1))
        one, two = base.critic.total.item(), other.critic.total.item()
        name = f"the critic's loss of two pairs of images, given {n // 2} times"
        yield Case(name, one, two, 1e-13 * max(1, abs(one)), ROUNDING)


def penalties(objective: Objective) -> Iterator[Case]:
    """A part named "penalty" is 0 for a critic of slope 1, whatever the number of images."""
    w = F64.new_tensor([0.6, 0.0, 0.8])
    for n in (1, 4, 64):
        found = losses(objective, Telling(w), normal("real", n, 3), normal("fake", n, 3))
        if "penalty" in found.critic.parts:
            penalty = found.critic.parts["penalty"].item()
            yield Case(f"penalty of a critic of slope 1, {n} images", 0.0, penalty, 1e-28, "float64 rounding, squared")


def play_out(objective: Objective) -> Iterator[Case]:
    """Data at (3, 0) on average, generated points at 0: the critic's loss falls, and its slope sends the generator there."""
    real, fake = normal("real", 256, 2) + F64.new_tensor([3.0, 0.0]), normal("fake", 256, 2)
    critic = Telling(F64.new_tensor([0.0, 0.02]))
    objective.constrain(critic, "before")
    first = losses(objective, critic, real, fake)
    found = first
    for _ in range(60):
        objective.constrain(critic, "before")
        found = losses(objective, critic, real, fake)
        with torch.no_grad():
            critic.w.sub_(0.02 * found.by_weights)
        objective.constrain(critic, "after")
    fell = found.critic.total.item() < first.critic.total.item()
    yield Case("the critic's loss has fallen after 60 steps: 1 says yes", 1.0, float(fell), 0.0, "a comparison")
    towards = -(found.by_images.mean(0) @ F64.new_tensor([1.0, 0.0])).item()
    yield Case("then the generator is sent towards the data: 1 says yes", 1.0, float(towards > 0), 0.0, "a comparison")


@dataclass(frozen=True)
class DiracReport:
    """How a game moves on the Dirac GAN (``dirac``): the eigenvalues of the derivative of its velocity at the equilibrium.

    Mescheder et al., ICML 2018: it converges from nearby, at a geometric rate, where all real parts are below 0. None where
    the velocity has no derivative there. ``distance``: of the place from the equilibrium where ``steps`` steps of 0.1, as
    ``train`` plays, have led from (1, 1).
    """

    eigenvalues: tuple[complex, ...] | None
    distance: float
    steps: int

    @property
    def converges(self) -> bool:
        """Whether a start nearby ends at the equilibrium."""
        return self.eigenvalues is not None and all(value.real < -1e-6 for value in self.eigenvalues)

    def in_words(self) -> str:
        """The report as a sentence."""
        where = f"{self.distance:.2g} away from the equilibrium" if math.isfinite(self.distance) else "nowhere"
        end = f"{self.steps} steps of {RATE:g} from (1, 1) end {where}"
        if self.eigenvalues is None:
            return f"on the Dirac GAN the game is not smooth at its equilibrium: no convergence is promised; {end}"
        values = " and ".join(f"{v.real:.3f} {'-' if v.imag < 0 else '+'} {abs(v.imag):.3f}i" for v in self.eigenvalues)
        verdict = "it converges" if self.converges else "it does not converge at a geometric rate"
        return f"on the Dirac GAN the game's eigenvalues are {values}: {verdict}; {end}"


def dirac_report(objective: Objective, steps: int = 500) -> DiracReport:
    """The game of an objective on the Dirac GAN: its eigenvalues, and the end of so many steps."""
    coarse, fine = (derivative(objective, small) for small in (1e-4, 1e-5))
    smooth = bool(fine.isfinite().all() and (coarse - fine).abs().max() <= 1e-3 * (1 + fine.abs().max()))
    values = tuple(torch.linalg.eigvals(fine).tolist()) if smooth else None
    return DiracReport(values, math.hypot(*play(objective, (1.0, 1.0), steps)[-1]), steps)


def ended(report: DiracReport) -> Case:
    """The game on the Dirac GAN may turn, and grow, but it has to end somewhere."""
    lost = float(not math.isfinite(report.distance))
    name = f"ends of {report.steps} steps on the Dirac GAN that are not finite"
    return Case(name, 0.0, lost, 0.0, "a count")


def derivative(objective: Objective, small: float) -> Tensor:
    """The derivative of the velocity by (θ, ψ) at (0, 0), (2, 2), by central differences."""
    columns = [velocity(objective, small * e) - velocity(objective, -small * e) for e in torch.eye(2, dtype=F64.dtype)]
    return torch.stack(columns, 1) / (2 * small)


def velocity(objective: Objective, place: Tensor) -> Tensor:
    """(-∂ of the generator's loss by θ, -∂ of the critic's by ψ) at a place (θ, ψ)."""
    theta, psi = place[:1], place[1:]
    found = losses(objective, Slope(psi), F64.new_zeros(1, 1), theta[None])
    return -torch.cat([found.by_images.flatten(), found.by_weights])
