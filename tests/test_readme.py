"""The README: its snippets run and say the truth, its quick commands work, and what it promises of itself holds."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from triptych import CCNNClassifier, cli

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^\$ triptych (.*)$", README, re.MULTILINE)


def run(number, folder, monkeypatch):
    """The names that a snippet leaves behind, run in an empty folder."""
    monkeypatch.chdir(folder)
    names = {}
    exec(compile(SNIPPETS[number], f"README.md, snippet {number + 1}", "exec"), names)
    return names


def test_there_are_four_snippets_of_at_most_nine_lines():
    assert len(SNIPPETS) == 4
    assert max(len(snippet.splitlines()) for snippet in SNIPPETS) <= 9


def test_the_first_snippet_trains_a_classifier_whose_certificate_says_what_it_prints(tmp_path, monkeypatch, capsys):
    names = run(0, tmp_path, monkeypatch)
    clf, test = names["clf"], names["test"]
    right = float(np.mean(clf.predict(test) == test.labels.numpy()))
    assert right > 0.95
    assert 0 < clf.lower_bound_[0] <= clf.objective_[0]
    assert not clf.interpolates_[0]  # else its rank could not be quoted
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{right:.1%} right with {np.linalg.matrix_rank(clf.layers_[0].A.numpy(), rtol=1e-6)} filters"
    assert second.split()[1] == f"{clf.objective_[0]:.4f};"


def test_the_second_snippet_solves_a_lasso(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    names = run(1, tmp_path, monkeypatch)
    K, y, solution = names["K"][0].numpy(), names["y"][0].numpy(), names["solution"]
    peer = Lasso(alpha=1 / len(y), fit_intercept=False, tol=1e-12, max_iter=100_000).fit(K, y)
    np.testing.assert_allclose(solution.x[0].numpy(), peer.coef_, atol=1e-5)
    assert 0 <= float(solution.gap) <= 1e-8
    assert "within the tolerance" in capsys.readouterr().out


def test_the_third_snippet_saves_and_loads_a_model(tmp_path, monkeypatch, capsys):
    names = run(2, tmp_path, monkeypatch)
    files = {path.suffix for path in (tmp_path / "digits-model").rglob("*") if path.is_file()}
    assert files == {".safetensors", ".json"}
    assert isinstance(names["clf"], CCNNClassifier)
    assert capsys.readouterr().out.startswith("[0 1 2] (500, ")  # the first three digits are 0, 1, 2


def test_the_fourth_snippet_plays_a_game(tmp_path, monkeypatch, capsys):
    """Twenty lines, and a critic that tells real digits from generated ones more and more clearly."""
    names = run(3, tmp_path, monkeypatch)
    steps, gaps = zip(*(map(float, line.split()) for line in capsys.readouterr().out.splitlines()))
    assert steps == tuple(range(1, 21))
    assert gaps[-1] > gaps[0] > 0
    assert names["progress"].seen == 20 * 5 * names["recipe"].batch


def test_its_quick_commands_work(tmp_path, monkeypatch, capsys):
    """In a folder without the pictures that they name: there the embedded digits stand for them."""
    monkeypatch.chdir(tmp_path)
    quick = [words for words in map(shlex.split, COMMANDS) if words[0] in ("list", "data") and "fetch" not in words]
    assert [words[0] for words in quick] == ["data", "data", "list"]
    for words in quick:
        capsys.readouterr()
        given = ["digits" if word == "photos" else word for word in words]
        assert cli.main([*given, "--json"]) == 0
        assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_the_experiment_that_it_runs_is_one(capsys):
    assert cli.main(["list", "--json"]) == 0
    known = {one["name"] for one in json.loads(capsys.readouterr().out)["experiments"]}
    named = {words[1] for words in map(shlex.split, COMMANDS) if words[0] == "run"}
    assert named
    assert named <= known


@pytest.mark.parametrize(
    "missing", ["panel *sparse*", "progressive growing", "were run on a GPU", "only the column `basic`"]
)
def test_it_says_what_does_not_work_yet(missing):
    assert missing in README.split("## What does not work yet")[1]
