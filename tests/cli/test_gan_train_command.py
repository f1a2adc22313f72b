"""gan train: trained, gone on with, interrupted; what a file and flags say."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from triptych import load, store
from triptych.cli import main
from triptych.cli.console import console
from triptych.cli.gan_options import Game, Keeping, Machine, Reading
from triptych.cli.gan_train import apart
from triptych.cli.gan_wish import Wish
from triptych.gan.folder import Run
from triptych.gan.recipes import RECIPES
from triptych.gan.run import load_generator
from triptych.images import Images

SMALL = ["gan", "train", "wgan-gp", "--width", "2", "--batch", "4"]
TRAIN = [*SMALL, "--log-every", "1", "--limit", "40", "--measure-every", "2"]


def size(path):
    with Image.open(path) as picture:
        return picture.size


def config(folder):
    return Run.open(folder).config


def tensors(folder):
    return store.load(Run.open(folder).checkpoint())[0]


def test_a_run_is_trained_and_says_so(tmp_path, said):
    data, err = said(*TRAIN, "--steps", "3", "--grid-every", "2", "--out", tmp_path / "r")
    assert (data["recipe"], data["step"], data["steps_done"], data["seen"]) == ("wgan-gp", 3, 3, 3 * 5 * 4)
    assert data["last"]["step"] == 3
    assert {"critic_loss", "generator_loss", "gap", "penalty", "time_images_per_second"} <= data["last"].keys()
    assert data["checkpoint"] == str(tmp_path / "r" / "checkpoints" / "00000003")
    assert data["grid"] == str(tmp_path / "r" / "samples" / "00000003.png")
    assert size(data["grid"]) == (8 * 64 + 7 * 2,) * 2
    assert err.startswith("wgan-gp: critic loss ")
    assert err.count("\n") == 1
    assert [line["step"] for line in Run.open(tmp_path / "r").metrics()] == [1, 2, 3]
    (env,) = Run.open(tmp_path / "r").environments()
    assert env["command"] == (
        "triptych gan train wgan-gp --out RUN --limit 40 --steps 3 --batch 4 --width 2 --grid-every 2 --log-every 1 "
        "--measure-every 2"
    )
    assert env["threads"] == torch.get_num_threads()


def test_the_config_is_resolved(gan_runs):
    said_of = config(gan_runs / "classed")
    images = load("digits", limit=40)
    assert said_of["data"] == {
        "checksum": f"sha256:{images.checksum()}", "name": "digits", "path": "digits", "side": None, "fit": "crop",
        "split": None, "limit": 40, "images": 40, "classes": list("0123456789"),
    }  # fmt: skip
    assert (said_of["seed"], said_of["precision"], said_of["labels"], said_of["width"]) == (0, "float32", True, 2)
    assert said_of["every"] == {"log": 1, "checkpoint": 500, "grid": 500, "keep": 3, "measure": 2, "score": None}
    assert said_of["compile"] is False
    recipe, _ = load_generator(gan_runs / "classed")
    assert (recipe.classes, recipe.batch, recipe.rules.steps, recipe.generator.width) == (10, 4, 2, 2)
    assert config(gan_runs / "run")["data"]["classes"] == []


def test_going_on_is_the_run_that_never_stopped(gan_runs, tmp_path, said):
    """Four steps at once and two and two: the same networks and metrics; the second time nothing but the place is said."""
    words = ["--checkpoint-every", "2", "--grid-every", "2", "--out", tmp_path / "r"]
    said(*TRAIN, "--steps", "2", *words)
    data, err = said("gan", "train", "--resume", "--steps", "4", "--out", tmp_path / "r")
    assert (data["step"], data["steps_done"]) == (4, 2)
    assert "note" not in err
    first, second = tensors(gan_runs / "run"), tensors(tmp_path / "r")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    timeless = [
        [{k: v for k, v in line.items() if not k.startswith("time_")} for line in Run.open(folder).metrics()]
        for folder in (gan_runs / "run", tmp_path / "r")
    ]
    assert timeless[0] == timeless[1]
    assert len(Run.open(tmp_path / "r").environments()) == 2
    assert (tmp_path / "r" / "samples" / "00000004.png").read_bytes() == (
        gan_runs / "run" / "samples" / "00000004.png"
    ).read_bytes()


def test_the_same_words_with_resume_find_nothing_to_do(gan_run, capsys, said):
    words = [*TRAIN, "--steps", "4", "--checkpoint-every", "2", "--grid-every", "2", "--resume", "--out", gan_run]
    before = Run.open(gan_run).checkpoint().stat().st_mtime_ns
    data, _ = said(*words)
    assert (data["step"], data["steps_done"]) == (4, 0)
    assert Run.open(gan_run).checkpoint().stat().st_mtime_ns == before
    assert main([str(word) for word in words]) == 0
    assert "has its 4 steps already; --steps N with a larger N goes on" in capsys.readouterr().out


def test_another_machine_is_told_of(gan_run, said):
    made = json.loads((gan_run / "env.json").read_text())
    made[0]["threads"] += 1
    (gan_run / "env.json").write_text(json.dumps(made))
    _, err = said("gan", "train", "--resume", "--steps", "5", "--out", gan_run)
    assert "triptych: note: threads are not what the run was made with; it goes on, but not with the same bits" in err


FILE = """
steps = 3
batch = 5
seed = 7
mirror = true
labels = "project"
log_every = 2
[generator]
width = 3
[rules]
half_life = 50
[rules.critic_optimiser]
lr = 1
[objective]
kind = "Hinge"
"""


def test_flags_go_before_the_file_and_the_file_before_the_recipe(tmp_path, monkeypatch, said):
    monkeypatch.setattr("triptych.gan.run.Course.follow", lambda *_, **__: None)
    (tmp_path / "f.toml").write_text(FILE)
    words = ["gan", "train", "dcgan", "--limit", "30", "--width", "2", "--config", tmp_path / "f.toml"]
    said(*words, "--out", tmp_path / "a")
    a = config(tmp_path / "a")
    recipe = a["recipe"]
    assert (recipe["rules"]["steps"], recipe["batch"], recipe["mirror"], a["seed"]) == (3, 5, True, 7)
    assert (recipe["classes"], recipe["labels"], a["labels"], a["every"]["log"]) == (10, "project", True, 2)
    assert (recipe["generator"]["width"], recipe["critic"]["width"]) == (3, 2)
    assert (recipe["rules"]["half_life"], recipe["rules"]["critic_optimiser"]["lr"]) == (50, 1)
    assert recipe["rules"]["generator_optimiser"]["lr"] == 2e-4
    assert recipe["objective"]["kind"] == "Hinge"
    said(*words, "--steps", "9", "--no-mirror", "--no-labels", "--seed", "0", "--out", tmp_path / "b")
    b = config(tmp_path / "b")
    assert (b["recipe"]["rules"]["steps"], b["recipe"]["mirror"], b["recipe"]["classes"], b["seed"]) == (9, False, 0, 0)
    assert b["recipe"]["batch"] == 5


def test_pictures_are_read_once_and_the_training_split_is_taken(tmp_path, monkeypatch, said):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for name in ("day", "night"):
            (tmp_path / "d" / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(
                    tmp_path / "d" / split / name / f"{i}.png"
                )
    words = [*TRAIN[:-2], "--data", tmp_path / "d", "--side", "8", "--labels", "--steps", "1"]
    _, err = said(*words, "--out", tmp_path / "r")
    assert err.startswith(f"pictures of {tmp_path / 'd'}, read once: 12 of 12, ")
    made = config(tmp_path / "r")
    assert (made["data"]["split"], made["data"]["images"], made["data"]["classes"]) == ("train", 12, ["day", "night"])
    assert made["recipe"]["shape"] == [3, 8, 8]
    _, err = said("gan", "train", "--resume", "--steps", "2", "--out", tmp_path / "r")
    assert "read once" not in err
    said("gan", "sample", tmp_path / "r", "--labels", "night", "--n", "3", "--out", tmp_path / "s")
    assert sorted(p.relative_to(tmp_path / "s").as_posix() for p in (tmp_path / "s").rglob("*.png")) == [
        f"night/{i:06d}.png" for i in range(3)
    ]


@pytest.mark.parametrize("first", [True, False])
def test_held_out_pictures_are_decoded_by_the_main_process_and_read_by_the_others(monkeypatch, first):
    """Each process reads; the main one first, while the others wait."""
    done = []
    images, others = (Images(torch.full((4, 1, 8, 8), value, dtype=torch.uint8)) for value in (0, 1))
    monkeypatch.setattr("triptych.cli.gan_train.mapped", lambda *_, **__: done.append("read") or others)
    engine = type("E", (), {"main": first, "wait": lambda self: done.append("wait")})()
    wish = Wish("dcgan", Reading(held_out="digits"), Game(), Machine(), Keeping())
    recipe = RECIPES["dcgan"]((1, 8, 8))
    _, held_out = apart(console(True), wish, images, recipe, engine)
    assert held_out.images is others
    assert done == (["read", "wait"] if first else ["wait", "read"])


@pytest.mark.parametrize("labels", [[], ["--labels"]])
def test_a_run_scored_on_its_way_has_the_scores_of_gan_score_and_the_same_weights(labels, tmp_path, monkeypatch, said):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    intervals = ["--log-every", "3", "--measure-every", "50"]
    words = [*SMALL, "--limit", "120", *intervals, *labels, "--out"]
    said(*words, tmp_path / "plain", "--steps", "4")
    said(*words, tmp_path / "r", "--steps", "4", "--score-every", "2")
    lines = {line["step"]: line for line in Run.open(tmp_path / "r").metrics()}
    assert [step for step, line in lines.items() if "kid" in line] == [2, 4]
    assert [step for step, line in lines.items() if "gap" in line] == [2, 3, 4]
    scores, _ = said("gan", "score", tmp_path / "r", "--metrics", "kid,pr")
    assert {name: lines[4][name] for name in scores["scores"]} == {n: s["value"] for n, s in scores["scores"].items()}
    assert config(tmp_path / "r")["scored"] == {"extractor": scores["extractor"], "n": 120}
    plain, scored = tensors(tmp_path / "plain"), tensors(tmp_path / "r")
    assert all(torch.equal(plain[name], scored[name]) for name in plain)
    said(*words, tmp_path / "two", "--steps", "2")
    assert config(tmp_path / "two")["scored"] is None
    said("gan", "train", "--out", tmp_path / "two", "--resume", "--steps", "4", "--score-every", "2")
    assert config(tmp_path / "two")["scored"] == config(tmp_path / "r")["scored"]
    assert config(tmp_path / "two")["every"] == config(tmp_path / "r")["every"]
    last = Run.open(tmp_path / "two").metrics()[-1]
    assert {name: last[name] for name in scores["scores"]} == {name: lines[4][name] for name in scores["scores"]}
    said("gan", "train", "--out", tmp_path / "two", "--resume", "--steps", "6")
    assert [line["step"] for line in Run.open(tmp_path / "two").metrics() if "kid" in line] == [4, 6]
    said("report", tmp_path / "r")
    page = (tmp_path / "r" / "report.md").read_text()
    best = min((2, 4), key=lambda step: lines[step]["kid"])
    assert f"The dot: the lowest, {lines[best]['kid']:.4g}, at step {best}." in page
    assert f"Features: {scores['extractor']}; 120 images of each kind" in page


def test_three_images_are_too_few_to_score(tmp_path, capsys):
    words = [*SMALL[:-1], "2", "--limit", "3", "--score-every", "1", "--steps", "2"]
    assert main([*words, "--out", str(tmp_path / "r")]) == 2
    assert "score-every must be left away for fewer than 4 images, got 3" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_tenth_of_pictures_that_are_there_twice_is_told_of_and_not_judged(tmp_path, capsys, said):
    x = load("digits").pixels[:60]
    np.savez(tmp_path / "twice.npz", x=torch.cat([x, x]).numpy())
    _, err = said(*SMALL, "--steps", "1", "--data", tmp_path / "twice.npz", "--out", tmp_path / "r")
    assert "of the 12 held-out images are training images too" in err
    for command in ("audit", "recover"):
        assert main(["gan", command, str(tmp_path / "r"), "--n", "4"]) == 2
        assert "a tenth that the run held out must be others than its training images" in capsys.readouterr().err


def test_a_run_begins_with_another_ones_weights(gan_run, tmp_path, said):
    words = [*TRAIN, "--seed", "3", "--steps", "1", "--checkpoint-every", "1", "--init-from", gan_run]
    said(*words, "--out", tmp_path / "new")
    start = store.load(Run.open(tmp_path / "new").checkpoint(0))[0]
    theirs = tensors(gan_run)
    assert all(torch.equal(start[name], theirs[name]) for name in start if name.startswith("critic/"))
    said("gan", "train", "--resume", "--steps", "2", "--out", tmp_path / "new")


def test_what_a_resumed_run_keeps_and_compiles_is_what_it_did(tmp_path, monkeypatch, capsys, said):
    made = []
    monkeypatch.setattr("triptych.engine.Engine.compiled", lambda self, net: made.append(self.compile) or net)
    words = [*TRAIN, "--checkpoint-every", "1", "--keep", "9", "--compile", "--out", tmp_path / "r"]
    said(*words, "--steps", "3")
    said("gan", "train", "--resume", "--steps", "4", "--out", tmp_path / "r")
    assert len(Run.open(tmp_path / "r").checkpoints) == 5
    said("gan", "train", "--resume", "--steps", "5", "--keep", "2", "--out", tmp_path / "r")
    assert [p.name for p in Run.open(tmp_path / "r").checkpoints] == ["00000004", "00000005"]
    assert made == [True, True, True]
    assert main(["gan", "train", "--resume", "--no-compile", "--out", str(tmp_path / "r")]) == 2
    assert "was made with another compile (True, now False)" in capsys.readouterr().err


def test_a_run_whose_rates_fall_is_not_told_to_go_on(tmp_path, capsys):
    words = ["gan", "train", "wgan-gp-resnet", "--width", "2", "--batch", "4", "--limit", "8", "--steps", "1"]
    for more in ([], ["--resume"]):
        assert main([*words, "--side", "16", "--out", str(tmp_path / "r"), *more]) == 0
    assert "its rates fall over them, so that more need a new run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (
            "lr = 0.001",
            "lr is no setting; write it in the table [rules.generator_optimiser] or [rules.critic_optimiser]",
        ),
        ("[critic_optimiser]\nlr = 1.0", "critic_optimiser is no setting; write it in the table [rules]"),
        ("half_life = 3.0", "half_life is no setting; write it in the table [rules]"),
        ("name = 'mine'", "name is no setting"),
        ("shape = [1, 8, 8]", "shape is no setting"),
        (
            "labels = 'auxiliary'",
            "objective must be Auxiliary where labels are 'auxiliary', so that the classifier learns",
        ),
        ("scale = 'none'", "scale must be signed, unit or dequantised for images"),
    ],
)
def test_a_file_is_refused_with_the_place_that_was_meant(tmp_path, capsys, text, part):
    (tmp_path / "f.toml").write_text(text)
    words = ["gan", "train", "dcgan", "--config", str(tmp_path / "f.toml"), "--out", str(tmp_path / "r")]
    assert main(words) == 2
    assert part in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_dry_run_counts_all_pictures_and_refuses_what_the_run_would(tmp_path, monkeypatch, capsys, said):
    monkeypatch.setattr("triptych.cli.gan_dry.MEASURED_STEPS", 1)
    monkeypatch.setattr("triptych.cli.gan_train.LOOKED_AT", 10)
    (tmp_path / "d").mkdir()
    for i in range(24):
        Image.new("L", (16, 16), i).save(tmp_path / "d" / f"{i}.png")
    words = ["gan", "train", "dcgan", "--width", "2", "--batch", "4", "--data", str(tmp_path / "d"), "--dry-run"]
    for more, images in (([], 24), (["--limit", "17"], 17), (["--limit", "6"], 6)):
        assert said(*words, *more)[0]["steps"] == 200 * images // 256
    for more, part in (
        (["--keep", "0"], "keep must be"),
        (["--init-from", str(tmp_path / "none")], "must be the folder of a run"),
    ):
        assert main([*words, *more]) == 2
        assert part in capsys.readouterr().err


LEAST = ["--limit", "70", "--batch", "4", "--labels"]


def test_a_dry_run_says_what_would_be_and_writes_nothing(tmp_path, monkeypatch, capsys, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("triptych.cli.gan_dry.MEASURED_STEPS", 2)
    data, _ = said("gan", "train", "wgan", "--side", "16", "--width", "2", *LEAST, "--dry-run")
    recipe = {"recipe": "wgan", "shape": [1, 16, 16], "classes": 10, "batch": 4, "generator": "DCGAN"}
    assert {name: data[name] for name in recipe} == recipe
    assert data["steps"] == 25 * 70 // (5 * 64)
    assert data["critic_updates"] == 100 * data["steps"]  # the first 25 steps have 100
    assert data["seconds"] == pytest.approx(data["seconds_a_step"] * data["steps"])
    from triptych.gan.recipes import RECIPES

    nets = RECIPES["wgan"]((1, 16, 16), 10, 2, 70).networks(0)
    counts = [sum(p.numel() for p in net.parameters()) for net in nets]
    assert [data["generator_parameters"], data["critic_parameters"]] == counts
    floats = 4 * (3 * counts[0] + 2 * counts[1]) / 1e6  # parameters, average and gradients; and what BatchNorm keeps
    assert floats <= data["networks_mb"] < 1.2 * floats
    assert 4 * sum(counts) / 1e6 <= data["optimisers_mb"] < 1.1 * 4 * sum(counts) / 1e6  # RMSProp's mean square
    assert data["peak_mb"] > data["networks_mb"]
    assert main(["gan", "train", "wgan-gp", *TRAIN[3:], "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "DCGAN, " in out
    assert out.endswith("nothing was written\n")
    assert list(tmp_path.iterdir()) == []


def test_numbers_go_to_tensorboard_too(tmp_path, said):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    said(*TRAIN, "--steps", "3", "--tensorboard", "--out", tmp_path / "r")
    events = EventAccumulator(str(tmp_path / "r" / "tensorboard"))
    events.Reload()
    lines = Run.open(tmp_path / "r").metrics()
    for name in ("critic_loss", "penalty"):
        told = [(one.step, one.value) for one in events.Scalars(name)]
        assert told == [(line["step"], pytest.approx(line[name])) for line in lines]


def test_an_interrupted_run_is_saved(tmp_path, monkeypatch, capsys, said):
    """Ctrl-C at the second step: status 130, one sentence, and the third step follows when it is gone on with."""
    from triptych.gan.train import Turn

    play, steps = Turn.play, []

    def interrupted(turn, stage):
        steps.append(turn.players.step)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return play(turn, stage)

    monkeypatch.setattr(Turn, "play", interrupted)
    assert main([*TRAIN, "--steps", "4", "--out", str(tmp_path / "r")]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "triptych: interrupted; what was finished is saved"
    data, _ = said("gan", "train", "--resume", "--out", tmp_path / "r")
    assert (data["steps_done"], data["step"]) == (2, 4)
    assert [line["step"] for line in Run.open(tmp_path / "r").metrics()] == [1, 2, 3, 4]


def test_every_option_is_described():
    """Every parameter of every command and of the groups of options is in a docstring."""
    import inspect
    from dataclasses import fields

    from triptych.cli import gan, gan_options

    groups = [
        one for one in vars(gan_options).values() if isinstance(one, type) and one.__module__ == gan_options.__name__
    ]
    assert len(groups) == 9
    for group in groups:
        for field in fields(group):
            assert f"\n    {field.name}\n        " in group.__doc__
    judging = (gan.score, gan.neighbours, gan.audit, gan.recover, gan.export, gan.import_)
    for command in (gan.train, gan.sample, gan.walk, gan.arithmetic, *judging):
        for name, parameter in inspect.signature(command).parameters.items():
            if name != "json" and parameter.annotation not in groups:
                assert f"\n    {name}\n        " in command.__doc__


def test_a_run_that_diverges_says_each_step_back_and_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("triptych.gan.guard.Guard.reason", lambda guard, numbers: "gap is nan")
    assert main([*TRAIN, "--steps", "4", "--out", str(tmp_path / "r")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "triptych: note: diverged at step 1 (gap is nan); back to step 0 with the learning rates times 0.5 and other noise"
    )
    assert [line.split(" times ")[1][:5] for line in lines[:3]] == ["0.5 a", "0.25 ", "0.125"]
    assert lines[-1].startswith("triptych: the run diverged at step 1 (gap is nan) after 3 rollbacks, ")
