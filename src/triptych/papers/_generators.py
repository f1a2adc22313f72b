"""What experiments on generators share: one yardstick for all cells of a table, and training that is looked at on the way."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Scale
from triptych.check import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from triptych.gan.recipe import Recipe
    from triptych.gan.train import Players
    from triptych.images import Images
    from triptych.metrics.features import Extractor, Found


@dataclass(frozen=True, eq=False)
class Yardstick:
    """Real images by one extractor: a certified network trained on their labels, on embedded digits where they teach none; at the paper's
    own scale Inception-v3, by which the papers score.
    """

    extractor: "Extractor"
    real: "Found"
    count: int

    @classmethod
    def of(cls, images: "Images", n: int, context: Context) -> "Yardstick":
        """That of the first n of a seeded order; the same for all cells and seeds. Raises InputError where Inception's weights are wanted
        and were not fetched.
        """
        import torch

        from triptych.ccnn.extractor import kept_extractor, teaches
        from triptych.data import load
        from triptych.metrics.features import extract

        if context.scale is Scale.PAPER:
            extractor = _inception(context.device)
        else:
            extractor = kept_extractor(images if teaches(images) else load("digits"))
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:n]
        return cls(extractor, extract(extractor, images.take(chosen).pixels), len(chosen))

    @property
    def real_score(self) -> float:
        """The inception score of the real images."""
        from triptych.metrics.inception_score import inception_score

        assert self.real.logits is not None
        return inception_score(self.real.logits, 1).mean

    def scores(self, made: "Tensor") -> dict[str, float]:
        """Inception score, Fréchet and kernel distance, precision and recall of generated images, uint8 (n, c, h, w)."""
        from triptych.metrics.features import Moments, extract
        from triptych.metrics.frechet import frechet_distance
        from triptych.metrics.inception_score import inception_score
        from triptych.metrics.kernel_distance import squared_mmd
        from triptych.metrics.precision_recall import precision_recall

        seen = extract(self.extractor, made)
        both = precision_recall(self.real.features, seen.features)
        assert seen.logits is not None
        return {
            "is": inception_score(seen.logits, 1).mean,
            "fid": frechet_distance(Moments.of(self.real.features), Moments.of(seen.features)),
            "kid": squared_mmd(self.real.features, seen.features),
            "precision": both.precision,
            "recall": both.recall,
        }


def _inception(device: str) -> "Extractor":
    """Inception-v3 with the weights that `triptych data fetch` brought. Raises InputError where there are none."""
    from triptych.metrics.inception import InceptionExtractor
    from triptych.metrics.weights import fetched

    weights = fetched("inception-fid")
    if weights is None:
        raise InputError(
            "scale paper must have the weights of Inception-v3, which its scores are of, but there are none; run "
            "`triptych data fetch inception-fid`, or take scale laptop"
        )
    return InceptionExtractor(weights, device=device)


def drawn(recipe: "Recipe", players: "Players", n: int) -> "Tensor":
    """The first n images of the generator's average, uint8."""
    import torch

    from triptych.gan.sample import Sampler

    return torch.cat(list(Sampler(recipe, players.average).sample(1_000_003, n)))


@dataclass(frozen=True, eq=False)
class Moment:
    """A run after a step: seconds that its training took, of the clock and of the processor; the step's losses and parts."""

    step: int
    seconds: float
    cpu_seconds: float
    parts: Mapping[str, float]

    @property
    def finite(self) -> bool:
        """Whether all losses and parts are."""
        return all(math.isfinite(value) for value in self.parts.values())


def course(
    recipe: "Recipe", players: "Players", images: "Images", context: Context, steps: int, every: int
) -> Iterator[Moment]:
    """Play, and stop to be looked at after every so many steps; what is done meanwhile is not counted."""
    import torch

    from triptych.engine import Engine

    engine = Engine(device=torch.device(context.device))
    game = recipe.game(players, recipe.batches(images, engine), context.seed, engine)
    seconds, cpu = 0.0, 0.0
    while players.step < steps:
        clock, processor = time.perf_counter(), time.process_time()
        told = [next(game).parts for _ in range(min(every, steps - players.step))]
        parts = {name: float(torch.stack([p[name] for p in told if name in p]).mean()) for name in told[-1]}
        seconds, cpu = seconds + time.perf_counter() - clock, cpu + time.process_time() - processor
        yield Moment(players.step, seconds, cpu, parts)


def averaged(recipe: "Recipe", images: "Images", context: Context, steps: int, n: int) -> "tuple[Tensor, Moment, bool]":
    """A whole training's n images of the generator's average, its last moment, and whether that average is finite.

    Losses that are not finite end it.
    """
    import torch

    from triptych.engine import Engine

    players = recipe.players(context.seed, Engine(device=torch.device(context.device)))
    moment = None
    for moment in course(recipe, players, images, context, steps, max(1, steps // 10)):
        if not moment.finite:
            break
    assert moment is not None
    return drawn(recipe, players, n), moment, finite(players)


def finite(players: "Players") -> bool:
    """Whether the generator's average is."""
    return all(bool(p.isfinite().all()) for p in players.average.parameters())


def pictures(context: Context, side: int | None = None, limit: int | None = None) -> "Images":
    """The training images of a run's data, resized; the embedded digits where there are no others."""
    from triptych.data import load, splits

    source: Any = context.data.path or context.data.name
    split = "train" if "train" in splits(source) else None
    return load(source, side=side, split=split, limit=limit)
