"""Pictures of the plane: level sets of a critic, clouds of points."""

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, POINTS, LEVELS = "#3d434b", "#c8553d", 14


def surface(values: Any, points: Any, half_width: float) -> bytes:
    """Draw level sets of values (rows of y, columns of x) on [-half_width, half_width]² with points (n, 2) over them."""

    def draw(axis: "Axes") -> None:
        extent = (-half_width, half_width, -half_width, half_width)
        axis.contour(values, LEVELS, extent=extent, cmap="viridis", linewidths=1.1)
        axis.scatter(points[:, 0], points[:, 1], s=2, color=POINTS, linewidths=0)

    return _plane(draw, half_width)


def cloud(samples: Any, centres: Any, half_width: float) -> bytes:
    """Draw samples (n, 2) over the centres (k, 2) of the law that they should follow."""

    def draw(axis: "Axes") -> None:
        axis.scatter(centres[:, 0], centres[:, 1], s=60, facecolors="none", edgecolors=POINTS, linewidths=0.8)
        axis.scatter(samples[:, 0], samples[:, 1], s=2, color=INK, alpha=0.5, linewidths=0)

    return _plane(draw, half_width)


def _plane(draw: Any, half_width: float) -> bytes:
    """A square picture without axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6, 2.6), layout="constrained")
    axis = figure.subplots()
    draw(axis)
    axis.set(xlim=(-half_width, half_width), ylim=(-half_width, half_width), aspect="equal", xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_color("#c9ccd1")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=144)
    return file.getvalue()
