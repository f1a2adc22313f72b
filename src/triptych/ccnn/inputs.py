"""What users hand to the estimator, made into maps (n, c, h, w): rows, grey pictures, pictures with channels, `Images`."""

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from triptych.check import InputError, wrong
from triptych.images import Images


def plain(X: Any) -> Any:
    """The array behind `Images` or a torch tensor, shared where it can be; anything else as it is."""
    if isinstance(X, Images):
        return X.pixels.numpy()
    return X.detach().cpu().numpy() if isinstance(X, Tensor) else X


def shape_of_images(X: np.ndarray, asked: tuple[int, ...] | None) -> tuple[int, int, int]:
    """The shape (c, h, w) of one image of X (n, d), (n, h, w) or (n, c, h, w); ``asked`` decides for rows.

    A row of side² or 3 side² numbers is a square image (channels first); any other is warned of and read as a signal,
    1 x 1 x d. Raises InputError where ``asked`` does not fit.
    """
    if asked is not None:
        shape = _asked(asked)
        if math.prod(shape) != math.prod(X.shape[1:]):
            raise wrong(
                "image_shape", f"(c, h, w) or (h, w) with {math.prod(X.shape[1:])} entries in all", asked,
                "it must have as many as one row of X",
            )  # fmt: skip
        return shape
    if X.ndim == 4:
        return X.shape[1], X.shape[2], X.shape[3]
    if X.ndim == 3:
        return 1, X.shape[1], X.shape[2]
    if X.ndim != 2:
        raise wrong("X", "an array (n, d), (n, h, w) or (n, c, h, w)", f"shape {X.shape}")
    d = X.shape[1]
    for channels in (1, 3):
        side = math.isqrt(d // channels)
        if channels * side * side == d:
            return channels, side, side
    warnings.warn(
        f"rows of {d} numbers are no square image of 1 or 3 channels and are read as signals of shape (1, 1, {d}); "
        "give image_shape=(c, h, w) if they are images",
        UserWarning,
        stacklevel=3,
    )
    return 1, 1, d


def _asked(shape: tuple[int, ...]) -> tuple[int, int, int]:
    sizes = tuple(shape) if isinstance(shape, tuple | list) else ()
    if len(sizes) == 2:
        sizes = (1, *sizes)
    if len(sizes) != 3 or not all(isinstance(size, int | np.integer) and size > 0 for size in sizes):
        raise wrong("image_shape", "(c, h, w) or (h, w), whole numbers above 0", shape)
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def scale_of(X: np.ndarray) -> float:
    """What pixels are divided by: 255 for uint8, for other numbers the largest magnitude of the training images."""
    if X.dtype == np.uint8:
        return 255.0
    largest = float(np.abs(X).max()) if X.size else 0.0
    return largest if largest > 0 else 1.0


def as_maps(X: np.ndarray, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """X as maps (n, c, h, w): uint8 stays uint8, all else becomes float32. Raises InputError for another image shape."""
    if X.ndim > 2 and tuple(X.shape[1:]) not in (shape, shape[1:] if shape[0] == 1 else None):
        raise InputError(f"images must have the shape of the training images, {shape}, got {tuple(X.shape[1:])}")
    pixels = X if X.dtype == np.uint8 else X.astype(np.float32, copy=False)
    pixels = np.ascontiguousarray(pixels)
    if not pixels.flags.writeable:
        pixels = pixels.copy()
    return torch.from_numpy(pixels.reshape(len(X), *shape)).to(device)
