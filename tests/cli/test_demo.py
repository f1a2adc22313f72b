import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from triptych import CCNNClassifier, load
from triptych.check import InputError
from triptych.cli import demo as demo_module
from triptych.cli import main
from triptych.cli.demo import parts
from triptych.data import permute_split


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The demo with nothing said, as a reader of its text sees it: the folder and the text."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        texts = []
        patch.setattr("triptych.cli.console.Console.say", lambda self, text: texts.append(text))
        assert main(["demo"]) == 0
    return folder / "demo", "\n".join(texts)


def held_out_errors(folder):
    """What the saved model gets wrong of the quarter of the digits that seed 0 holds out."""
    train, test = permute_split(load("digits"), [1348, 449], 0)
    labels = np.array(test.classes)[test.labels.numpy()]
    predicted = CCNNClassifier.load(folder / "model").predict(test.pixels.numpy())
    return [(true, taken) for true, taken in zip(labels, predicted) if true != taken], train


def test_the_demo_says_what_it_did_and_where(shown):
    folder, text = shown
    wrong, _ = held_out_errors(folder)
    assert 0 < len(wrong) < 14  # under 3 %
    assert "learned 10 classes from 1,348 images of 1 x 8 x 8 (digits)" in text
    assert f"On 449 images held out it errs on {len(wrong)}: {100 * len(wrong) / 449:.2f} %." in text
    model = CCNNClassifier.load(folder / "model")
    assert f"{model.objective_[0]:.6f}" in text
    assert "interpolates" not in text
    assert f"rank is {model.rank_[0]}" in text
    assert text.splitlines()[-1] == "the report is demo/report.html (and report.md beside it), the model demo/model"


def test_the_report_holds_all_that_was_promised(shown):
    folder, _ = shown
    wrong, train = held_out_errors(folder)
    markdown, page = (folder / "report.md").read_text(), (folder / "report.html").read_text()
    headings = re.findall(r"^## (.*)$", markdown, re.M)
    assert headings == [
        "What was trained", "Certificate", "Filters", "Classified wrong", "Settings", "How it was made",
    ]  # fmt: skip
    assert f"{len(wrong)} of 449 held-out images" in markdown
    captions = re.findall(r"(\d), taken for (\d) \((\d+) %\)", page)
    assert sorted((true, taken) for true, taken, _ in captions) == sorted(wrong)
    sureness = [int(percent) for _, _, percent in captions]
    assert sureness == sorted(sureness, reverse=True)
    assert "step by step" in markdown
    assert "triptych demo --data digits --seed 0" in markdown
    assert f"sha256:{train.checksum()}" in markdown
    assert not re.search(r"(src|href)=\"https?:", page)


def test_another_data_set_with_its_own_splits(tmp_path, capsys, monkeypatch):
    """Three of four images to train on, the first of each split; here no error is left, and that is said."""
    monkeypatch.setattr(demo_module, "MOST", 40)
    rng = np.random.default_rng(0)
    y = np.arange(100) % 2
    x = (rng.integers(0, 60, (100, 6, 6)) + 150 * (y[:, None, None] == (np.arange(6) < 3)[None, :, None])).astype(
        np.uint8
    )
    np.savez(tmp_path / "a.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:], classes=["up", "down"])
    words = ["demo", "--data", str(tmp_path / "a.npz"), "--out", str(tmp_path / "o"), "--seed", "1", "--json"]
    assert main(words) == 0
    out, _ = capsys.readouterr()
    data = json.loads(out)
    assert (data["train_images"], data["test_images"], data["wrong"], data["error_percent"]) == (30, 10, 0, 0.0)
    assert (data["html"], data["model"]) == (str(tmp_path / "o" / "report.html"), str(tmp_path / "o" / "model"))
    assert "None of the 10 held-out images." in (tmp_path / "o" / "report.md").read_text()
    assert CCNNClassifier.load(tmp_path / "o" / "model").classes_.tolist() == ["down", "up"]
    train, _ = parts(str(tmp_path / "a.npz"), 1)
    assert np.array_equal(train.pixels[:, 0].numpy(), x[:30])
    np.savez(tmp_path / "b.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:])  # no labels to test with
    train, test = parts(str(tmp_path / "b.npz"), 1)
    assert (len(train), len(test)) == (30, 10)
    assert test.labels is not None


def test_a_quarter_is_held_out_by_the_seed():
    train, test = parts("digits", 3)
    rows = {one.numpy().tobytes() for one in train.pixels}
    assert (len(train), len(test)) == (1348, 449)
    assert not any(one.numpy().tobytes() in rows for one in test.pixels)
    assert torch.equal(parts("digits", 3)[1].pixels, test.pixels)
    assert not torch.equal(parts("digits", 4)[1].pixels, test.pixels)


def test_large_pictures_become_small(tmp_path):
    for name, size in (("a", (90, 70)), ("b", (40, 50))):
        for i in range(3):
            (tmp_path / "p" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (i, 9, 9)).save(tmp_path / "p" / name / f"{i}.png")
    assert parts(str(tmp_path / "p"), 0)[0].shape == (4, 3, 32, 32)
    for side, expected in ((65, 32), (64, 64)):
        np.savez(tmp_path / "x.npz", x=np.zeros((8, side, side), np.uint8), y=np.arange(8) % 2)
        assert parts(str(tmp_path / "x.npz"), 0)[0].shape[2:] == (expected, expected)


def test_too_few_images_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 4, 4), np.uint8), y=np.arange(2))
    with pytest.raises(
        InputError, match=r"x\.npz must hold at least 3 images, so that a quarter can be held out, got 2"
    ):
        parts(str(tmp_path / "x.npz"), 0)
