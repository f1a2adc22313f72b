"""Held-out images: what is measured, that it changes nothing, the calibrated estimate, and verdicts on seeded failures."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import nn

from triptych.check import InputError
from triptych.data import load
from triptych.engine import Engine
from triptych.gan.calibrated import wasserstein_estimate
from triptych.gan.draw import Draw, Latent
from triptych.gan.folder import Run
from triptych.gan.game import Batch, scorer
from triptych.gan.held_out import HeldOut, measured, variety
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.mlp import MLP
from triptych.gan.objectives import NonSaturating, WassersteinGP
from triptych.gan.optimiser import Optimiser
from triptych.gan.recipe import Recipe
from triptych.gan.run import Every, play
from triptych.gan.settings import to_json
from triptych.gan.train import Rules
from triptych.gan.verdict import verdict

ADAM = Optimiser("adam", lr=1e-3, beta1=0.5, beta2=0.9)
RULES = Rules(Latent(8), ADAM, ADAM, steps=40, half_life=100.0)
NET = DCGAN(width=8, norm="none")
RECIPE = Recipe("tiny", "no one", WassersteinGP(steps=2), NET, NET, (1, 8, 8), batch=32, rules=RULES)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def run_of(folder, recipe, images, **every):
    config = {"recipe": to_json(recipe), "seed": 0, "precision": "float32", "data": {"checksum": "none"}}
    run = Run.create(folder, config, {})
    players = play(run, recipe, images, every=Every(**{"log": 10, "measure": 10, **every}))
    return players, run


def test_a_tenth_is_held_out_the_same_in_all_runs_and_nothing_is_in_both(digits):
    a, b = HeldOut.tenth(digits, 64), HeldOut.tenth(digits, 32)
    assert (len(a.index), len(a.train_index)) == (179, 1618)
    assert torch.equal(a.index, b.index)
    assert sorted(torch.cat([a.index, a.train_index]).tolist()) == list(range(1797))
    assert HeldOut.tenth(digits.take(slice(0, 19)), 4) is None
    assert HeldOut.tenth(digits.take(slice(0, 40)), 37) is None


def test_training_reads_the_training_images_alone(digits):
    held = HeldOut.tenth(digits, 64)
    batches = RECIPE.batches(held.train, Engine(), held.train_index)
    epoch = batches(0, 0, len(held.train_index)).images
    expected = RECIPE.batches(digits.take(held.train_index))(0, 0, len(held.train_index)).images
    assert torch.equal(epoch, expected)
    with pytest.raises(InputError, match="at least as many images as a batch of 32 takes, got 5"):
        RECIPE.batches(digits, Engine(), torch.arange(5))


def test_what_is_measured_is_the_critics_means_and_changes_nothing(digits):
    held = HeldOut.tenth(digits, 64)
    players = RECIPE.players(3)
    before = copy.deepcopy([*players.critic.state_dict().values(), *players.generator.state_dict().values()])
    state = torch.random.get_rng_state()
    found = measured(held, RECIPE, players, Engine(), potential=True, n=64)
    assert torch.equal(state, torch.random.get_rng_state())
    after = [*players.critic.state_dict().values(), *players.generator.state_dict().values()]
    assert all(torch.equal(x, y) for x, y in zip(before, after))
    score, means = scorer(players.critic.requires_grad_(False)), {}
    for of in ("train", "held out"):
        images = RECIPE.scaled(held.some(of, 64).pixels, Draw(0, 0, 0, 64))
        means[of] = float(score(Batch(images)).value.mean())
    gap = found["train_gap"] - found["held_out_gap"]
    assert gap == pytest.approx(means["train"] - means["held out"], abs=1e-6)
    assert found["wasserstein"] == pytest.approx(found["held_out_gap"] / found["slope"], rel=1e-6)
    assert found == measured(held, RECIPE, players, Engine(), potential=True, n=64)
    assert measured(held, RECIPE, players, Engine(), potential=False).keys() == {
        "train_gap",
        "held_out_gap",
        "gap_error",
        "variety",
    }


def test_held_out_images_are_never_among_those_that_are_called_training(digits):
    held = HeldOut.tenth(digits, 64)
    rows = [{x.numpy().tobytes() for x in held.some(of, 150).pixels} for of in ("train", "held out")]
    allowed = [{x.numpy().tobytes() for x in digits.pixels[i]} for i in (held.train_index, held.index)]
    assert rows[0] <= allowed[0]
    assert rows[1] <= allowed[1]
    assert not rows[0] & rows[1]


def test_variety_is_that_of_a_loop():
    g = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(20, 2, 6, 6, generator=g) * s for s in (1.0, 0.4))
    near = []
    for x in (fake, real):
        d = cdist(x.flatten(1).numpy(), x.flatten(1).numpy())
        np.fill_diagonal(d, np.inf)
        near.append(float(torch.tensor(d.min(1)).median()))
    assert variety(fake, real) == pytest.approx(near[0] / near[1], rel=1e-6)
    assert variety(fake[:1].expand(20, -1, -1, -1), real) == 0


def test_a_run_that_is_measured_has_the_bits_of_one_that_is_not(digits, tmp_path):
    held = HeldOut.tenth(digits, 32)
    one, run = run_of(tmp_path / "a", RECIPE, held)
    two, plain = run_of(tmp_path / "b", RECIPE, RECIPE.batches(held.train, Engine(), held.train_index))
    for x, y in zip(one.critic.state_dict().values(), two.critic.state_dict().values()):
        assert torch.equal(x, y)
    assert [line["step"] for line in run.metrics() if "variety" in line] == [10, 20, 30, 40]
    assert not any("variety" in line for line in plain.metrics())


def test_a_measurement_is_logged_where_no_line_is_due(digits, tmp_path):
    recipe = RECIPE.changed(steps=6)
    _, run = run_of(tmp_path / "a", recipe, HeldOut.tenth(digits, 32), log=4, measure=3)
    assert [(line["step"], "variety" in line) for line in run.metrics()] == [(3, True), (4, False), (6, True)]


class Line(nn.Module):
    """D(x) = a Σ x."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x):
        return self.a * x.flatten(1).sum(1)


def test_the_estimate_of_a_linear_critic_is_the_distance_whatever_its_slope():
    real = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    for a in (0.3, 1.0, 7.0):
        found = wasserstein_estimate(scorer(Line(a)), Batch(real + 2), Batch(real), Draw(0, count=500))
        assert found.distance == pytest.approx(2.0, rel=1e-5)
        assert found.gap == pytest.approx(2 * a, rel=1e-5)
        assert found.slope == pytest.approx(a, rel=1e-6)
        assert found.standard_error == pytest.approx(float(real.std()) * (2 / 500) ** 0.5, rel=1e-4)
    with pytest.raises(InputError, match="flat"):
        wasserstein_estimate(scorer(Line(0.0)), Batch(real + 2), Batch(real), Draw(0, count=500))
    with pytest.raises(InputError, match="as many generated images as real ones"):
        wasserstein_estimate(scorer(Line(1.0)), Batch(real), Batch(real[:3]), Draw(0, count=500))


def test_held_out_images_must_have_the_shape_of_the_others(digits):
    other = replace(digits, pixels=digits.pixels[..., :6])
    with pytest.raises(InputError, match="shape, 1 x 8 x 8, got 1 x 8 x 6"):
        HeldOut(digits, other)


def test_held_out_images_must_be_others(digits):
    with pytest.raises(InputError, match="60 of 60 are in both, pixel for pixel"):
        HeldOut(digits, digits.take(slice(20, 80)))
    with pytest.raises(InputError, match="20 of 60 are in both"):
        HeldOut(digits.take(slice(0, 40)), digits.take(slice(20, 80)))
    twice = digits.take([*range(55), 0, 1, 2, 3, 4])  # a set has a few pictures twice
    assert HeldOut(digits.take(slice(55, 100)), twice).count == 60
    assert HeldOut(digits.take([*range(60, 100), 3]), twice).count == 60
    with pytest.raises(InputError, match="10 of 60 are in both"):
        HeldOut(digits.take(slice(0, 5)), twice)


@pytest.mark.xdist_group("verdicts")
@pytest.mark.parametrize("kind", ["none", "collapse", "overfitting", "divergence"])
def test_the_verdict_knows_seeded_failures(kind, digits, tmp_path):
    wide, quick = MLP((128,), (256, 256)), Rules(Latent(16), ADAM, ADAM, steps=400, half_life=500.0)
    recipe = Recipe("one", "no one", WassersteinGP(steps=3), wide, wide, (1, 8, 8), batch=32, rules=quick)
    held = HeldOut.tenth(digits, 32)
    if kind == "collapse":  # a critic that learns nothing is pleased most by one image
        quicker = replace(ADAM, lr=0.01)
        rules = replace(
            quick, generator_optimiser=quicker, critic_optimiser=Optimiser("sgd", lr=1e-30), steps=300, half_life=100.0
        )
        recipe = replace(recipe, objective=NonSaturating(), rules=rules)
    if kind == "overfitting":  # 48 images, which the critic soon knows
        held = HeldOut(digits.take(slice(0, 48)), digits.take(slice(500, 1500)))
        recipe = recipe.changed(steps=500)
    if kind == "divergence":
        rules = replace(quick, critic_optimiser=Optimiser("sgd", lr=1e4), steps=100)
        recipe = replace(recipe, rules=rules)
        with pytest.raises(RuntimeError, match="diverged"):
            run_of(tmp_path / "run", recipe, held, checkpoint=10)
        lines = Run.open(tmp_path / "run").metrics()
    else:
        lines = run_of(tmp_path / "run", recipe, held, measure=25)[1].metrics()
    found = verdict(lines)
    assert found.kind == kind, found.text


def test_a_run_that_recovered_is_judged_by_what_came_after():
    good = {"variety": 1.0, "train_gap": 1.0, "held_out_gap": 0.95, "gap_error": 0.1}
    lines = [{"step": i, **good, "variety": 0.01} for i in range(9)]
    lines += [{"rollback": n, "from": 20 + n, "reason": "it broke"} for n in (1, 2)]
    after = [{"step": 30 + i, **good} for i in range(5)]
    found = [verdict([*lines, *after[:n]]) for n in range(6)]
    assert [one.kind for one in found] == ["divergence"] * 5 + ["none"]
    assert found[4].text == "The run diverged 2 times, last at step 22: it broke. Try smaller rates."
    assert found[5].text.startswith(
        "The run diverged 2 times, last at step 22: it broke. It has gone on since. No coll"
    )
    assert verdict([*lines, *({**line, "variety": 0.1} for line in after)]).kind == "collapse"


def test_without_measurements_there_is_no_verdict():
    assert verdict([{"step": 1, "critic_loss": 0.1}]).kind == "unknown"


class Flat(nn.Module):
    """A critic that says nothing."""

    takes_draw = False

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return (self.w * x.flatten(1)).sum(1)


def test_a_flat_critic_has_no_estimate_and_broken_networks_are_left_to_the_guard(digits):
    held, players = HeldOut.tenth(digits, 64), RECIPE.players(0)
    players.critic = Flat()
    found = measured(held, RECIPE, players, Engine(), potential=True)
    assert found.keys() == {"train_gap", "held_out_gap", "gap_error", "variety"}
    with torch.no_grad():
        next(iter(players.generator.parameters()))[0] = torch.nan
    assert measured(held, RECIPE, players, Engine(), potential=True) == {}


def test_batches_of_one_image_are_measured_and_one_held_out_image_is_refused(digits):
    held = HeldOut.tenth(digits.take(slice(0, 40)), 1)
    found = measured(held, RECIPE.changed(batch=1), RECIPE.players(0), Engine(), potential=True)
    assert found["slope"] > 0
    with pytest.raises(InputError, match="at least 2 held-out images, got 1"):
        HeldOut(digits, digits.take(slice(0, 1)))


def test_batch_normalisation_keeps_its_statistics(digits):
    recipe = replace(
        RECIPE, objective=NonSaturating(), critic=DCGAN(width=8, critic_norm="batch"), generator=DCGAN(width=8)
    )
    held, players = HeldOut.tenth(digits, 32), recipe.players(0)
    before = copy.deepcopy([players.critic.state_dict(), players.generator.state_dict(), players.average.state_dict()])
    measured(held, recipe, players, Engine(), potential=False)
    after = [players.critic.state_dict(), players.generator.state_dict(), players.average.state_dict()]
    for old, new in zip(before, after):
        assert all(torch.equal(old[name], new[name]) for name in old)


def test_a_diverging_run_is_the_guards_with_held_out_images_too(digits, tmp_path):
    recipe = replace(RECIPE, rules=replace(RULES, critic_optimiser=Optimiser("sgd", lr=1e38)))
    with pytest.raises(RuntimeError, match="diverged"):
        run_of(tmp_path / "run", recipe, HeldOut.tenth(digits, 32), measure=1, log=1, checkpoint=2)
    assert len([line for line in Run.open(tmp_path / "run").metrics() if "rollback" in line]) == 3
