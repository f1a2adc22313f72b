"""Twenty-five Gaussians: which methods find them all, in about a minute of one core each.

Perceptrons of 3 x 128 ReLUs, z ~ N(0, I) in the plane, 128 points a step; rates stay for half of the run and fall to 0 then;
2,500 samples of the generator itself, not of its average, are scored. Each method's rate was chosen on seed 10 by modes
times share, the number of steps so that all take about as long. At scale paper: 3 x 512 ReLUs, 256 points, rate 1e-4 and
100,000 steps, as in the authors' gan_toy.py. Differs: there too rates fall from half of the run on, where theirs stay, and
weights are clipped to 0.1 under RMSProp at 1e-4, where gan_toy.py has 0.01 and 5e-5.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Scale

if TYPE_CHECKING:
    from triptych.gan.game import Objective
    from triptych.gan.optimiser import Optimiser
    from triptych.gan.recipe import Recipe

SAMPLES, SAMPLE_SEED = 2_500, 999
STEPS = {
    "gan": 14_400,
    "lsgan": 14_300,
    "clipping": 4_050,
    "wgan-gp": 3_200,
    "wgan-gp, 2 critic steps": 7_150,
    "r1 + r2": 11_000,
}


@dataclass(frozen=True)
class Size:
    """Widths, batch, and the generator's steps of each method; ``rate`` where all methods have the same."""

    width: int
    batch: int
    steps: Mapping[str, int]
    rate: float | None = None


SIZES = {
    Scale.SMOKE: Size(16, 32, dict.fromkeys(STEPS, 20)),
    Scale.LAPTOP: Size(128, 128, STEPS),
    Scale.PAPER: Size(512, 256, dict.fromkeys(STEPS, 100_000), 1e-4),
}


def measure(method: str, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train one method on the grid and score its samples."""
    import torch

    from triptych.engine import Engine
    from triptych.gan.draw import Draw
    from triptych.gan.laws import batches, grid
    from triptych.gan.schedule import Constant
    from triptych.gan.train import generate, train
    from triptych.metrics.modes import coverage

    law, engine = grid(), Engine(device=torch.device(context.device))
    recipe = game(method, SIZES[context.scale])
    players, rules = recipe.players(context.seed, engine), recipe.rules
    start = time.process_time()
    going = train(
        players,
        recipe.objective,
        batches(law, engine),
        seed=context.seed,
        rules=rules,
        schedule=Constant(recipe.batch),
        engine=engine,
    )
    for progress in going:
        if progress.step == rules.steps:
            break
    seconds = time.process_time() - start
    with torch.no_grad():
        z = rules.latent.sample(Draw(SAMPLE_SEED, 0, 0, SAMPLES)).to(engine.device)
        samples = generate(players.generator, z).cpu()
    centres = torch.tensor(law.centres)
    scores = coverage(samples, centres, law.std)
    metrics = {
        "modes": scores.modes,
        "high_quality_percent": 100 * scores.high_quality,
        "kl": scores.kl,
        "steps": players.step,
        "critic_steps": players.critic_updates / players.step,
        "train_cpu_seconds": seconds,
    }
    return metrics, {"samples": {"samples": samples, "centres": centres}}


def game(method: str, size: Size) -> "Recipe":
    """The game of a method with its rate."""
    from dataclasses import replace

    from triptych.gan.draw import Latent
    from triptych.gan.networks.mlp import MLP
    from triptych.gan.recipe import Recipe
    from triptych.gan.train import Rules

    objective, optimiser = _methods()[method]
    if size.rate is not None:
        optimiser = replace(optimiser, lr=size.rate)
    nets = MLP((size.width,) * 3, (size.width,) * 3)
    rules = Rules(Latent(2), optimiser, optimiser, size.steps[method])
    return Recipe(method, __name__, objective, nets, nets, (2,), scale="none", batch=size.batch, rules=rules)


def _methods() -> "dict[str, tuple[Objective, Optimiser]]":
    """Each method's losses and optimiser, as tuned."""
    from triptych.gan.objectives import LeastSquares, NonSaturating, Regularised, Wasserstein, WassersteinGP
    from triptych.gan.optimiser import Optimiser

    def adam(lr: float) -> Optimiser:
        return Optimiser("adam", lr, beta1=0.5, beta2=0.9, fall="late")

    rmsprop = Optimiser("rmsprop", 5e-4, fall="late")
    return {
        "gan": (NonSaturating(), adam(5e-4)),
        "lsgan": (LeastSquares(), adam(2e-3)),
        "clipping": (Wasserstein(clip=0.1, steps=5, long_steps=5), rmsprop),
        "wgan-gp": (WassersteinGP(weight=0.1, steps=5), adam(3e-3)),
        "wgan-gp, 2 critic steps": (WassersteinGP(weight=0.1, steps=2), adam(3e-3)),
        "r1 + r2": (Regularised(NonSaturating(), r1=0.1, r2=0.1), adam(1e-3)),
    }
