"""The words of the game: a batch of images, what a critic says of it, a loss with its parts, and what an objective is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from triptych.check import wrong
from triptych.gan.draw import Draw


@dataclass(frozen=True)
class Batch:
    """Images (n, ...) as a network sees them, their labels (n,) or None, and the draw that dropout takes its numbers from."""

    images: Tensor
    labels: Tensor | None = None
    draw: Draw | None = None


@dataclass(frozen=True)
class Scores:
    """What a critic says of a batch: one value an image (n,), and class logits (n, classes) where it has such a head.

    Values are logits, or Wasserstein potentials: no critic ends in a sigmoid.
    """

    value: Tensor
    classes: Tensor | None = None


@dataclass(frozen=True)
class GameLoss:
    """What a player minimises, a mean over the batch, and its named parts, which are what is logged."""

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


Critic = Callable[[Batch], Scores]
BatchSource = Callable[[int, int, int], Batch]
"""``batches(seed, seen, n)``: the n images that follow after ``seen`` of the endless stream that the seed defines."""


class Objective(Protocol):
    """The two losses of a game; it knows no architecture.

    ``simultaneous``: both players' gradients are taken at the same parameters. ``constrain`` keeps the critic in its set;
    it is called before every critic step (``when`` is "before") and after it ("after").
    """

    @property
    def simultaneous(self) -> bool:
        """Whether both gradients are taken at the same parameters."""
        ...

    def critic_steps(self, step: int) -> int:
        """How many critic steps come before generator step ``step``, counted from 0."""
        ...

    def critic_loss(self, critic: Critic, real: Batch, fake: Batch, draw: Draw) -> GameLoss:
        """What the critic minimises; ``draw`` has the interpolation's numbers."""
        ...

    def generator_loss(self, critic: Critic, fake: Batch, real: Batch) -> GameLoss:
        """What the generator minimises."""
        ...

    def constrain(self, critic: nn.Module, when: str) -> None:
        """Bring the critic back to its set."""
        ...


def scorer(critic: nn.Module) -> Critic:
    """A critic network as a function of a batch.

    A network of this package is called as ``critic(images, labels, draw)`` and returns ``Scores``. Any other module is
    called as ``critic(images)``, or ``critic(images, labels)`` where the batch is labelled, and may return a tensor (n,) or
    (n, 1).
    """
    return _Scorer(critic)


@dataclass(frozen=True)
class _Scorer:
    """What ``scorer`` returns."""

    critic: nn.Module

    def __call__(self, batch: Batch) -> Scores:
        """Score a batch."""
        if getattr(self.critic, "takes_draw", False):
            return self.critic(batch.images, batch.labels, batch.draw)
        said = self.critic(batch.images) if batch.labels is None else self.critic(batch.images, batch.labels)
        if isinstance(said, Scores):
            return said
        if said.numel() != len(batch.images):
            raise wrong("critic", f"a network with one value for each of {len(batch.images)} images", tuple(said.shape))
        return Scores(said.flatten())

    def input_gradient(self, batch: Batch) -> Tensor | None:
        """The values' gradient by the images where the network has a pass of its own for it, else None."""
        own = getattr(self.critic, "input_gradient", None)
        return None if own is None else own(batch.images, batch.labels, batch.draw)
