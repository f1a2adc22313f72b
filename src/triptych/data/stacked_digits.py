"""A thousand modes without a download: three random embedded digits as the channels of one image.

The 8 x 8 sister of stacked MNIST (Metz et al., Unrolled GANs, ICLR 2017).
"""

from dataclasses import dataclass

import numpy as np
import torch

from triptych.check import InputError, whole
from triptych.data.digits import Digits
from triptych.data.picture import resized
from triptych.data.source import Size
from triptych.images import Images

WORD = "stacked_digits"
COUNT = 50_000  # images of the set that the word means
CHANNELS = 3


@dataclass(frozen=True)
class StackedDigits:
    """The first 50,000 stacked digits of seed 0, made when they are read."""

    kind: str = "digits of scikit-learn, stacked by three"
    splits: tuple[str, ...] = ()

    def read(self, split: str | None, limit: int | None, size: Size | None) -> Images:
        """The first ``limit`` images."""
        return stacked_digits(min(limit or COUNT, COUNT))


def stacked_digits(n: int, seed: int = 0, side: int = 8) -> Images:
    """n images (n, 3, side, side) of three digits drawn independently; label 100 a + 10 b + c of the digits' own.

    A function of (seed, i): the first images are the same whatever n.
    """
    digits = Digits().read(None, None, None)
    return stack(digits if side == 8 else resized(digits, Size(side)), n, seed)


def stack(images: Images, n: int, seed: int = 0) -> Images:
    """n images of three random grey ones of ten classes as their channels. Raises InputError."""
    if images.shape[1] != 1 or images.labels is None or len(images.classes) != 10:
        raise InputError(f"images to stack must be grey and of ten classes, got {images}")
    rng = np.random.default_rng(whole("seed", seed, low=0))
    chosen = torch.from_numpy((rng.random((whole("n", n), CHANNELS)) * len(images)).astype(np.int64))
    a, b, c = images.labels[chosen].unbind(1)
    names = tuple(f"{number:03d}" for number in range(1000))
    return Images(images.pixels[:, 0][chosen], 100 * a + 10 * b + c, names)
