"""How a run that was stopped anywhere ends, what its folder then holds, and what is read from it."""

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from short_runs import (
    ADAM,
    ENV,
    EVERY,
    IMAGES,
    RECIPE,
    RULES,
    STEPS,
    Stopped,
    config,
    files,
    finished,
    grid,
    stop_at,
    without_times,
)

from triptych.check import InputError
from triptych.engine import Engine
from triptych.gan import checkpoint
from triptych.gan import run as run_module
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.run import Every, Run, load_generator, play
from triptych.images import Images
from triptych.store import sha256


def test_what_a_run_folder_holds(whole_run):
    run = whole_run
    assert sorted(path.name for path in run.folder.iterdir() if path.name[0] != ".") == [
        "checkpoints",
        "config.json",
        "env.json",
        "metrics.jsonl",
        "samples",
    ]
    assert Run.open(run.folder).config == json.loads(json.dumps(config()))
    assert run.environments() == [ENV]
    assert [path.name for path in run.checkpoints] == ["00000008", "00000012", "00000016"]
    assert [path.name for path in run.samples] == ["00000008.png", "00000016.png"]
    assert run.samples[0].read_bytes() == grid(8, RECIPE.networks(0)[0])
    assert [line["step"] for line in run.metrics()] == list(range(2, STEPS + 1, 2))
    first = run.metrics()[0]
    assert (first["seen"], first["critic_updates"], first["rollbacks"]) == (24, 4, 0)
    assert (first["generator_rate"], first["critic_rate"]) == (1e-3, 1e-3)
    assert {"critic_loss", "generator_loss", "gap", "penalty"} < first.keys()
    assert first["time_images_per_second"] > 0
    assert all(math.isfinite(value) for line in run.metrics() for value in line.values())
    meta = checkpoint.read(run.checkpoint()).meta
    assert (meta["step"], meta["seen"], meta["rollbacks"]) == (STEPS, STEPS * 12, [])
    assert meta["versions"].keys() == {"triptych", "torch", "numpy", "python"}
    assert meta["config"] == json.loads(json.dumps(config()))


@pytest.mark.parametrize("stop", range(1, STEPS))
def test_a_run_that_was_stopped_ends_as_one_that_was_not(whole_run, tmp_path, stop):
    assert files(finished(tmp_path / "run", stops=(stop,))) == files(whole_run)


def test_a_kill_between_the_last_checkpoint_and_the_removal_of_old_ones(whole_run, tmp_path, monkeypatch):
    """Resumed, the run that has nothing left to do removes what it was about to."""
    prune, kills = checkpoint.prune, []

    def killed(folder, keep):
        if (folder / whole_run.checkpoint().name).exists() and not kills:
            kills.append(len(checkpoint.listed(folder)))
            raise Stopped
        prune(folder, keep)

    monkeypatch.setattr(checkpoint, "prune", killed)
    assert files(finished(tmp_path / "run", stops=(10**6,))) == files(whole_run)
    assert kills == [len(whole_run.checkpoints) + 1]


def test_stopped_many_times_with_convolutions_and_falling_rates(tmp_path):
    net, falling = DCGAN(width=4), replace(ADAM, fall="linear")
    rules = replace(RULES, generator_optimiser=falling, critic_optimiser=replace(falling, kind="rmsprop"))
    recipe = replace(RECIPE, generator=net, critic=net, rules=rules)
    stopped = finished(tmp_path / "stopped", recipe, stops=(2, 3, 6, 9, 9, 13, 15))
    assert files(stopped) == files(finished(tmp_path / "whole", recipe))


def test_the_seed_matters(whole_run, tmp_path):
    run = Run.create(tmp_path / "run", config(seed=4), ENV)
    play(run, RECIPE, IMAGES, every=EVERY)
    assert sha256(run.checkpoint() / "tensors.safetensors") != sha256(whole_run.checkpoint() / "tensors.safetensors")


def test_a_run_at_its_end_stays_as_it_is(whole_run):
    before = files(whole_run)
    players = play(Run.resume(whole_run.folder, config(), ENV), RECIPE, IMAGES, every=EVERY)
    assert players.step == STEPS
    assert files(whole_run) == before


def test_training_leaves_the_global_random_states_alone(tmp_path):
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    finished(tmp_path / "run", stops=(5,))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002


@pytest.mark.parametrize("torn", ['{"step": 9', '{"step": 9}', "\x00\x00", '{"what": 1}\n', "\n"])
def test_a_torn_last_line_is_mended(whole_run, tmp_path, torn):
    run = Run.create(tmp_path / "run", config(), ENV)
    with pytest.raises(Stopped):
        play(run, RECIPE, IMAGES, every=EVERY, draw_grid=grid, on_progress=stop_at(9))
    path = run.folder / "metrics.jsonl"
    path.write_text(path.read_text() + torn)
    assert [line["step"] for line in run.metrics()] == [2, 4, 6, 8]
    (run.folder / "samples" / "00000010.png").write_bytes(b"of a step that is played again")
    (run.folder / "checkpoints" / ".00000012.ab.part").mkdir()
    (run.folder / ".metrics.jsonl.cd.part").write_text("half")
    play(run, RECIPE, IMAGES, every=EVERY, draw_grid=grid)
    assert files(run) == files(whole_run)
    assert not list(run.folder.rglob("*.part"))


def test_a_damaged_line_costs_that_line_alone(whole_run, tmp_path):
    run = Run.create(tmp_path / "run", config(), ENV)
    with pytest.raises(Stopped):
        play(run, RECIPE, IMAGES, every=EVERY, draw_grid=grid, on_progress=stop_at(9))
    path = run.folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "\x00" * 40 + "\n", *lines[1:]]))
    (run.folder / "samples" / "2024-mine.png").write_bytes(b"a picture of the user's")
    play(run, RECIPE, IMAGES, every=EVERY, draw_grid=grid)
    assert (run.folder / "samples" / "2024-mine.png").is_file()
    (run.folder / "samples" / "2024-mine.png").unlink()
    assert files(run) == files(whole_run)


def test_what_a_checkpoint_does_not_say_is_missed(tmp_path):
    run = finished(tmp_path / "run", replace(RECIPE, rules=replace(RULES, steps=4)))
    path = run.checkpoint()
    saved = checkpoint.read(path)
    for name in ("guard", "rollbacks"):
        meta = {key: value for key, value in saved.meta.items() if key != name}
        checkpoint.write(path, checkpoint.Checkpoint(saved.tensors, meta))
        with pytest.raises(InputError, match=f"00000004 is damaged: it does not say {name}"):
            play(run, replace(RECIPE, rules=replace(RULES, steps=8)), IMAGES, every=EVERY)


def test_only_a_full_disk_is_told_to_make_room(tmp_path, monkeypatch):
    for number, sentence in ((errno.ENOSPC, "make room and go on"), (errno.EACCES, "Permission denied$")):
        run = Run.create(tmp_path / f"run{number}", config(), ENV)

        def refused(self, line, number=number):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(Run, "append", refused)
            with pytest.raises(OSError, match=sentence):
                play(run, RECIPE, IMAGES, every=EVERY)


def test_a_longer_run_has_the_same_steps(whole_run, tmp_path):
    short = replace(RECIPE, rules=replace(RULES, steps=8))
    run = finished(tmp_path / "run", short)
    assert Run.resume(run.folder, config(), ENV).config["recipe"]["rules"]["steps"] == STEPS
    run = Run.open(run.folder)
    play(run, RECIPE, IMAGES, every=EVERY, draw_grid=grid)
    assert without_times(run) == without_times(whole_run)
    newest = [r.checkpoint() / "tensors.safetensors" for r in (run, whole_run)]
    assert sha256(newest[0]) == sha256(newest[1])


def test_the_average_is_read_for_sampling(whole_run, tmp_path):
    recipe, generator = load_generator(whole_run.folder)
    assert recipe == RECIPE
    saved = checkpoint.read(whole_run.checkpoint()).tensors
    assert all(torch.equal(t, saved[f"average/{name}"]) for name, t in generator.state_dict().items())
    assert not generator.training
    assert not any(p.requires_grad for p in generator.parameters())
    older = checkpoint.read(whole_run.checkpoint(12)).tensors
    _, generator = load_generator(whole_run.folder, 12)
    assert all(torch.equal(t, older[f"average/{name}"]) for name, t in generator.state_dict().items())
    with pytest.raises(InputError, match="has no checkpoint of step 3; it has 8, 12, 16"):
        load_generator(whole_run.folder, 3)
    empty = Run.create(tmp_path / "empty", config(), ENV)
    with pytest.raises(InputError, match="must hold a checkpoint, but it has none yet"):
        load_generator(empty.folder)


def test_another_run_is_a_start(whole_run, tmp_path):
    other = Run.create(tmp_path / "run", config(seed=9, init_from=str(whole_run.folder)), ENV)
    with pytest.raises(Stopped):
        play(other, RECIPE, IMAGES, every=EVERY, on_progress=stop_at(1))
    first, saved = (checkpoint.read(run.checkpoint()) for run in (other, whole_run))
    names = [name for name in saved.tensors if "optimiser" not in name]
    assert sorted(first.tensors) == sorted(names)
    assert all(torch.equal(first.tensors[name], saved.tensors[name]) for name in names)
    assert (first.meta["step"], first.meta["seen"], first.meta["noise_seed"]) == (0, 0, 9)
    whole_run.folder.rename(whole_run.folder.with_name("moved"))  # the first checkpoint is all that a resumed run needs
    try:
        play(Run.resume(other.folder, config(seed=9), ENV), RECIPE, IMAGES, every=EVERY)
    finally:
        whole_run.folder.with_name("moved").rename(whole_run.folder)
    assert other.checkpoint().name == "00000016"


def test_a_folder_is_trained_in_by_one_process(tmp_path):
    run = Run.create(tmp_path / "run", config(), ENV)
    code = f"import fcntl, sys; f = open({str(run.folder / '.lock')!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match="is being trained in by another process"):
            play(run, RECIPE, IMAGES)
        before = [(run.folder / name).read_bytes() for name in ("config.json", "env.json")]
        longer = config(replace(RECIPE, rules=replace(RULES, steps=99)))
        with pytest.raises(InputError, match="is being trained in by another process"):
            Run.resume(run.folder, longer, ENV)
        assert [(run.folder / name).read_bytes() for name in ("config.json", "env.json")] == before
        other.stdin.close()
    assert play(run, RECIPE, IMAGES, every=EVERY).step == STEPS


def test_ctrl_c_ends_the_step_and_writes_a_checkpoint(whole_run, tmp_path):
    run = Run.create(tmp_path / "run", config(), ENV)

    def press(step, line):
        del line
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        play(run, RECIPE, IMAGES, every=EVERY, draw_grid=grid, on_progress=press)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert run.checkpoint().name == "00000007"
    play(run, RECIPE, IMAGES, every=EVERY, draw_grid=grid)
    assert files(run) == files(whole_run)


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    run = Run.create(tmp_path / "run", config(), ENV)
    source = RECIPE.batches(IMAGES, Engine())

    def press(seed, seen, n):
        if seen == 72:  # in the seventh step, of which no checkpoint is written
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return source(seed, seen, n)

    with pytest.raises(KeyboardInterrupt):
        play(run, RECIPE, press, every=EVERY)
    assert run.checkpoint().name == "00000004"


def test_ctrl_c_that_is_ignored_stays_ignored_and_threads_train(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with run_module._ctrl_c() as asked:
            os.kill(os.getpid(), signal.SIGINT)
        assert asked == []
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    run, done = Run.create(tmp_path / "run", config(), ENV), []
    thread = threading.Thread(target=lambda: done.append(play(run, RECIPE, IMAGES, every=EVERY).step))
    thread.start()
    thread.join()
    assert done == [STEPS]


def test_what_cannot_be_played_is_refused(tmp_path):
    run = Run.create(tmp_path / "run", config(), ENV)
    with pytest.raises(InputError, match="under deterministic algorithms"):
        play(run, RECIPE, IMAGES, engine=Engine(device=torch.device("cuda")))
    with pytest.raises(InputError, match="batch must be a whole number of at least 7, got 6"):
        play(run, RECIPE, IMAGES, engine=Engine(size=7))
    with pytest.raises(InputError, match="images must be of 1 x 8 x 8"):
        play(run, RECIPE, Images(IMAGES.pixels[:, :, :4]))
    for name in ("log", "checkpoint", "grid", "compare", "keep"):
        with pytest.raises(InputError, match=f"{name} must be a whole number of at least 1, got 0"):
            Every(**{name: 0})


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_goes_on(whole_run, tmp_path):
    run = Run.create(tmp_path / "run", config(), ENV)
    with pytest.raises(Stopped):
        play(run, RECIPE, IMAGES, every=EVERY, draw_grid=grid, on_progress=stop_at(13))
    path = run.checkpoint()
    (path / "tensors.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"00000012/tensors.safetensors is damaged"):
        play(run, RECIPE, IMAGES, every=EVERY, draw_grid=grid)
    for entry in path.iterdir():
        entry.unlink()
    path.rmdir()
    play(run, RECIPE, IMAGES, every=EVERY, draw_grid=grid)
    assert files(run) == files(whole_run)


def test_scores_are_logged_where_they_are_due_and_not_of_what_is_not_finite(tmp_path, monkeypatch):
    run, asked, broken = Run.create(tmp_path / "r", config(), ENV), [], iter([None, "average/x"])
    real = checkpoint.unsound

    def judge(step, average):
        asked.append(step)
        return {"kid": step / 2}

    monkeypatch.setattr(checkpoint, "unsound", lambda tensors: next(broken, None) or real(tensors))
    play(run, RECIPE, IMAGES, every=replace(EVERY, score=3, checkpoint=100), judge=judge)
    due = [*range(3, STEPS + 1, 3), STEPS]
    assert asked == [step for step in due if step != 6]
    assert {line["step"]: line["kid"] for line in run.metrics() if "kid" in line} == {s: s / 2 for s in asked}
    with pytest.raises(InputError, match="score must be a whole number"):
        replace(EVERY, score=0)
