"""Run folders: new ones, old ones, and those that are refused in a sentence."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from short_runs import ADAM, ENV, IMAGES, RECIPE, RULES, config

from triptych.check import InputError
from triptych.gan.draw import Latent
from triptych.gan.folder import Run, differences, is_run
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.mlp import MLP
from triptych.gan.objectives import WassersteinGP
from triptych.gan.settings import to_json


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"critic": MLP((8,), (8,))}, r"critic.generator_widths \(\[16\], now \[8\]\), critic.critic_widths"),
        ({"generator": DCGAN(width=4)}, r"generator.kind \('MLP', now 'DCGAN'\)"),
        ({"shape": (1, 9, 8)}, r"shape \(\[1, 8, 8\], now \[1, 9, 8\]\)"),
        ({"rules": replace(RULES, latent=Latent(5))}, r"rules.latent.size \(4, now 5\)"),
    ],
)
def test_a_start_of_other_networks_is_refused_before_anything_is_written(whole_run, tmp_path, change, name):
    recipe = replace(RECIPE, **change)
    with pytest.raises(InputError, match=f"the same networks to start from, but it has another {name}"):
        Run.create(tmp_path / "run", config(recipe, init_from=str(whole_run.folder)), ENV)
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"must be the folder of a run, but it holds no config.json"):
        Run.create(tmp_path / "run", config(init_from=str(tmp_path / "none")), ENV)
    assert not (tmp_path / "run").exists()


def test_a_start_with_other_settings_is_fine(whole_run, tmp_path):
    recipe = replace(RECIPE, batch=4, objective=WassersteinGP(weight=1.0), rules=replace(RULES, half_life=10.0))
    assert Run.create(tmp_path / "run", config(recipe, init_from=str(whole_run.folder)), ENV).checkpoints == []


def other_recipe(**rules):
    return to_json(replace(RECIPE, rules=replace(RULES, **rules)))


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"data": {"checksum": "other", "name": "noise"}}, "data.checksum"),
        ({"data": {"name": "noise"}}, r"data.checksum \('.*', now None\)"),
        ({"seed": 4}, r"seed \(3, now 4\)"),
        ({"precision": "bf16"}, r"precision \('float32', now 'bf16'\)"),
        ({"recipe": to_json(replace(RECIPE, batch=8))}, r"recipe.batch \(6, now 8\)"),
        ({"recipe": other_recipe(steps=8)}, r"recipe.rules.steps \(16, now 8\)"),
        ({"recipe": other_recipe(steps=20, generator_optimiser=replace(ADAM, fall="late"))}, r"recipe.rules.steps"),
        ({"recipe": other_recipe(steps=20, half_life=2.0)}, r"recipe.rules.half_life \(40.0, now 2.0\);"),
        ({"more": 1}, r"more \(None, now 1\)"),
    ],
)
def test_a_run_goes_on_with_what_it_was_made_with_alone(tmp_path, changed, name):
    folder = Run.create(tmp_path / "run", config(), ENV).folder
    before = (folder / "config.json").read_bytes()
    with pytest.raises(InputError, match=f"was made with another .*{name}") as raised:
        Run.resume(folder, config() | changed, ENV)
    assert "\n" not in str(raised.value)
    assert (folder / "config.json").read_bytes() == before
    assert Run.open(folder).environments() == [ENV]


def test_the_place_of_the_data_and_of_the_start_may_change(tmp_path):
    folder = Run.create(tmp_path / "run", config(), ENV).folder
    moved = config(data={"checksum": IMAGES.checksum(), "name": "elsewhere", "path": "/there"}, init_from="gone")
    assert Run.resume(folder, moved, {"version": "0.2"}).environments() == [ENV, {"version": "0.2"}]
    assert differences({"a": (1, 2), "b": {"c": 1}}, {"a": [1, 2], "b": {"c": 1.5}}) == [("b.c", 1, 1.5)]


def test_folders_that_are_no_new_run_or_no_run(tmp_path):
    folder = Run.create(tmp_path / "run", config(), ENV).folder
    assert is_run(folder)
    with pytest.raises(InputError, match="holds a run already; go on with --resume"):
        Run.create(folder, config(), ENV)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="must be a new or empty folder"):
        Run.create(tmp_path / "full", config(), ENV)
    with pytest.raises(InputError, match="must be a new or empty folder"):
        Run.create(tmp_path / "full" / "thesis.txt", config(), ENV)
    assert not is_run(tmp_path / "full")
    for call in (lambda: Run.open(tmp_path / "full"), lambda: Run.resume(tmp_path / "none", config(), ENV)):
        with pytest.raises(InputError, match=r"must be the folder of a run, but it holds no config\.json"):
            call()


def test_what_a_kill_left_of_a_folder_is_no_obstacle(tmp_path):
    for name in ("samples", "checkpoints"):
        (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "run" / "env.json").write_text("[]")
    (tmp_path / "run" / ".config.json.ab.part").write_text("{")
    assert is_run(Run.create(tmp_path / "run", config(), ENV).folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"kind": "gan-run", "version": 2, "config": {}}', r"a newer triptych \(version 2, this one knows 1\)"),
        ('{"kind": "ccnn", "version": 1, "config": {}}', "must be the config of a run, but it is something else"),
        ('{"kind": "gan-run", "version": 1}', "is damaged: it has no config"),
        ("[]", "is something else"),
        ('{"kind": ', "is damaged"),
    ],
)
def test_a_config_of_another_kind_is_refused(tmp_path, text, sentence):
    folder = Run.create(tmp_path / "run", config(), ENV).folder
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match=sentence):
        Run.resume(folder, config(), ENV)


def test_paths_are_the_folders_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run.create("run", config(), ENV)
    monkeypatch.chdir(tmp_path.parent)
    assert run.folder == Path(os.path.realpath(tmp_path / "run"))
