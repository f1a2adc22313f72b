"""Real images that a run is never trained on, and what they tell of it: whether its critic knows its training images by heart, how
far generated images are, how varied.
"""

import copy
from dataclasses import dataclass
from math import isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

from triptych.check import InputError, whole
from triptych.engine import Engine
from triptych.gan import checkpoint
from triptych.gan.calibrated import slopes_between
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, scorer
from triptych.gan.recipe import Recipe
from triptych.gan.train import Players, generate
from triptych.images import Images, check_apart, many_in_both

SHARE, SEED = (
    10,
    0,
)  # one in so many is held out, by the same draw in all runs, so that runs of other seeds can be compared
MEASURED = 256  # images of each kind
SIDE = 16  # pixels on which variety is measured


@dataclass(frozen=True)
class HeldOut:
    """Images to train on and images to hold out, each all of a set or those at an index (n,); nothing is copied."""

    train: Images
    images: Images
    train_index: Tensor | None = None
    index: Tensor | None = None

    @classmethod
    def tenth(cls, images: Images, batch: int) -> "HeldOut | None":
        """A tenth of the images held out, by a seed that is the same in all runs; None where too few are left for a batch."""
        count = len(images) // SHARE
        if count < 2 or len(images) - count < batch:
            return None
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))
        return cls(images, images, order[count:].sort().values, order[:count].sort().values)

    def __post_init__(self) -> None:
        if self.count < 2:
            raise InputError(f"there must be at least 2 held-out images, got {self.count}; name others, or none")
        if self.train.shape[1:] != self.images.shape[1:]:
            shapes = [" x ".join(map(str, one.shape[1:])) for one in (self.images, self.train)]
            raise InputError(f"held-out images must be of the training images' shape, {shapes[1]}, got {shapes[0]}")
        if self.index is None and self.train_index is None:
            check_apart(self.images.pixels, self.train.pixels)

    def twice(self) -> int:
        """``many_in_both`` of the held-out images and those that are trained on."""
        parts = [
            images.pixels if index is None else images.pixels[index]
            for images, index in ((self.images, self.index), (self.train, self.train_index))
        ]
        return many_in_both(*parts)

    @property
    def count(self) -> int:
        """How many are held out."""
        return len(self.images) if self.index is None else len(self.index)

    def some(self, of: str, n: int) -> Images:
        """n images "train" or "held out", the same at every call: a random draw, in a random order."""
        images, index = (self.train, self.train_index) if of == "train" else (self.images, self.index)
        total = len(images) if index is None else len(index)
        chosen = torch.randperm(total, generator=torch.Generator().manual_seed(SEED + 1))[: whole("n", n)]
        return images.take(chosen if index is None else index[chosen])


def measured(
    held_out: HeldOut, recipe: Recipe, players: Players, engine: Engine, potential: bool, n: int = MEASURED
) -> dict[str, float]:
    """What a moment of a run looks like from outside; nothing of the players changes, nor their random numbers.

    ``train_gap``, ``held_out_gap``: E D(x) - E D(x̃) on real images that were trained on, and that were not; ``gap_error`` the
    standard error of their difference. ``variety``: the median distance of a generated image to the nearest other one, over that of
    real images, on 16 pixels. Where the critic is a ``potential``: ``slope`` and ``wasserstein``, the estimate on held-out images, unless
    it is flat. Nothing is measured of networks that are not finite, which are the guard's; what is not finite is left out.
    """
    if checkpoint.unsound(checkpoint.taken(players, {}).tensors):
        return {}
    n = min(n, held_out.count, len(held_out.train if held_out.train_index is None else held_out.train_index))
    n -= n % min(n, recipe.batch)  # whole batches: of other sizes batch normalisation makes another critic
    draw = Draw(players.noise_seed, players.step, 0, n, "held out/")
    reals = {of: _batch(held_out.some(of, n), recipe, draw.named(of), engine) for of in ("train", "held out")}
    critic, generator = (
        copy.deepcopy(network).requires_grad_(False) for network in (players.critic, players.generator)
    )
    fakes, values, slopes = [], {"train": [], "held out": [], "fake": []}, []
    score, size = scorer(critic), min(n, recipe.batch)
    for first in range(0, n, size):
        part = draw.part(first, size)
        train, unseen = (_part(reals[of], first, size, part.named(of)) for of in reals)
        with torch.no_grad(), engine.autocast():
            z = recipe.rules.latent.sample(part, like=next(generator.parameters()))
            fake = Batch(generate(generator, z, unseen.labels, part.named("made")), unseen.labels, part.named("fake"))
            for name, batch in (("train", train), ("held out", unseen), ("fake", fake)):
                values[name].append(score(batch).value.double())
        fakes.append(fake.images.float())
        if potential:
            slopes.append(slopes_between(score, unseen, fake, part))
    found = _gaps({name: torch.cat(parts) for name, parts in values.items()})
    found["variety"] = variety(torch.cat(fakes), reals["held out"].images.float())
    if slopes and (slope := float(torch.cat(slopes).mean())) > 0:
        found |= {"slope": slope, "wasserstein": found["held_out_gap"] / slope}
    return {name: value for name, value in found.items() if isfinite(value)}


def variety(fake: Tensor, real: Tensor) -> float:
    """The median distance of a generated image or point to the nearest other one, over that of real ones; near 0: they are all alike."""
    near = []
    for x in (fake, real):
        small = F.adaptive_avg_pool2d(x, (min(SIDE, x.shape[2]), min(SIDE, x.shape[3]))) if x.dim() == 4 else x
        d = torch.cdist(flat := small.flatten(1).double(), flat, compute_mode="donot_use_mm_for_euclid_dist")
        near.append(float(d.fill_diagonal_(torch.inf).min(1).values.median()))
    return near[0] / near[1] if near[1] else 1.0


def _batch(images: Images, recipe: Recipe, draw: Draw, engine: Engine) -> Batch:
    """Images as the networks see them, unmirrored."""
    pixels = recipe.changed(mirror=False).scaled(images.pixels.to(engine.device), draw, engine.dtype)
    labels = images.labels if recipe.classes else None
    return Batch(pixels, None if labels is None else labels.to(engine.device))


def _part(batch: Batch, first: int, count: int, draw: Draw) -> Batch:
    rows = slice(first, first + count)
    return Batch(batch.images[rows], None if batch.labels is None else batch.labels[rows], draw)


def _gaps(values: dict[str, Tensor]) -> dict[str, float]:
    train, unseen, fake = values["train"], values["held out"], values["fake"]
    error = ((train.var() + unseen.var()) / len(train)).sqrt() if len(train) > 1 else train.new_zeros(())
    return {
        "train_gap": float(train.mean() - fake.mean()),
        "held_out_gap": float(unseen.mean() - fake.mean()),
        "gap_error": float(error),
    }
