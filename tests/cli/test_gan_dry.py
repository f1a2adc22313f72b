"""What a dry run measures: the program of the run, and all of its steps, however few images it looks at."""

import pytest
from torch import nn

from triptych.cli.gan_dry import estimate
from triptych.data import load
from triptych.engine import Engine
from triptych.gan.recipes import RECIPES


@pytest.fixture(autouse=True)
def _one_step(monkeypatch):
    monkeypatch.setattr("triptych.cli.gan_dry.MEASURED_STEPS", 1)


def wgan(count, **settings):
    """The recipe for so many images, on batches of 4."""
    return RECIPES["wgan"]((1, 8, 8), 0, 2, count).changed(batch=4, **settings)


@pytest.mark.parametrize("asked", [False, True])
def test_the_generator_is_compiled_where_the_run_would_compile_it(asked, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(type(self)))
    recipe = wgan(30)
    estimate(recipe, load("digits", limit=20), Engine(compile=asked), 0)
    assert compiled == ([type(recipe.networks(0)[0])] if asked else [])


def test_time_and_updates_are_those_of_all_steps():
    """26 steps of 100 critic updates at the start and one of 5, whatever is looked at."""
    facts = estimate(wgan(9, steps=26), load("digits", limit=4), Engine(), 0)
    assert (facts["steps"], facts["critic_updates"]) == (26, 25 * 100 + 5)
    assert facts["seconds"] == pytest.approx(facts["seconds_a_step"] * (25 * 100 + 5) / 5)
