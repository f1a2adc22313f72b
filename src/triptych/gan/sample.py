"""Images of a trained generator: image i of a seed is the same whatever else is asked for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from triptych.check import InputError, real, whole
from triptych.gan.draw import Draw, Latent
from triptych.gan.pictures import grid_png
from triptych.gan.recipe import Recipe
from triptych.gan.train import generate

BLOCK = 16
DOUBLE = torch.empty(0, dtype=torch.float64)


@dataclass(frozen=True)
class Sampler:
    """A generator with the recipe that it was trained by; z are float64 (n, size), images uint8 (n, c, h, w).

    The network is evaluated in blocks of 16 images, of which the k-th begins at image 16 k, in evaluation mode, so that an
    image does not depend, to the bit, on how many others are asked for. Raises InputError for points, which are no pictures.
    """

    recipe: Recipe
    generator: nn.Module

    def __post_init__(self) -> None:
        if len(self.recipe.shape) != 3:
            raise InputError(
                f"the run must be one of images, but it generates points of {self.recipe.shape[0]} dimensions"
            )

    @property
    def latent(self) -> Latent:
        """The law of z."""
        return self.recipe.rules.latent

    def z(self, seed: int, first: int, count: int, truncation: float | None = None) -> Tensor:
        """z of the images first .. first + count - 1 of a seed."""
        z = self.latent.sample(Draw(seed, 0, first, count), like=DOUBLE)
        return z if truncation is None else truncated(z, self.latent, truncation)

    def labels(self, first: int, count: int, chosen: Sequence[int] | None = None) -> Tensor | None:
        """Image i's label: ``chosen``, by default all classes, in turn; None without classes. Raises InputError."""
        classes = self.recipe.classes
        if not classes:
            if chosen is not None:
                raise InputError(
                    "labels must be left away, as the run is not conditional: it was trained without --labels"
                )
            return None
        turn = [
            whole("labels", label, low=0, high=classes - 1) for label in (range(classes) if chosen is None else chosen)
        ]
        if not turn:
            raise InputError("labels must name at least one class, got none")
        return torch.tensor([turn[i % len(turn)] for i in range(first, first + count)])

    def images(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The images of any z (n, size)."""
        return torch.cat(list(self._blocks(z, labels)))

    def sample(
        self,
        seed: int,
        count: int,
        *,
        first: int = 0,
        labels: Sequence[int] | None = None,
        truncation: float | None = None,
    ) -> Iterator[Tensor]:
        """The images first .. first + count - 1 of a seed, block by block. Raises InputError."""
        whole("seed", seed, low=0)
        last = whole("first", first, low=0) + whole("n", count)
        for start in range(first - first % BLOCK, last, BLOCK):
            z, label = self.z(seed, start, BLOCK, truncation), self.labels(start, BLOCK, labels)
            yield self.images(z, label)[max(0, first - start) : last - start]

    def each_class(self, seed: int, count: int, truncation: float | None = None) -> Tensor:
        """Images (classes * count, c, h, w): for each class in turn the same ``count`` z."""
        classes = self.recipe.classes
        if not classes:
            raise InputError("one row a class needs a conditional run, but this one was trained without --labels")
        z = self.z(seed, 0, whole("n", count), truncation)
        return self.images(z.repeat(classes, 1), torch.arange(classes).repeat_interleave(count))

    def _blocks(self, z: Tensor, labels: Tensor | None) -> Iterator[Tensor]:
        like = next(self.generator.parameters())
        for start in range(0, len(z), BLOCK):
            block = _filled(z[start : start + BLOCK]).to(like.device, like.dtype)
            label = None if labels is None else _filled(labels[start : start + BLOCK]).to(like.device)
            with torch.no_grad(), _evaluating(self.generator):
                images = self.recipe.pixels(generate(self.generator, block, label))
            yield images[: len(z) - start].cpu()


def truncated(z: Tensor, latent: Latent, threshold: float) -> Tensor:
    """Normal z (n, size) mapped into [-threshold, threshold]: Phi^-1(Phi(-T) + Phi(z) (Phi(T) - Phi(-T))), entrywise.

    Its law is the truncated normal of Brock et al., ICLR 2019. Differs: they draw again what is above T, which makes the
    same law but other images; here an image goes over into another one continuously. Raises InputError for other laws of z.
    """
    threshold = real("truncation", threshold, above=0)
    if latent.law != "normal":
        why = {
            "uniform": "whose density does not fall towards its ends",
            "sphere": "whose length is the same for all",
        }[latent.law]
        raise InputError(f"truncation must be left away, as the run's z is of the law {latent.law!r}, {why}")
    low = torch.special.ndtr(torch.tensor(-threshold, dtype=torch.float64))
    share = low + torch.special.ndtr(z.double()) * (1 - 2 * low)
    return torch.special.ndtri(share).clamp(-threshold, threshold)


def fixed_grid(recipe: Recipe, seed: int, columns: int = 8) -> Callable[[int, nn.Module], bytes] | None:
    """What draws the same z at every step of a run as a PNG grid; one row a class (of at most 10) where there are classes.

    None where the run's images cannot be drawn: points, or other than 1, 3 or 4 channels.
    """
    if len(recipe.shape) != 3 or recipe.shape[0] not in (1, 3, 4):
        return None
    classes = min(recipe.classes, 10)
    columns = max(1, min(columns, 512 // max(recipe.shape[1:])))

    def draw(step: int, generator: nn.Module) -> bytes:
        del step  # the same z at all of them
        sampler = Sampler(recipe, generator)
        if not classes:
            return grid_png(torch.cat(list(sampler.sample(seed, columns * columns))), columns)
        z = sampler.z(seed, 0, columns)
        labels = torch.arange(classes).repeat_interleave(columns)
        return grid_png(sampler.images(z.repeat(classes, 1), labels), columns)

    return draw


def _filled(rows: Tensor) -> Tensor:
    """A whole block: rows, and the last of them again where there are too few."""
    return rows if len(rows) == BLOCK else torch.cat([rows, rows[-1:].expand(BLOCK - len(rows), *rows.shape[1:])])


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, and the mode before it afterwards."""
    was = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was)
