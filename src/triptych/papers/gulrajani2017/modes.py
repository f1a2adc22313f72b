"""Which modes a generator finds: 25 Gaussians under six methods, a thousand stacked digits against weak critics.

The paper says that a gradient penalty lets critics be weak and games be stable; these are the small laws on which later
papers measure that (Srivastava et al., VEEGAN, NeurIPS 2017; Lin et al., PacGAN, NeurIPS 2018). Budgets are numbers of
steps, chosen so that the methods of one table take about the same time on one core; the protocol stands below each table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.row import Metrics
from triptych.bench.sections import Gallery, Picture, Section
from triptych.bench.table import Column, Line, compare

PAPER = "Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017"
GRID = {
    "gan": "GAN, non-saturating",
    "lsgan": "LSGAN",
    "clipping": "WGAN, weight clipping",
    "wgan-gp": "WGAN-GP, 5 critic steps",
    "wgan-gp, 2 critic steps": "WGAN-GP, 2 critic steps",
    "r1 + r2": "GAN + R1 + R2",
}
STACKED = {"dcgan": "DCGAN", "wgan-gp": "WGAN-GP"}
WIDTHS = {Scale.SMOKE: (8,), Scale.LAPTOP: (4, 8, 32), Scale.PAPER: (4, 8, 32)}
HALF_WIDTH = 2.0

# VEEGAN's Table 1 and PacGAN's Tables 1 to 3: modes, share of high quality in percent, KL in nats.
GRID_PUBLISHED = {
    "GAN (VEEGAN's Table 1)": {"modes": 3.3, "high_quality_percent": 0.5},
    "ALI (VEEGAN's Table 1)": {"modes": 15.8, "high_quality_percent": 1.6},
    "Unrolled GAN (VEEGAN's Table 1)": {"modes": 23.6, "high_quality_percent": 16},
    "VEEGAN (its Table 1)": {"modes": 24.6, "high_quality_percent": 40},
    "GAN (PacGAN's Table 1)": {"modes": 17.3, "high_quality_percent": 94.8, "kl": 0.70},
    "ALI (PacGAN's Table 1)": {"modes": 24.1, "high_quality_percent": 95.7, "kl": 0.14},
    "PacGAN4 (its Table 1)": {"modes": 24.8, "high_quality_percent": 93.6, "kl": 0.04},
}
STACKED_PUBLISHED = {
    "stacked MNIST, DCGAN (VEEGAN's Table 1)": {"modes": 99, "kl": 3.4},
    "stacked MNIST, ALI (VEEGAN's Table 1)": {"modes": 16, "kl": 5.4},
    "stacked MNIST, VEEGAN (its Table 1)": {"modes": 150, "kl": 2.95},
    "stacked MNIST, DCGAN (PacGAN's Table 2)": {"modes": 78.9, "kl": 4.50},
    "stacked MNIST, PacDCGAN2 (its Table 2)": {"modes": 1000, "kl": 0.06},
    "stacked MNIST, critic K/4, DCGAN (PacGAN's Table 3)": {"modes": 30.6, "kl": 5.99},
    "stacked MNIST, critic K/2, DCGAN (PacGAN's Table 3)": {"modes": 628.0, "kl": 2.58},
    "stacked MNIST, critic K/2, unrolled 10 (PacGAN's Table 3)": {"modes": 817.4, "kl": 1.43},
}


@dataclass(frozen=True)
class Cell:
    """One method on one law; ``critic_width`` counts the filters of the critic's first layer, or None on the grid."""

    law: str
    method: str
    critic_width: int | None = None


def cells(scale: Scale) -> list[Cell]:
    """All methods on both laws; on the smallest scale two of the grid."""
    grid = ["gan", "wgan-gp"] if scale is Scale.SMOKE else list(GRID)
    return [Cell("grid", method) for method in grid] + [
        Cell("stacked digits", method, width) for width in WIDTHS[scale] for method in STACKED
    ]


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train, sample and count; everything else is in the two protocols."""
    from triptych.papers.gulrajani2017 import _grid, _stacked

    if cell.critic_width is None:
        return _grid.measure(cell.method, context)
    return _stacked.measure(cell.method, cell.critic_width, context)


def render(rows: Sequence[Row]) -> list[Section]:
    """A table and pictures for each law."""
    grid = [row for row in rows if row.cell["law"] == "grid"]
    stacked = [row for row in rows if row.cell["law"] != "grid"]
    cost = [
        Column("critic_steps", "critic steps", ".0f"),
        Column("steps", "generator steps", ".0f"),
        Column("train_cpu_seconds", "training, CPU s", ".0f"),
    ]
    modes, kl = Column("modes", "modes", ".1f"), Column("kl", "KL(samples ‖ even), nats", ".2f", missing="none counts")
    share = Column("high_quality_percent", "within 3 σ, %", ".1f")
    first = _lines(GRID_PUBLISHED, {label: {"law": "grid", "method": name} for name, label in GRID.items()})
    second = _lines(STACKED_PUBLISHED, _stacked_cells(stacked))
    sections: list[Section] = [
        compare(grid, first, [modes, share, kl, *cost], title="25 Gaussians: modes found, of 25", note=_GRID_NOTE),
        *_clouds(grid),
        compare(stacked, second, [modes, kl, *cost], title="Stacked digits: modes found, of 1,000", note=_STACKED_NOTE),
        *_sheets(stacked),
    ]
    return sections


def _lines(published: dict[str, Metrics], measured: dict[str, dict[str, Any]]) -> list[Line]:
    return [Line(name, where) for name, where in measured.items()] + [
        Line(name, None, numbers) for name, numbers in published.items()
    ]


def _stacked_cells(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """The cells of the widths that were run, or of the laptop's where none was, by their labels."""
    widths = sorted({row.cell["critic_width"] for row in rows}) or WIDTHS[Scale.LAPTOP]
    return {
        f"{label}, critic width {width}": {"method": name, "critic_width": width}
        for width in widths
        for name, label in STACKED.items()
    }


def _clouds(rows: Sequence[Row]) -> list[Section]:
    """Samples of each method over the grid, of the first seed."""
    from triptych.papers.gulrajani2017._planes import cloud

    tiles = []
    for method, label in GRID.items():
        for row in sorted((row for row in rows if row.cell["method"] == method), key=lambda row: row.seed)[:1]:
            shown = row.artefact("samples")
            png = cloud(shown["samples"].numpy(), shown["centres"].numpy(), HALF_WIDTH)
            tiles.append(Picture(png, f"2,500 samples of {label} over the 25 centres", caption=label))
    return [Gallery(tiles, "25 Gaussians: 2,500 samples each, over the centres")] if tiles else []


def _sheets(rows: Sequence[Row]) -> list[Section]:
    """Samples of each method and width as pictures, of the first seed."""
    from triptych.bench import figure

    tiles = []
    for label, where in _stacked_cells(rows).items():
        found = [row for row in rows if all(row.cell[name] == value for name, value in where.items())]
        for row in sorted(found, key=lambda row: row.seed)[:1]:
            png = figure.images(row.artefact("samples")["pixels"].numpy(), columns=8)
            tiles.append(Picture(png, f"samples of {label}: three digits as red, green and blue", caption=label))
    return [Gallery(tiles, "Stacked digits: samples")] if tiles else []


_GRID_NOTE = (
    "Protocol at scale laptop: Gaussians of deviation 0.05 on the grid {-4, -2, 0, 2, 4}², all over 2.828; perceptrons of "
    "3 x 128 ReLUs, z ~ N(0, I) of 2 dimensions, 128 points a step; rates constant for half of the steps, then falling to 0, "
    "chosen for each method on seed 10; steps such that all methods take about the same time; 2,500 samples of the generator "
    "itself. A mode counts with one sample within 3 deviations; KL of the samples that count, against evenness. Published "
    "numbers were made under other protocols (PacGAN: 400 epochs of 100,000 points, maxout critics; VEEGAN: other networks) "
    "and differ between papers for the same method: they are context, not a target."
)
_STACKED_NOTE = (
    "Protocol at scale laptop: three random digits of 8 x 8 pixels as channels, 50,000 images; the same generator throughout "
    "(32 and 64 filters, 5 x 5 kernels, BatchNorm); critics of one convolution of the given width and one of twice as many; "
    "DCGAN with BatchNorm in the critic, Adam 2e-4; WGAN-GP without, penalty weight 10, Adam 1e-3; rates chosen on seeds 10 "
    "and 11; batch 64; steps such that both methods take the same time at width 8; 26,000 samples of the generator itself, "
    "read by a perceptron trained on the digits. Published numbers are on stacked MNIST (28 x 28) under protocols of their "
    "own: they are context, not a target."
)

EXPERIMENT = Experiment(
    name="gulrajani2017.modes",
    paper=PAPER,
    shows="modes found: 25 Gaussians under six methods, and 1,000 stacked digits against critics of width 4, 8 and 32",
    version=1,
    cells=cells,
    measure=measure,
    render=render,
    data=None,
)
