"""The 1,797 digits of 8 x 8 pixels that scikit-learn carries, so that there is always something to train on.

Alpaydin & Kaynak, Optical Recognition of Handwritten Digits (its test set), UCI repository 1998. One set, no splits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from triptych.data.source import Size
from triptych.images import Images

WORD = "digits"


@dataclass(frozen=True)
class Digits:
    """The embedded digits."""

    kind: str = "digits of scikit-learn"
    splits: tuple[str, ...] = ()

    def read(self, split: str | None, limit: int | None, size: Size | None) -> Images:
        """The first ``limit`` images; the values 0..16 are scaled to 0..255."""
        from sklearn.datasets import load_digits

        bunch: Any = load_digits()
        pixels = np.rint(bunch.images[:limit] * (255 / 16)).astype(np.uint8)
        return Images.from_arrays(pixels, bunch.target[:limit], [str(digit) for digit in range(10)])
