"""Pictures of generated images: a grid as PNG, a walk as GIF."""

import io
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image
from torch import Tensor

from triptych.check import InputError, whole

GAP, GROUND = 2, 255
SMALLEST_TILE = 64  # pixels; smaller images are enlarged, each pixel to a square, or digits of 8 x 8 could not be seen
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def grid(images: Tensor, columns: int | None = None) -> np.ndarray:
    """Images, uint8 (n, c, h, w), in rows on a white ground: uint8 (height, width, c). Raises InputError for other channels."""
    tiles = _enlarged(_drawable(images))
    n, tall, wide, c = tiles.shape
    across = min(n, whole("columns", columns) if columns is not None else math.ceil(math.sqrt(n)))
    rows = math.ceil(n / across)
    ground = np.full((rows * (tall + GAP) - GAP, across * (wide + GAP) - GAP, c), GROUND, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = (i // across) * (tall + GAP), (i % across) * (wide + GAP)
        ground[top : top + tall, left : left + wide] = tile
    return ground


def grid_png(images: Tensor, columns: int | None = None) -> bytes:
    """The same grid as a PNG file."""
    return _png(grid(images, columns))


def course_png(grids: Sequence[bytes], shape: tuple[int, int, int]) -> bytes:
    """The first row of each of several PNG grids of images (c, h, w), one below the other: how the same z went on."""
    rows = [row for data in grids if (row := first_row(data, shape)) is not None]
    gap = np.full((GAP, *rows[0].shape[1:]), GROUND, np.uint8)
    return _png(np.concatenate([part for row in rows for part in (gap, row)][1:]))


def first_row(data: bytes, shape: tuple[int, int, int]) -> np.ndarray | None:
    """The first row of a PNG grid of images (c, h, w), uint8 (height, width, channels); None where the file is damaged."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            return np.atleast_3d(np.asarray(picture))[: shape[1] * _zoom(shape[1], shape[2])]
    except Exception:  # a decoder that is fed broken bytes may raise anything
        return None


def pngs(images: Tensor) -> list[bytes]:
    """Each image, uint8 (n, c, h, w), as a PNG file of its own size."""
    return [_png(image) for image in _drawable(images)]


def gif(frames: Tensor, frames_per_second: float = 25.0) -> bytes:
    """Frames, uint8 (n, c, h, w), as a GIF that plays for ever; GIF counts time in hundredths of a second."""
    pictures = [_picture(frame) for frame in enlarged_frames(frames)]
    ends = [round(100 * k / frames_per_second) for k in range(len(pictures) + 1)]
    file = io.BytesIO()
    pictures[0].save(
        file,
        "GIF",
        save_all=True,
        append_images=pictures[1:],
        loop=0,
        duration=[10 * (end - start) for start, end in pairwise(ends)],
    )
    return file.getvalue()


def enlarged_frames(frames: Tensor) -> np.ndarray:
    """Frames, uint8 (n, c, h, w), as (n, height, width, c), enlarged where they are small."""
    return _enlarged(_drawable(frames))


def in_rows(rows: Sequence[Tensor]) -> tuple[Tensor, int]:
    """Rows of images of unequal length as one batch for ``grid``, white where a row is shorter, and the columns."""
    columns = max(len(row) for row in rows)
    first = rows[0]
    full = first.new_full((len(rows), columns, *first.shape[1:]), GROUND)
    for i, row in enumerate(rows):
        full[i, : len(row)] = row
    return full.flatten(0, 1), columns


def _drawable(images: Tensor) -> np.ndarray:
    """Images as (n, h, w, c). Raises InputError where a picture cannot have so many channels."""
    if images.shape[1] not in MODES:
        raise InputError(
            f"pictures must have 1, 3 or 4 channels, got {images.shape[1]}; write them as .npy or .npz instead"
        )
    return images.cpu().numpy().transpose(0, 2, 3, 1)


def _enlarged(tiles: np.ndarray) -> np.ndarray:
    zoom = _zoom(*tiles.shape[1:3])
    return tiles.repeat(zoom, 1).repeat(zoom, 2)


def _zoom(h: int, w: int) -> int:
    return max(1, round(SMALLEST_TILE / max(h, w)))


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, MODES[pixels.shape[2]])


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    _picture(pixels).save(file, "PNG")
    return file.getvalue()
