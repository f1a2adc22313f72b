"""What users hand to the estimator, made into maps (n, c, h, w): rows, grey pictures, pictures with channels, `Images`."""

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from triptych.check import InputError, wrong
from triptych.images import Images

SMALLEST = 1e-36  # below it pixels, and what they are divided by, leave float32's normal numbers


def plain(X: Any) -> Any:
    """The array behind `Images` or a torch tensor, shared where it can be; anything else as it is."""
    if isinstance(X, Images):
        return X.pixels.numpy()
    if not isinstance(X, Tensor):
        return X
    X = X.detach().cpu()
    return (X.float() if X.dtype == torch.bfloat16 else X).numpy()  # NumPy has no bfloat16


def as_rows(X: Any) -> tuple[Any, tuple[int, ...] | None]:
    """X with each image as one row, and the shape of an image, (h, w) or (c, h, w); None where X came as rows.

    Raises InputError for arrays of other dimensions; what is no array is left to scikit-learn's own checks.
    """
    X = plain(X)
    if not hasattr(X, "ndim") or X.ndim <= 2 or not hasattr(X, "reshape"):
        nested = np.asarray(X) if isinstance(X, list | tuple) and np.ndim(X) > 2 else None
        if nested is None:
            return X, None
        X = nested
    if X.ndim > 4:
        raise wrong("X", "an array (n, d), (n, h, w) or (n, c, h, w)", f"shape {X.shape}")
    if 0 in X.shape[1:]:
        raise wrong("X", "images of at least one pixel", f"shape {X.shape}")
    return np.asarray(X).reshape(len(X), math.prod(X.shape[1:])), tuple(X.shape[1:])


def shape_of_images(form: tuple[int, ...], asked: tuple[int, ...] | None) -> tuple[int, int, int]:
    """The shape (c, h, w) of images of shape (d,), (h, w) or (c, h, w); ``asked`` decides for rows.

    A row of side² or 3 side² numbers is a square image (channels first); any other is warned of and read as a signal,
    1 x 1 x d. Raises InputError where ``asked`` does not fit.
    """
    count = math.prod(form)
    if asked is not None:
        shape = _asked(asked)
        if math.prod(shape) != count:
            raise wrong(
                "image_shape", f"(c, h, w) or (h, w) with {count} entries in all", asked,
                "it must have as many as one image of X",
            )  # fmt: skip
        return shape
    if len(form) > 1:
        return _asked(form)
    for channels in (1, 3):
        side = math.isqrt(count // channels)
        if channels * side * side == count:
            return channels, side, side
    warnings.warn(
        f"rows of {count} numbers are no square image of 1 or 3 channels and are read as signals of shape "
        f"(1, 1, {count}); give image_shape=(c, h, w) if they are images",
        UserWarning,
        stacklevel=3,
    )
    return 1, 1, count


def check_form(form: tuple[int, ...] | None, shape: tuple[int, int, int]) -> None:
    """Refuse images of another shape than (c, h, w), the training images'. Raises InputError."""
    if form is not None and tuple(form) not in (shape, shape[1:] if shape[0] == 1 else shape):
        raise InputError(f"images must have the shape of the training images, {shape}, got {tuple(form)}")


def _asked(shape: tuple[int, ...]) -> tuple[int, int, int]:
    sizes = tuple(shape) if isinstance(shape, tuple | list) else ()
    if len(sizes) == 2:
        sizes = (1, *sizes)
    if len(sizes) != 3 or not all(
        isinstance(size, int | np.integer) and not isinstance(size, bool) and size > 0 for size in sizes
    ):
        raise wrong("image_shape", "(c, h, w) or (h, w), whole numbers above 0", shape)
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def scale_of(X: np.ndarray) -> float:
    """What pixels are divided by: 255 for uint8, for other numbers the largest magnitude of the training images. Raises InputError."""
    if X.dtype == np.uint8:
        return 255.0
    largest = max(abs(float(X.max())), abs(float(X.min())))
    if 0 < largest < SMALLEST:
        raise wrong("X", f"numbers of at least {SMALLEST:.0e} in magnitude, or all 0", largest, "rescale them")
    return largest if largest > 0 else 1.0


def as_maps(X: np.ndarray, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Rows X (n, d) as maps (n, c, h, w): uint8 stays uint8, all else becomes float32. Raises InputError on overflow."""
    if X.dtype == np.uint8:
        pixels = X
    else:
        with np.errstate(over="ignore"):
            pixels = X.astype(np.float32, copy=False)
        if not np.isfinite(pixels).all():
            raise wrong("X", "numbers that float32 can hold (at most 3.4e38)", float(np.abs(X).max()), "rescale them")
    pixels = np.ascontiguousarray(pixels)
    if not pixels.flags.writeable:
        pixels = pixels.copy()
    return torch.from_numpy(pixels.reshape(len(X), *shape)).to(device)
