"""Experiments: cells, each measured in a process of its own and kept as a row, so that a run goes on where it stopped."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.bench.child import ERROR, JOB, RESULT, described
from triptych.bench.row import Context, Metrics, Row, Scale, Source, key, read_row, write_row
from triptych.check import InputError, NotConverged, choice, nearest, whole, wrong
from triptych.store import read_json, write_json

if TYPE_CHECKING:
    from triptych.bench.sections import Section

__all__ = ["CellFailed", "Context", "Experiment", "Row", "Scale", "Source", "cell_fields", "run", "select"]

Measure = Callable[[Any, Context], tuple[Metrics, Mapping[str, Any]]]


class CellFailed(RuntimeError):
    """The process of a cell ended without a result; ``text`` is its traceback, or empty where it was ended from outside."""

    def __init__(self, message: str, text: str = ""):
        super().__init__(message)
        self.text = text


def no_numbers(cell: Any) -> Metrics | None:
    """The published numbers of a cell where the paper gives none."""
    del cell


@dataclass(frozen=True)
class Experiment:
    """A table or figure of a paper. Raises InputError where ``measure`` is no function at the top of a module.

    ``cells(scale)`` lists frozen dataclasses of str, int, float, bool or None; ``measure(cell, context)`` returns numbers
    and artefacts (dicts of tensors, or values that JSON can hold); ``render(rows)`` draws saved rows of one scale and data.
    ``version`` is raised whenever measure changes what it means, so that older rows are not taken for fresh ones.
    ``data`` names the set that the paper has, None where measure makes its own points or images and reads no other.
    """

    name: str
    paper: str
    shows: str
    version: int
    cells: Callable[[Scale], Sequence[Any]]
    measure: Measure
    render: Callable[[Sequence[Row]], "Sequence[Section]"]
    published: Callable[[Any], Metrics | None] = no_numbers
    data: str | None = "digits"

    def __post_init__(self) -> None:
        whole("version", self.version)
        if not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", self.name):
            raise wrong("name", "lower-case words joined by dots", self.name)
        _address("measure", self.measure)


def cell_fields(cell: Any) -> dict[str, Any]:
    """Give a cell as a flat JSON object. Raises InputError where it is no dataclass of plain values."""
    if not is_dataclass(cell) or isinstance(cell, type):
        raise wrong("cell", "a dataclass", cell)
    values = asdict(cell)
    for name, value in values.items():
        if not isinstance(value, str | int | float | None):
            raise wrong(f"cell.{name}", "a str, int, float, bool or None", value)
    return values


def select(experiment: Experiment, scale: Scale, where: Iterable[str] = ()) -> list[Any]:
    """List the cells with ``field=value`` for every field named; values of one field are alternatives.

    Raises InputError for an unknown field or value, with the known ones.
    """
    cells = list(experiment.cells(scale))
    wanted: dict[str, set[str]] = {}
    for condition in where:
        name, equals, value = condition.partition("=")
        if not equals:
            raise wrong("where", "field=value", condition)
        known = [field.name for field in fields(cells[0])] if cells else []
        choice(f"where: the field of {experiment.name}", name, known)
        values = sorted({str(getattr(cell, name)) for cell in cells})
        if value not in values:
            raise InputError(f"where: {name} must be one of {', '.join(values)}, got {value!r}{nearest(value, values)}")
        wanted.setdefault(name, set()).add(value)
    chosen = [cell for cell in cells if all(str(getattr(cell, name)) in values for name, values in wanted.items())]
    if not chosen:
        raise InputError(f"where: no cell of {experiment.name} at scale {scale.value} has {' and '.join(where)}")
    return chosen


def run(
    experiment: Experiment,
    context: Context,
    out: str | Path,
    *,
    where: Sequence[str] = (),
    force: bool = False,
    on_row: Callable[[Row, bool], None] | None = None,
    workers: int = 1,
    scheduler: str | None = None,
) -> list[Row]:
    """Measure the cells that ``out`` does not hold yet, each in a process of its own, and return the rows of all.

    ``on_row(row, fresh)`` is called after each. Rows lie in out/<experiment>/<key>.json. ``workers`` cells are measured side by side;
    with ``scheduler``, the address of a Dask scheduler, on the machines of its workers, which share the folder. Raises InputError or
    NotConverged as the cell does, CellFailed where it fails otherwise; rows that are finished stay, also on KeyboardInterrupt.
    """
    whole("seed", context.seed, low=0)
    whole("workers", workers)
    if Path(out).exists() and not Path(out).is_dir():
        raise InputError(f"out must be a folder, but {out} is a file")
    cells = select(experiment, context.scale, where)
    paths = [place(experiment, cell, context, out) for cell in cells]
    rows: dict[int, Row] = {}

    def told(number: int, row: Row, fresh: bool) -> None:
        rows[number] = row
        if on_row is not None:
            on_row(row, fresh)

    left = []
    for number, path in enumerate(paths):
        row = None if force else finished(path)
        if row is not None:
            told(number, row, False)
        elif workers == 1 and scheduler is None:
            told(number, measure_apart(experiment, cells[number], context, path), True)
        else:
            left.append(number)
    if left:
        from triptych.bench import side_by_side

        jobs = {number: (experiment, cells[number], context, paths[number]) for number in left}
        many = side_by_side.here(jobs, workers) if scheduler is None else side_by_side.there(jobs, scheduler)
        for number, row in many:
            told(number, row, True)
    return [rows[number] for number in range(len(cells))]


def place(experiment: Experiment, cell: Any, context: Context, out: str | Path) -> Path:
    """Where the row of a cell lies."""
    name = key(experiment.name, experiment.version, cell_fields(cell), context)
    return Path(out) / experiment.name / f"{name}.json"


def finished(path: Path) -> Row | None:
    """Read the row that is there with all its artefacts; None where it is to be measured."""
    if not path.exists():
        return None
    row = read_row(path)
    return row if all((path.parent / name).is_file() for name in row.artefacts.values()) else None


def measure_apart(
    experiment: Experiment, cell: Any, context: Context, path: Path, environment: Mapping[str, str] | None = None
) -> Row:
    """Measure one cell in a process of its own, with some more in its environment, and write its row."""
    job = {
        "measure": _address("measure", experiment.measure),
        "cell": _address("cell", type(cell)),
        "fields": cell_fields(cell),
        "context": described(context),
    }
    with _work_folder(path) as work:
        write_json(work / JOB, job)
        status = _process(work, environment or {})
        if status or not (work / RESULT).is_file():
            raise _failure(f"{experiment.name} ({_shown(job['fields'])})", work, status)
        result = read_json(work / RESULT)
        artefacts = {name: f"{path.stem}.{file}" for name, file in result["artefacts"].items()}
        for name, file in result["artefacts"].items():
            (work / file).replace(path.parent / artefacts[name])
        row = _row(experiment, cell, context, path.parent, {**result, "artefacts": artefacts})
        write_row(path, row)  # last, so that a row has all its artefacts
    return row


def _row(experiment: Experiment, cell: Any, context: Context, folder: Path, result: Mapping[str, Any]) -> Row:
    source = {"name": context.data.name, "checksum": context.data.checksum}
    read = {} if experiment.data is None else {"data": source}
    published = experiment.published(cell)
    return Row(
        experiment=experiment.name,
        scale=context.scale,
        seed=context.seed,
        cell=cell_fields(cell),
        metrics=result["metrics"],
        published=None if published is None else dict(published),
        seconds=result["seconds"],
        cpu_seconds=result["cpu_seconds"],
        peak_rss_mb=result["peak_rss_mb"],
        artefacts=result["artefacts"],
        provenance={**result["provenance"], **read, "experiment_version": experiment.version},
        folder=folder,
    )


@contextmanager
def _work_folder(path: Path) -> Iterator[Path]:
    """Make a folder beside the row's place, and remove it afterwards with the parents that it left empty."""
    missing = [folder for folder in (path.parent, path.parent.parent) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.parent / f".{path.stem}.{secrets.token_hex(4)}.part"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def _process(work: Path, more: Mapping[str, str]) -> int:
    """Run the child in a session of its own: Ctrl-C reaches the parent alone, which then ends the child and its children."""
    command = [sys.executable, "-P", "-m", "triptych.bench.child", str(work.resolve())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # its end tells the child that this process has gone
        stdout=2,  # standard output belongs to the command's own answer
        env=environment,
        start_new_session=True,
    )
    running.add(process)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            end(process)
        running.discard(process)
        if process.stdin:
            process.stdin.close()


running: set[subprocess.Popen] = set()
"""The processes of cells that are being measured."""


def end(process: subprocess.Popen) -> None:
    """End a process of a cell, and its children."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _failure(what: str, work: Path, status: int) -> Exception:
    if not (work / ERROR).is_file():
        how = (
            f"was ended by signal {-status}{' (out of memory?)' if status == -9 else ''}"
            if status < 0
            else f"ended with status {status}"
        )
        return CellFailed(f"{what}: its process {how} and left no result")
    error = read_json(work / ERROR)
    if error["type"] in ("InputError", "NotConverged"):
        return (InputError if error["type"] == "InputError" else NotConverged)(error["message"])
    return CellFailed(f"{what} failed: {error['type']}: {error['message']}", error["traceback"])


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _address(name: str, thing: Any) -> list[str]:
    """Name a function or class so that another process can import it."""
    module, path = getattr(thing, "__module__", ""), getattr(thing, "__qualname__", "<none>")
    if not module or module == "__main__" or not path.isidentifier():
        raise wrong(name, "at the top of a module that can be imported", thing)
    return [module, path]
