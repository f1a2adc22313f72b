"""What a training would be: its networks, the memory it needs and the time it takes, from a step that is measured."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from triptych.bench.machine import peak_rss_mb
from triptych.engine import Engine
from triptych.gan.game import Objective
from triptych.gan.recipe import Recipe
from triptych.gan.schedule import Constant
from triptych.gan.train import Players, Progress, train
from triptych.images import Images

MEASURED_S, MEASURED_STEPS = 3.0, 20  # the measurement ends with the first of the two
SEARCHED = 1000  # steps among which a step of the usual length is looked for


def estimate(recipe: Recipe, images: Images, engine: Engine, seed: int) -> dict[str, Any]:
    """Networks, memory in MB and time in seconds of a run, from steps that are played and thrown away."""
    players = recipe.players(seed, engine)
    engine.compiled(players.generator)  # as a run does
    game, usual = recipe.objective, _usual_step(recipe.objective, recipe.rules.steps)
    players.step = usual
    turns = train(
        players,
        game,
        recipe.batches(images, engine),
        seed=seed,
        rules=recipe.rules,
        schedule=Constant(recipe.batch),
        engine=engine,
    )
    next(turns)  # the first makes the optimisers' state, fills caches and compiles
    with _peak(engine) as peak:
        seconds = _seconds_a_step(turns)
    updates = sum(game.critic_steps(step) for step in range(recipe.rules.steps))
    held = _megabytes(players)
    return {
        "recipe": recipe.name,
        "follows": recipe.follows,
        "shape": list(recipe.shape),
        "classes": recipe.classes,
        "steps": recipe.rules.steps,
        "batch": recipe.batch,
        "critic_updates": updates,
        "device": str(engine.device),
        "precision": engine.precision,
        "generator": type(recipe.generator).__name__,
        "generator_parameters": _count(players.generator),
        "critic": type(recipe.critic).__name__,
        "critic_parameters": _count(players.critic),
        "networks_mb": held["networks"],
        "optimisers_mb": held["optimisers"],
        "peak_mb": peak[0],
        "seconds_a_step": seconds,
        "seconds": seconds * updates / game.critic_steps(usual),
        "images_per_second": recipe.batch * game.critic_steps(usual) / seconds,
    }


def rows(recipe: Recipe, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The same for a human."""
    shape = " x ".join(map(str, recipe.shape))
    classes = f", {recipe.classes} classes" if recipe.classes else ""
    return [
        ("follows", recipe.follows),
        ("images", f"{shape} (channels, height, width){classes}"),
        ("objective", type(recipe.objective).__name__),
        ("generator", f"{facts['generator']}, {facts['generator_parameters']:,} parameters"),
        ("critic", f"{facts['critic']}, {facts['critic_parameters']:,} parameters"),
        ("networks, average and gradients", f"{facts['networks_mb']:.0f} MB"),
        ("optimisers", f"{facts['optimisers_mb']:.0f} MB"),
        ("peak of a step, all in all", f"{facts['peak_mb']:.0f} MB on {facts['device']}"),
        ("steps", f"{facts['steps']:,} of the generator, {facts['critic_updates']:,} of the critic"),
        ("measured", f"{facts['seconds_a_step']:.3g} s a step, {facts['images_per_second']:.0f} images/s"),
        ("time", f"about {duration(facts['seconds'])}"),
    ]


def duration(seconds: float) -> str:
    """A time in words of one unit."""
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _usual_step(game: Objective, steps: int) -> int:
    """A step with the fewest critic steps: some games take more of them now and then."""
    return min(range(min(steps, SEARCHED)), key=game.critic_steps)


def _seconds_a_step(turns: Iterator[Progress]) -> float:
    begun, taken = time.perf_counter(), 0
    while taken < MEASURED_STEPS and (taken == 0 or time.perf_counter() - begun < MEASURED_S):
        progress = next(turns)
        progress.numbers()  # waits for the device
        taken += 1
    return (time.perf_counter() - begun) / taken


@contextmanager
def _peak(engine: Engine) -> Iterator[list[float]]:
    """The peak of memory: a GPU's, which torch counts, or that of this process."""
    said = [0.0]
    if engine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(engine.device)
    yield said
    said[0] = torch.cuda.max_memory_allocated(engine.device) / 1e6 if engine.device.type == "cuda" else peak_rss_mb()


def _megabytes(players: Players) -> dict[str, float]:
    """What networks, their average and gradients hold, and the optimisers, in MB."""
    nets = [
        t for net in (players.generator, players.critic, players.average) for t in (*net.parameters(), *net.buffers())
    ]
    gradients = [p.grad for net in (players.generator, players.critic) for p in net.parameters() if p.grad is not None]
    states = [
        value
        for optimiser in (players.generator_optimiser, players.critic_optimiser)
        for state in optimiser.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    return {"networks": _size(nets + gradients), "optimisers": _size(states)}


def _size(tensors: list[torch.Tensor]) -> float:
    return sum(t.numel() * t.element_size() for t in tensors) / 1e6


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
