"""One picture file as bytes: decoded, turned upright, laid on white, made grey or RGB, resized.

Differs from most loaders: transparent pixels are laid on white, since logos and drawings are dark on transparent and
would vanish on black. 16-bit grey is scaled to 8 bits as round(value / 257). Of an animation the first frame is taken.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from triptych.check import InputError
from triptych.data.source import Size
from triptych.images import Images

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # no other decoder is ever run on a stranger's file
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
GREY = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"})
ORIENTATION = 0x0112
UPRIGHT = {  # EXIF's orientation -> what turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Header:
    """What a picture's file says before it is decoded: its size in pixels once upright, and whether it is grey."""

    height: int
    width: int
    grey: bool


def header(path: Path) -> Header:
    """Read a picture's header only. Raises InputError."""
    with opened(path) as picture:
        width, height = picture.size
        if orientation(picture) >= 5:
            width, height = height, width
        return Header(height, width, is_grey(picture))


def read(path: Path, *, grey: bool, size: Size | None = None) -> np.ndarray:
    """A picture's pixels, uint8 (1, h, w) where ``grey``, else (3, h, w). Raises InputError."""
    with opened(path) as picture:
        turn = UPRIGHT.get(orientation(picture))
        if size is not None and isinstance(picture, JpegImagePlugin.JpegImageFile):
            # Decode a large JPEG at the smallest scale that is still twice the side: up to 8 x faster, the same to the eye.
            picture.draft(None, (2 * size.side, 2 * size.side))
        flat = _on_white(_eight_bits(picture, path)).convert("L" if grey else "RGB")
        upright = flat if turn is None else flat.transpose(turn)
        pixels = np.array(resize(upright, size), dtype=np.uint8)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def resize(picture: Image.Image, size: Size | None) -> Image.Image:
    """The picture at side x side pixels, Lanczos, the centre kept (crop) or everything squeezed in (squash)."""
    width, height = picture.size
    if size is None or (width == height == size.side):
        return picture
    box = (0.0, 0.0, float(width), float(height))
    if size.fit == "crop":
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        box = (left, top, left + short, top + short)
    return picture.resize((size.side, size.side), Image.Resampling.LANCZOS, box)


def resized(images: Images, size: Size) -> Images:
    """All images of a set (n, c, h, w) at (n, c, side, side)."""
    n, c, h, w = images.shape
    if h == w == size.side:
        return images
    pixels = torch.empty((n, c, size.side, size.side), dtype=torch.uint8)
    for i in range(n):
        for k in range(c):
            channel = Image.fromarray(images.pixels[i, k].numpy())
            pixels[i, k] = torch.from_numpy(np.array(resize(channel, size)))
    return Images(pixels, images.labels, images.classes)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The picture, every failure to decode it worded as one sentence. Raises InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF and the like: the pixels decide
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as picture:
                yield picture
    except (InputError, MemoryError):
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        most = f"{(Image.MAX_IMAGE_PIXELS or 0) // 10**6} million"
        raise InputError(f"{path} claims more than {most} pixels, as a decompression bomb does; remove it") from None
    except UnidentifiedImageError:
        raise InputError(f"{path} is no picture that can be read (JPEG, PNG, WebP, BMP or GIF); remove it") from None
    except Exception as error:  # a decoder that is fed broken bytes may raise anything
        reason = str(getattr(error, "strerror", None) or error).splitlines() or [type(error).__name__]
        raise InputError(f"{path} could not be read as a picture ({reason[0]}); replace or remove it") from None


def orientation(picture: Image.Image) -> int:
    """EXIF's orientation, 1 (upright) where there is none or it is broken."""
    try:
        # Image's own method: PNG's decodes the whole picture first.
        turn = Image.Image.getexif(picture).get(ORIENTATION, 1)
    except Exception:  # broken metadata do not make a picture unreadable
        return 1
    return turn if turn in UPRIGHT else 1


def is_grey(picture: Image.Image) -> bool:
    """Whether the picture is stored as grey values; a palette is grey where all its colours are."""
    if picture.mode != "P":
        return picture.mode in GREY
    palette: Any = picture.palette
    if palette is None:
        return True
    mode, data = palette.getdata()
    colours = np.frombuffer(bytes(data), np.uint8)
    colours = colours[: len(colours) // len(mode) * len(mode)].reshape(-1, len(mode))[:, :3]
    return bool((colours == colours[:, :1]).all())


def _eight_bits(picture: Image.Image, path: Path) -> Image.Image:
    """The picture with 16-bit grey scaled down. Raises InputError."""
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path} has more than 16 bits a pixel; save it with 8 or 16")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _on_white(picture: Image.Image) -> Image.Image:
    """The picture without transparency, laid on white."""
    if picture.mode not in ("LA", "La", "PA", "RGBA", "RGBa") and "transparency" not in picture.info:
        return picture
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
