"""A game of seconds, and runs of it that are stopped and resumed: what the tests of run folders share."""

from dataclasses import replace

import torch

from triptych.gan import checkpoint
from triptych.gan.draw import Latent
from triptych.gan.networks.mlp import MLP
from triptych.gan.objectives import WassersteinGP
from triptych.gan.optimiser import Optimiser
from triptych.gan.recipe import Recipe
from triptych.gan.run import Every, Run, play
from triptych.gan.settings import to_json
from triptych.gan.train import Rules
from triptych.images import Images
from triptych.store import sha256

IMAGES = Images(torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
STEPS = 16
EVERY = Every(log=2, checkpoint=4, grid=8)
ADAM = Optimiser(lr=1e-3)
RULES = Rules(Latent(4), ADAM, ADAM, steps=STEPS, half_life=40.0)
RECIPE = Recipe(
    "tiny", "no one", WassersteinGP(steps=2), MLP((16,), (16,)), MLP((16,), (16,)), (1, 8, 8), batch=6, rules=RULES
)
ENV = {"version": "0.1"}


def config(recipe=RECIPE, **fields):
    shown = to_json(replace(recipe, objective=RECIPE.objective))  # objectives of tests have no name in a file
    known = {
        "recipe": shown,
        "seed": 3,
        "precision": "float32",
        "data": {"checksum": IMAGES.checksum(), "name": "noise"},
    }
    return {**known, **fields}


class Stopped(Exception):
    pass


def stop_at(*steps):
    """Stop at each of these steps, once."""
    left = list(steps)

    def on_progress(step, line):
        del line
        if left and step == left[0]:
            del left[0]
            raise Stopped

    return on_progress


def grid(step, average):
    return b"%d %d" % (step, sum(p.numel() for p in average.parameters()))


def finished(folder, recipe=RECIPE, stops=(), every=EVERY, **options):
    """A run to its end, stopped and resumed on the way."""
    run, on_progress = Run.create(folder, config(recipe), ENV), stop_at(*stops)
    for _ in range(len(stops) + 1):
        try:
            play(run, recipe, IMAGES, every=every, draw_grid=grid, on_progress=on_progress, **options)
        except Stopped:
            run = Run.resume(folder, config(recipe), ENV)
    return run


def without_times(run):
    return [{key: value for key, value in line.items() if not key.startswith("time_")} for line in run.metrics()]


def files(run):
    """Everything that must be the same in two runs."""
    checkpoints = {path.name: sha256(path / "tensors.safetensors") for path in run.checkpoints}
    metas = [checkpoint.read(path).meta for path in run.checkpoints]
    return without_times(run), checkpoints, metas, {path.name: path.read_bytes() for path in run.samples}
