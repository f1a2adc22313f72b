"""The GAN benchmarks measure what they say: equal gradients, equal networks, steps that run."""

import argparse
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def critic_step(monkeypatch):
    return load("critic_step", monkeypatch)


def test_the_exact_critic_step_is_the_usual_one(critic_step, capsys):
    steps = critic_step.variants(argparse.Namespace(batch=3, side=16, width=4))
    assert list(steps) == ["usual", "exact", "bf16"]
    for step in steps.values():
        step()
    assert "exact: gradients differ" in capsys.readouterr().out
    critic_step.show({name: [1.0, 2.0, 6.0] for name in steps})
    assert capsys.readouterr().out.splitlines()[2].split() == ["exact", "2000.0", "1000.0", "1.00", "1.00"]


def test_a_critic_step_that_is_not_exact_is_not_timed(critic_step, monkeypatch):
    monkeypatch.setattr(
        critic_step, "gradient_penalty", lambda critic, real, fake, draw: critic(real).value.square().mean()
    )
    with pytest.raises(SystemExit, match="not exact"):
        critic_step.variants(argparse.Namespace(batch=3, side=16, width=4))


def test_peers_networks_are_ours_and_their_steps_run(monkeypatch):
    peers = load("gan_peers", monkeypatch)

    def counts(*nets):
        return [sum(p.numel() for p in net.parameters()) for net in nets]

    generator, critic = peers.our_recipe(64, "examples").networks(0)
    assert counts(critic, generator) == counts(*peers.networks()) == [2_765_568, 3_576_704]
    generator, critic = peers.our_recipe(32, "torchgan").networks(0)
    assert counts(critic, generator) == [662_977 - 449, 1_068_931 - 3]  # torchgan 0.1.0's, less its biases
    monkeypatch.setattr(peers, "WIDTH", 2)
    monkeypatch.setattr(peers, "BATCH", 4)
    with torch.random.fork_rng(devices=[]):
        for step in (peers.examples(), peers.ours(64, "float32", "examples"), peers.ours(32, "bf16", "torchgan")):
            assert step() > 0


def test_figure_3_within_a_time_is_scored_on_the_way(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    figure3 = load("figure3_time", monkeypatch)
    real = figure3.course

    def ticks(*given):
        return (replace(m, seconds=m.step / 10) for m in real(*given))  # a second a chunk

    monkeypatch.setattr(figure3, "course", ticks)
    words = ["--data", "digits", "--width", "2", "--seconds", "4", "--every", "2", "--images", "40"]
    files = ["--out", str(tmp_path / "f.png"), "--json", str(tmp_path / "f.json")]
    courses = figure3.main([*words, "--method", "dcgan", "--method", "gp-adam", *files])
    for found in courses.values():
        assert found["step"] == [10, 20, 40]
        assert len(found["is"]) == len(found["kid"]) == 3
    assert capsys.readouterr().out.count("gradient penalty, Adam") == 1
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "f.json").read_text())["courses"] == courses
