"""The one loop of all adversarial networks: it yields after every step, and whoever iterates stops, logs and saves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from triptych.check import real as real_number
from triptych.check import whole
from triptych.engine import Engine
from triptych.gan.draw import Draw, Latent
from triptych.gan.game import Batch, BatchSource, GameLoss, Objective, scorer
from triptych.gan.optimiser import Optimiser
from triptych.gan.schedule import Schedule, Stage

ONE_PROCESS = Engine()


@dataclass(frozen=True)
class Rules:
    """How a game is played, whatever its objective.

    ``steps`` is the length of the run, which falling rates refer to. ``generator_factor``: the generator's batch is as many
    times the critic's. ``reuse_noise``: the generator's step takes the noise of the last critic step. ``half_life``: images
    after which a weight's share of the generator's average has halved; it begins at ``ramp`` of the images seen.
    ``accumulate``: pieces that a batch is cut into.
    """

    latent: Latent = field(default_factory=Latent)
    generator_optimiser: Optimiser = field(default_factory=Optimiser)
    critic_optimiser: Optimiser = field(default_factory=Optimiser)
    steps: int = 10_000
    generator_factor: int = 1
    reuse_noise: bool = False
    half_life: float = 10_000.0
    ramp: float = 0.05
    accumulate: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "generator_factor", "accumulate"):
            whole(name, getattr(self, name))
        real_number("half_life", self.half_life, low=0)
        real_number("ramp", self.ramp, low=0)


@dataclass
class Players:
    """The networks, the generator's average, the optimisers, and where the game stands.

    ``step`` counts generator steps, ``seen`` the real images that the critic was given, ``critic_updates`` its steps.
    ``noise_seed`` and ``rate_scale`` change when a run is rolled back.
    """

    generator: nn.Module
    critic: nn.Module
    average: nn.Module
    generator_optimiser: torch.optim.Optimizer
    critic_optimiser: torch.optim.Optimizer
    noise_seed: int = 0
    step: int = 0
    seen: int = 0
    critic_updates: int = 0
    rate_scale: float = 1.0


@dataclass(frozen=True)
class Progress:
    """Where the game stands after a generator step, and the step's losses and their parts, each a mean over its batches."""

    step: int
    seen: int
    parts: Mapping[str, Tensor]

    def numbers(self) -> dict[str, float]:
        """The parts as floats."""
        return {name: float(value) for name, value in self.parts.items()}


def train(
    players: Players,
    objective: Objective,
    batches: BatchSource,
    *,
    seed: int,
    rules: Rules,
    schedule: Schedule,
    engine: Engine = ONE_PROCESS,
) -> Iterator[Progress]:
    """Play on from where the players stand, without end: critic steps, then one generator step, then a ``Progress``.

    Goodfellow et al., NeurIPS 2014, Algorithm 1, for any objective. ``seed`` chooses the real images; noise is drawn from
    the players' own. Everything random is a function of (seed, step, image), so that a run that was interrupted between
    two steps goes on with the same numbers.
    Labels of generated images, the generator's step included, are those of the real images beside them.
    """
    turn = Turn(players, objective, batches, seed, rules, engine)
    while True:
        yield turn.play(schedule.at(players.seen))


@dataclass(frozen=True)
class Turn:
    """One step of the game, in its parts."""

    players: Players
    objective: Objective
    batches: BatchSource
    seed: int
    rules: Rules
    engine: Engine

    def play(self, stage: Stage) -> Progress:
        """Take the critic's steps and the generator's, and average."""
        players, before = self.players, self.players.seen
        parts: list[dict[str, Tensor]] = []
        reals: list[Batch] = []
        made: list[Batch] = []
        count = whole("critic_steps", self.objective.critic_steps(players.step))
        for k in range(count):
            self.objective.constrain(players.critic, "before")
            reals, made, said = self.critic_gradients(stage, k, keep=self.reused and k == count - 1)
            parts.append(said)
            if not self.objective.simultaneous or k < count - 1:
                self.update_critic()
            players.seen += stage.batch
        parts.append(self.generator_gradients(stage, count - 1, reals, made))
        if self.objective.simultaneous:
            self.update_critic()
        self.update_generator()
        average(players.average, players.generator, self.decay(players.seen - before, players.seen))
        players.step += 1
        return Progress(players.step, players.seen, _means(parts))

    @property
    def reused(self) -> bool:
        """Whether the generator's step has the images, and not only the noise, of the last critic step: one pass less."""
        return self.rules.reuse_noise and self.rules.generator_factor == self.rules.accumulate == 1

    def critic_gradients(
        self, stage: Stage, k: int, keep: bool = False
    ) -> tuple[list[Batch], list[Batch], dict[str, Tensor]]:
        """The critic's gradients in critic step k: the real and generated batches, piece by piece, the loss with its parts.

        Generated images have the graph to the generator where it is to be kept.
        """
        players, reals, made, losses, shares = self.players, [], [], [], []
        players.critic_optimiser.zero_grad(set_to_none=True)
        for first, count in self.engine.slices(stage.batch, self.rules.accumulate):
            draw = self._draw(first, count).named(f"critic {k}")
            given = self.batches(self.seed, players.seen + first, count)
            real = Batch(given.images, given.labels, draw.named("real"))
            reals.append(real)
            with self.engine.autocast():
                with torch.set_grad_enabled(keep):
                    made.append(self.fake(real, draw))
                fake = replace(made[-1], images=made[-1].images.detach())
                loss = self.objective.critic_loss(scorer(players.critic), real, fake, draw)
            shares.append(count / stage.batch)
            (loss.total * shares[-1]).backward()
            losses.append(loss)
        return reals, made, self._summed("critic_loss", players.critic, losses, shares)

    def generator_gradients(
        self, stage: Stage, k: int, reals: Sequence[Batch], made: Sequence[Batch]
    ) -> dict[str, Tensor]:
        """The generator's gradients after critic step k; the critic's parameters are left out of the graph."""
        players, factor, losses, shares = self.players, self.rules.generator_factor, [], []
        players.generator_optimiser.zero_grad(set_to_none=True)
        free = [parameter for parameter in players.critic.parameters() if parameter.requires_grad]
        for parameter in free:
            parameter.requires_grad_(False)
        for real, kept, (first, count) in zip(reals, made, self.engine.slices(stage.batch, self.rules.accumulate)):
            draw = self._draw(first * factor, count * factor)
            draw = draw.named(f"critic {k}" if self.rules.reuse_noise else "generator")
            beside = _repeated(real, factor, draw)
            with self.engine.autocast():
                fake = kept if self.reused else self.fake(beside, draw)
                loss = self.objective.generator_loss(scorer(players.critic), fake, beside)
            shares.append(count / stage.batch)
            (loss.total * shares[-1]).backward()
            losses.append(loss)
        for parameter in free:
            parameter.requires_grad_(True)
        return self._summed("generator_loss", players.generator, losses, shares)

    def fake(self, real: Batch, draw: Draw) -> Batch:
        """Generated images with the labels of the real ones."""
        z = self.rules.latent.sample(draw, like=_reference(self.players.generator))
        images = generate(self.players.generator, z, real.labels, draw.named("made"))
        return Batch(images, real.labels, draw.named("fake"))

    def update_critic(self) -> None:
        """Step the critic and bring it back to its set."""
        players, rules = self.players, self.rules
        rules.critic_optimiser.set(
            players.critic_optimiser, players.step, rules.steps, players.seen, players.rate_scale
        )
        players.critic_optimiser.step()
        players.critic_updates += 1
        self.objective.constrain(players.critic, "after")

    def update_generator(self) -> None:
        """Step the generator."""
        players, rules = self.players, self.rules
        rules.generator_optimiser.set(
            players.generator_optimiser, players.step, rules.steps, players.seen, players.rate_scale
        )
        players.generator_optimiser.step()

    def decay(self, images: int, seen: int) -> float:
        """The share of the old average after a step of so many images."""
        half_life = min(self.rules.half_life, self.rules.ramp * seen) if self.rules.ramp else self.rules.half_life
        return 0.5 ** (images / half_life) if half_life else 0.0

    def _draw(self, first: int, count: int) -> Draw:
        return Draw(self.players.noise_seed, self.players.step, first, count)

    def _summed(
        self, name: str, module: nn.Module, losses: Sequence[GameLoss], shares: Sequence[float]
    ) -> dict[str, Tensor]:
        """Sum gradients, losses and parts over pieces and processes."""
        names = [name, *losses[0].parts]
        values = [torch.stack([loss.total, *loss.parts.values()]).detach() * s for loss, s in zip(losses, shares)]
        total = self.engine.sum_gradients(module.parameters(), torch.stack(values).sum(0))
        return dict(zip(names, total.unbind()))


def generate(generator: nn.Module, z: Tensor, labels: Tensor | None = None, draw: Draw | None = None) -> Tensor:
    """Images of z: a network of this package is called with (z, labels, draw), any other with z, and labels where there are."""
    if getattr(generator, "takes_draw", False):
        return generator(z, labels, draw)
    return generator(z) if labels is None else generator(z, labels)


@torch.no_grad()
def average(into: nn.Module, module: nn.Module, decay: float) -> None:
    """into = decay · into + (1 - decay) · module, parameters and floating-point buffers; other buffers are copied."""
    theirs, ours = [], []
    for mine, other in zip((*into.parameters(), *into.buffers()), (*module.parameters(), *module.buffers())):
        if mine.is_floating_point():
            ours.append(mine)
            theirs.append(other)
        else:
            mine.copy_(other)
    for mine, other in zip(ours, theirs):
        mine.lerp_(other, 1 - decay)


def _reference(module: nn.Module) -> Tensor:
    """A tensor of the network's device and type."""
    return next(module.parameters()).detach()


def _repeated(real: Batch, factor: int, draw: Draw) -> Batch:
    """Each real image ``factor`` times in a row, beside as many generated ones, with the generator step's draw."""
    images = real.images if factor == 1 else real.images.repeat_interleave(factor, 0)
    labels = None if real.labels is None else real.labels.repeat_interleave(factor)
    return Batch(images, labels, draw.named("real"))


def _means(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each name over the steps that have it."""
    names = {name: None for said in parts for name in said}
    return {name: torch.stack([said[name] for said in parts if name in said]).mean() for name in names}
