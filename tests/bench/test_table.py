import math

import pytest

from triptych.bench.row import Row, Scale
from triptych.bench.sections import Curves, Entry, Heading, Picture, Series, Table, Text
from triptych.bench.table import Column, Line, compare, markdown, seeds
from triptych.check import InputError


def row(system, seed, size=1, published=None, **metrics):
    return Row("e", Scale.SMOKE, seed, {"system": system, "size": size}, metrics, published, 1, 1, 1, {}, {})


ROWS = [
    row("a", 0, error=1.0, gap=2e-4, published={"error": 2.38}),
    row("a", 1, error=2.0, gap=2e-4, published={"error": 2.38}),
    row("a", 2, error=6.0, gap=2e-4, published={"error": 2.38}),
    row("b", 0, error=None, gap=1e-3),
    row("c", 0, error=1.0),
    row("c", 1, error=None),
]
LINES = [
    Line("A", {"system": "a"}),
    Line("B", {"system": "b"}),
    Line("C", {"system": "c"}),
    Line("D", {"system": "d"}, {"error": 1.5}),
    Line("theirs", None, {"error": 1.06}),
]


def test_means_extremes_published_and_holes():
    """The mean of 1, 2, 6 is 3; None reads as the column's word; what has no row is 'not run'; only the paper's is a dash."""
    table = compare(ROWS, LINES, [Column("error", "error, %", missing="interpolates"), Column("gap", "gap", ".1e")])
    assert list(table.headers) == ["", "error, %", "published", "gap"]
    texts = [[(entry.text, entry.detail) for entry in line] for line in table.rows]
    assert texts == [
        [("A", ""), ("3.00", "1.00–6.00"), ("2.38", ""), ("2.0 · 10⁻⁴", "")],
        [("B", ""), ("interpolates", ""), ("–", ""), ("1.0 · 10⁻³", "")],
        [("C", ""), ("1.00", "interpolates in 1 of 2"), ("–", ""), ("–", "")],
        [("D", ""), ("not run", ""), ("1.50", ""), ("not run", "")],
        [("theirs", ""), ("–", ""), ("1.06", ""), ("–", "")],
    ]
    assert table.numeric == [False, True, True, True]


def test_two_published_metrics_name_their_columns():
    lines = [Line("A", {"system": "a"}, {"gap": 1.0})]
    table = compare(ROWS, lines, [Column("error", "error"), Column("gap", "gap")])
    assert list(table.headers) == ["", "error", "error, published", "gap", "gap, published"]


def test_no_mean_over_different_cells():
    rows = [row("a", 0, size=1, error=1.0), row("a", 0, size=2, error=3.0)]
    with pytest.raises(InputError, match="must choose one row a seed, got 2 rows"):
        compare(rows, [Line("A", {"system": "a"})], [Column("error", "error")])


def test_markdown_is_a_table_again():
    table = compare(ROWS, [*LINES, Line("x | <b>\ny", None)], [Column("error", "error, %")])
    lines = markdown(table).splitlines()
    assert len(lines) == 2 + 6
    assert {line.replace("\\|", "").count("|") for line in lines} == {4}
    assert lines[1] == "| :--- | ---: | ---: |"
    assert lines[2] == "| A | **3.00** (1.00–6.00) | 2.38 |"
    assert "x \\| &lt;b> y" in lines[-1]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([3], "seed 3"), ([0, 1], "seeds 0, 1"), ([2, 0, 1, 1], "seeds 0 to 2"), ([0, 2, 3], "seeds 0, 2, 3")],
)
def test_seeds_are_named(numbers, text):
    assert seeds([row("a", seed) for seed in numbers]) == text


def test_sections_refuse_what_cannot_be_shown():
    with pytest.raises(InputError, match="level must be 2 or 3, got 1"):
        Heading("x", 1)
    with pytest.raises(InputError, match="a row of the table must be of 2 entries"):
        Table(["a", "b"], [[Entry("1")]])
    with pytest.raises(InputError, match="alt must be a text"):
        Picture(b"", " ")
    with pytest.raises(InputError, match="as many x as y and at least one, got 2 and 1"):
        Series("s", [1, 2], [1])
    with pytest.raises(InputError, match="got 0 and 0"):
        Series("s", [], [])
    with pytest.raises(InputError, match="at least one curve"):
        Curves([], "t", "x", "y")
    assert Text("one\ntwo\n\n\n three ").paragraphs == ["one two", "three"]
    assert "loss over step for s" in Curves([Series("s", [1], [math.nan])], "t", "step", "loss").alt
