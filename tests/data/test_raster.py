"""Pictures come back as they were: mode, depth, transparency; PNG of 16 bits against Pillow and against a writer of its own."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from triptych.check import InputError
from triptych.data import png16, raster

RNG = np.random.default_rng(0)


def smooth(h, w, c):
    """Values for which every filter and every branch of Paeth's predictor is of use."""
    steps = RNG.integers(-900, 900, (h, w, c)).cumsum(0).cumsum(1)
    return (steps % 65536).astype(np.uint16)


def png(pixels, filters, *, interlaced=0, depth=16):
    """A PNG after the standard's text: byte by byte, with a filter for every row."""
    h, w, c = pixels.shape
    raw = pixels.astype(">u2").tobytes()
    stride, bpp = 2 * c * w, 2 * c
    lines, above = b"", bytes(stride)
    for y in range(h):
        line = raw[y * stride : (y + 1) * stride]
        coded = bytearray()
        for i, value in enumerate(line):
            a = line[i - bpp] if i >= bpp else 0
            b, corner = above[i], above[i - bpp] if i >= bpp else 0
            p = a + b - corner
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - corner), 2, corner))[2]
            coded.append((value - (0, a, b, (a + b) // 2, nearest)[filters[y]]) % 256)
        lines += bytes([filters[y]]) + bytes(coded)
        above = line
    head = struct.pack(">IIBBBBB", w, h, depth, {1: 0, 2: 4, 3: 2, 4: 6}[c], 0, 0, interlaced)
    packed = zlib.compress(lines)
    parts = [(b"IHDR", head), (b"IDAT", packed[:9]), (b"IDAT", packed[9:]), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (11, 7), (5, 13)])
def test_every_filter_is_undone(channels, size, tmp_path):
    pixels = smooth(*size, channels)
    (tmp_path / "a.png").write_bytes(png(pixels, [(3 * y + 4) % 5 for y in range(size[0])]))
    np.testing.assert_array_equal(png16.read(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pillow_reads_what_is_written(channels):
    pixels = smooth(9, 8, channels)
    picture = np.asarray(Image.open(io.BytesIO(png16.written(pixels))))
    if channels == 1:
        np.testing.assert_array_equal(picture, pixels[..., 0])
    elif channels == 2:  # Pillow gives grey and alpha as RGBA of 8 bits
        np.testing.assert_array_equal(picture[..., [0, 3]], pixels >> 8)
    else:
        np.testing.assert_array_equal(picture, pixels >> 8)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pictures_of_8_bits_come_back(mode, tmp_path):
    shape = (6, 5) if mode == "L" else (6, 5, len(mode))
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=b"a profile")
    found = raster.read(tmp_path / "a.png")
    again = Image.open(io.BytesIO(raster.png(found, found.values)))
    assert again.mode == mode
    assert again.info["icc_profile"] == b"a profile"
    np.testing.assert_array_equal(np.asarray(again), pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_of_16_bits_come_back(channels, tmp_path):
    pixels = smooth(6, 5, channels)
    (tmp_path / "a.png").write_bytes(png16.written(pixels, b"a profile"))
    found = raster.read(tmp_path / "a.png")
    assert found.depth == 16
    assert 0 <= found.values.min() <= found.values.max() <= 255
    (tmp_path / "b.png").write_bytes(raster.png(found, found.values))
    np.testing.assert_array_equal(png16.read(tmp_path / "b.png"), pixels)
    with Image.open(tmp_path / "b.png") as again:
        assert again.info["icc_profile"] == b"a profile"


def test_values_are_rounded_and_clipped(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    found = raster.read(tmp_path / "a.png")
    again = Image.open(io.BytesIO(raster.png(found, np.array([[[-7.0, 1.4], [1.6, 300.0]]]))))
    assert np.asarray(again).tolist() == [[0, 1], [2, 255]]


def test_palettes_bilevel_and_cmyk_are_said_to_change(tmp_path):
    colours = Image.fromarray(RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    for mode, becomes in (("P", "RGB"), ("1", "L"), ("CMYK", "RGB")):
        path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
        colours.convert(mode).save(path)
        found = raster.read(path)
        assert found.note == f"{mode} is written as {becomes}"
        assert len(found.values) == len(becomes)


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = RNG.integers(0, 256, (4, 7), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(raster.read(tmp_path / "a.png").values[0], np.rot90(pixels, -1))


def test_transparent_colours_become_alpha(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0] = 9
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=(9, 9, 9))
    found = raster.read(tmp_path / "a.png")
    assert found.alpha is not None
    assert found.alpha.tolist() == [[0] * 4] + [[255] * 4] * 3


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-20],
        lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
        lambda data: png(smooth(4, 4, 3), [0] * 4)[:50],
    ],
)
def test_damage_is_said(change, tmp_path):
    (tmp_path / "a.png").write_bytes(change(png(smooth(4, 4, 3), [4] * 4)))
    with pytest.raises(InputError, match=r"a\.png (could not be read as a picture|is no picture)"):
        raster.read(tmp_path / "a.png")


def test_interlaced_pictures_of_16_bits_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(png(smooth(4, 4, 3), [0] * 4, interlaced=1))
    with pytest.raises(InputError, match="interlaced PNG of 16 bits; save it without"):
        raster.read(tmp_path / "a.png")
