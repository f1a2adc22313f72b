"""Cells side by side: two at once, errors and Ctrl-C as with one, and a cluster of which a worker is killed."""

import os
import shutil
import signal
import subprocess
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from triptych.bench.experiment import CellFailed, Context
from triptych.bench.row import Source
from triptych.bench.run import run
from triptych.check import InputError
from triptych.cli import main


def only(experiment, *cells):
    return replace(experiment, cells=lambda scale: list(cells))


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc").is_dir():
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return subprocess.run(["ps", "-p", str(pid)], capture_output=True).returncode == 0


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


pytestmark = pytest.mark.xdist_group("side by side")


def test_two_cells_are_measured_at_once_and_rows_are_in_the_order_of_cells(toy, tmp_path, monkeypatch):
    """Each waits for the other, which one at a time would never do."""
    monkeypatch.setenv("TOY_PID", str(tmp_path / "room"))
    experiment, seen = only(toy.EXPERIMENT, toy.Cell("meets", 1), toy.Cell("meets", 2)), []
    rows = run(experiment, Context(), tmp_path / "out", workers=2, on_row=lambda row, fresh: seen.append(fresh))
    assert [row.cell["size"] for row in rows] == [1, 2]
    assert len({row.metrics["pid"] for row in rows} | {os.getpid()}) == 3
    assert seen == [True, True]
    again = run(experiment, Context(), tmp_path / "out", workers=2, on_row=lambda row, fresh: seen.append(fresh))
    assert again == rows
    assert seen[2:] == [False, False]


def test_each_has_its_share_of_the_cores(toy, tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    many = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    experiment = only(toy.EXPERIMENT, toy.Cell("a"), toy.Cell("b"))
    rows = run(experiment, Context(), tmp_path / "out", workers=2 * many)
    assert {row.provenance["threads"] for row in rows} == {1}


def test_rows_are_those_of_one_at_a_time(toy, tmp_path):
    experiment = only(toy.EXPERIMENT, toy.Cell("a"), toy.Cell("b"))
    one, many = (run(experiment, Context(), tmp_path / str(n), workers=n) for n in (1, 2))
    assert [(row.cell, row.metrics["error_percent"]) for row in one] == [
        (row.cell, row.metrics["error_percent"]) for row in many
    ]
    assert {path.split("/")[-1] for path in files(tmp_path / "1")} == {
        path.split("/")[-1] for path in files(tmp_path / "2")
    }


def test_an_error_ends_the_others_and_keeps_what_is_finished(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_PID", str(tmp_path / "pid"))
    experiment = only(toy.EXPERIMENT, toy.Cell("sleeps"), toy.Cell("a"), toy.Cell("fails"), toy.Cell("b"))
    with pytest.raises(CellFailed, match="the sky fell"):
        run(experiment, Context(), tmp_path / "out", workers=2)
    wait_for(lambda: not alive(int((tmp_path / "pid").read_text())))
    rows = run(only(toy.EXPERIMENT, toy.Cell("a")), Context(), tmp_path / "out", on_row=lambda row, fresh: fresh)
    assert len(files(tmp_path / "out")) == 3
    assert rows[0].cell["system"] == "a"
    assert not list((tmp_path / "out").rglob(".*"))


def test_ctrl_c_ends_all_children(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_PID", str(tmp_path / "pid"))

    def press() -> None:
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run(only(toy.EXPERIMENT, toy.Cell("sleeps", 1), toy.Cell("sleeps", 2)), Context(), tmp_path / "out", workers=2)
    wait_for(lambda: not alive(int((tmp_path / "pid").read_text())))
    assert not list((tmp_path / "out").rglob("*.part"))


@pytest.fixture(scope="module")
def cluster():
    """A scheduler and two workers on this machine."""
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0", silence_logs=50
        ) as cluster:
            yield cluster


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_measures_the_cells_and_a_killed_workers_cell_is_done_by_another(toy, tmp_path, monkeypatch, cluster):
    os.environ["TOY_PID"] = str(tmp_path / "pid")
    path = os.path.dirname(toy.__file__)
    with cluster.get_client() as client:
        client.run(_prepared, path, str(tmp_path / "pid"))
        workers = client.run(os.getpid)
    experiment = replace(toy.EXPERIMENT, cells=toy.twice)

    def kill() -> None:
        place = tmp_path / "pid"
        wait_for(lambda: place.exists() and place.read_text().endswith("\n"))
        os.kill(int(place.read_text().split()[1]), signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    rows = run(experiment, Context(), tmp_path / "out", scheduler=cluster.scheduler_address)
    thread.join()
    first, worker = map(int, (tmp_path / "pid").read_text().split())
    assert worker in workers.values()
    assert [row.cell["system"] for row in rows] == ["a", "twice", "b"]
    assert first not in {row.metrics["pid"] for row in rows}
    assert not alive(first)
    assert not list((tmp_path / "out").rglob("*.part"))
    assert run(experiment, Context(), tmp_path / "out") == rows
    del os.environ["TOY_PID"]


def _prepared(path, pid):
    import os
    import sys

    sys.path.insert(0, path)
    os.environ["TOY_PID"] = pid


def test_a_scheduler_that_is_not_there_is_refused(tmp_path, capsys):
    words = ["run", "gulrajani2017.toy", "--out", str(tmp_path / "out"), "--scheduler"]
    assert main([*words, "nonsense"]) == 2
    assert "scheduler must be the address of a Dask scheduler" in capsys.readouterr().err


def test_workers_must_be_at_least_one(toy, tmp_path):
    with pytest.raises(InputError, match="workers must be a whole number of at least 1, got 0"):
        run(toy.EXPERIMENT, Context(), tmp_path / "out", workers=0)


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_measures_again_what_is_forced(toy, tmp_path, cluster):
    with cluster.get_client() as client:
        client.run(_prepared, os.path.dirname(toy.__file__), str(tmp_path / "pid"))
    experiment, address = only(toy.EXPERIMENT, toy.Cell("a"), toy.Cell("b")), cluster.scheduler_address
    first = run(experiment, Context(), tmp_path / "out", scheduler=address)
    forced = run(experiment, Context(), tmp_path / "out", scheduler=address, force=True)
    assert not {row.metrics["pid"] for row in first} & {row.metrics["pid"] for row in forced}
    assert run(experiment, Context(), tmp_path / "out", scheduler=address) == forced


@pytest.mark.filterwarnings("ignore")
def test_ctrl_c_ends_the_cells_on_the_workers(toy, tmp_path, cluster):
    place = tmp_path / "pid"
    with cluster.get_client() as client:
        client.run(_prepared, os.path.dirname(toy.__file__), str(place))

    def press() -> None:
        wait_for(lambda: place.exists() and place.read_text().endswith("\n"))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run(only(toy.EXPERIMENT, toy.Cell("sleeps")), Context(), tmp_path / "out", scheduler=cluster.scheduler_address)
    wait_for(lambda: not alive(int(place.read_text())), 15)
    wait_for(lambda: not list((tmp_path / "out").rglob("*.part")))
    assert not files(tmp_path)[1:]


@pytest.mark.filterwarnings("ignore")
def test_workers_see_the_data_of_a_relative_path_and_refuse_others(toy, tmp_path, monkeypatch, cluster):
    (tmp_path / "blocks").mkdir()
    (tmp_path / "blocks" / "a").write_text("a")
    with cluster.get_client() as client:
        client.run(_prepared, os.path.dirname(toy.__file__), str(tmp_path / "pid"))
    monkeypatch.chdir(tmp_path)  # where no worker is
    source, address = Source.of("blocks"), cluster.scheduler_address
    assert source.path == tmp_path / "blocks"
    experiment = only(toy.EXPERIMENT, toy.Cell("a"))
    assert len(run(experiment, Context(data=source), Path("out"), scheduler=address)) == 1
    for place, words in ((source.path, "sees others"), (tmp_path / "gone", "sees none")):
        other = replace(source, checksum="0" * 16, path=place)
        with pytest.raises(InputError, match=f"must see the data under {place} as they are here, .* {words}"):
            run(experiment, Context(data=other), tmp_path / "more", scheduler=address)
    assert not (tmp_path / "more").exists() or not files(tmp_path / "more")
    shutil.copytree(source.path, tmp_path / "gone")  # as the message says
    there = replace(source, path=tmp_path / "gone")
    assert len(run(experiment, Context(data=there), tmp_path / "more", scheduler=address)) == 1
