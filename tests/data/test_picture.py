"""Pictures of every mode, turned upright, laid on white and resized, against NumPy."""

import io

import numpy as np
import pytest
from PIL import Image

from triptych.data import load, picture
from triptych.data.source import Size

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = COLOUR[:, :, 0]


def pixels(path, **kwargs):
    """The picture as (h, w) where it is grey, else (h, w, 3)."""
    one = load(path, **kwargs).pixels[0].numpy()
    return one[0] if len(one) == 1 else one.transpose(1, 2, 0)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_lossless_formats(tmp_path, suffix):
    Image.fromarray(COLOUR).save(tmp_path / f"a.{suffix}", lossless=True)
    np.testing.assert_array_equal(pixels(tmp_path / f"a.{suffix}"), COLOUR)


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif"])
def test_grey_stays_grey(tmp_path, suffix):
    Image.fromarray(GREY).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(pixels(tmp_path / f"a.{suffix}"), GREY)


def test_one_bit_and_jpeg(tmp_path):
    Image.fromarray(GREY > 128).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), (GREY > 128) * 255)
    smooth = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "b.jpg", quality=95)
    assert np.abs(pixels(tmp_path / "b.jpg").astype(int) - smooth).max() <= 4
    Image.merge("CMYK", [Image.fromarray(smooth)] * 4).save(tmp_path / "c.jpg")
    assert pixels(tmp_path / "c.jpg").shape == (40, 50, 3)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
def test_palettes(tmp_path, suffix):
    colours = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
    index = RNG.integers(0, 4, (6, 9), dtype=np.uint8)
    for name, table in (("colour", colours), ("grey", np.repeat(colours[:, :1], 3, 1))):
        one = Image.fromarray(index).convert("P")
        one.putpalette(table.tobytes())
        one.save(tmp_path / f"{name}.{suffix}")
        shown = table[index] if name == "colour" else table[index][:, :, 0]
        np.testing.assert_array_equal(pixels(tmp_path / f"{name}.{suffix}"), shown)


def test_sixteen_bits_are_scaled(tmp_path):
    deep = np.concatenate([np.arange(0, 65536, 11), [65535]]).astype(np.uint16)[None]
    Image.fromarray(deep).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), np.rint(deep / 257))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_laid_on_white(tmp_path, mode):
    alpha = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
    if mode == "P":  # colour 0 is transparent
        index = RNG.integers(0, 4, (6, 9), dtype=np.uint8)
        table, alpha = RNG.integers(0, 256, (4, 3), dtype=np.uint8), np.where(index, 255, 0)
        one = Image.fromarray(index).convert("P")
        one.putpalette(table.tobytes())
        one.save(tmp_path / "a.png", transparency=0)
        colour = table[index]
    elif mode == "LA":
        colour = GREY
        Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)]).save(tmp_path / "a.png")
    else:
        colour = COLOUR
        Image.fromarray(np.dstack([COLOUR, alpha])).save(tmp_path / "a.png")
    a = (alpha / 255).reshape(6, 9, *[1] * (colour.ndim - 2))
    np.testing.assert_allclose(pixels(tmp_path / "a.png"), a * colour + (1 - a) * 255, atol=1)


# The EXIF standard's table: the side at which the stored first row and the stored first column are to be shown.
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("orientation", SIDES)
def test_exif_rotation(tmp_path, orientation, suffix):
    stored = np.zeros((32, 48), np.uint8)
    stored[:16, :24], stored[:16, 24:], stored[16:, :24] = 240, 160, 80
    row, column = SIDES[orientation]
    upright = stored if row in ("top", "bottom") else stored.T
    upright = upright[::-1] if "bottom" in (row, column) else upright
    upright = upright[:, ::-1] if "right" in (row, column) else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.dstack([stored] * 3)).save(tmp_path / f"a.{suffix}", exif=exif, quality=95, lossless=True)
    shown = pixels(tmp_path / f"a.{suffix}")[:, :, 0].astype(int)
    assert shown.shape == upright.shape
    assert np.abs(shown - upright).max() < 25
    head = picture.header(tmp_path / f"a.{suffix}")
    assert (head.height, head.width) == upright.shape


def test_of_an_animation_the_first_frame(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert set(pixels(tmp_path / "a.gif").ravel()) == {10}


def flag(path, tall):
    """Red, green, blue stripes of 20 pixels, 60 x 20, or on end."""
    stripes = np.zeros((20, 60, 3), np.uint8)
    for k in range(3):
        stripes[:, 20 * k : 20 * k + 20, k] = 255
    Image.fromarray(stripes.transpose(1, 0, 2) if tall else stripes).save(path)
    return path


@pytest.mark.parametrize("side", [10, 20, 40])
@pytest.mark.parametrize("tall", [False, True])
def test_crop_keeps_the_centre_and_squash_keeps_all(tmp_path, side, tall):
    path = flag(tmp_path / "a.png", tall)
    with Image.open(path) as whole:
        shorter = whole.resize((side, 3 * side) if tall else (3 * side, side), Image.Resampling.LANCZOS)
    centre = np.asarray(shorter)[side : 2 * side] if tall else np.asarray(shorter)[:, side : 2 * side]
    np.testing.assert_allclose(pixels(path, side=side), centre, atol=1)
    assert (centre.argmax(2) == 1).all()
    squash = pixels(path, side=side, fit="squash")
    middle = squash[side // 2] if not tall else squash[:, side // 2]
    assert [int(middle[i].argmax()) for i in (0, side // 2, side - 1)] == [0, 1, 2]


def test_resizing_averages(tmp_path):
    """A board of single black and white pixels is grey from afar: resizing does not drop pixels."""
    board = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "a.png")
    assert np.abs(pixels(tmp_path / "a.png", side=8).astype(int) - 127.5).max() < 3


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path):
    noise = Image.fromarray(RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8)).resize(
        (160, 128), Image.Resampling.BICUBIC
    )
    noise.save(tmp_path / "a.jpg", quality=95, subsampling=0)
    with Image.open(tmp_path / "a.jpg") as whole:
        plain = np.asarray(picture.resize(whole.convert("RGB"), Size(32)))
    drafted = pixels(tmp_path / "a.jpg", side=32)
    assert np.abs(drafted.astype(int) - plain).mean() < 3


def test_broken_exif_is_passed_over(tmp_path):
    file = io.BytesIO()
    Image.fromarray(COLOUR).save(file, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffbroken")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), COLOUR)
