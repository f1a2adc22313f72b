import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from triptych.bench import figure
from triptych.bench.sections import Curves, Gallery, Picture, Series
from triptych.check import InputError


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def test_images_are_drawn_pixel_for_pixel():
    """Every pixel of the grid is a pixel of its image, enlarged to a square; what lies between is transparent."""
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 7, 8), dtype=np.uint8)
    shown, zoom = pixels(figure.images(images, columns=3)), round(figure.TILE / 8)
    tall, wide, gap = 7 * zoom, 8 * zoom, figure.GAP
    assert shown.shape == (2 * tall + gap, 3 * wide + 2 * gap, 4)
    for index, image in enumerate(images):
        top, left = index // 3 * (tall + gap), index % 3 * (wide + gap)
        tile = shown[top : top + tall, left : left + wide]
        np.testing.assert_array_equal(tile[::zoom, ::zoom, :3], image.transpose(1, 2, 0))
        np.testing.assert_array_equal(tile[zoom - 1 :: zoom, zoom - 1 :: zoom, :3], image.transpose(1, 2, 0))
        assert (tile[..., 3] == 255).all()
    assert (shown[:, wide : wide + gap, 3] == 0).all()
    assert (shown[tall + gap :, 2 * (wide + gap) :, 3] == 0).all()


def test_filters_are_scaled_one_by_one_and_grey_is_zero():
    filters = torch.zeros(3, 1, 2, 2)
    filters[0, 0, 0], filters[1] = torch.tensor([4.0, -2.0]), torch.tensor([1e-9, -1e-9])
    shown = pixels(figure.filters(filters, columns=3))
    zoom = figure.TILE // 2
    step = 2 * zoom + figure.GAP
    assert shown[0, 0, 0] == 255
    assert shown[0, zoom, 0] in (63, 64)
    assert shown[zoom, 0, 0] in (127, 128)
    assert (shown[0, step, 0], shown[0, step + zoom, 0]) == (255, 0)
    assert set(np.unique(shown[:, 2 * step :, 0])) <= {127, 128}


def test_wrong_shapes_and_types_are_refused():
    with pytest.raises(InputError, match=r"filters must be of shape \(n, 1 or 3, height, width\), got \(4, 2, 5, 5\)"):
        figure.filters(np.zeros((4, 2, 5, 5)))
    with pytest.raises(InputError, match="pixels must be of shape"):
        figure.images(np.zeros((0, 1, 5, 5), np.uint8))
    with pytest.raises(InputError, match="of type uint8, got 'float64'"):
        figure.images(np.zeros((1, 1, 5, 5)))


def test_axes_show_finite_and_positive_points():
    series = Series("s", [0, 1, 2, 3, math.inf, 4], [1.0, 0.0, math.nan, 5.0, 1.0, None])
    linear, log = (Curves([series], "t", "x", "y", log_x=on, log_y=on) for on in (False, True))
    assert figure.plottable(linear, series) == ([0, 1, 3], [1.0, 0.0, 5.0])
    assert figure.plottable(log, series) == ([3], [5.0])


@pytest.mark.parametrize("log", [False, True])
def test_curves_are_drawn_in_their_colours(log):
    """Both colours of the palette appear; with one curve the second does not."""
    two = [Series("$a_", [1, 2, 3], [1.0, None, 3.0]), Series("b", [1, 3], [3.0, 1.0])]
    for series in (two, two[:1]):
        shown = pixels(figure.curves(Curves(series, "t", "$x", "loss_{", log_x=log, log_y=log)))[..., :3]
        for index in range(2):
            colour = [int(figure.SERIES[index][i : i + 2], 16) for i in (1, 3, 5)]
            found = (np.abs(shown.astype(int) - colour).max(-1) < 8).sum()
            assert (found > 100) == (index < len(series))


def test_a_marked_point_has_a_dot_where_it_is():
    """The dot is the only difference, and lies right of the middle at the top."""
    plain, marked = (
        pixels(figure.curves(Curves([Series("a", [0, 1, 4], [0.0, 1.0, 2.0], marked=at)], "t", "x", "y")))
        for at in (None, 2)
    )
    rows, columns = np.nonzero((plain != marked).any(-1))
    height, width = plain.shape[:2]
    assert 30 < len(rows) < 400
    assert rows.max() < height / 4
    assert columns.min() > width / 2


def test_a_gallery_shows_its_pictures_whatever_their_captions():
    red = np.zeros((1, 3, 4, 4), np.uint8)
    red[:, 0] = 255
    tile = Picture(figure.images(red), "a red square", caption="$数_")
    shown = pixels(figure.gallery(Gallery([tile] * 7), columns=4))
    assert (np.abs(shown[..., :3].astype(int) - [255, 0, 0]).max(-1) < 8).sum() > 7 * 100 * 100


def test_panels_lie_side_by_side_and_share_a_legend():
    series = [Series("a", [1, 2, 3], [1.0, 2.0, 3.0]), Series("b_$2$", [1, 2], [3.0, 1.0])]
    one, two = (Curves(series, "t", label, "y") for label in ("steps", "seconds"))
    both, single = pixels(figure.panels([one, two])), pixels(figure.panels([one]))
    assert abs(both.shape[0] - single.shape[0]) <= 2
    assert abs(both.shape[1] - 2 * single.shape[1]) <= 2
    halves = both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]
    for colour in figure.SERIES[:2]:
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        for half in halves:
            lower = half[half.shape[0] // 5 :]  # below the legend
            assert (lower[..., :3] == wanted).all(2).sum() > 50


def test_a_gallery_of_few_pictures_is_no_wider_than_they_are():
    tile = Picture(figure.images(np.zeros((1, 3, 4, 4), np.uint8)), "a black square", caption="black")
    widths = [
        pixels(figure.gallery(Gallery([tile] * n, large=large))).shape[1]
        for n, large in ((2, False), (2, True), (9, True))
    ]
    assert widths == [2 * 216, 2 * 360, 4 * 360]
