"""Small players: networks of a few numbers whose games can be solved by hand, and what plays or solves them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from triptych.gan.draw import Draw, Latent
from triptych.gan.game import Batch, BatchSource, Objective, Scores, scorer
from triptych.gan.networks.mlp import MLP
from triptych.gan.networks.target import Target
from triptych.gan.optimiser import Optimiser
from triptych.gan.schedule import Constant
from triptych.gan.train import Players, Progress, Rules, train

F64 = torch.empty(0, dtype=torch.float64)
STILL = Optimiser("sgd", lr=1e-30)  # too small a rate to change any number: a generator that stays


class Affine(nn.Module):
    """shift + scale · z, z (n, d): a normal law that a generator may have."""

    def __init__(self, shift: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.shift, self.scale = nn.Parameter(shift.clone()), scale

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Points (n, d)."""
        del labels
        return self.shift + self.scale * z


class Point(Affine):
    """The law that is one point, whatever z."""

    def __init__(self, place: Tensor) -> None:
        super().__init__(place, 0.0)


class Source(nn.Module):
    """A law that cannot learn, as a generator: points are a function of the draw."""

    takes_draw = True

    def __init__(self, sample: Callable[[Draw], Tensor]) -> None:
        super().__init__()
        self.sample, self.nothing = sample, nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor, labels: Tensor | None, draw: Draw) -> Tensor:
        """Points (n, d)."""
        del z, labels
        return self.sample(draw) + 0 * self.nothing


class Slope(nn.Module):
    """D(x) = w · x, x (n, ...) flattened; its class head, for objectives that ask for one, finds both classes equally likely."""

    takes_draw = True

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w.clone())

    def forward(self, x: Tensor, labels: Tensor | None = None, draw: Draw | None = None) -> Scores:
        """Scores of n images."""
        del labels, draw
        value = x.flatten(1) @ self.w
        return Scores(value, self.logits(value))

    def logits(self, value: Tensor) -> Tensor:
        """Logits (n, 2)."""
        return value.new_zeros(len(value), 2)


@dataclass(frozen=True)
class Play:
    """A game of two small networks: what ``train`` wants to know, with plain gradient steps unless others are named."""

    generator: nn.Module
    critic: nn.Module
    objective: Objective
    batches: BatchSource
    batch: int = 1
    generator_optimiser: Optimiser = STILL
    critic_optimiser: Optimiser = field(default_factory=lambda: Optimiser("sgd", lr=0.1))
    latent: int = 1
    rules: Rules = field(default_factory=Rules)

    def players(self) -> Players:
        """The players at the start."""
        return Players(
            self.generator,
            self.critic,
            copy.deepcopy(self.generator).requires_grad_(False),
            self.generator_optimiser.build(self.generator.parameters()),
            self.critic_optimiser.build(self.critic.parameters()),
        )

    def run(
        self, steps: int, players: Players | None = None, each: Callable[[Progress], object] | None = None
    ) -> Players:
        """Play so many generator steps, and give ``each`` one's progress away."""
        players = players or self.players()
        rules = Rules(
            Latent(self.latent),
            self.generator_optimiser,
            self.critic_optimiser,
            steps=steps,
            half_life=self.rules.half_life,
            ramp=self.rules.ramp,
            accumulate=self.rules.accumulate,
        )
        game = train(players, self.objective, self.batches, seed=0, rules=rules, schedule=Constant(self.batch))
        for _ in range(steps):
            progress = next(game)
            if each is not None:
                each(progress)
        return players


def normal(name: str, n: int, d: int, like: Tensor = F64) -> Tensor:
    """n standard normal points (n, d), the same whenever they are asked for."""
    return Draw(0, 0, 0, n, "truths/").normal(name, (d,), like)


def always(points: Tensor) -> BatchSource:
    """The same points in every batch."""
    return lambda seed, seen, n: Batch(points[:n])


def perceptron(dimensions: int, width: int = 32) -> nn.Module:
    """A critic of two hidden layers of ReLU, with the weights of seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(critic_widths=(width, width)).critic(Target((dimensions,)))


def solved(critic: Slope, objective: Objective, real: Tensor, fake: Tensor) -> float:
    """Minimise a smooth convex loss of a linear critic to the last digits; the loss.

    L-BFGS ends where the loss no longer tells two points apart, at half of float64's digits; Newton's steps find the rest.
    """
    optimiser = torch.optim.LBFGS([critic.w], max_iter=500, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        total = critic_loss(critic, objective, real, fake)
        total.backward()
        return total.detach()

    optimiser.step(loss)  # pyright: ignore[reportArgumentType]
    for _ in range(3):
        (gradient,) = torch.autograd.grad(critic_loss(critic, objective, real, fake), critic.w, create_graph=True)
        rows = [torch.autograd.grad(one, critic.w, retain_graph=True)[0] for one in gradient]
        with torch.no_grad():  # a loss of differences alone is flat in one direction: hence the pseudo-inverse
            critic.w.sub_(torch.linalg.pinv(torch.stack(rows), hermitian=True, rtol=1e-10) @ gradient)
    return critic_loss(critic, objective, real, fake).item()


def critic_loss(critic: nn.Module, objective: Objective, real: Tensor, fake: Tensor) -> Tensor:
    """The critic's loss on two sets of images."""
    draw = Draw(0, 0, 0, len(real), "truths/")
    return objective.critic_loss(scorer(critic), Batch(real), Batch(fake), draw).total
