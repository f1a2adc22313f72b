"""An experiment for the tests, in a module of its own: another process imports it by its name."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triptych.bench.experiment import Experiment, Scale
from triptych.bench.sections import Curves, Series
from triptych.bench.table import Column, Line, compare
from triptych.check import InputError, NotConverged


@dataclass(frozen=True)
class Cell:
    system: str
    size: int = 1


def cells(scale):
    systems = ("a", "b") if scale is Scale.SMOKE else ("a", "b", "c")
    return [Cell(system, size) for system in systems for size in (1, 2)]


def twice(scale):
    return [Cell("a"), Cell("twice"), Cell("b")]


def meet(size):
    """Wait until the other cell is being measured as well."""
    room = Path(os.environ["TOY_PID"])
    room.mkdir(exist_ok=True)
    (room / str(size)).touch()
    end = time.monotonic() + 30
    while not (room / str(3 - size)).exists():
        if time.monotonic() > end:
            raise RuntimeError("nobody came")
        time.sleep(0.02)


def measure(cell, context):
    if cell.system == "fails":
        raise RuntimeError("the sky fell")
    if cell.system == "refuses":
        raise InputError("size must be odd")
    if cell.system == "stops":
        raise NotConverged("the gap is still 0.2")
    if cell.system == "dies":
        os.kill(os.getpid(), 9)
    if cell.system == "sleeps":
        Path(os.environ["TOY_PID"]).write_text(f"{os.getpid()}\n")
        time.sleep(60)
    if cell.system == "meets":
        meet(cell.size)
    if cell.system == "twice" and not (place := Path(os.environ["TOY_PID"])).exists():
        place.write_text(f"{os.getpid()} {os.getppid()}\n")
        time.sleep(60)
    if cell.system == "nan":
        return {"error_percent": float("nan")}, {}
    if cell.system == "alone":
        return {"error_percent": 1.0}
    block = np.ones(cell.size * 25_000_000 if cell.system == "fat" else 1)  # 200 MB a size
    metrics = {"error_percent": 10.0 * cell.size + context.seed, "pid": np.int64(os.getpid()), "rank": None}
    return metrics, {"curve": {"x": [1, 2], "y": [block.sum(), 0.5]}, "filters": {"w": np.arange(6.0).reshape(2, 3)}}


def published(cell):
    return {"error_percent": 7.5} if cell.system == "a" else None


def render(rows):
    lines = [Line(f"system {name}", {"system": name, "size": 1}) for name in ("a", "b", "c")]
    curve = rows[0].artefact("curve")
    return [
        compare(rows, lines, [Column("error_percent", "error, %")], title="Errors"),
        Curves([Series("a", curve["x"], curve["y"])], "Falling", "step", "loss"),
    ]


EXPERIMENT = Experiment(
    name="toy2020.table1",
    paper="Toy, Journal of Toys 2020",
    shows="Errors of toys",
    version=3,
    cells=cells,
    measure=measure,
    render=render,
    published=published,
    data="blocks",
)
