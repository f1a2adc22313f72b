"""How fast images come, and how fast a training step takes them: a loader must never be what a run waits for.

    python benchmarks/loader.py --data photos/ --side 64

Times are processor time of this process at one thread, but for the decoding, which uses all processors and is wall time.
The step is the real one, on the same images; a critic is given its images as often as the recipe says. The array has just
been written and lies in the page cache: what a disk takes, where it does not fit into memory, is not measured.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from triptych.data.shards import mapped
from triptych.engine import Engine
from triptych.gan.recipe import Recipe
from triptych.gan.recipes import RECIPES
from triptych.gan.schedule import Constant
from triptych.gan.train import train
from triptych.images import Images


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder of pictures")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--recipe", choices=list(RECIPES), default="dcgan")
    parser.add_argument("--width", type=int, default=None)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=100, help="that the loader is timed over")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def best(call: Callable[[], None], rounds: int) -> float:
    """The least processor time of several rounds: what disturbs only adds."""
    times = []
    for _ in range(rounds):
        begun = time.process_time()
        call()
        times.append(time.process_time() - begun)
    return min(times)


def loaded(recipe: Recipe, images: Images, batches: int) -> None:
    source = recipe.batches(images, Engine())
    for k in range(batches):
        source(0, k * recipe.batch, recipe.batch)


def steps(recipe: Recipe, images: Images, rounds: int) -> float:
    """The least processor time of a step."""
    engine = Engine()
    players = recipe.players(0, engine)
    players.step = 1000  # past the steps at a start that take more critic steps
    turns = train(
        players, recipe.objective, recipe.batches(images, engine), seed=0, rules=recipe.rules,
        schedule=Constant(recipe.batch), engine=engine,
    )  # fmt: skip
    next(turns)
    return best(lambda: next(turns) and None, rounds)


def main() -> None:
    asked = options()
    torch.set_num_threads(1)
    cache = Path(tempfile.mkdtemp())
    os.environ["TRIPTYCH_CACHE"] = str(cache)
    try:
        begun = time.perf_counter()
        images = mapped(asked.data, side=asked.side)
        decoding = len(images) / (time.perf_counter() - begun)
        begun = time.perf_counter()
        images = mapped(asked.data, side=asked.side)
        opening = time.perf_counter() - begun
        recipe = RECIPES[asked.recipe](images.shape[1:], 0, asked.width, len(images)).changed(batch=asked.batch)
        memory = Images(images.pixels.clone(), images.labels, images.classes)
        count = asked.batches * asked.batch
        rows = [
            ("decoded, once", decoding),
            ("from the shard", count / best(lambda: loaded(recipe, images, asked.batches), asked.rounds)),
            ("from memory", count / best(lambda: loaded(recipe, memory, asked.batches), asked.rounds)),
        ]
        taken = recipe.batch * recipe.objective.critic_steps(1000)
        step = taken / steps(recipe, images, asked.rounds)
    finally:
        shutil.rmtree(cache)
    c, h, w = images.shape[1:]
    print(
        f"{len(images):,} images of {c} x {h} x {w}, {recipe.name}, batch {recipe.batch}; opened again in {opening:.2f} s"
    )
    for name, speed in rows:
        print(f"{name:20} {speed:12,.0f} images/s")
    print(
        f"{'a step takes':20} {step:12,.0f} images/s; the loader's share of a step is {100 * step / rows[1][1]:.2f} %"
    )


if __name__ == "__main__":
    main()
