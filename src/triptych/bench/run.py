"""Run an experiment: cells measured, each in a process of its own, and kept as rows, so that a run goes on where it stopped."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from triptych.bench import side_by_side
from triptych.bench.apart import finished, measure_apart
from triptych.bench.experiment import Experiment, cell_fields, select
from triptych.bench.row import Context, Row, key
from triptych.check import InputError, whole


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
        jobs = {number: (experiment, cells[number], context, paths[number]) for number in left}
        many = side_by_side.here(jobs, workers) if scheduler is None else side_by_side.there(jobs, scheduler, force)
        for number, row in many:
            told(number, row, True)
    return [rows[number] for number in range(len(cells))]


def place(experiment: Experiment, cell: Any, context: Context, out: str | Path) -> Path:
    """Where the row of a cell lies."""
    name = key(experiment.name, experiment.version, cell_fields(cell), context)
    return Path(out) / experiment.name / f"{name}.json"
