"""Cells of an experiment side by side: on this machine, or on the machines of a Dask cluster that share a folder."""

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from triptych.bench import apart
from triptych.bench.experiment import CellFailed, Experiment
from triptych.bench.row import Context, Row, Source
from triptych.check import InputError

Job = tuple[Experiment, Any, Context, Path]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def here(jobs: Mapping[int, Job], workers: int) -> Iterator[tuple[int, Row]]:
    """Rows as they come, ``workers`` cells at a time, each with its share of the cores unless the environment says otherwise.

    After an error, and where whoever iterates stops, cells that are being measured are ended and no other is begun.
    """
    share = str(max(1, (os.cpu_count() or 1) // workers))
    environment = {name: share for name in THREADS if name not in os.environ}
    with ThreadPoolExecutor(workers) as pool:
        left = {pool.submit(apart.measure_apart, *job, environment): number for number, job in jobs.items()}
        try:
            while left:
                for done in wait(left, return_when=FIRST_COMPLETED).done:
                    yield left.pop(done), done.result()
        finally:
            _stop(left)


def _stop(left: Mapping[Future, int]) -> None:
    """Begin no other cell, and end those that have begun."""
    for future in left:
        future.cancel()
    while not all(future.done() for future in left):
        for process in list(apart.running):
            apart.end(process)
        wait(left, timeout=0.1)


def there(jobs: Mapping[int, Job], address: str, force: bool = False) -> Iterator[tuple[int, Row]]:
    """Rows as they come, measured by the workers of the Dask scheduler at an address; a worker that dies has its cell done by another.

    Every worker must see the data and the folder of the rows under the same paths. Raises InputError where Dask is not installed or there is
    no scheduler; CellFailed where a cell ended several workers.
    """
    with _client(address) as client:
        from distributed import as_completed
        from distributed.scheduler import KilledWorker

        futures = {
            client.submit(_measured, one, cell, context, str(path.absolute()), force, pure=False): number
            for number, (one, cell, context, path) in jobs.items()
        }
        try:
            for done in as_completed(list(futures), loop=client.loop):
                try:
                    yield futures[done], done.result()
                except KilledWorker as error:
                    what = jobs[futures[done]][0].name
                    raise CellFailed(
                        f"{what}: the workers that measured a cell ended, one after another ({error})"
                    ) from error
        finally:
            client.cancel(list(futures))  # which ends the cells, see _wanted
            for *_, path in jobs.values():  # what a worker left that was killed
                for work in path.parent.glob(f".{path.stem}.*.part"):
                    shutil.rmtree(work, ignore_errors=True)


def _measured(experiment: Experiment, cell: Any, context: Context, path: str, force: bool) -> Row:
    """What a worker does: a row that another worker left before it died is taken as it is, unless all are to be measured again.

    Raises InputError where this worker sees other data than the one who asks.
    """
    place = Path(path)
    if (row := None if force else apart.finished(place)) is not None:
        return row
    if context.data.path is not None and (seen := _seen(context.data.path)) != context.data.checksum:
        raise InputError(
            f"the workers must see the data under {context.data.path} as they are here, but one of them, on {platform.node()}, sees "
            f"{'none' if seen is None else 'others'}; share the folder, and name it as the workers do"
        )
    return apart.measure_apart(experiment, cell, context, place, wanted=_wanted())


def _seen(path: Path) -> str | None:
    """The checksum of the data at a path; None where there are none."""
    return Source.of(path).checksum if path.exists() else None


def _wanted() -> Callable[[], bool]:
    """Whether somebody still waits for the task that this thread runs: it is not cancelled, and whoever asked has not gone.

    A task that runs cannot be stopped by Dask; but its worker knows that it was let go.
    """
    from distributed import get_worker

    worker: Any = get_worker()
    key = worker.get_current_task()

    def asked() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state not in ("cancelled", "released", "forgotten")

    return asked


@contextmanager
def _client(address: str) -> Iterator[Any]:
    """A client of a scheduler."""
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            "distributed must be installed for --scheduler; run: pip install 'triptych[cluster]'"
        ) from None
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"scheduler must be the address of a Dask scheduler, such as tcp://127.0.0.1:8786, got {address!r} ({error})"
        ) from None
    try:
        yield client
    finally:
        client.close()
