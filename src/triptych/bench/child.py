"""The process in which one cell is measured, so that its peak memory and its CPU time are its own.

``python -m triptych.bench.child FOLDER`` reads FOLDER/job.json, and leaves result.json and the artefacts, or error.json.
"""

import os
import sys
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from triptych.bench import machine
from triptych.bench.row import Context, Scale, Source, checked_metrics, write_artefact
from triptych.check import InputError, NotConverged, wrong
from triptych.store import read_json, write_json

JOB, RESULT, ERROR = "job.json", "result.json", "error.json"


def main(folder: Path) -> int:
    """Measure the cell that the folder's job names; an exception becomes error.json and status 1."""
    try:
        write_json(folder / RESULT, _measure(folder, read_json(folder / JOB)))
    except Exception as error:
        known = next(
            (kind.__name__ for kind in (InputError, NotConverged) if isinstance(error, kind)), type(error).__name__
        )
        text = {"type": known, "message": str(error), "traceback": traceback.format_exc()}
        write_json(folder / ERROR, text)
        return 1
    return 0


def described(context: Context) -> dict[str, Any]:
    """Give a context as a JSON object, for the job."""
    path = context.data.path
    data = {
        "name": context.data.name,
        "checksum": context.data.checksum,
        "path": None if path is None else str(path.resolve()),
    }
    return {"scale": context.scale.value, "seed": context.seed, "data": data, "device": context.device}


def _context(value: dict[str, Any]) -> Context:
    data = value["data"]
    path = None if data["path"] is None else Path(data["path"])
    source = Source(data["name"], data["checksum"], path)
    return Context(Scale(value["scale"]), value["seed"], source, value["device"])


def _measure(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    context = _context(job["context"])
    measure, cell = _named(job["measure"]), _named(job["cell"])(**job["fields"])
    cpu, start = machine.cpu_seconds(), time.perf_counter()
    measured = measure(cell, context)
    seconds, cpu, peak = time.perf_counter() - start, machine.cpu_seconds() - cpu, machine.peak_rss_mb()
    if not isinstance(measured, tuple) or len(measured) != 2:
        raise wrong("what measure returns", "a pair (metrics, artefacts)", measured)
    metrics, artefacts = measured
    files = {name: write_artefact(folder, name, value) for name, value in artefacts.items()}
    return {
        "metrics": checked_metrics(metrics),
        "artefacts": files,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_rss_mb": peak,
        "provenance": machine.provenance(context.device),
    }


def _named(address: list[str]) -> Any:
    module, name = address
    return getattr(import_module(module), name)


def _end_with_parent() -> None:
    """End when the parent does: it holds the other end of standard input and never writes."""
    os.read(0, 1)  # unbuffered: a thread that waits in sys.stdin would make Python abort at its end
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(main(Path(sys.argv[1])))
