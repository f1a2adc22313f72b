"""The papers of many layers: smoke runs by the command line, and that what they say follows from what they measured."""

import pytest

from triptych.bench.report import row_sections
from triptych.bench.row import read_rows
from triptych.bench.sections import Curves, Table, Text
from triptych.cli import main
from triptych.papers import find
from triptych.papers.sulam2019 import mnist

pytestmark = pytest.mark.xdist_group("layers")  # one worker makes what the tests share
NAMES = (
    "papyan2017.layers",
    "sulam2018.unsupervised",
    "sulam2019.mnist",
    "sulam2019.cifar10",
    "sulam2019.convergence",
    "aberdam2019.holistic",
    "romano2018.attack",
)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The rows of all smoke runs, a folder an experiment."""
    out = tmp_path_factory.mktemp("rows")
    for name in NAMES:
        assert main(["run", name, "--scale", "smoke", "--out", str(out / name)]) == 0
    return out


@pytest.mark.parametrize("name", NAMES)
def test_the_report_has_a_table_and_curves(smoke, name):
    sections = row_sections(read_rows(smoke / name), find)
    tables = [section for section in sections if isinstance(section, Table)]
    assert tables
    assert all(any(entry.text not in ("not run", "") for entry in row[1:]) for row in tables[0].rows)
    assert any(isinstance(section, Curves) for section in sections)


def test_no_trial_inside_the_conditions_fails(smoke):
    rows = {row.cell["claim"]: row.metrics for row in read_rows(smoke / "papyan2017.layers")}
    for claim in ("deep coding", "thresholding", "basis pursuit", "projection"):
        assert rows[claim]["violations"] == 0
        assert rows[claim]["stripe_two"] == 4
        for layer in (1, 2):
            assert 0 < rows[claim][f"typical_{layer}"] <= rows[claim][f"tightest_{layer}"] <= 1
    assert rows["deep coding"]["tightest_1"] > 0.9  # the worst noise makes the bound nearly tight
    assert rows["noise"]["threshold_error_2"] < rows["noise"]["threshold_bound_2"]
    assert rows["noise"]["tuned_error_2"] < rows["noise"]["pursuit_error_2"]
    shares = {row.cell["claim"]: row for row in read_rows(smoke / "papyan2017.layers")}["beyond"].artefact("shares")
    assert all(dict(map(tuple, values))[1] == 1 for values in shares.values())  # one non-zero a stripe is always found


def test_ml_fista_is_near_the_optimum_and_the_published_weighting_is_not(smoke):
    (row,) = read_rows(smoke / "sulam2019.convergence")
    names = list(row.artefact("curves"))
    away = {name: row.metrics[f"away_{i}"] for i, name in enumerate(names)}
    assert 0 <= away["ML-FISTA"] < 0.01
    assert away["ML-FISTA, published weighting"] > 0.1
    assert row.metrics["gap"] <= 1e-5


def test_holistic_pursuit_gains_by_zeros(smoke):
    rows = {
        (row.cell["decibels"], row.cell["nonzeros"]): row.metrics for row in read_rows(smoke / "aberdam2019.holistic")
    }
    assert rows[25.0, "11"]["last_ratio"] < 0.9
    assert rows[25.0, "zeros + 1"]["zeros_found"] > 0.7


def test_networks_learn_and_break_under_attack(smoke):
    learnt = {row.cell["kind"]: row.metrics for row in read_rows(smoke / "sulam2019.mnist")}
    assert learnt["feed-forward"]["accuracy"] > 50
    assert learnt["ml-lista"]["accuracy"] > 40
    pictures = {row.cell["kind"]: row.metrics for row in read_rows(smoke / "sulam2019.cifar10")}
    assert pictures["layered"]["accuracy"] > 20
    for row in read_rows(smoke / "romano2018.attack"):
        curve = row.artefact("curve")
        assert curve[0] > curve[-1]
        assert row.metrics["promised_percent"] == 0


def test_codes_of_digits_are_classified(smoke):
    rows = {row.cell["features"]: row.metrics for row in read_rows(smoke / "sulam2018.unsupervised")}
    assert rows["layers 2 and 3"]["error_percent"] < 20
    assert rows["layers 2 and 3"]["features"] > rows["layer 2"]["features"]
    assert rows["two layers"]["error_percent"] < 25
    assert rows["terms"]["error_20_sparse"] < rows["terms"]["error_10_sparse"]
    assert rows["terms"]["density_sparse_3"] <= 0.1


def test_the_verdict_follows_from_paired_differences():
    rows = [
        type("R", (), {"cell": {"kind": kind}, "seed": seed, "metrics": {"accuracy": value}})()
        for kind, values in {
            "feed-forward": (98.0, 98.2, 98.1),
            "layered": (98.5, 98.7, 98.6),
            "ml-ista": (97.0, 99.5, 98.0),
        }.items()
        for seed, value in enumerate(values)
    ]
    told = mnist.paired(rows)
    assert "layered basis pursuit +0.50 (standard error 0.00, 3 seeds)" in told
    assert told.endswith("layered basis pursuit is ahead by more than two standard errors.")
    assert mnist.paired(rows[:3]) == ""
    free = [
        type("R", (), {"cell": {"kind": "free"}, "seed": i, "metrics": {"accuracy": 99.0 + 0.1 * i}})()
        for i in range(3)
    ]
    said = "all free is ahead by more than two standard errors, with more parameters than the plain network."
    assert mnist.paired([*rows, *free]).endswith(said)
    behind = [row for row in rows if row.cell["kind"] != "layered"]
    assert mnist.paired(behind).endswith("No pursuit is ahead by two standard errors.")
    for row in behind[3:]:
        row.metrics["accuracy"] = 97.0 + 0.1 * row.seed
    assert "the feed-forward network is, by more than two" in mnist.paired(behind)


def test_the_page_says_what_is_paired(tmp_path):
    for seed in ("0", "1"):
        words = ["run", "sulam2019.mnist", "--scale", "smoke", "--seed", seed, "--out", str(tmp_path)]
        assert main([*words, "--where", "kind=feed-forward", "--where", "kind=layered"]) == 0
    sections = row_sections(read_rows(tmp_path), find)
    assert any(isinstance(s, Text) and "paired by seed" in s.text for s in sections)
