import json
import shlex
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from triptych import CCNNClassifier, load, store
from triptych.bench.sections import Command, Curves, Facts, Picture, Table, Text
from triptych.check import InputError
from triptych.cli import main
from triptych.cli.ccnn import model_sections
from triptych.cli.console import Progress
from triptych.cli.model import in_words, read_record
from triptych.cli.prediction import Batch, Prediction, graded, held_out, recoloured
from triptych.cli.training import _layers_shown
from triptych.convex import Certificate
from triptych.images import Images

FIT = ["ccnn", "fit", "--limit", "120", "--radius", "20"]
SMALL = ["--limit", "40", "--radius", "5", "--max-iter", "60"]


def said(capsys, *words, status=0):
    """Run a command line; its JSON object and what it said on standard error."""
    assert main([*map(str, words), "--json"]) == status
    out, err = capsys.readouterr()
    return json.loads(out), err


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A model of the first 120 digits."""
    folder = tmp_path_factory.mktemp("digits") / "model"
    assert main([*FIT, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def shades(tmp_path_factory):
    """Pictures in colour of two classes, one dark below and one dark above, in two splits; one test label is wrong."""
    folder, rng = tmp_path_factory.mktemp("shades"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name in ("day", "night"):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                dark_above = (name == "night") != (split == "test" and name == "day" and i == 0)
                pixels = rng.integers(150, 250, (12, 12, 3), dtype=np.uint8)
                pixels[slice(0, 6) if dark_above else slice(6, 12)] //= 8
                Image.fromarray(pixels).save(folder / split / name / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def shades_model(shades, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "m"
    assert main(["ccnn", "fit", "--data", str(shades), "--out", str(folder), "--radius", "5"]) == 0
    return folder


def test_fit_is_the_estimator_on_the_first_images_under_their_names(digits, capsys, tmp_path):
    data, err = said(capsys, *FIT, "--out", tmp_path / "m")
    images = load("digits", limit=120)
    names = np.array(images.classes)[images.labels.numpy()]
    expected = CCNNClassifier(radius=20, random_state=0).fit(images.pixels.numpy(), names)
    (layer,) = data["layers"]
    assert layer["objective"] == expected.objective_[0]
    assert layer["gap"] == expected.gap_[0] == layer["objective"] - layer["lower_bound"]
    assert (layer["rank"], layer["steps"]) == (expected.rank_[0], expected.n_iter_)
    assert layer["relative_gap"] == pytest.approx(layer["gap"] / np.log(10))
    assert layer["nuclear_norm"] == pytest.approx(20)
    assert data["classes"] == [str(digit) for digit in range(10)]
    assert (data["images"], data["shape"], data["converged"]) == (120, [1, 8, 8], True)
    assert data["model"] == str(tmp_path / "m")
    assert 0 < layer["seconds"] < data["seconds"]
    assert err.startswith("layer 1 of 1, step ")
    assert err.count("\n") == 1
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"fit.json", "tensors.safetensors", "triptych.json"}
    first, again = (CCNNClassifier.load(folder) for folder in (digits, tmp_path / "m"))
    assert again.classes_.tolist() == data["classes"]
    assert torch.equal(first.layers_[0].A, again.layers_[0].A)
    assert again.predict(images.pixels.numpy()).tolist() == expected.predict(images.pixels.numpy()).tolist()


def test_the_table_says_interpolates_in_the_place_of_a_rank(capsys, tmp_path):
    assert main([*FIT[:4], "--layers", "2", "--out", str(tmp_path / "m")]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:3] == ["120", "images", "of"]
    assert lines[1] == ["layer", "1", "layer", "2"]
    assert {line[0] for line in lines[2:10]} == {
        "objective",
        "lower",
        "gap",
        "gap,",
        "nuclear",
        "rank",
        "steps",
        "solver,",
    }
    assert next(line for line in lines if line[0] == "rank")[1] == "interpolates"
    assert float(next(line for line in lines if line[0] == "solver,")[2]) > 0
    assert max(map(len, out.splitlines()[1:10])) <= 50  # room for the rules of a terminal of 80 characters
    assert [line.partition(",")[0] for line in err.splitlines()] == ["layer 1 of 2", "layer 2 of 2"]
    data, _ = said(capsys, "ccnn", "show", tmp_path / "m")
    assert (data["layers"][0]["interpolates"], data["layers"][0]["rank"]) == (True, None)


def test_what_stops_early_is_saved_and_fails_only_where_tol_was_asked_for(capsys, tmp_path):
    words = ["ccnn", "fit", "--limit", "100", "--max-iter", "2", "--out", tmp_path / "m"]
    data, err = said(capsys, *words, "--tol", "1e-4", status=1)
    gap = f"{100 * data['layers'][0]['relative_gap']:.3g} % of log 10"
    assert f"layer 1 stopped after 2 steps at a certified gap of {gap}, above --tol 0.0001" in err.splitlines()[-1]
    assert not data["converged"]
    assert CCNNClassifier.load(tmp_path / "m").n_iter_ == 2
    data, err = said(capsys, *words, status=0)
    assert err.splitlines()[-1].startswith("triptych: warning: layer 1 stopped after 2 steps")
    assert data["tol"] == 1e-3


def test_the_command_that_is_written_down_makes_the_model_again(capsys, tmp_path, shades):
    words = [
        "ccnn",
        "fit",
        "--data",
        shades,
        "--out",
        tmp_path / "m",
        "--side",
        6,
        "--fit",
        "squash",
        "--seed",
        3,
        *SMALL,
    ]
    data, _ = said(capsys, *words, "--precision", "float32")
    record = read_record(tmp_path / "m")
    assert record["data"]["split"] == "train"
    assert record["data"]["checksum"] == "sha256:" + load(shades, side=6, fit="squash", split="train").checksum()
    assert (record["data"]["images"], record["seed"]) == (24, 3)
    assert record["provenance"]["libraries"]["torch"] == torch.__version__
    program, *again = shlex.split(record["command"].replace("MODEL", str(tmp_path / "n")))
    assert program == "triptych"
    assert said(capsys, *again)[0]["layers"][0]["objective"] == data["layers"][0]["objective"]
    for name in ("fit.json", "tensors.safetensors", "triptych.json"):
        assert (tmp_path / "n" / name).read_bytes() == (tmp_path / "m" / name).read_bytes()


def test_fit_reads_train_and_predict_reads_test(shades, shades_model, capsys, tmp_path):
    """One of the eight test pictures carries a wrong label; every picture is named by its file."""
    data, err = said(capsys, "ccnn", "predict", shades_model, shades, "--out", tmp_path / "p.json")
    assert err == ""
    assert (data["images"], data["labelled"], data["error_percent"]) == (8, 8, 12.5)
    wrong = [one for one in data["predictions"] if one["class"] != one["label"]]
    assert [(one["picture"], one["class"], one["label"]) for one in wrong] == [
        (str(shades / "test" / "day" / "00.png"), "night", "day")
    ]
    assert json.loads((tmp_path / "p.json").read_text()) == data["predictions"]
    data, _ = said(capsys, "ccnn", "predict", shades_model, shades, "--split", "train")
    assert (data["images"], data["error_percent"]) == (24, 0.0)


def test_predictions_as_text_and_csv(digits, capsys, tmp_path):
    assert main(["ccnn", "predict", str(digits), "digits", "--out", str(tmp_path / "p.csv")]) == 0
    out, err = capsys.readouterr()
    images = load("digits")
    model = CCNNClassifier.load(digits)
    found, names = model.predict_proba(images.pixels.numpy()), np.array(images.classes)[images.labels.numpy()]
    wrong = int((model.classes_[found.argmax(1)] != names).sum())
    lines = out.splitlines()
    assert len(lines) == 1 + 20 + 3
    assert lines[1].split() == ["digits[0]", model.classes_[found[0].argmax()], f"{found[0].max():.3f}", names[0]]
    assert lines[-3] == f"and 1,777 more; {tmp_path / 'p.csv'} has all"
    assert lines[-2] == f"error_percent {100 * wrong / 1797:.2f} ({wrong} of 1,797 labelled images)"
    rows = (tmp_path / "p.csv").read_text().splitlines()
    assert rows[0] == "picture,class,probability,label"
    assert rows[-1] == f"digits[1796],{model.classes_[found[-1].argmax()]},{found[-1].max():.6f},{names[-1]}"
    assert len(rows) == 1798
    assert err == ""


def test_a_colour_picture_of_another_size_is_made_what_a_grey_model_takes(digits, capsys, tmp_path):
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.png")
    data, err = said(capsys, "ccnn", "predict", digits, tmp_path / "a.png")
    assert "resized to 8 x 8" in err
    assert "made grey: 3 channels to 1" in err
    assert data["notes"] == [line.removeprefix("triptych: note: ") for line in err.splitlines()]
    small = picture.resize((8, 8), Image.Resampling.LANCZOS, (5, 0, 35, 30)).convert("L")
    expected = CCNNClassifier.load(digits).predict_proba(np.asarray(small)[None, None])[0]
    (one,) = data["predictions"]
    assert one["probability"] == pytest.approx(expected.max(), abs=0.02)
    assert (one["class"], one["label"]) == (str(expected.argmax()), None)
    assert data["error_percent"] is None


def test_arrays_and_grey_pictures_are_made_what_a_colour_model_takes(shades_model, capsys, tmp_path):
    """An array of another size is resized as well; the way of fitting is that of the training unless one is given."""
    grey = np.full((1, 24, 24), 200, np.uint8)
    grey[:, 12:] = 20
    np.savez(tmp_path / "a.npz", x=grey)
    Image.fromarray(grey[0]).save(tmp_path / "b.png")
    data, err = said(capsys, "ccnn", "predict", shades_model, tmp_path / "a.npz", tmp_path / "b.png", "--fit", "squash")
    assert [one["class"] for one in data["predictions"]] == ["day", "day"]
    assert [one["picture"] for one in data["predictions"]] == [f"{tmp_path / 'a.npz'}[0]", str(tmp_path / "b.png")]
    assert err.count("made colour: 1 channels to 3") == err.count("resized to 12 x 12") == 2


def test_the_fit_of_the_training_is_the_default_of_predict(shades, capsys, tmp_path):
    """A wide picture, dark above but for its dark lower sides: the centre is night, the whole squashed is not alike."""
    wide = np.full((12, 60), 220, np.uint8)
    wide[:6, 24:36] = wide[6:, :24] = wide[6:, 36:] = 10
    Image.fromarray(wide).convert("RGB").save(tmp_path / "wide.png")
    for way in ("crop", "squash"):
        fit = ["ccnn", "fit", "--data", shades, "--side", 12, "--fit", way, "--radius", 5, "--out", tmp_path / way]
        said(capsys, *fit)
        data, _ = said(capsys, "ccnn", "predict", tmp_path / way, tmp_path / "wide.png")
        assert data["predictions"][0]["class"] == {"crop": "night", "squash": "day"}[way]


def test_labels_of_other_classes_give_no_error(digits, shades, capsys):
    data, err = said(capsys, "ccnn", "predict", digits, shades)
    assert data["error_percent"] is None
    assert data["labelled"] == 0
    assert "the labels of " in err
    assert "(day, night) are of other classes than the model's (0, 1, 2, 3, 4 and 5 more)" in err
    assert {one["label"] for one in data["predictions"]} == {"day", "night"}


def test_classes_that_the_model_does_not_know_count_as_wrong():
    def one(label, name):
        return Prediction("p", name, 0.9, label)

    batches = [Batch(path, (), Images(torch.zeros(1, 1, 1, 1, dtype=torch.uint8)), ()) for path in ("a", "b", "c")]
    found = [[one("x", "x"), one("y", "x"), one("z", "x"), one("x", "x")], [one(None, "x")], [one("q", "x")]]
    grade = graded(batches, found, ["x", "y"])
    assert (grade.labelled, grade.wrong, grade.error_percent) == (4, 2, 50.0)
    assert grade.notes[0] == "1 images of a count as wrong: the model does not know z"
    assert "the labels of c (q) are of other classes" in grade.notes[1]
    assert graded(batches[1:2], found[1:2], ["x"]).error_percent is None


def test_grey_is_that_of_pil_and_other_channels_are_refused():
    pixels = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    grey = recoloured(Images(pixels), 1, "p").pixels[:, 0].numpy()
    expected = [np.asarray(Image.fromarray(one.permute(1, 2, 0).numpy()).convert("L")) for one in pixels]
    assert np.abs(grey.astype(int) - np.stack(expected).astype(int)).max() <= 1
    assert torch.equal(recoloured(Images(pixels[:, :1]), 3, "p").pixels, pixels[:, :1].expand(-1, 3, -1, -1))
    with pytest.raises(InputError, match="p has images of 3 channels, but the model takes 2"):
        recoloured(Images(pixels), 2, "p")


@pytest.mark.parametrize(
    ("splits", "chosen"),
    [(("train", "val", "test"), "test"), (("train", "val"), "val"), (("train",), None), ((), None)],
)
def test_the_held_out_split_is_the_default(splits, chosen):
    assert held_out(splits) == chosen


def test_show_draws_the_filters_and_a_refit_removes_the_old_picture(capsys, tmp_path):
    said(capsys, *FIT, "--out", tmp_path / "m")
    assert main(["ccnn", "show", str(tmp_path / "m")]) == 0
    out, _ = capsys.readouterr()
    model = CCNNClassifier.load(tmp_path / "m")
    assert f"no solution of nuclear norm 20 or less can have one below {model.lower_bound_[0]:.4g}" in out
    assert f"rank is {model.rank_[0]}" in out
    assert "kernel                  gaussian, gamma" in out
    assert out.splitlines()[-1] == f"wrote {tmp_path / 'm' / 'filters.png'}"
    tiles = len(model.layers_[0].filters.mT)
    with Image.open(tmp_path / "m" / "filters.png") as picture:
        tile = 3 * round(56 / 3) + 4
        assert picture.size == (min(8, tiles) * tile - 4, -(-tiles // 8) * tile - 4)
    data, _ = said(capsys, "ccnn", "show", tmp_path / "m", "--out", tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes() == (tmp_path / "m" / "filters.png").read_bytes()
    assert data["filters"] == str(tmp_path / "f.png")
    assert data["layers"][0]["settings"]["patches"] == "3 x 3 pixels"
    assert data["made"]["data"]["limit"] == 120
    said(capsys, *FIT, "--out", tmp_path / "m")
    assert not (tmp_path / "m" / "filters.png").exists()


def test_a_models_report(digits, tmp_path, capsys):
    model = CCNNClassifier.load(digits)
    sections = model_sections(digits)
    curves = next(one for one in sections if isinstance(one, Curves))
    objective, bound, gap = curves.series
    history = model.layers_[0].solution.history
    assert curves.log_y
    assert list(objective.x) == [check.step for check in history]
    assert objective.y[-1] == pytest.approx(model.objective_[0])
    assert bound.y[-1] == pytest.approx(model.lower_bound_[0])
    assert gap.y == pytest.approx([high - low for high, low in zip(objective.y, bound.y)])
    table = next(one for one in sections if isinstance(one, Table))
    assert table.headers[-1] == "steps"  # a saved model knows of no seconds
    assert [entry.text for entry in table.rows[0]][6:8] == [str(model.rank_[0]), str(model.n_iter_)]
    assert [one.png[:4] for one in sections if isinstance(one, Picture)] == [b"\x89PNG"]
    assert [one.text for one in sections if isinstance(one, Command)] == [read_record(digits)["command"]]
    made = dict([one for one in sections if isinstance(one, Facts)][-1].pairs)
    assert made["classes"] == "10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert (made["limit"], made["seed"], made["device"]) == ("120", "0", "cpu")
    assert main(["report", str(digits), "--out", str(tmp_path / "r")]) == 0
    assert "interpolates" not in (tmp_path / "r" / "report.md").read_text()


def test_a_model_from_python_says_that_it_has_no_record(digits, tmp_path):
    """Nor is the record of an older fit in the same folder taken for its own."""
    folder = tmp_path / "m"
    model = CCNNClassifier.load(digits)
    model.save(folder)
    store.write_json(folder / "fit.json", {**read_record(digits), "sha256": "0"})
    assert read_record(folder) == {}
    texts = [one.text for one in model_sections(folder) if isinstance(one, Text)]
    assert any("saved from Python" in text for text in texts)


def test_words_for_every_kind_of_certificate():
    fact = {
        "layer": 1, "objective": 0.5, "lower_bound": 0.4, "gap": 0.1, "relative_gap": 0.05, "gap_over_objective": 0.2,
        "interpolates": True, "radius": 3.0, "rank": None, "converged": False, "status": "the steps ran out",
    }  # fmt: skip
    text = in_words(fact, 10)
    assert "can have one below 0.4; the gap is 5 % of log 10. It stopped early: the steps ran out. " in text
    assert text.endswith("The gap is 20 % of the objective, and the rank says nothing about the optimum.")
    text = in_words({**fact, "converged": True, "lower_bound": 0.0}, 10)
    assert "a loss cannot be below zero" in text
    assert "It interpolates: the loss is so near zero that the gap is 20 % of the objective" in text
    assert in_words({**fact, "converged": True, "interpolates": False, "rank": 7}, 10).endswith(
        "Its rank is 7: so many filters, shared by all positions, make the solution."
    )


def test_a_layers_bar_fills_as_its_gap_falls():
    """From nothing at the first gap to 100 at tol, by the logarithm; a layer that reaches tol opens the bar of the next."""
    bars = []

    class Voice:
        @contextmanager
        def progress(self, description, total):
            bars.append(Progress(description, total))
            yield bars[-1]

    def certificate(gap):
        one = torch.tensor([1.0])
        return Certificate(one, torch.tensor([gap * np.log(4)]), 0 * one)

    with _layers_shown(Voice(), 2, 1e-4, 4) as told:
        assert [bar.description for bar in bars] == ["layer 1 of 2: features"]
        told(1, 1, certificate(1.0))
        assert bars[0].done == 0
        told(1, 2, certificate(1e-2))
        assert bars[0].done == pytest.approx(50, abs=1e-3)
        assert bars[0].description == "layer 1 of 2, step 2: certified gap 1 % of log 4"
        told(1, 4, certificate(1e-5))
        assert bars[0].done == 100
        assert [bar.description for bar in bars[1:]] == ["layer 2 of 2: features"]
        told(2, 1, certificate(1e-6))
        assert bars[1].done == 100
    assert len(bars) == 2
