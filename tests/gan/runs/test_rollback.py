"""A game that diverges: back to the last good checkpoint, with the same bits whenever it is stopped."""

import math
import re
import shutil
from dataclasses import dataclass, replace

import pytest
from short_runs import ENV, EVERY, IMAGES, RECIPE, STEPS, Stopped, config, files, finished, grid

from triptych.check import InputError
from triptych.engine import Engine
from triptych.gan import checkpoint
from triptych.gan.game import GameLoss
from triptych.gan.guard import Diverged
from triptych.gan.objectives import WassersteinGP
from triptych.gan.run import Course, Run, advanced, play


@dataclass(frozen=True)
class Poisoned(WassersteinGP):
    """Diverges at one step under the first noise seeds: the critic's loss, or unseen, the generator's gradient."""

    at: int = 13
    times: int = 1
    where: str = "critic"
    value: float = math.nan

    def struck(self, draw):
        return draw.step == self.at - 1 and draw.seed in [advanced(3, n) for n in range(self.times)]

    def critic_loss(self, critic, real, fake, draw):
        loss = super().critic_loss(critic, real, fake, draw)
        if self.where == "critic" and self.struck(draw):
            return GameLoss(loss.total * self.value, loss.parts)
        return loss

    def generator_loss(self, critic, fake, real):
        loss = super().generator_loss(critic, fake, real)
        if self.where == "gradient" and self.struck(fake.draw):
            return GameLoss(loss.total + (0 * fake.images.mean()).sqrt(), loss.parts)  # 0, with the gradient 0 / 0
        return loss


def rollbacks(run):
    return [(line["from"], line["to"]) for line in run.metrics() if "rollback" in line]


POISONS = {
    "NaN": (Poisoned(steps=2), [(13, 12)], "critic_loss is nan"),
    "explosion": (Poisoned(steps=2, value=1e12), [(13, 12)], r"critic_loss is -?\d.*e\+\d\d, above 1e\+09"),
    "in the weights": (Poisoned(steps=2, at=12, where="gradient"), [(12, 8)], "generator/.* is not finite"),
    "the same again": (Poisoned(steps=2, times=2), [(13, 12), (13, 8)], "critic_loss is nan"),
    "three times": (Poisoned(steps=2, times=3), [(13, 12), (13, 8), (13, 12)], "critic_loss is nan"),
}


@pytest.fixture(scope="module", params=POISONS)
def poisoned(request, tmp_path_factory):
    objective, told, reason = POISONS[request.param]
    recipe = replace(RECIPE, objective=objective)
    return recipe, finished(tmp_path_factory.mktemp("poisoned") / "run", recipe), told, reason


def test_a_run_that_diverges_goes_back_halves_its_rates_and_ends(poisoned):
    _, run, told, reason = poisoned
    assert rollbacks(run) == told
    n = len(told)
    lines = [line for line in run.metrics() if "rollback" not in line]
    assert [line["step"] for line in lines] == list(range(2, STEPS + 1, 2))
    assert lines[-1]["rollbacks"] == n
    assert (lines[-1]["generator_rate"], lines[-1]["critic_rate"]) == (1e-3 * 0.5**n, 1e-3 * 0.5**n)
    entries = [line for line in run.metrics() if "rollback" in line]
    assert [entry["rollback"] for entry in entries] == list(range(1, n + 1))
    for number, entry in enumerate(entries, 1):
        assert re.fullmatch(reason, entry["reason"])
        assert (entry["rate_scale"], entry["noise_seed"]) == (0.5**number, advanced(3, number))
    meta = checkpoint.read(run.checkpoint()).meta
    assert meta["rollbacks"] == entries
    assert (meta["rate_scale"], meta["noise_seed"]) == (0.5**n, advanced(3, n))
    assert run.checkpoint().name == f"00000016-{n}"


@pytest.mark.parametrize("stops", [(11,), (12, 12), (15,), (3, 10, 12, 13)], ids=str)
def test_a_rollback_is_the_same_in_a_run_that_was_stopped(poisoned, tmp_path, stops):
    recipe, run, _, _ = poisoned
    assert files(finished(tmp_path / "run", recipe, stops)) == files(run)


def test_noise_seeds_are_the_seeds_own():
    seeds = [advanced(seed, n) for seed in range(50) for n in range(1, 4)]
    assert len(set(seeds)) == 150
    assert min(seeds) >= 50
    assert advanced(7, 0) == 7


def test_after_three_rollbacks_a_run_stops_and_stops_again(tmp_path):
    recipe = replace(RECIPE, objective=Poisoned(steps=2, times=4))
    run = Run.create(tmp_path / "run", config(recipe), ENV)
    for _ in range(2):
        with pytest.raises(Diverged, match=r"diverged at step 13 \(critic_loss is nan\) after 3 rollbacks") as raised:
            play(run, recipe, IMAGES, every=EVERY)
        assert "\n" not in str(raised.value)
        assert rollbacks(run) == [(13, 12), (13, 8), (13, 12)]
        assert checkpoint.read(run.checkpoint()).meta["step"] == 12
    assert [line["step"] for line in run.metrics() if "rollback" not in line] == list(range(2, 13, 2))


def test_a_kill_between_a_rollback_and_the_cut_of_the_metrics(tmp_path, monkeypatch):
    """The checkpoint of a rollback is there, the metrics still hold the steps that it took back."""
    recipe = replace(RECIPE, objective=Poisoned(steps=2, at=11))
    whole = finished(tmp_path / "whole", recipe)
    run = Run.create(tmp_path / "run", config(recipe), ENV)

    def killed(self, step, entries):
        if entries:
            raise Stopped
        return cut(self, step, entries)

    cut = Run.cut
    with monkeypatch.context() as patch:
        patch.setattr(Run, "cut", killed)
        with pytest.raises(Stopped):
            play(run, recipe, IMAGES, every=EVERY, draw_grid=grid)
    assert [line["step"] for line in run.metrics()] == [2, 4, 6, 8, 10]
    assert run.checkpoint().name == "00000008-1"
    play(Run.resume(run.folder, config(recipe), ENV), recipe, IMAGES, every=EVERY, draw_grid=grid)
    assert files(run) == files(whole)


def test_a_rollback_needs_a_checkpoint(tmp_path):
    recipe = replace(RECIPE, objective=Poisoned(steps=2))
    run = Run.create(tmp_path / "run", config(recipe), ENV)

    def removed(step, line):
        if step == 12:
            shutil.rmtree(run.folder / "checkpoints")

    with pytest.raises(InputError, match="must hold a checkpoint to go back to, but it is empty now"):
        play(run, recipe, IMAGES, every=EVERY, on_progress=removed)


def test_a_rollback_may_lead_back_beyond_an_older_one(tmp_path):
    """Rollback 1 leads to step 12, rollback 2 to 8: the line of the first stays, those of steps 9 .. 12 go."""
    run = finished(tmp_path / "run", replace(RECIPE, objective=Poisoned(steps=2, times=2)), every=replace(EVERY, log=1))
    keys = [line.get("step") or f"rollback {line['rollback']}" for line in run.metrics()]
    assert keys == [*range(1, 9), "rollback 1", "rollback 2", *range(9, 17)]
    assert [path.name for path in run.checkpoints] == ["00000008-2", "00000012-2", "00000016-2"]


def test_processes_go_back_together(tmp_path, monkeypatch):
    """Statistics of batch normalisation are each process's own: where one's are lost, all must say so."""
    run = Run.create(tmp_path / "run", config(), ENV)
    course = Course(run, RECIPE, Engine(), EVERY, RECIPE.players(3, Engine()))
    assert course.unsound() is None
    monkeypatch.setattr(Engine, "any", lambda self, said: True)
    assert course.unsound() == "a tensor of another process is not finite"
