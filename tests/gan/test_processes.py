"""One, two and four processes train the same networks; one that dies ends the others; and what SIGKILL leaves behind.

processes.py plays the scenarios once, with processes forked from one that has loaded PyTorch.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from triptych.gan import checkpoint
from triptych.gan.folder import Run
from triptych.store import read_tensors, sha256

SCRIPT = Path(__file__).with_name("processes.py")


pytestmark = pytest.mark.xdist_group("processes")  # one worker makes what the tests share


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("processes")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.Popen(
        [sys.executable, SCRIPT, place], stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        _, said = done.communicate(timeout=400)
    except subprocess.TimeoutExpired:  # processes that wait for each other for ever; none may stay behind
        os.killpg(done.pid, signal.SIGKILL)
        raise
    assert done.returncode == 0, said
    return place


@pytest.fixture(scope="module")
def result(folder):
    return json.loads((folder / "result.json").read_text())


def furthest(some: dict, others: dict) -> float:
    """The largest difference relative to the largest entry of its tensor."""
    assert some.keys() == others.keys()
    return max(
        float(
            (some[name].double() - others[name].double()).abs().max()
            / others[name].double().abs().max().clamp_min(1e-30)
        )
        for name in some
    )


def ends(run: Path) -> dict:
    return checkpoint.read(Run.open(run).checkpoint(20)).tensors


def without_times(run: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if not k.startswith("time_")} for line in Run.open(run).metrics()]


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 1e-4)])
@pytest.mark.parametrize("n", [2, 4])
def test_any_number_of_processes_trains_the_same_networks(folder, result, n, precision, tolerance):
    """Losses, parts, networks and average after 20 steps; a batch of 7 is cut unevenly."""
    alone = read_tensors(folder / f"same-1-{precision}" / "0.safetensors")
    assert result[f"same-{n}-{precision}"]["status"] == [0] * n
    for rank in range(n):
        tensors = read_tensors(folder / f"same-{n}-{precision}" / f"{rank}.safetensors")
        assert furthest(tensors, alone) <= tolerance
        first = read_tensors(folder / f"same-{n}-{precision}" / "0.safetensors")
        assert furthest(tensors, first) == 0


def test_what_processes_say_to_each_other(folder, result):
    assert result["words"] == {"status": [0, 0, 0], "said": ["", "", ""]}
    for rank in range(3):
        told = json.loads((folder / "words" / f"{rank}.json").read_text())
        assert told["sum"] == [3.0, 3.0]
        assert told["broadcast"] == [[[0.0] * 3] * 2, [0], [5.0, 5.0]]
        assert told["share"] == {"a": [1, "ü"]}
        assert told["any"] == [True, False]
        assert told["main"] == (rank == 0)


def test_processes_that_part_ways_stop(result):
    assert result["disagree"]["status"] == [1, 1]
    for said in result["disagree"]["said"]:
        assert said.startswith("the parameters of process 1 are not those of process 0")
        assert said.count("\n") == 1


def test_an_error_in_one_process_ends_the_others(result):
    assert result["wrong on one"]["status"] == [2, 1]
    wrong, lost = result["wrong on one"]["said"]
    assert wrong == "images must be there, got none\n"
    assert lost.startswith("another process of this run has ended")
    assert lost.count("\n") == 1


@pytest.mark.parametrize("then", ["one", "two", "four"])
def test_a_process_that_dies_ends_the_others_and_the_run_goes_on_with_any_number(folder, result, then):
    died, resumed = result[f"death, then {then}"]
    assert died["status"] == [1, -9]
    assert died["said"][0].startswith("another process of this run has ended")
    assert died["said"][0].count("\n") == 1
    assert set(resumed["status"]) == {0}
    assert furthest(ends(folder / f"death-{then}"), ends(folder / "alone")) <= 1e-4
    assert [line["step"] for line in Run.open(folder / f"death-{then}").metrics()] == list(range(1, 21))


def test_the_process_that_writes_may_die_too(folder, result):
    died, resumed = result["the first dies"]
    assert died["status"] == [-9, 1, 1]
    for said in died["said"][1:]:
        assert said.startswith("another process of this run has ended")
        assert said.count("\n") == 1
    assert resumed["status"] == [0, 0]
    assert furthest(ends(folder / "first"), ends(folder / "alone")) <= 1e-4


def test_what_one_process_loses_brings_all_back(folder, result):
    assert result["poisoned"] == {"status": [0, 0], "said": ["", ""]}
    run = Run.open(folder / "poisoned")
    (entry,) = [line for line in run.metrics() if "rollback" in line]
    assert (entry["from"], entry["to"], entry["rate_scale"]) == (12, 8, 0.5)
    assert run.checkpoint().name == "00000020-1"


def test_with_the_same_number_of_processes_the_bits_are_the_same(folder, result):
    assert result["never"]["status"] == [0, 0]
    for name in ("death-two", "interrupted"):
        newest = [Run.open(folder / run).checkpoint() / "tensors.safetensors" for run in (name, "never")]
        assert sha256(newest[0]) == sha256(newest[1])
        assert without_times(folder / name) == without_times(folder / "never")


def test_held_out_images_are_measured_the_same_by_any_number_of_processes_and_after_a_kill(folder, result):
    assert result["measured by 1"]["status"] == [0]
    assert result["measured by 2"]["status"] == [0, 0]
    died, resumed = result["measured, killed"]
    assert died["status"] == [-9, 1]
    assert resumed["status"] == [0, 0]
    newest = [Run.open(folder / run).checkpoint() / "tensors.safetensors" for run in ("measured-killed", "measured-2")]
    assert sha256(newest[0]) == sha256(newest[1])
    assert without_times(folder / "measured-killed") == without_times(folder / "measured-2")
    alone, two = (
        {line["step"]: line for line in without_times(folder / name) if "held_out_gap" in line}
        for name in ("measured-1", "measured-2")
    )
    assert list(two) == list(alone) == [3, 6, 9, 12, 15, 18, 20]
    for step in alone:
        for name in ("train_gap", "held_out_gap", "gap_error", "variety", "slope", "wasserstein"):
            assert two[step][name] == pytest.approx(alone[step][name], rel=1e-3, abs=1e-4)


def test_ctrl_c_in_one_process_ends_all_after_the_step_with_a_checkpoint(result):
    first, checkpoints, then = result["interrupted"]
    assert first == {"status": [130, 130], "said": ["", ""]}
    assert checkpoints == ["00000004", "00000008", "00000010"]
    assert then["status"] == [0, 0]


def test_a_full_disk_ends_in_a_sentence_and_the_run_goes_on(folder, result):
    stopped, then = result["full"]
    assert stopped["status"] == [2]
    assert "make room and go on with --resume" in stopped["said"][0]
    assert stopped["said"][0].count("\n") == 1
    assert then == {"status": [0], "said": [""]}
    newest = [Run.open(folder / run).checkpoint() / "tensors.safetensors" for run in ("full", "alone")]
    assert sha256(newest[0]) == sha256(newest[1])
    assert without_times(folder / "full") == without_times(folder / "alone")


def test_kills_leave_no_trace(folder, result):
    """The script itself compares every killed run with the one that was never killed; here once more, and their leftovers."""
    assert result["killed"]["kills"] >= 4
    assert result["killed"]["in_save"] >= 2
    runs = folder / "killed-runs" / "runs"
    for number in range(result["killed"]["runs"]):
        run = runs / f"killed-{number}"
        assert without_times(run) == without_times(runs / "never")
        assert not [path for path in run.rglob("*") if path.name.endswith((".part", ".old"))]
        samples = {path.name: path.read_bytes() for path in (run / "samples").iterdir()}
        assert samples == {path.name: path.read_bytes() for path in (runs / "never/samples").iterdir()}
