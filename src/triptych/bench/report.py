"""Reports: sections as one self-contained HTML file, and as Markdown with its pictures beside it."""

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from triptych.bench import figure
from triptych.bench.experiment import Experiment
from triptych.bench.row import Row
from triptych.bench.sections import Command, Curves, Facts, Gallery, Heading, Picture, Section, Table, Text
from triptych.bench.table import markdown, seeds
from triptych.check import InputError
from triptych.store import write_bytes, write_text_atomic

PICTURES = "report_files"


@dataclass(frozen=True)
class Report:
    """The two files of a report."""

    html: Path
    markdown: Path


def write_report(sections: Sequence[Section], folder: str | Path, *, title: str, subtitle: str = "") -> Report:
    """Write report.html (one file, no request over the network) and report.md (pictures in report_files/) into a folder."""
    folder = Path(folder)
    stills = [figure.curves(section) if isinstance(section, Curves) else b"" for section in sections]
    text, pictures = _markdown(sections, stills, title, subtitle)
    for name, png in pictures.items():
        write_bytes(folder / PICTURES / name, png)
    for stale in set((folder / PICTURES).glob("picture-*.png")) - {folder / PICTURES / name for name in pictures}:
        stale.unlink()
    md = write_text_atomic(folder / "report.md", text)
    return Report(write_text_atomic(folder / "report.html", _html(sections, stills, title, subtitle)), md)


def row_sections(rows: Sequence[Row], find: Callable[[str], Experiment]) -> list[Section]:
    """Let each experiment draw its rows, those of one scale and data together; every table says how it was made.

    Rows that an older version of their experiment made are left out, and a sentence says so. Raises InputError for no rows.
    """
    if not rows:
        raise InputError("a report needs at least one saved row; make some with `triptych run NAME --out DIR`")
    sections: list[Section] = []
    for name, of_experiment in _grouped(rows, lambda row: row.experiment):
        experiment = find(name)
        fresh = [row for row in of_experiment if row.provenance.get("experiment_version") == experiment.version]
        sections += [Heading(name), Text(f"{experiment.shows}\n\n{experiment.paper}")]
        if stale := len(of_experiment) - len(fresh):
            what = "1 saved row is" if stale == 1 else f"{stale} saved rows are"
            sections.append(Text(f"{what} left out, made by another version of the experiment."))
        for _, group in _grouped(fresh, lambda row, read=experiment.data: (row.scale.value, read and _source(row))):
            sections += _drawn(experiment, group)
    return sections


def provenance(rows: Sequence[Row]) -> Facts:
    """Say what rows were made with; where they differ, every value is named."""
    values: dict[str, list[str]] = {}
    for row in rows:
        for name, value in row.provenance.items():
            text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
            if value is not None and text not in values.setdefault(name.replace("_", " "), []):
                values[name.replace("_", " ")].append(text)
    pairs = [(name, "; ".join(texts)) for name, texts in values.items() if texts]
    time = f"{sum(row.seconds for row in rows):.1f} s, CPU {sum(row.cpu_seconds for row in rows):.1f} s"
    peak = f"{max(row.peak_rss_mb for row in rows):.0f} MB at most"
    return Facts([("rows", f"{len(rows)}, {seeds(rows)}"), ("time", time), ("peak memory", peak), *pairs])


def _drawn(experiment: Experiment, rows: Sequence[Row]) -> list[Section]:
    first = rows[0]
    data = "" if experiment.data is None else f"data {first.data}, "
    made = f"Scale {first.scale.value}, {data}{seeds(rows)}"
    drawn = [replace(s, made=made) if isinstance(s, Table) else s for s in experiment.render(rows)]
    again = f"triptych run {experiment.name} --scale {first.scale.value} --seed {first.seed} --out DIR"
    if experiment.data is not None and first.provenance.get("data", {}).get("checksum") != "embedded":
        again += " --data PATH"
    return [Text(f"{made}."), *drawn, Heading("How it was made", 3), Command(again), provenance(rows)]


def _source(row: Row) -> str:
    return str(row.provenance.get("data"))


def _grouped(rows: Iterable[Row], by: Callable[[Row], Any]) -> list[tuple[Any, list[Row]]]:
    return [(value, list(group)) for value, group in groupby(sorted(rows, key=by), by)]


def _markdown(
    sections: Sequence[Section], stills: Sequence[bytes], title: str, subtitle: str
) -> tuple[str, dict[str, bytes]]:
    """Give the Markdown text and its pictures by their file's name."""
    pictures: dict[str, bytes] = {}

    def placed(png: bytes, alt: str) -> str:
        name = f"picture-{len(pictures) + 1:02d}.png"
        pictures[name] = png
        return f"![{re.sub(r'[][]', '', _text(alt))}]({PICTURES}/{name})"

    parts = [f"# {_text(title)}", _text(subtitle)]
    for section, still in zip(sections, stills):
        match section:
            case Heading(text, level):
                parts.append(f"{'#' * level} {_text(text)}")
            case Text():
                parts += [_text(paragraph) for paragraph in section.paragraphs]
            case Command(text):
                parts.append(f"```\n{text}\n```")
            case Facts(pairs, head):
                parts += [_bold(head), "\n".join(f"- {_text(name)}: {_text(value)}" for name, value in pairs)]
            case Table():
                made = section.made and f"*{_text(section.made)}*"
                parts += [_bold(section.title), made, markdown(section), _text(section.note)]
            case Picture():
                parts += [_bold(section.title), placed(section.png, section.alt), _text(section.caption)]
            case Gallery():
                drawn = placed(figure.gallery(section), section.title or "Pictures") if section.pictures else ""
                parts += [_bold(section.title), drawn, _text(section.caption)]
            case Curves():
                parts += [_bold(section.title), placed(still, section.alt), _text(section.caption)]
    return "\n\n".join(part for part in parts if part) + "\n", pictures


def _text(text: str) -> str:
    """Give a text that Markdown takes for no HTML."""
    return text.replace("<", "&lt;")


def _bold(text: str) -> str:
    return text and f"**{_text(text)}**"


def _html(sections: Sequence[Section], stills: Sequence[bytes], title: str, subtitle: str) -> str:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    home = files("triptych.bench")
    loader = FunctionLoader(lambda name: home.joinpath("templates", name).read_text(encoding="utf-8"))
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["uri"] = lambda png: "data:image/png;base64," + base64.b64encode(png).decode()
    environment.filters["chart"] = _chart
    vendor = {
        name: home.joinpath("vendor", name).read_text(encoding="utf-8")
        for name in ("uPlot.iife.min.js", "uPlot.min.css")
    }
    template = environment.get_template("report.html.jinja")
    drawn = list(zip(sections, stills))
    return template.render(title=title, subtitle=subtitle, drawn=drawn, vendor=vendor, colours=figure.SERIES)


def _chart(section: Curves) -> dict[str, Any]:
    """Give curves as the page's script takes them: one x for all, and for each curve y or None."""
    points = [dict(zip(*figure.plottable(section, series))) for series in section.series]
    x = sorted(set().union(*points))
    return {
        "names": [series.name for series in section.series],
        "marked": [None if series.marked is None else float(series.x[series.marked]) for series in section.series],
        "columns": [x, *([curve.get(value) for value in x] for curve in points)],
        "labels": [section.x_label, section.y_label],
        "log": [section.log_x, section.log_y],
    }
