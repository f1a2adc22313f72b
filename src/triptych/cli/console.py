"""What a command says: tables and progress bars on a terminal, plain text in a pipe, one JSON object with --json."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

from cyclopts import CoercionError, Parameter, Token

Json = Annotated[
    bool,
    Parameter(
        name="--json", negative="", show_default=False, help="Print one JSON object on stdout, all else on stderr."
    ),
]


def _whole(_: type, tokens: Sequence[Token]) -> int:
    """A whole number from its digits; cyclopts itself would round 1.5."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise CoercionError(
            token=tokens[0], target_type=int, msg=f'unable to convert "{tokens[0].value}" into a whole number'
        ) from None


Whole = Annotated[int, Parameter(converter=_whole)]


class Progress:
    """How far a loop is; ``advance`` counts, and ``describe`` says what it is at."""

    def __init__(self, description: str, total: float | None) -> None:
        self.description, self.total, self.done = description, total, 0.0

    def advance(self, amount: float = 1) -> None:
        """Count what has been done since the last call."""
        self.done += amount

    def describe(self, description: str) -> None:
        """Say what the loop is at."""
        self.description = description


@dataclass(frozen=True)
class Console:
    """One command's voice; with ``json`` everything but the last word goes to standard error."""

    json: bool = False

    @property
    def stream(self) -> TextIO:
        """Where a human reads."""
        return sys.stderr if self.json else sys.stdout

    def say(self, text: str) -> None:
        """Print a line for a human."""
        print(text, file=self.stream, flush=True)

    def warn(self, text: str) -> None:
        """Print a line on standard error."""
        print(f"triptych: {text}", file=sys.stderr, flush=True)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
        """Print a table: ruled on a terminal, in aligned columns elsewhere."""
        texts = [[str(value) for value in row] for row in rows]
        if not self.stream.isatty():
            self.say("\n".join(([title] if title else []) + _aligned(headers, texts)))
            return
        from rich.console import Console as Terminal
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=Text(title) if title else None, title_justify="left", title_style="bold", header_style="bold"
        )
        for index, header in enumerate(headers):
            numeric = index > 0 and all(_numeric(row[index]) for row in texts)
            table.add_column(Text(header), justify="right" if numeric else "left", overflow="fold")
        for row in texts:
            table.add_row(*map(Text, row))
        Terminal(file=self.stream).print(table)

    @contextmanager
    def progress(self, description: str, total: float | None = None) -> Iterator[Progress]:
        """Show a bar on standard error while the block runs; where that is no terminal, one line when it has ended."""
        if sys.stderr.isatty():
            with _bar(description, total) as shown:
                yield shown
            return
        shown, start = Progress(description, total), time.perf_counter()
        yield shown
        count = "" if total is None else f"{shown.done:g} of {total:g}, "
        print(f"{shown.description}: {count}{time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)

    def finish(self, data: Mapping[str, Any], text: str = "") -> None:
        """Say the last word: with ``json`` the data as one object on standard output, else the text."""
        if self.json:
            print(json.dumps(data, ensure_ascii=False, allow_nan=False, default=_jsonable), flush=True)
        elif text:
            self.say(text)


def console(json: bool = False) -> Console:
    """Give a command its console."""
    return Console(json)


@contextmanager
def _bar(description: str, total: float | None) -> Iterator[Progress]:
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = [TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    # A piped standard output must stay where it is; one on the terminal is drawn above the bar.
    bars = Bars(*columns, console=Terminal(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
    with bars:
        task = bars.add_task(description, total=total)

        class Drawn(Progress):
            """A progress that moves the bar."""

            def advance(self, amount: float = 1) -> None:
                super().advance(amount)
                bars.advance(task, amount)

            def describe(self, description: str) -> None:
                super().describe(description)
                bars.update(task, description=description)

        yield Drawn(description, total)


def _aligned(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [list(headers), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    right = [i > 0 and bool(rows) and all(_numeric(row[i]) for row in rows) for i in range(len(headers))]
    cells = ([c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right)] for line in lines)
    return ["  ".join(line).rstrip() for line in cells]


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("", "–")
    return True


def _jsonable(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # a NumPy or torch value
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
