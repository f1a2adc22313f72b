"""Table 1: its cells and published numbers, a smoke run from the command line, and what a report shows of it."""

import json

import pytest

from triptych.bench.experiment import Scale
from triptych.bench.report import row_sections
from triptych.bench.row import read_rows
from triptych.bench.sections import Curves, Gallery, Picture, Table
from triptych.cli import main
from triptych.papers import find, names
from triptych.papers.zhang2017 import table1

REQUIRED = {
    "error_percent",
    "validation_error_percent",
    "relative_gap",
    "gap_over_objective",
    "rank",
    "nuclear_norm",
    "train_cpu_seconds",
}


pytestmark = pytest.mark.xdist_group("table1")  # one worker makes what the tests share


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The rows of one smoke run, made by the command line."""
    out = tmp_path_factory.mktemp("rows")
    assert main(["run", "zhang2017.table1", "--scale", "smoke", "--out", str(out)]) == 0
    return out


def test_the_experiment_is_found():
    assert "zhang2017.table1" in names()
    assert find("zhang2017.table1") is table1.EXPERIMENT


def test_every_cell_has_its_published_number():
    cells = table1.cells(Scale.PAPER)
    assert [cell.system for cell in cells] == ["SVM_rbf", "CCNN-1", "CCNN-2"]
    assert [table1.published(cell)["error_percent"] for cell in cells] == [3.03, 2.38, 1.38]


def test_the_sizes_are_the_papers():
    assert table1.SIZES[Scale.PAPER] == (10_000, 2_000, 50_000)
    assert sum(table1.SIZES[Scale.SMOKE]) == 1_797


def test_a_smoke_row_has_every_metric_and_names_its_data(smoke):
    rows = read_rows(smoke)
    assert [row.cell["system"] for row in rows] == ["CCNN-1", "CCNN-2", "SVM_rbf"]
    for row in rows:
        assert set(row.metrics) >= REQUIRED
        assert row.data == "digits"
        assert 0 < row.metrics["error_percent"] < 10, row
        assert row.published is not None


def test_a_smoke_row_is_certified(smoke):
    for row in read_rows(smoke):
        if row.cell["system"] == "SVM_rbf":
            continue
        assert 0 <= row.metrics["relative_gap"] <= 1e-3
        assert row.metrics["objective"] >= row.metrics["lower_bound"] >= 0
        assert row.metrics["nuclear_norm"] <= row.metrics["radius"] * (1 + 1e-9)
        gap = row.metrics["objective"] - row.metrics["lower_bound"]
        assert gap == pytest.approx(row.metrics["gap_over_objective"] * row.metrics["objective"])
        assert (row.metrics["rank"] is None) == (row.metrics["gap_over_objective"] > 0.1)


def test_a_finished_row_is_kept_and_force_makes_it_again(smoke, capsys):
    path = next(p for p in (smoke / "zhang2017.table1").glob("*.json") if "SVM" in p.read_text())
    before = path.read_bytes()
    words = ["run", "zhang2017.table1", "--scale", "smoke", "--out", str(smoke), "--where", "system=SVM_rbf"]
    assert main(words) == 0
    assert path.read_bytes() == before
    assert main([*words, "--force"]) == 0
    assert path.read_bytes() != before  # other seconds
    assert json.loads(path.read_bytes())["metrics"]["error_percent"] == json.loads(before)["metrics"]["error_percent"]


def test_the_report_shows_the_table_the_certificate_filters_and_mistakes(smoke):
    sections = row_sections(read_rows(smoke), find)
    kinds = [type(section) for section in sections]
    assert {Table, Curves, Picture, Gallery} <= set(kinds)
    table = next(section for section in sections if isinstance(section, Table))
    text = [[entry.text for entry in line] for line in table.rows]
    published = table.headers.index("published")
    assert [line[published] for line in text if line[0] == "PCANet-2"] == ["1.06"]
    assert "not run" not in str(text)
    rank = table.headers.index("rank")
    assert {line[0]: line[rank] for line in text}["SVM_rbf"] == "–"
    assert {line[0]: line[rank] for line in text}["CCNN-1"] == "interpolates"
    assert "smoke" in str(table.made).lower()


def test_a_report_without_rows_of_a_system_says_not_run(smoke):
    rows = [row for row in read_rows(smoke) if row.cell["system"] == "SVM_rbf"]
    table = next(section for section in table1.render(rows) if isinstance(section, Table))
    line = next(line for line in table.rows if line[0].text == "CCNN-2")
    assert "not run" in [entry.text for entry in line]


def test_unlabelled_data_are_refused_in_one_sentence(tmp_path, capfd):
    import numpy as np

    path = tmp_path / "unlabelled.npz"
    np.savez(path, x=np.zeros((1797, 8, 8), np.uint8))
    words = ["run", "zhang2017.table1", "--scale", "smoke", "--data", str(path), "--out", str(tmp_path / "out")]
    assert main([*words, "--where", "system=SVM_rbf"]) == 2
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "labels" in said[0]
    assert not list((tmp_path / "out").glob("**/*.json"))
