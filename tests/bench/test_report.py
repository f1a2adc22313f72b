import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from triptych.bench import figure
from triptych.bench.report import provenance, row_sections, write_report
from triptych.bench.row import Row, Scale
from triptych.bench.sections import Command, Curves, Entry, Facts, Gallery, Heading, Picture, Series, Table, Text
from triptych.check import InputError

EVIL = "</script><script>alert(1)</script><b>&"


class Page(HTMLParser):
    """The elements of a page: a list of (tag, attributes), and the texts of each tag."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def sections():
    picture = Picture(
        figure.images(np.zeros((1, 1, 4, 4), np.uint8)), "a black square", "Square", "seven, taken for one"
    )
    return [
        Heading("First"),
        Text(f"Before {EVIL}\n\nafter"),
        Table(["", "error, %"], [[Entry("A"), Entry("1.00", "0.90–1.10", True)]], "Errors", "a note", "Scale smoke"),
        Curves(
            [Series(EVIL, [1, 2, 4], [1.0, 0.1, 0.0]), Series("b", [2, 3], [5.0, float("nan")], marked=0)],
            "Gap",
            "step",
            "gap",
            log_y=True,
        ),
        picture,
        Gallery([picture, picture], "Wrong"),
        Heading("Deeper", 3),
        Command("triptych run <x>"),
        Facts([("cpu", "one & only")], "Machine"),
        Heading("Second"),
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    report = write_report(sections(), folder, title=f"Title {EVIL}", subtitle="below")
    return folder, report.html.read_text(), report.markdown.read_text()


def test_the_page_is_self_contained(written):
    """Nothing is loaded but data: addresses; the page's own policy forbids the rest."""
    page = Page(written[1])
    loaded = [a[k] for _, a in page.tags for k in ("src", "href", "srcset", "poster", "data") if a.get(k)]
    assert len(loaded) >= 6
    assert all(address.startswith(("data:", "#")) for address in loaded)
    assert "url(" not in written[1].replace("url(data:", "")
    assert "@import" not in written[1]
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_what_is_shown_is_escaped(written):
    page = Page(written[1])
    assert "alert(1)" not in "".join(page.texts["script"]).replace(r"\u003cscript\u003ealert(1)", "")
    assert any(EVIL in text for text in page.texts["h1"])
    assert not page.all("b")


def test_pictures_have_texts_and_headings_a_contents(written):
    page = Page(written[1])
    assert all(image["alt"].strip() for image in page.all("img"))
    assert len(page.all("img")) == 4  # the curve's still, the picture, two in the gallery
    assert [a["href"] for a in page.all("a")] == ["#chapter-1", "#chapter-2"]
    assert [h["id"] for h in page.all("h2")] == ["chapter-1", "chapter-2"]
    assert all(len(base64.b64decode(image["src"].partition(",")[2])) > 50 for image in page.all("img"))


def test_curves_reach_the_script_aligned_and_without_what_a_log_axis_lacks(written):
    text = re.search(r'<script type="application/json">(.*?)</script>', written[1]).group(1)
    chart = json.loads(text)
    assert chart["names"] == [EVIL, "b"]
    assert chart["columns"] == [[1, 2], [1.0, 0.1], [None, 5.0]]
    assert chart["log"] == [False, True]
    assert chart["marked"] == [None, 2.0]


def test_the_markdown_refers_to_pictures_beside_it(written):
    folder, _, text = written
    names = re.findall(r"!\[[^]]+\]\((report_files/[^)]+)\)", text)
    assert len(names) == 3
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in names)
    assert "| A | **1.00** (0.90–1.10) |" in text
    assert text.index("*Scale smoke*") < text.index("| A |")
    assert "<script" not in text.partition("\n")[2]
    assert "## Second" in text
    assert "### Deeper" in text


def test_a_second_report_leaves_no_stale_picture(tmp_path):
    write_report(sections(), tmp_path, title="t")
    (tmp_path / "report_files" / "mine.png").write_text("mine")
    write_report(sections()[:4], tmp_path, title="t")
    assert sorted(path.name for path in (tmp_path / "report_files").iterdir()) == ["mine.png", "picture-01.png"]


def row(folder, scale=Scale.SMOKE, seed=0, system="a", version=3, data="digits"):
    (folder / "c.json").write_text('{"x": [1, 2], "y": [1, 0.5]}')
    source = {"name": data, "checksum": "embedded" if data == "digits" else "00ff"}
    made = {"version": "0.1.0", "data": source, "experiment_version": version, "commit": None, "threads": 2}
    cell, metrics = {"system": system, "size": 1}, {"error_percent": 4.0 + seed}
    return Row("toy2020.table1", scale, seed, cell, metrics, None, 1.5, 2.5, 90.0, {"curve": "c.json"}, made, folder)


def test_rows_of_one_scale_and_data_stand_together(toy, tmp_path):
    """Three groups, three tables, each under how it was made; the stale row is counted and left out."""
    rows = [row(tmp_path, seed=seed) for seed in range(3)]
    rows += [
        row(tmp_path, Scale.LAPTOP, data="blocks"),
        row(tmp_path, Scale.LAPTOP),
        row(tmp_path, system="b", version=2),
    ]
    made = row_sections(rows, lambda name: toy.EXPERIMENT)
    tables = [section for section in made if isinstance(section, Table)]
    assert {table.made for table in tables} == {
        "Scale smoke, data digits, seeds 0 to 2",
        "Scale laptop, data digits, seed 0",
        "Scale laptop, data blocks, seed 0",
    }
    smoke = next(table for table in tables if "smoke" in table.made)
    assert smoke.rows[0][1] == Entry("5.00", "4.00–6.00", True)
    assert smoke.rows[1][1].text == "not run"
    texts = [section.text for section in made if isinstance(section, Text | Command)]
    assert any("1 saved row is left out" in text for text in texts)
    assert sum("--data PATH" in text for text in texts) == 1
    with pytest.raises(InputError, match="at least one saved row"):
        row_sections([], lambda name: toy.EXPERIMENT)


def test_provenance_names_every_value_that_differs(tmp_path):
    one, two = row(tmp_path), row(tmp_path, seed=1)
    two = replace(two, provenance={**two.provenance, "threads": 1})
    pairs = dict(provenance([one, two]).pairs)
    assert pairs["threads"] == "2; 1"
    assert pairs["rows"] == "2, seeds 0, 1"
    assert pairs["time"] == "3.0 s, CPU 5.0 s"
    assert "commit" not in pairs
