"""One cell measured in a process of its own, so that its memory is its own, and its row written when it has all its artefacts."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from triptych.bench.child import ERROR, JOB, RESULT, described
from triptych.bench.experiment import CellFailed, Experiment, address, cell_fields
from triptych.bench.row import Context, Row, read_row, write_row
from triptych.check import InputError, NotConverged
from triptych.store import read_json, write_json

ASKED = 1.0  # seconds


def finished(path: Path) -> Row | None:
    """Read the row that is there with all its artefacts; None where it is to be measured."""
    if not path.exists():
        return None
    row = read_row(path)
    return row if all((path.parent / name).is_file() for name in row.artefacts.values()) else None


def measure_apart(
    experiment: Experiment,
    cell: Any,
    context: Context,
    path: Path,
    environment: Mapping[str, str] | None = None,
    wanted: Callable[[], bool] | None = None,
) -> Row:
    """Measure one cell in a process of its own, with some more in its environment, and write its row.

    The process is ended, and CellFailed raised, once ``wanted``, asked about every second, says that nobody waits for it.
    """
    job = {
        "measure": address("measure", experiment.measure),
        "cell": address("cell", type(cell)),
        "fields": cell_fields(cell),
        "context": described(context),
    }
    with _work_folder(path) as work:
        write_json(work / JOB, job)
        status = _process(work, environment or {}, wanted)
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


def _process(work: Path, more: Mapping[str, str], wanted: Callable[[], bool] | None = None) -> int:
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
        while wanted is None or wanted():
            with suppress(subprocess.TimeoutExpired):
                return process.wait(ASKED if wanted else None)
        raise CellFailed("a cell was ended, as nobody waits for its row any more")
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
        with suppress(ProcessLookupError):  # it may have ended by itself
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
