import importlib
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import triptych.papers
from triptych import store
from triptych.check import InputError
from triptych.cli import main
from triptych.papers import find, names

TOY = Path(__file__).parent.parent / "bench" / "toy"


@pytest.fixture
def paper(monkeypatch, tmp_path):
    """A papers folder that holds the toy's table beside the real ones."""
    folder = tmp_path / "papers"
    (folder / "toy2020").mkdir(parents=True)
    (folder / "toy2020" / "__init__.py").write_text('"""Toys."""\n')
    (folder / "toy2020" / "table1.py").write_text("from triptych_toy import EXPERIMENT\n")
    (folder / "toy2020" / "_shared.py").write_text("raise RuntimeError\n")
    (folder / "toy2020" / "wrong.py").write_text("from triptych_toy import EXPERIMENT\n")
    (folder / "notes.txt").write_text("")
    monkeypatch.syspath_prepend(TOY)
    monkeypatch.setattr(triptych.papers, "__path__", [*triptych.papers.__path__, str(folder)])
    importlib.invalidate_caches()
    yield importlib.import_module("triptych_toy")
    for name in [name for name in sys.modules if name.startswith("triptych.papers.toy2020")]:
        del sys.modules[name]


def test_experiments_are_found_by_their_files_names(paper):
    assert {"toy2020.table1", "toy2020.wrong"} <= set(names())
    assert not any("_shared" in name or "notes" in name for name in names())
    assert find("toy2020.table1") is paper.EXPERIMENT
    with pytest.raises(
        InputError,
        match=r"name must be one of .*toy2020.table1.*got 'toy2020.tabel1' \(did you mean toy2020.table1\?\)",
    ):
        find("toy2020.tabel1")
    with pytest.raises(InputError, match="name must be one of"):
        find("triptych_toy")
    with pytest.raises(TypeError, match=r"EXPERIMENT must be an Experiment named 'toy2020\.wrong'"):
        find("toy2020.wrong")


def test_list(paper, monkeypatch, capsys):
    monkeypatch.setattr("triptych.cli.papers.names", lambda: ["toy2020.table1"])
    assert main(["list"]) == 0
    assert "toy2020.table1  Errors of toys  Toy, Journal of Toys 2020" in capsys.readouterr().out
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["experiments"]
    assert found == [
        {"name": "toy2020.table1", "shows": "Errors of toys", "paper": paper.EXPERIMENT.paper, "data": "blocks"}
    ]


def test_run_then_report(paper, tmp_path, capsys):
    """The rows, kept the second time, with the digits named; then both files of the report, in the folder or elsewhere."""
    out = str(tmp_path / "runs")
    words = ["run", "toy2020.table1", "--out", out, "--where", "system=a", "--where", "size=1", "--seed", "2"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "system=a size=1: error_percent=12 " in said.out
    assert f"1 row in {out}; `triptych report {out}` shows them" in said.out
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr()
    (row,) = json.loads(said.out)["rows"]
    assert (row["scale"], row["seed"], row["provenance"]["data"]["name"]) == ("smoke", 2, "digits")
    assert "(kept)" in said.err
    assert main(["report", out]) == 0
    assert "report.html" in capsys.readouterr().out
    assert "Scale smoke, data digits, seed 2" in (tmp_path / "runs" / "report.md").read_text()
    assert "toy2020.table1" in (tmp_path / "runs" / "report.html").read_text()
    assert (
        main(["report", str(tmp_path / "runs" / "toy2020.table1"), "--out", str(tmp_path / "elsewhere"), "--json"]) == 0
    )
    assert Path(json.loads(capsys.readouterr().out)["html"]) == tmp_path / "elsewhere" / "report.html"


def test_a_failing_cell_shows_its_traceback_and_ends_with_one(paper, monkeypatch, tmp_path, capsys):
    """Two sentences are told apart: what a cell refuses is wrong use, what breaks in it is a failure."""
    toy = paper.EXPERIMENT
    for system, status, text in (
        ("fails", 1, 'raise RuntimeError("the sky fell")'),
        ("refuses", 2, "triptych: size must be odd\n"),
    ):
        experiment = replace(toy, cells=lambda scale, system=system: [paper.Cell(system)])
        monkeypatch.setattr("triptych.cli.papers.find", lambda name, experiment=experiment: experiment)
        assert main(["run", "toy2020.table1", "--out", str(tmp_path / "o")]) == status
        assert text in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_ctrl_c_is_one_sentence_and_130(paper, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("TOY_PID", str(tmp_path / "pid"))
    toy = paper.EXPERIMENT
    experiment = replace(toy, cells=lambda scale: [paper.Cell("sleeps")])
    monkeypatch.setattr("triptych.cli.papers.find", lambda name: experiment)

    def press() -> None:
        while not (tmp_path / "pid").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    assert main(["run", "toy2020.table1", "--out", str(tmp_path / "o")]) == 130
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "triptych: interrupted; what was finished is saved"


def test_data_are_named_where_they_are_needed(paper, tmp_path, capsys):
    run = ["run", "toy2020.table1", "--out", str(tmp_path / "o")]
    for words, text in (
        (["--scale", "laptop"], "toy2020.table1 at scale laptop needs --data, the path of blocks"),
        (
            ["--data", "digit"],
            "data must be one of digits, mnist, fashion-mnist, cifar-10 or a file or folder that exists, got 'digit' (did you mean digits?)",
        ),
        (["--where", "system=z"], "where: system must be one of a, b, got 'z'"),
        (["--seed", "-1"], "seed must be a whole number of at least 0, got -1"),
        (["--device", "warp"], "device must be 'cpu', 'cuda' or 'cuda:N', got 'warp'"),
        (["--device", "cpu:1"], "device must be 'cpu', 'cuda' or 'cuda:N', got 'cpu:1'"),
    ):
        assert main([*run, *words]) == 2
        assert capsys.readouterr().err.endswith(f"triptych: {text}\n")
    assert not (tmp_path / "o").exists()


def test_an_experiment_that_reads_no_data_takes_and_records_none(paper, monkeypatch, tmp_path, capsys):
    """Rows of before, which name the digits, are shown with those of now, and neither is headed by a data set."""
    experiment = paper.EXPERIMENT
    monkeypatch.setattr("triptych.cli.papers.find", lambda name: experiment)
    run = ["run", "toy2020.table1", "--out", str(tmp_path / "o"), "--where", "system=a", "--where", "size=1"]
    assert main([*run, "--seed", "1", "--scale", "laptop", "--data", "digits"]) == 0
    experiment = replace(experiment, data=None)
    capsys.readouterr()
    assert main([*run, "--data", "digits"]) == 2
    said = "triptych: data must be left away, as toy2020.table1 makes its own and reads none, got 'digits'\n"
    assert capsys.readouterr().err == said
    for seed in ("1", "2"):
        assert main([*run, "--seed", seed, "--scale", "laptop", "--json"]) == 0
        out, err = capsys.readouterr()
        (row,) = json.loads(out)["rows"]
        assert ("(kept)" in err, "data" in row["provenance"]) == ((True, True) if seed == "1" else (False, False))
    assert main(["report", str(tmp_path / "o")]) == 0
    text = (tmp_path / "o" / "report.md").read_text()
    assert "Scale laptop, seeds 1, 2." in text
    assert "Scale laptop, data" not in text
    assert "--data" not in text


def test_data_given_reach_the_cell(paper, monkeypatch, tmp_path, capsys):
    """A path is identified by its bytes, a fetched set also by its name; `digits` is the embedded set."""
    seen, there = [], {}
    monkeypatch.setattr("triptych.cli.papers.run_experiment", lambda e, context, *_, **__: seen.append(context) or [])
    monkeypatch.setattr("triptych.data.fetch.fetched", there.get)
    monkeypatch.setattr("triptych.cli.papers.find", lambda name: replace(paper.EXPERIMENT, data="mnist"))
    (tmp_path / "blocks.npz").write_bytes(b"1")
    (tmp_path / "cached").mkdir()
    (tmp_path / "cached" / "images").write_bytes(b"2")
    monkeypatch.chdir(tmp_path)
    run = ["run", "toy2020.table1", "--out", "o"]
    assert main([*run, "--scale", "paper"]) == 2
    said = capsys.readouterr().err
    assert (
        said
        == "triptych: toy2020.table1 at scale paper needs --data, the path of mnist; `triptych data fetch mnist` gets it\n"
    )
    assert main([*run, "--data", "cifar-10"]) == 2
    assert capsys.readouterr().err.endswith("got 'cifar-10'; `triptych data fetch cifar-10` gets it\n")
    assert not seen
    there["mnist"] = tmp_path / "cached"
    for words in (
        ["--data", "blocks.npz", "--scale", "paper"],
        ["--data", "digits"],
        ["--scale", "paper"],
        ["--data", "mnist"],
        [],
    ):
        assert main([*run, *words]) == 0
    assert [(c.data.name, c.data.path, c.scale.value) for c in seen] == [
        ("blocks.npz", tmp_path / "blocks.npz", "paper"),
        ("digits", None, "smoke"),
        ("mnist", tmp_path / "cached", "paper"),
        ("mnist", tmp_path / "cached", "smoke"),
        ("digits", None, "smoke"),
    ]
    assert len({c.data.checksum for c in seen}) == 3


def test_reports_of_nothing_are_refused(paper, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folder, text in ((tmp_path / "nowhere", "there is no folder"), (tmp_path / "empty", "holds none of them")):
        assert main(["report", str(folder)]) == 2
        assert text in capsys.readouterr().err
    assert not list((tmp_path / "empty").iterdir())


def test_a_model_is_shown_by_its_own_sections(monkeypatch, tmp_path):
    from triptych.bench.sections import Text

    module = type(sys)("triptych.cli.ccnn")
    module.model_sections = lambda path: [Text(f"a model in {path.name}")]
    monkeypatch.setitem(sys.modules, "triptych.cli.ccnn", module)
    store.save(tmp_path / "model", {"w": torch.zeros(1)}, {}, kind="ccnn")
    assert main(["report", str(tmp_path / "model")]) == 0
    assert "a model in model" in (tmp_path / "model" / "report.md").read_text()
    assert store.load(tmp_path / "model")[1] == {}
