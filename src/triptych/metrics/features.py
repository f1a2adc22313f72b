"""Features of images, by whatever extractor is given, and their mean and covariance as sums that several processes can add.

A score says as much about its features as about the images: every score carries the extractor's name and the number of images.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from triptych.check import InputError, whole, wrong
from triptych.engine import Engine
from triptych.images import Images

CHUNK = 256  # images at a time


@dataclass(frozen=True)
class Seen:
    """What an extractor makes of images: features (n, d), and class logits (n, k) where it is a classifier too."""

    features: Tensor
    logits: Tensor | None = None


class Found(Protocol):
    """What an extractor must return: ``Seen``, or anything with the same two fields."""

    @property
    def features(self) -> Tensor:
        """Features (n, d)."""
        ...

    @property
    def logits(self) -> Tensor | None:
        """Class logits (n, k), or None."""
        ...


class Extractor(Protocol):
    """A function of images, uint8 (n, c, h, w), with a name that stands beside every score."""

    @property
    def name(self) -> str:
        """What the features are, in a few words."""
        ...

    def __call__(self, images: Tensor) -> Found:
        """Features of images, each independent of the others in the batch."""
        ...


@dataclass(frozen=True)
class Pixels:
    """The pixels themselves in [0, 1], (n, c · h · w); with ``side`` averaged over areas to side x side at most."""

    side: int | None = None

    @property
    def name(self) -> str:
        """pixels, with the side where there is one."""
        return "pixels" if self.side is None else f"pixels at {self.side}"

    def __call__(self, images: Tensor) -> Seen:
        """Pixels as features."""
        return Seen(shrunk(as_pixels(images), self.side).flatten(1))


def as_pixels(images: Tensor | Images) -> Tensor:
    """Images as float32 (n, c, h, w) in [0, 1]. Raises InputError for other than uint8 (n, c, h, w)."""
    pixels = images.pixels if isinstance(images, Images) else images
    if not isinstance(pixels, Tensor) or pixels.dtype != torch.uint8 or pixels.ndim != 4 or not pixels.numel():
        found = f"{pixels.dtype} {tuple(pixels.shape)}" if isinstance(pixels, Tensor) else type(pixels).__name__
        raise wrong("images", "uint8 (n, c, h, w)", found)
    return pixels.float() / 255


def shrunk(images: Tensor, side: int | None) -> Tensor:
    """Float images (n, c, h, w) averaged over areas until neither side is above ``side``; None or large enough: as they are."""
    if side is None or max(images.shape[2:]) <= whole("side", side):
        return images
    scale = side / max(images.shape[2:])
    return F.interpolate(images, size=[max(1, round(n * scale)) for n in images.shape[2:]], mode="area")


def shrunk_pixels(images: Tensor | Images, side: int | None) -> Tensor:
    """``shrunk`` of images, uint8 (n, c, h, w), which are floats of their own size ``CHUNK`` at a time. Raises InputError."""
    pixels = images.pixels if isinstance(images, Images) else images
    as_pixels(pixels[:1])
    return torch.cat([shrunk(as_pixels(part), side) for part in pixels.split(CHUNK)])


def extract(extractor: Extractor, images: Tensor | Images, chunk: int = CHUNK) -> Seen:
    """Features, and logits where there are any, of all images, ``chunk`` at a time. Raises InputError where they are not finite."""
    pixels = images.pixels if isinstance(images, Images) else images
    as_pixels(pixels[:1])
    with torch.no_grad():
        parts = [extractor(part) for part in pixels.split(whole("chunk", chunk))]
    features = rows(f"features of {extractor.name}", torch.cat([part.features for part in parts]))
    found = [part.logits for part in parts if part.logits is not None]
    return Seen(features, rows(f"logits of {extractor.name}", torch.cat(found)) if found else None)


def rows(name: str, values: Tensor) -> Tensor:
    """Values that are finite floats (n, d). Raises InputError."""
    if not isinstance(values, Tensor) or values.ndim != 2 or not values.numel() or not values.is_floating_point():
        found = f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise wrong(name, "floats (n, d)", found)
    if not bool(values.isfinite().all()):
        raise InputError(f"{name} must be finite numbers, but some are not")
    return values


def same_width(a: Tensor, b: Tensor) -> None:
    """Refuse features of different dimensions."""
    if a.shape[1] != b.shape[1]:
        raise InputError(f"features must be of the same dimensions, got {a.shape[1]} and {b.shape[1]}")


@dataclass(frozen=True)
class Moments:
    """The sufficient statistics of a Gaussian in float64: ``count``, ``mean`` (d,), ``scatter`` Σ (x - mean)(x - mean)ᵀ (d, d)."""

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """Those of features (n, d). Raises InputError."""
        x = rows("features", features).double()
        mean = x.mean(0)
        return cls(len(x), mean, (x - mean).T @ (x - mean))

    @classmethod
    def gathered(cls, parts: Iterable[Tensor]) -> "Moments":
        """Those of features that come in parts, of which one is in memory at a time. Raises InputError where there is none."""
        found: Moments | None = None
        for part in parts:
            found = cls.of(part) if found is None else found + cls.of(part)
        if found is None:
            raise InputError("features must have at least one row, got none")
        return found

    def __add__(self, other: "Moments") -> "Moments":
        """Those of both sets together: Chan, Golub & LeVeque, 1979, whose sums lose no digits to large means."""
        same_width(self.mean[None], other.mean[None])
        n = self.count + other.count
        off = other.mean - self.mean
        scatter = self.scatter + other.scatter + torch.outer(off, off) * (self.count * other.count / n)
        return Moments(n, self.mean + off * (other.count / n), scatter)

    @property
    def covariance(self) -> Tensor:
        """Σ = scatter / (n - 1), (d, d). Raises InputError for fewer than two rows."""
        if self.count < 2:
            raise InputError("a covariance needs at least 2 rows of features, got 1")
        return self.scatter / (self.count - 1)

    def summed(self, engine: Engine) -> "Moments":
        """Those of the rows of all processes together; every process calls it."""
        if engine.size == 1:
            return self
        weight = torch.tensor([float(self.count)], dtype=torch.float64, device=engine.device)
        n = engine.sum(weight)
        mean = engine.sum(self.mean.to(engine.device) * self.count) / n
        off = self.mean.to(engine.device) - mean
        scatter = engine.sum(self.scatter.to(engine.device) + torch.outer(off, off) * self.count)
        return Moments(round(float(n)), mean.cpu(), scatter.cpu())
