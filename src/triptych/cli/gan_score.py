"""gan score: how good a run's images are, by features whose extractor stands beside every score."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from triptych.check import InputError, nearest
from triptych.cli.console import Console, console
from triptych.cli.gan_judge import Judged, count, extractor, features, generated, keep, known, named, some
from triptych.cli.gan_judged import SCORES
from triptych.cli.gan_options import Drawn, Judging, Seeing
from triptych.gan.recipe import Recipe
from triptych.gan.run import Judge
from triptych.gan.sample import Sampler
from triptych.images import Images
from triptych.metrics.features import Found, Moments, extract
from triptych.metrics.frechet import frechet_distance
from triptych.metrics.inception_score import inception_score
from triptych.metrics.kernel_distance import kernel_distance
from triptych.metrics.ms_ssim import diversity
from triptych.metrics.parzen import parzen
from triptych.metrics.precision_recall import precision_recall
from triptych.metrics.sliced_wasserstein import pyramid_distance

USUAL, COURSE = 5000, 1000  # images; of a score while a run trains
LEAST = 4  # for precision and recall


@dataclass(frozen=True)
class Score:
    """A number, its spread where there is one, and whether less is better (None: neither)."""

    value: float
    spread: float | None = None
    less: bool | None = True


@dataclass(frozen=True, eq=False)
class Pair:
    """Real and generated images, uint8 of one number, and what an extractor made of them."""

    real: Tensor
    made: Tensor
    by_real: Found
    by_made: Found
    seed: int


def fid(pair: Pair) -> Mapping[str, Score]:
    """The Fréchet distance."""
    a, b = (Moments.of(seen.features) for seen in (pair.by_real, pair.by_made))
    return {"fid": Score(frechet_distance(a, b))}


def kid(pair: Pair) -> Mapping[str, Score]:
    """The kernel distance."""
    found = kernel_distance(pair.by_real.features, pair.by_made.features, seed=pair.seed)
    return {"kid": Score(found.mean, found.std)}


def inception(pair: Pair) -> Mapping[str, Score]:
    """The inception score of generated images, and of the real ones."""
    found = {}
    for name, seen in (("is", pair.by_made), ("is of real images", pair.by_real)):
        if seen.logits is None:
            raise InputError("metrics must leave is away, as these features come from no classifier")
        score = inception_score(seen.logits, min(10, len(seen.logits)))
        found[name] = Score(score.mean, score.std, False if name == "is" else None)
    return found


def prd(pair: Pair) -> Mapping[str, Score]:
    """Precision and recall."""
    found = precision_recall(pair.by_real.features, pair.by_made.features)
    return {"precision": Score(found.precision, less=False), "recall": Score(found.recall, less=False)}


def swd(pair: Pair) -> Mapping[str, Score]:
    """Sliced Wasserstein distances by level, times a thousand."""
    found = pyramid_distance(pair.real, pair.made, seed=pair.seed)
    sides = {f"swd at {max(side)}": Score(value) for side, value in zip(found.levels, found.values)}
    return {"swd": Score(found.mean), **(sides if len(sides) > 1 else {})}


def msssim(pair: Pair) -> Mapping[str, Score]:
    """The similarity of generated images to each other, and of real ones."""
    found = {}
    for name, images in (("ms-ssim", pair.made), ("ms-ssim of real images", pair.real)):
        score = diversity(images, pairs=min(2000, len(images) * (len(images) - 1) // 2), seed=pair.seed)
        found[name] = Score(score.mean, score.standard_error, None)
    return found


def parzen_window(pair: Pair) -> Mapping[str, Score]:
    """The mean log-likelihood in nats of half of the real images under a kernel density of the generated ones, the width by the others."""
    if len(pair.real) < LEAST:
        raise InputError(f"n must be at least {LEAST} for parzen, got {len(pair.real)}")
    real, made = ((images.flatten(1).double() / 255) for images in (pair.real, pair.made))
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(pair.seed))
    found = parzen(made, real[order[: len(real) // 2]], validation=real[order[len(real) // 2 :]])
    return {"parzen": Score(found.mean, found.standard_error, False)}


METRICS: dict[str, Callable[[Pair], Mapping[str, Score]]] = {
    "fid": fid,
    "kid": kid,
    "is": inception,
    "pr": prd,
    "swd": swd,
    "ms-ssim": msssim,
    "parzen": parzen_window,
}
ASKED_FOR = ("parzen",)  # says little of images; for comparison with papers


def scored(folder: Path, judging: Judging, seeing: Seeing, metrics: str | None, drawn: Drawn, json: bool) -> None:
    """Score a run, and keep the scores in its folder. Raises InputError."""
    voice, wanted = console(json), _wanted(metrics)
    judged = Judged.open(folder, drawn.checkpoint, judging.device)
    known(judged.run.folder, SCORES)  # refuses a damaged one before anything is computed
    images = judged.images(judging.data, judging.split)
    n = count("n", judging.n, len(images), USUAL)
    by = extractor(voice, seeing, images, judged.device)
    real = some(images, n, drawn.seed)
    made = judged.generated(voice, n, drawn.seed, images)
    pair = Pair(real, made, features(voice, by, real, True), features(voice, by, made, False), drawn.seed)
    found: dict[str, Score] = {}
    for name in wanted:
        try:
            found |= METRICS[name](pair)
        except InputError as error:
            if metrics is not None:  # it was asked for
                raise
            voice.warn(f"note: {name} is left out: {error}")
    entry = {
        "step": judged.step,
        "data": named(judging.data, judged),
        "real": images.checksum()[:16],
        "labels": "of the images" if judged.recipe.classes and images.labels is not None else "none",
        "extractor": by.name,
        "n": n,
        "seed": drawn.seed,
        "scores": {name: {"value": s.value, "spread": s.spread, "less": s.less} for name, s in found.items()},
    }
    keep(judged.run.folder, SCORES, entry, ("step", "data", "real", "labels", "extractor", "n", "seed"))
    if not json:
        rows = [
            (name, f"{s.value:.4g}", "" if s.spread is None else f"{s.spread:.2g}", _better(s))
            for name, s in found.items()
        ]
        voice.table(["score", "", "±", "better"], rows, f"step {judged.step:,}, {n:,} images, {by.name}")
    voice.finish({"run": str(folder), **entry}, f"kept in {judged.run.folder / SCORES}")


def on_the_way(voice: Console, recipe: Recipe, images: Images) -> tuple[Judge, dict[str, Any]]:
    """What scores a run while it trains, as `gan score --metrics kid,pr --n 1000` does afterwards; and by what, for its config."""
    n = min(len(images), COURSE)
    if n < LEAST:
        raise InputError(f"score-every must be left away for fewer than {LEAST} images, got {n}")
    try:
        by = extractor(voice, Seeing(), images)
        real = some(images, n, 0)
        seen = features(voice, by, real, True)
    except InputError as error:
        raise InputError(f"score-every must be left away: {error}") from None

    def judge(step: int, average: nn.Module) -> dict[str, float]:
        del step
        made = generated(Sampler(recipe, average), n, 0, images)
        pair = Pair(real, made, seen, extract(by, made), 0)
        return {name: score.value for name, score in {**kid(pair), **prd(pair)}.items()}

    return judge, {"extractor": by.name, "n": n}


def _better(score: Score) -> str:
    return {True: "less", False: "more", None: ""}[score.less]


def _wanted(metrics: str | None) -> list[str]:
    """The metrics that are named, divided by commas; all where none are."""
    if metrics is None:
        return [name for name in METRICS if name not in ASKED_FOR]
    names = [word.strip() for word in metrics.split(",")]
    for name in names:
        if name not in METRICS:
            raise InputError(f"metrics must be of {', '.join(METRICS)}, got {name!r}{nearest(name, METRICS)}")
    return list(dict.fromkeys(names))
