"""Pictures as PNG bytes: filters and images as grids, captioned galleries, curves (matplotlib without its global state)."""

import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from triptych.bench.sections import Curves, Gallery, Series
from triptych.check import wrong

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from numpy.typing import ArrayLike, NDArray

INK, RULE = "#3d434b", "#c9ccd1"
SERIES = ("#2a6f97", "#c8553d", "#5b8e4b", "#8a5fa8", "#b58a1c", "#4f5d75")
GAP, TILE = 4, 56


def filters(values: "ArrayLike", columns: int | None = None) -> bytes:
    """Draw filters (n, 1 or 3, h, w) as a grid, each scaled by its own largest absolute value, so that grey is zero."""
    tiles = _batch("filters", values).astype(np.float64)
    peak = np.abs(tiles).max((1, 2, 3), keepdims=True)
    tiles = 0.5 + 0.5 * np.divide(tiles, peak, out=np.zeros_like(tiles), where=peak > 0)
    return _mosaic(np.round(255 * tiles).astype(np.uint8), columns)


def images(pixels: "ArrayLike", columns: int | None = None) -> bytes:
    """Draw images (n, 1 or 3, h, w) of whole numbers from 0 to 255 as a grid."""
    tiles = _batch("pixels", pixels)
    if tiles.dtype != np.uint8:
        raise wrong("pixels", "of type uint8", str(tiles.dtype))
    return _mosaic(tiles, columns)


def gallery(section: Gallery, columns: int | None = None) -> bytes:
    """Draw a gallery with its captions as one picture, six small pictures or four large ones in a row unless told otherwise."""
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    columns = columns or min(4 if section.large else 6, len(section.pictures))
    rows, side = math.ceil(len(section.pictures) / columns), 2.5 if section.large else 1.5
    drawn = [imread(io.BytesIO(picture.png), format="png") for picture in section.pictures]
    tall = max(tile.shape[0] / tile.shape[1] for tile in drawn)
    figure = Figure(figsize=(side * columns, (side * tall + 0.3) * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, tile, picture in zip(axes, drawn, section.pictures):
        axis.imshow(tile, interpolation="nearest")
        axis.set_title(picture.caption, fontsize=8, color=INK, parse_math=False)
    return _png(figure)


def curves(section: Curves) -> bytes:
    """Draw curves as a still picture, for paper and for readers without scripts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axis = figure.subplots()
    _draw(axis, section)
    if len(section.series) > 1:
        _plain(axis.legend(frameon=False, labelcolor=INK))
    return _png(figure)


def panels(sections: Sequence[Curves]) -> bytes:
    """Draw diagrams of the same series side by side, with one height and one legend, as papers print them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(sections), 3.8), layout="constrained")
    axes = figure.subplots(1, len(sections), squeeze=False, sharey=True)[0]
    for axis, section in zip(axes, sections):
        _draw(axis, section)
    for axis in axes[1:]:
        axis.set_ylabel("")
    handles, labels = axes[0].get_legend_handles_labels()
    place = {"loc": "outside upper center", "ncols": len(handles), "frameon": False, "labelcolor": INK, "fontsize": 8}
    _plain(figure.legend(handles, labels, **place))
    return _png(figure)


def _plain(legend: "Legend") -> None:
    """Show names as they are, whatever signs of TeX they have."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw(axis: "Axes", section: Curves) -> None:
    """Draw curves with their axes."""
    for index, series in enumerate(section.series):
        x, y = plottable(section, series)
        mark = "o" if len(x) <= 40 else "None"
        colour = SERIES[index % len(SERIES)]
        axis.plot(x, y, marker=mark, markersize=3, linewidth=1.6, color=colour, label=series.name)
        if series.marked is not None and (at := float(series.x[series.marked])) in x:
            axis.plot([at], [y[x.index(at)]], marker="o", markersize=8, color=colour)
    axis.set_xscale("log" if section.log_x else "linear")
    axis.set_yscale("log" if section.log_y else "linear")
    axis.set_xlabel(section.x_label, color=INK, parse_math=False)
    axis.set_ylabel(section.y_label, color=INK, parse_math=False)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(RULE)
    axis.tick_params(colors=INK, which="both", width=0.6)
    axis.grid(color=RULE, linewidth=0.4, alpha=0.7)


def plottable(section: Curves, series: Series) -> tuple[list[float], list[float]]:
    """Give the points of a curve that the axes can show: finite, and positive on a logarithmic axis."""

    def shown(value: float | None, log: bool) -> bool:
        return value is not None and math.isfinite(value) and (value > 0 or not log)

    points = [(x, y) for x, y in zip(series.x, series.y) if shown(x, section.log_x) and shown(y, section.log_y)]
    return [float(x) for x, _ in points], [float(y) for _, y in points if y is not None]


def _batch(name: str, values: "ArrayLike") -> "NDArray[Any]":
    tiles = np.asarray(values)
    if tiles.ndim != 4 or tiles.shape[1] not in (1, 3) or not tiles.size:
        raise wrong(name, "of shape (n, 1 or 3, height, width)", tiles.shape)
    return tiles


def _mosaic(tiles: "NDArray[np.uint8]", columns: int | None) -> bytes:
    """Lay tiles out on a transparent ground, each pixel enlarged to a square, so that nothing is smoothed."""
    from matplotlib.image import imsave

    n, _, height, width = tiles.shape
    across = columns or min(n, 12, max(4, math.ceil(math.sqrt(2 * n))))
    zoom = max(1, round(TILE / max(height, width)))
    tall, wide, rows = height * zoom, width * zoom, math.ceil(n / across)
    ground = np.zeros((rows * (tall + GAP) - GAP, across * (wide + GAP) - GAP, 4), np.uint8)
    for index, tile in enumerate(tiles):
        top, left = (index // across) * (tall + GAP), (index % across) * (wide + GAP)
        colour = np.broadcast_to(tile.transpose(1, 2, 0), (height, width, 3)).repeat(zoom, 0).repeat(zoom, 1)
        ground[top : top + tall, left : left + wide, :3] = colour
        ground[top : top + tall, left : left + wide, 3] = 255
    file = io.BytesIO()
    imsave(file, ground, format="png")
    return file.getvalue()


def _png(figure: "Figure") -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a class may be named in a script that the font lacks
        figure.savefig(file, format="png", dpi=144)
    return file.getvalue()
