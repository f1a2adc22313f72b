"""Saved rows as a table beside the published numbers: the mean over seeds, and the smallest and largest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from triptych.bench.row import Metrics, Row
from triptych.bench.sections import Entry, Table
from triptych.check import InputError

NOT_RUN, NONE = "not run", "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Column:
    """A metric as a column: its key, its title with the unit, the format of its numbers, the word where it is None."""

    key: str
    title: str
    form: str = ".2f"
    missing: str = NONE


@dataclass(frozen=True)
class Line:
    """A line of the table: its label, the cell's fields that choose its rows (None: published alone), published numbers."""

    label: str
    where: Mapping[str, Any] | None = None
    published: Metrics = field(default_factory=dict)


def compare(
    rows: Sequence[Row], lines: Sequence[Line], columns: Sequence[Column], *, title: str = "", note: str = ""
) -> Table:
    """Set the rows of each line beside its published numbers: a column a metric, and one 'published' where there is any.

    A line without rows reads 'not run'. Raises InputError where a line chooses two rows of one seed, which no mean may join.
    """
    chosen = [(line, _chosen(rows, line)) for line in lines]
    known = [{**line.published, **(found[0].published or {} if found else {})} for line, found in chosen]
    beside = [column.key for column in columns if any(numbers.get(column.key) is not None for numbers in known)]
    headers, body = [""], [[Entry(line.label)] for line in lines]
    for column in columns:
        headers.append(column.title)
        for entries, (line, found) in zip(body, chosen):
            entries.append(_measured(line, found, column))
        if column.key in beside:
            headers.append("published" if len(beside) == 1 else f"{column.title}, published")
            for entries, numbers in zip(body, known):
                entries.append(Entry(_number(numbers.get(column.key), column.form)))
    return Table(headers, body, title=title, note=note)


def markdown(table: Table) -> str:
    """Give a table as Markdown, its numbers flush right."""
    rule = ["---:" if numeric else ":---" for numeric in table.numeric]
    body = [[_plain(entry) for entry in row] for row in table.rows]
    lines = [list(table.headers), rule, *body]
    return "\n".join(f"| {' | '.join(_escaped(text) for text in line)} |" for line in lines)


def seeds(rows: Sequence[Row]) -> str:
    """Name the seeds of rows: 'seed 0', 'seeds 0 to 4' or 'seeds 0, 3'."""
    numbers = sorted({row.seed for row in rows})
    if len(numbers) == 1:
        return f"seed {numbers[0]}"
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"seeds {numbers[0]} to {numbers[-1]}"
    return f"seeds {', '.join(map(str, numbers))}"


def _chosen(rows: Sequence[Row], line: Line) -> list[Row]:
    if line.where is None:
        return []
    found = [row for row in rows if all(row.cell.get(name) == value for name, value in line.where.items())]
    if len({row.seed for row in found}) < len(found):
        raise InputError(
            f"the line {line.label!r} must choose one row a seed, got {len(found)} rows; name more of the cell's fields"
        )
    return found


def _measured(line: Line, rows: Sequence[Row], column: Column) -> Entry:
    if not rows:
        return Entry(NOT_RUN if line.where is not None else NONE)
    if not any(column.key in row.metrics for row in rows):
        return Entry(NONE)
    values = [value for row in rows if (value := row.metrics.get(column.key)) is not None]
    if not values:
        return Entry(column.missing)
    if len(values) < len(rows):
        return Entry(
            _number(fmean(values), column.form), f"{column.missing} in {len(rows) - len(values)} of {len(rows)}", True
        )
    low, high = _number(min(values), column.form), _number(max(values), column.form)
    return Entry(_number(fmean(values), column.form), f"{low}–{high}" if low != high else "", True)


def _number(value: float | None, form: str) -> str:
    """Format a number; 8.0e-04 is set as 8.0 · 10⁻⁴."""
    if value is None:
        return NONE
    mantissa, exponent, power = format(value, form).partition("e")
    return f"{mantissa} · 10{str(int(power)).translate(_SUPERSCRIPT)}" if exponent else mantissa


def _plain(entry: Entry) -> str:
    text = f"**{entry.text}**" if entry.strong else entry.text
    return f"{text} ({entry.detail})" if entry.detail else text


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
