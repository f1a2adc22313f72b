import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from triptych.bench.experiment import CellFailed, Context, Experiment, Scale, Source, cell_fields, select
from triptych.bench.run import run
from triptych.check import InputError, NotConverged


def only(experiment, *cells):
    return replace(experiment, cells=lambda scale: list(cells))


def files(folder: Path):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc").is_dir():
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return subprocess.run(["ps", "-p", str(pid)], capture_output=True).returncode == 0


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_rows_are_measured_apart_kept_and_read_back(toy, tmp_path):
    """Two cells: two other processes; the peak is the cell's own; the second run measures nothing; --force measures."""
    ballast = np.ones(50_000_000)  # 400 MB in this process, which are none of the child's
    experiment = only(toy.EXPERIMENT, toy.Cell("a"), toy.Cell("fat"))
    seen = []
    rows = run(
        experiment, Context(seed=2), tmp_path, on_row=lambda row, fresh: seen.append((row.cell["system"], fresh))
    )
    pids = [row.metrics["pid"] for row in rows]
    assert len({os.getpid(), *pids}) == 3
    assert ballast[-1] == 1
    assert rows[0].peak_rss_mb < 150
    assert 190 < rows[1].peak_rss_mb - rows[0].peak_rss_mb < 210
    assert rows[1].cpu_seconds > 0
    assert 0 < rows[1].seconds < 30
    assert [row.metrics["error_percent"] for row in rows] == [12.0, 12.0]
    assert [row.published for row in rows] == [{"error_percent": 7.5}, None]
    assert rows[0].metrics["rank"] is None
    assert rows[0].artefact("curve") == {"x": [1, 2], "y": [1.0, 0.5]}
    np.testing.assert_array_equal(rows[0].artefact("filters")["w"].numpy(), np.arange(6.0).reshape(2, 3))
    assert rows[0].provenance["data"] == {"name": "digits", "checksum": "embedded"}
    assert rows[0].provenance["experiment_version"] == 3
    assert {"version", "commit", "device", "cpu", "threads", "python", "libraries", "platform"} <= set(
        rows[0].provenance
    )
    assert len(files(tmp_path)) == 6  # two rows with two artefacts each, nothing left over

    again = run(
        experiment, Context(seed=2), tmp_path, on_row=lambda row, fresh: seen.append((row.cell["system"], fresh))
    )
    assert again == rows
    assert seen == [("a", True), ("fat", True), ("a", False), ("fat", False)]

    (tmp_path / "toy2020.table1" / rows[0].artefacts["curve"]).unlink()  # a row without its artefact is no row
    third = run(experiment, Context(seed=2), tmp_path, where=["system=a"])
    assert third[0].metrics["pid"] not in pids
    fourth = run(experiment, Context(seed=2), tmp_path, where=["system=a"], force=True)
    assert fourth[0].metrics["pid"] != third[0].metrics["pid"]
    with pytest.raises(InputError, match=r"artefact must be one that the row .* has"):
        fourth[0].artefact("walls")


@pytest.mark.parametrize(
    ("system", "error", "message"),
    [
        ("refuses", InputError, "^size must be odd$"),
        ("stops", NotConverged, "^the gap is still 0.2$"),
        ("fails", CellFailed, "system=fails, size=1.* failed: RuntimeError: the sky fell"),
        ("dies", CellFailed, r"ended by signal 9 \(out of memory\?\)"),
        ("nan", InputError, "metric 'error_percent' must be a finite number or None, got nan"),
        ("alone", InputError, "what measure returns must be a pair"),
    ],
)
def test_an_exception_comes_back_as_text_and_nothing_is_left(toy, tmp_path, system, error, message):
    with pytest.raises(error, match=message) as caught:
        run(only(toy.EXPERIMENT, toy.Cell(system)), Context(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if system == "fails":
        assert 'raise RuntimeError("the sky fell")' in caught.value.text


def test_ctrl_c_ends_the_child_and_keeps_the_finished_row(toy, tmp_path, monkeypatch):
    """The row that is there stays, the sleeping child is gone, no work folder is left."""
    monkeypatch.setenv("TOY_PID", str(tmp_path / "pid"))
    out = tmp_path / "out"
    done = run(only(toy.EXPERIMENT, toy.Cell("a")), Context(), out)
    kept = files(out)

    def press() -> None:
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run(only(toy.EXPERIMENT, toy.Cell("a"), toy.Cell("sleeps")), Context(), out)
    assert not alive(int((tmp_path / "pid").read_text()))
    assert files(out) == kept
    assert not list(out.rglob(".*"))
    assert run(only(toy.EXPERIMENT, toy.Cell("a")), Context(), out) == done


def test_the_child_ends_when_its_parent_is_killed(tmp_path):
    """SIGKILL leaves the parent no time to end anything: the child notices by itself."""
    code = (
        "import dataclasses, triptych_toy as t\nfrom triptych.bench.experiment import Context\nfrom triptych.bench.run import run\n"
        f"run(dataclasses.replace(t.EXPERIMENT, cells=lambda s: [t.Cell('sleeps')]), Context(), {str(tmp_path / 'o')!r})"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "toy"), "TOY_PID": str(tmp_path / "pid")}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as parent:
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
        child = int((tmp_path / "pid").read_text())
        assert alive(child)
        parent.kill()
    wait_for(lambda: not alive(child))


def test_where_selects_cells(toy):
    names = [
        (cell.system, cell.size) for cell in select(toy.EXPERIMENT, Scale.LAPTOP, ["size=2", "system=a", "system=c"])
    ]
    assert names == [("a", 2), ("c", 2)]
    assert len(select(toy.EXPERIMENT, Scale.LAPTOP)) == 6
    with pytest.raises(InputError, match=r"must be one of system, size, got 'sise' \(did you mean size\?\)"):
        select(toy.EXPERIMENT, Scale.SMOKE, ["sise=2"])
    with pytest.raises(InputError, match="size must be one of 1, 2, got '3'"):
        select(toy.EXPERIMENT, Scale.SMOKE, ["size=3"])
    with pytest.raises(InputError, match="where must be field=value, got 'size'"):
        select(toy.EXPERIMENT, Scale.SMOKE, ["size"])
    few = only(toy.EXPERIMENT, toy.Cell("a", 1), toy.Cell("b", 2))
    with pytest.raises(InputError, match=r"no cell of toy2020.table1 at scale smoke has system=a and size=2"):
        select(few, Scale.SMOKE, ["system=a", "size=2"])


def test_wrong_contexts_and_folders_are_refused(toy, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="out must be a folder"):
        run(toy.EXPERIMENT, Context(), tmp_path / "file")
    with pytest.raises(InputError, match="seed must be a whole number of at least 0, got -1"):
        run(toy.EXPERIMENT, Context(seed=-1), tmp_path / "out")
    with pytest.raises(InputError, match=r"there is no .*nowhere"):
        Source.of(tmp_path / "nowhere")


def test_an_experiment_must_be_importable_and_its_cells_plain(toy):
    def inner(cell, context):
        return {}, {}

    with pytest.raises(InputError, match="measure must be at the top of a module"):
        replace(toy.EXPERIMENT, measure=inner)
    with pytest.raises(InputError, match="name must be lower-case words"):
        replace(toy.EXPERIMENT, name="../Toy")
    with pytest.raises(InputError, match="version must be a whole number"):
        replace(toy.EXPERIMENT, version=0)

    @dataclass(frozen=True)
    class Deep:
        sizes: tuple[int, ...] = (1, 2)

    with pytest.raises(InputError, match=r"cell.sizes must be a str, int"):
        cell_fields(Deep())
    with pytest.raises(InputError, match="cell must be a dataclass"):
        cell_fields({"system": "a"})
    assert isinstance(toy.EXPERIMENT, Experiment)
