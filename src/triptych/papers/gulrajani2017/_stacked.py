"""A thousand modes: three embedded digits as the channels of one 8 x 8 image; which methods lose some.

Three DCGAN critics of different width against the same generator (32 filters at 4 x 4, 64 at 2 x 2, BatchNorm), batches of
64 from 50,000 images; 26,000 samples, whose channels are read by a perceptron that was trained on the digits. Both methods
have as many steps as take the same time: a WGAN-GP step costs five critic steps with a penalty.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Scale

if TYPE_CHECKING:
    import torch

    from triptych.engine import Engine
    from triptych.gan.recipe import Recipe
    from triptych.gan.train import Players

IMAGES, SAMPLE_SEED, CHUNK, SHOWN = 50_000, 999, 1_000, 48
HELD_OUT = 397  # digits that the reader is tested on, of 1,797


@dataclass(frozen=True)
class Size:
    """The generator's width, its steps against each method's critic, and how many samples are scored."""

    width: int
    steps: dict[str, int]
    samples: int


SIZES = {
    Scale.SMOKE: Size(4, {"dcgan": 12, "wgan-gp": 6}, 1_000),
    Scale.LAPTOP: Size(32, {"dcgan": 3_800, "wgan-gp": 1_000}, 26_000),
    Scale.PAPER: Size(32, {"dcgan": 38_000, "wgan-gp": 10_000}, 26_000),
}


def measure(method: str, critic_width: int, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train one method on stacked digits and count the modes among its samples."""
    import torch

    from triptych.data.stacked_digits import stacked_digits
    from triptych.engine import Engine
    from triptych.gan.schedule import Constant
    from triptych.gan.train import train
    from triptych.metrics.modes import stacked

    engine, size = Engine(device=torch.device(context.device)), SIZES[context.scale]
    recipe = game(method, critic_width, size)
    players = recipe.players(context.seed, engine)
    source = recipe.batches(stacked_digits(IMAGES, context.seed), engine)
    start = time.process_time()
    going = train(
        players,
        recipe.objective,
        source,
        seed=context.seed,
        rules=recipe.rules,
        schedule=Constant(recipe.batch),
        engine=engine,
    )
    for progress in going:
        if progress.step == recipe.rules.steps:
            break
    seconds = time.process_time() - start
    pixels = sampled(recipe, players, size.samples, engine)
    read, accuracy = reader(context.seed)
    scores = stacked(read(pixels))
    metrics = {
        "modes": scores.modes,
        "kl": scores.kl,
        "steps": players.step,
        "critic_steps": players.critic_updates / players.step,
        "train_cpu_seconds": seconds,
        "reader_accuracy_percent": 100 * accuracy,
    }
    return metrics, {"samples": {"pixels": pixels[:SHOWN]}}


def game(method: str, critic_width: int, size: Size) -> "Recipe":
    """The game of a method against a critic of a width, which starts and is normalised as in the method's own paper."""
    from dataclasses import replace

    from triptych.gan.draw import Latent
    from triptych.gan.networks.dcgan import DCGAN
    from triptych.gan.objectives import NonSaturating, WassersteinGP
    from triptych.gan.optimiser import Optimiser
    from triptych.gan.recipe import Recipe
    from triptych.gan.train import Rules

    objective, optimiser, critic = {
        "dcgan": (NonSaturating(), Optimiser("adam", 2e-4, 0.5, 0.999), DCGAN(critic_width, critic_norm="batch")),
        "wgan-gp": (
            WassersteinGP(weight=10, steps=5),
            Optimiser("adam", 1e-3, 0.5, 0.9),
            DCGAN(critic_width, init="he"),
        ),
    }[method]
    generator, critic = DCGAN(size.width, doublings=2), replace(critic, doublings=2)
    rules = Rules(Latent(64), optimiser, optimiser, size.steps[method])
    return Recipe(method, __name__, objective, generator, critic, (3, 8, 8), batch=64, rules=rules)


def sampled(recipe: "Recipe", players: "Players", n: int, engine: "Engine") -> "torch.Tensor":
    """Samples of the generator (n, 3, 8, 8) as bytes, in evaluation mode."""
    import torch

    from triptych.gan.draw import Draw
    from triptych.gan.train import generate

    players.generator.eval()
    parts = []
    with torch.no_grad():
        for first in range(0, n, CHUNK):
            z = recipe.rules.latent.sample(Draw(SAMPLE_SEED, 0, first, min(CHUNK, n - first)))
            parts.append(recipe.pixels(generate(players.generator, z.to(engine.device))).cpu())
    return torch.cat(parts)


def reader(seed: int) -> tuple[Any, float]:
    """A perceptron trained on single digits, as a function from images (n, 3, 8, 8) to classes (n, 3), and its accuracy."""
    import torch
    from sklearn.neural_network import MLPClassifier

    from triptych.data import load, permute_split

    train, test = permute_split(load("digits"), [1_797 - HELD_OUT, HELD_OUT], seed)
    network = MLPClassifier((128,), learning_rate_init=3e-3, tol=1e-3, max_iter=500, random_state=seed)
    network.fit(train.floats().flatten(1).numpy(), train.labels)

    def read(pixels: torch.Tensor) -> torch.Tensor:
        channels = (pixels.float() / 255).reshape(-1, pixels.shape[2] * pixels.shape[3])
        return torch.from_numpy(network.predict(channels.numpy())).view(len(pixels), -1)

    return read, float(network.score(test.floats().flatten(1).numpy(), test.labels))
