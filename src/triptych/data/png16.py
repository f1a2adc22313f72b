"""PNG of 16 bits a channel, which Pillow reads in colour as 8 bits: to arrays and back, without interlacing."""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import as_strided

from triptych.check import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # colour type -> grey, RGB, grey and alpha, RGBA
COLOUR = {channels: colour for colour, channels in CHANNELS.items()}


def is_png16(path: Path) -> bool:
    """Whether a file begins as a PNG of 16 bits a channel does."""
    with path.open("rb") as file:
        head = file.read(26)
    return head.startswith(SIGNATURE) and len(head) == 26 and head[24] == 16 and head[25] in CHANNELS


def read(path: Path) -> np.ndarray:
    """The pixels (h, w, channels) as uint16. Raises InputError for interlaced and for damaged files."""
    chunks = _chunks(path.read_bytes(), path)
    width, height, _, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if interlaced:
        raise InputError(f"{path} is an interlaced PNG of 16 bits; save it without interlacing")
    channels = CHANNELS[colour]
    stride = 1 + 2 * channels * width
    try:
        packer = zlib.decompressobj()
        data = packer.decompress(chunks.get(b"IDAT", b""), height * stride)
    except zlib.error:
        raise _damaged(path) from None
    if len(data) != height * stride:
        raise _damaged(path)
    lines = np.frombuffer(data, np.uint8).reshape(height, stride)
    if lines[:, 0].max() > 4:
        raise _damaged(path)
    flat = _unfiltered(lines[:, 0], lines[:, 1:].reshape(height, width, 2 * channels))
    return flat.view(">u2").astype(np.uint16)


def written(pixels: np.ndarray, profile: bytes | None = None) -> bytes:
    """A PNG of pixels (h, w, 1 to 4 channels) of uint16, with an ICC profile where there is one."""
    height, width, channels = pixels.shape
    steps = np.ascontiguousarray(pixels, ">u2").view(np.uint8).reshape(height, width, 2 * channels)
    up = steps.copy()
    up[1:] -= steps[:-1]  # filter 2: what is above, taken off byte by byte
    lines = np.concatenate([np.full((height, 1), 2, np.uint8), up.reshape(height, -1)], 1)
    head = struct.pack(">IIBBBBB", width, height, 16, COLOUR[channels], 0, 0, 0)
    parts = [(b"IHDR", head)]
    if profile:
        parts.append((b"iCCP", b"ICC\0\0" + zlib.compress(profile)))
    parts += [(b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b"")]
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _chunks(data: bytes, path: Path) -> dict[bytes, bytes]:
    """The chunks of a file by name, those of one name joined. Raises InputError where one is damaged."""
    found: dict[bytes, list[bytes]] = {}
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body, check = data[at + 8 : at + 8 + length], data[at + 8 + length : at + 12 + length]
        if len(check) < 4 or struct.unpack(">I", check)[0] != zlib.crc32(kind + body):
            raise _damaged(path)
        found.setdefault(kind, []).append(body)
        at += 12 + length
    whole = {kind: b"".join(bodies) for kind, bodies in found.items()}
    if len(whole.get(b"IHDR", b"")) != 13 or b"IEND" not in whole:
        raise _damaged(path)
    return whole


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} could not be read as a picture (its PNG data are damaged); replace or remove it")


def _unfiltered(filters: np.ndarray, coded: np.ndarray) -> np.ndarray:
    """Undo PNG's filters (h,) of bytes (h, w, bytes a pixel), a diagonal at a time: a pixel needs those left and above."""
    height, width, depth = coded.shape
    skewed = np.zeros(
        (height + width + 1, height + 1, depth), np.uint8
    )  # [2 + row + column, 1 + row]: diagonals lie together
    down, right, _ = skewed.strides
    pixels = as_strided(skewed[2:, 1:], coded.shape, (down + right, down, 1))
    pixels[:] = coded
    for step in range(2, height + width + 1):
        rows = slice(max(0, step - 1 - width), min(height, step - 1))
        here = slice(rows.start + 1, rows.stop + 1)
        left, up, corner = (
            part.astype(np.int16) for part in (skewed[step - 1, here], skewed[step - 1, rows], skewed[step - 2, rows])
        )
        to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
        paeth = np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
        guesses = np.stack([np.zeros_like(left), left, up, (left + up) >> 1, paeth])
        skewed[step, here] += guesses[filters[rows], np.arange(len(left))].astype(np.uint8)
    return np.ascontiguousarray(pixels)
