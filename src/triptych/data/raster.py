"""One picture as numbers to compute with; mode, depth and transparency kept, so that it comes back as it was."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from triptych.check import InputError
from triptych.data import picture, png16

PLAIN = ("L", "LA", "RGB", "RGBA")
WHITE = 257  # a step of 8 bits in steps of 16


@dataclass(frozen=True, eq=False)
class Raster:
    """A picture, upright.

    Attributes
    ----------
    values : float32 (c, h, w) on the scale 0 to 255, also of 16-bit pictures; c is 1 (grey) or 3.
    alpha : uint8 or uint16 (h, w), or None.
    depth : bits a channel, 8 or 16.
    note : what could not be kept, in words; empty where all is.
    profile : the ICC profile, or None.
    """

    values: np.ndarray
    alpha: np.ndarray | None
    depth: int
    note: str = ""
    profile: bytes | None = None

    @property
    def mode(self) -> str:
        """In words: grey, 8 bits."""
        colour = "grey" if len(self.values) == 1 else "colour"
        return f"{colour}{' with alpha' if self.alpha is not None else ''}, {self.depth} bits"


def read(path: Path) -> Raster:
    """Read a picture (JPEG, PNG, WebP, BMP or GIF). Raises InputError."""
    if not path.exists():
        raise InputError(f"{path} does not exist; give the path of a picture")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give one picture")
    with picture.opened(path) as image:
        turn = picture.UPRIGHT.get(picture.orientation(image))
        profile = image.info.get("icc_profile")
        note = ""
        if png16.is_png16(path):
            pixels, depth = png16.read(path), 16
        elif image.mode.startswith("I"):
            grey = np.asarray(image).astype(np.int64)
            if grey.min() < 0 or grey.max() > 65535:
                raise InputError(f"{path} has more than 16 bits a pixel; save it with 8 or 16")
            pixels, depth = grey[..., None].astype(np.uint16), 16
        else:
            plain = _plain(image)
            note = "" if plain.mode == image.mode else f"{image.mode} is written as {plain.mode}"
            pixels, depth = np.asarray(plain), 8
            pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    pixels = pixels if turn is None else _turned(pixels, turn)
    c = 1 if pixels.shape[2] < 3 else 3
    values = np.ascontiguousarray(pixels[..., :c].transpose(2, 0, 1), np.float32)
    alpha = pixels[..., c].copy() if pixels.shape[2] > c else None
    return Raster(values / (WHITE if depth == 16 else 1), alpha, depth, note, profile)


def png(raster: Raster, values: np.ndarray) -> bytes:
    """Values (c, h, w) from 0 to 255 as a PNG like the picture: rounded to its depth, its alpha unchanged."""
    top, kind = (65535, np.uint16) if raster.depth == 16 else (255, np.uint8)
    scaled = values * (WHITE if raster.depth == 16 else 1)
    pixels = np.clip(np.rint(scaled), 0, top).astype(kind).transpose(1, 2, 0)
    if raster.alpha is not None:
        pixels = np.concatenate([pixels, raster.alpha[..., None]], 2)
    if raster.depth == 16:
        return png16.written(pixels, raster.profile)
    file = io.BytesIO()
    flat = pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels)
    Image.fromarray(flat).save(file, "PNG", icc_profile=raster.profile)
    return file.getvalue()


def _plain(image: Image.Image) -> Image.Image:
    """The picture as grey or RGB, with its alpha where it is transparent anywhere."""
    if "transparency" in image.info:
        return image.convert("RGBA" if image.mode in ("P", "RGB") else "LA")
    if image.mode in PLAIN:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("PA", "RGBa", "La"):
        return image.convert("LA" if image.mode == "La" else "RGBA")
    return image.convert("L" if picture.is_grey(image) else "RGB")


def _turned(pixels: np.ndarray, turn: Image.Transpose) -> np.ndarray:
    """Pixels (h, w, channels) turned as EXIF says."""
    channels = [Image.fromarray(np.ascontiguousarray(pixels[..., i])) for i in range(pixels.shape[2])]
    return np.stack([np.asarray(channel.transpose(turn)) for channel in channels], 2)
