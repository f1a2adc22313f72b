"""Figures 3 and 4: the critic's estimate against the quality of samples; and what clipping makes of a critic's weights.

The paper says that the Wasserstein estimate falls as samples get better, where the losses of other games do not; here quality is the kernel
distance, and what they have in common the rank correlation over the course of a run. Gulrajani et al. (NeurIPS 2017, Figure 1 b) say that
clipping pushes weights to the two ends of their interval, and that gradients vanish or explode with its width; so it is run at three.
Differs: rooms of 32 pixels and narrower networks at the smaller scales; the critic has 5 steps throughout, as Algorithm 1 has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.sections import Curves, Gallery, Picture, Section, Series
from triptych.bench.table import Column, Line, compare

if TYPE_CHECKING:
    from torch import nn

    from triptych.gan.recipe import Recipe

PAPER = "Arjovsky, Chintala & Bottou, Wasserstein Generative Adversarial Networks, ICML 2017"
GAMES = {
    "wgan": "WGAN, DCGAN generator",
    "wgan, perceptron": "WGAN, perceptron generator",
    "dcgan": "DCGAN, Jensen-Shannon estimate",
}


@dataclass(frozen=True)
class Size:
    """Pixels a side, filters of the first layer, generator steps, steps from one score to the next, images a score."""

    side: int | None
    width: int
    steps: int
    every: int
    images: int
    clips: tuple[float, ...]


SIZES = {
    Scale.SMOKE: Size(None, 2, 8, 2, 60, (0.01,)),
    Scale.LAPTOP: Size(32, 16, 1_500, 50, 1_000, (0.001, 0.01, 0.1)),
    Scale.PAPER: Size(64, 64, 200_000, 1_000, 10_000, (0.001, 0.01, 0.1)),
}


@dataclass(frozen=True)
class Cell:
    """A game, and the bound of its critic's weights where they are clipped."""

    game: str
    clip: float | None = None


def cells(scale: Scale) -> list[Cell]:
    """Both generators under WGAN and the other game; WGAN at other bounds too."""
    clips = SIZES[scale].clips
    return [*(Cell("wgan", clip) for clip in clips), Cell("wgan, perceptron", 0.01), Cell("dcgan")]


def recipe_of(cell: Cell, shape: tuple[int, ...], width: int) -> "Recipe":
    """The paper's own, with another generator or another bound."""
    from triptych.gan.networks.mlp import MLP
    from triptych.gan.objectives import Wasserstein
    from triptych.gan.recipes import dcgan, wgan

    if cell.game == "dcgan":
        return dcgan(shape, width=width).changed(batch=64)
    assert cell.clip is not None
    base = wgan(shape, width=width).changed(
        objective=Wasserstein(clip=cell.clip, long_until=0, long_every=0, clip_when="after")
    )
    return base if cell.game == "wgan" else base.changed(generator=MLP(generator_widths=(8 * width,) * 4))


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train, and keep estimate, kernel distance and the critic's weights and gradients on the way; what is not finite ends it."""
    import torch

    from triptych.engine import Engine
    from triptych.papers._generators import Yardstick, course, drawn, finite, pictures

    size = SIZES[context.scale]
    images = pictures(context, size.side)
    recipe = recipe_of(cell, images.shape[1:], size.width).changed(steps=size.steps)
    players = recipe.players(context.seed, Engine(device=torch.device(context.device)))
    yardstick = Yardstick.of(images, size.images, context)
    curve: dict[str, list[float]] = {"step": [], "estimate": [], "kid": []}
    moment, ended = None, True
    for moment in course(recipe, players, images, context, size.steps, size.every):
        if not (ended := moment.finite and finite(players)):
            break
        curve["step"].append(moment.step)
        # -½ L_D + log 2 is the Jensen-Shannon estimate of Figure 4; the critic's loss here is the sum of both means.
        loss = moment.parts["critic_loss"]
        curve["estimate"].append(0.6931471805599453 - loss / 2 if cell.game == "dcgan" else moment.parts["gap"])
        curve["kid"].append(yardstick.scores(drawn(recipe, players, size.images))["kid"])
    assert moment is not None
    first = len(curve["step"]) // 4  # the critic is far from its optimum at first
    metrics = {
        "correlation": _correlation(curve["estimate"][first:], curve["kid"][first:]) if ended else None,
        "kid": curve["kid"][-1] if ended else None,
        "best_kid": min(curve["kid"], default=None),
        "at_ends_percent": None if cell.clip is None or not ended else 100 * at_ends(players.critic, cell.clip),
        "slope_ratio": slope_ratio(players.critic) if ended else None,
        "steps": players.step,
        "train_cpu_seconds": moment.cpu_seconds,
    }
    weights = torch.cat([p.detach().flatten() for n, p in players.critic.named_parameters() if p.dim() > 1]).cpu()
    weights = weights[weights.isfinite()]
    kept = {"samples": drawn(recipe, players, 64)}
    return metrics, {"curve": curve, "pictures": kept, "histogram": _histogram(weights)}


def _correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's; None where one of both is constant."""
    from scipy.stats import spearmanr

    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    found: Any = spearmanr(a, b)
    return float(found.statistic)


def at_ends(critic: "nn.Module", clip: float) -> float:
    """The share of a critic's weights that are within a hundredth of the bound."""
    import torch

    weights = torch.cat([p.detach().flatten() for p in critic.parameters() if p.dim() > 1])
    return float((weights.abs() >= 0.99 * clip).double().mean())


def slope_ratio(critic: "nn.Module") -> float | None:
    """Root mean square of the gradient by the last layer's weights over that by the first's, after the last backward pass."""
    layers = [p for p in critic.parameters() if p.dim() > 1 and p.grad is not None]
    if len(layers) < 2:
        return None
    first, last = (float(p.grad.norm() / p.grad.numel() ** 0.5) for p in (layers[0], layers[-1]))  # pyright: ignore
    return last / first if first > 0 else None


def _histogram(weights: Any) -> dict[str, list[float]]:
    import torch

    most = (float(weights.abs().max()) if len(weights) else 0.0) or 1.0
    counts = torch.histc(weights, 61, -most, most) / max(len(weights), 1)
    edges = torch.linspace(-most, most, 62)
    return {"x": ((edges[1:] + edges[:-1]) / 2).tolist(), "share": counts.tolist()}


def render(rows: Sequence[Row]) -> list[Section]:
    """A table; estimate and quality over the course; weights; samples."""
    from triptych.bench import figure

    columns = [
        Column("correlation", "rank correlation of estimate and KID", ".2f"),
        Column("kid", "KID at the end", ".3f"),
        Column("best_kid", "best KID", ".3f"),
        Column("at_ends_percent", "weights at the bound, %", ".1f"),
        Column("slope_ratio", "gradient of the last layer over the first", ".2g"),
        Column("steps", "steps", ",.0f"),
        Column("train_cpu_seconds", "training, CPU s", ",.0f"),
    ]
    labels = _labels(rows)
    lines = [Line(label, {"game": game, "clip": clip}) for (game, clip), label in labels.items()]
    sections: list[Section] = [compare(rows, lines, columns, title="Estimate and quality", note=_NOTE)]
    first = {(row.cell["game"], row.cell["clip"]): row for row in sorted(rows, key=lambda row: -row.seed)}
    tiles = []
    for key, label in labels.items():
        curve = first[key].artefact("curve")
        if curve["step"]:
            series = [Series("estimate over its largest", curve["step"], _relative(curve["estimate"]))]
            series.append(Series("KID over its largest", curve["step"], _relative(curve["kid"])))
            sections.append(Curves(series, f"{label}: estimate and quality", "generator step", "share of the largest"))
        samples = first[key].artefact("pictures")["samples"].numpy()
        tiles.append(Picture(figure.images(samples, columns=8), f"samples of {label}", caption=label))
    clipped = [(label, key[1], first[key].artefact("histogram")) for key, label in labels.items() if key[1] is not None]
    if clipped:
        series = [Series(label, [x / clip for x in told["x"]], told["share"]) for label, clip, told in clipped]
        sections.append(Curves(series, "The critic's weights at the end", "weight over the bound", "share"))
    return [*sections, Gallery(tiles, "Samples at the end, not chosen by hand", large=True)] if tiles else sections


def _labels(rows: Sequence[Row]) -> dict[tuple[str, float | None], str]:
    keys = sorted(
        {(row.cell["game"], row.cell["clip"]) for row in rows}, key=lambda key: (list(GAMES).index(key[0]), key[1] or 0)
    )
    return {key: GAMES[key[0]] + (f", clipped to {key[1]:g}" if key[1] is not None else "") for key in keys}


def _relative(values: Sequence[float]) -> list[float]:
    most = max((abs(value) for value in values), default=1.0) or 1.0
    return [value / most for value in values]


_NOTE = (
    "Published: curves and pictures alone; the estimate of WGAN falls as samples improve, that of the other game does not, and the weights of a "
    "clipped critic gather at their bounds. Correlation: Spearman's, over the last three quarters of the course; 1 says that the estimate tells "
    "the quality. Gradient: of the weights of the last layer over those of the first, root mean squares, at the last critic step."
)

EXPERIMENT = Experiment(
    name="arjovsky2017.clipping",
    paper=PAPER,
    shows="Figures 3 and 4: the critic's estimate against sample quality; what clipping makes of weights",
    version=1,
    cells=cells,
    measure=measure,
    render=render,
    data="rooms",
)
