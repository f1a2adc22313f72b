"""A recipe: everything that a run is, resolved; what builds its players and feeds them images."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from triptych.check import InputError, choice, whole, wrong
from triptych.engine import Engine
from triptych.gan.composed import classifies
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, BatchSource, Objective
from triptych.gan.networks.target import Architecture, Target
from triptych.gan.objectives import OBJECTIVES
from triptych.gan.schedule import Constant
from triptych.gan.train import ONE_PROCESS, Players, Progress, Rules, train
from triptych.images import Images

SCALES = {"signed": "tanh", "unit": "sigmoid", "dequantised": "tanh", "none": "linear"}


@dataclass(frozen=True)
class Recipe:
    """A game with all its numbers; ``follows`` names the text or the code that they are taken from.

    ``scale`` says what the networks see of a byte x: 'signed' x / 127.5 - 1, 'unit' x / 255, 'dequantised' x / 128 - 1 plus
    uniform noise below 1 / 128, 'none' points as they are. ``classes`` is 0 where labels are not used. ``mirror`` flips half of the
    images, each time anew. Raises InputError where the parts do not fit together.
    """

    name: str
    follows: str
    objective: Objective
    generator: Architecture
    critic: Architecture
    shape: tuple[int, ...]
    classes: int = 0
    labels: str = "concatenate"
    scale: str = "signed"
    batch: int = 64
    mirror: bool = False
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        whole("batch", self.batch)
        choice("scale", self.scale, SCALES)
        object.__setattr__(self, "shape", tuple(self.shape))
        self.target.__post_init__()
        if self.scale == "none" and len(self.shape) == 3:
            raise wrong("scale", "signed, unit or dequantised for images (none is for points)", self.scale)
        self._check_classifier()

    def _check_classifier(self) -> None:
        """Raise InputError where the critic has a classifier that no loss trains, or a loss has no classifier."""
        there, kind = bool(self.classes) and self.labels == "auxiliary", type(self.objective)
        if classifies(self.objective) and not there:
            told = self.labels if self.classes else "images without labels"
            raise wrong("labels", "'auxiliary', of labelled images, for the objective Auxiliary", told)
        if there and kind in OBJECTIVES and not classifies(self.objective):
            raise wrong(
                "objective", "Auxiliary where labels are 'auxiliary', so that the classifier learns", kind.__name__
            )

    @property
    def target(self) -> Target:
        """What the networks are built for."""
        return Target(self.shape, self.classes, SCALES[self.scale], self.labels)

    def networks(self, seed: int) -> tuple[nn.Module, nn.Module]:
        """A generator and a critic with the weights that a seed gives, on the CPU in float32."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(whole("seed", seed, low=0))
            return self.generator.generator(self.target, self.rules.latent.size), self.critic.critic(self.target)

    def players(self, seed: int = 0, engine: Engine = ONE_PROCESS) -> Players:
        """The players at the start of a run, placed on the engine's device."""
        generator, critic = (engine.place(network) for network in self.networks(seed))
        average = copy.deepcopy(generator).requires_grad_(False)
        return Players(
            generator,
            critic,
            average,
            self.rules.generator_optimiser.build(generator.parameters()),
            self.rules.critic_optimiser.build(critic.parameters()),
            noise_seed=seed,
        )

    def batches(self, images: Images, engine: Engine = ONE_PROCESS, index: Tensor | None = None) -> BatchSource:
        """The images, all or those at an index (m,), as the networks see them.

        Raises InputError where shape or labels are not the recipe's, or they are too few.
        """
        count = len(images) if index is None else len(index)
        if images.shape[1:] != self.shape:
            raise InputError(f"images must be of {_times(self.shape)}, got {_times(images.shape[1:])}")
        if self.classes and images.labels is None:
            raise InputError(
                "images must be labelled for a conditional recipe, got unlabelled ones; leave --labels away"
            )
        if self.classes and len(images.classes) != self.classes:
            raise InputError(f"images must have {self.classes} classes, got {len(images.classes)}")
        if count < self.batch:
            raise InputError(
                f"there must be at least as many images as a batch of {self.batch} takes, got {count}; "
                "give more images or a smaller --batch"
            )

        def batches(seed: int, seen: int, n: int) -> Batch:
            chosen = images.batch(seed, seen, n, index)
            draw = Draw(seed, 0, seen, n, "images/")
            pixels = self.scaled(chosen.pixels.to(engine.device), draw, engine.dtype)
            labels = None if not self.classes or chosen.labels is None else chosen.labels.to(engine.device)
            return Batch(pixels, labels)

        return batches

    def game(
        self, players: Players, batches: BatchSource, seed: int = 0, engine: Engine = ONE_PROCESS
    ) -> Iterator[Progress]:
        """The loop of ``train`` with the recipe's objective, rules and batch."""
        schedule = Constant(self.batch)
        return train(players, self.objective, batches, seed=seed, rules=self.rules, schedule=schedule, engine=engine)

    def scaled(self, pixels: Tensor, draw: Draw, dtype: torch.dtype = torch.float32) -> Tensor:
        """Bytes (n, c, h, w) as the networks see them; ``draw`` has the mirror's and the noise's numbers."""
        x = pixels.to(dtype, memory_format=torch.channels_last)
        if self.scale == "dequantised":
            x = x / 128 - 1 + draw.uniform("dequantise", tuple(x.shape[1:]), like=x) / 128
        else:
            x = x / 127.5 - 1 if self.scale == "signed" else x / 255
        if self.mirror:
            flip = draw.uniform("mirror", like=x) < 0.5
            x = torch.where(flip[:, None, None, None], x.flip(3), x)
        return x

    def pixels(self, images: Tensor) -> Tensor:
        """What a generator made, as bytes."""
        x = images.detach().float()
        if self.scale == "dequantised":  # the noise is above the byte
            x = ((x + 1) * 128).floor()
        else:
            x = (x * 255 if self.scale == "unit" else (x + 1) * 127.5).round()
        return x.clamp(0, 255).to(torch.uint8).contiguous()

    def changed(self, **fields: object) -> "Recipe":
        """The recipe with some fields changed; those of ``rules`` are found there."""
        own = {name: value for name, value in fields.items() if name in Recipe.__dataclass_fields__}
        rules = {name: value for name, value in fields.items() if name not in own}
        return replace(self, **own, rules=replace(self.rules, **rules))  # pyright: ignore[reportArgumentType]


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
