"""Kill a training run with SIGKILL at random moments, some of them within a save, resume it each time, and compare.

A run that is never killed is the reference: every killed one must end with the same files, byte by byte, in each kept
checkpoint (tensors and JSON) and in samples/, and with the same metrics.jsonl, but for keys that begin with `time_`, no step
twice. The images are scikit-learn's digits, which need no download; each resumed process is a new one.

    python benchmarks/kill.py [--kills 20] [--in-save 5] [--steps N] [--seed N] [--folder DIR]
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from triptych.gan.folder import CONFIG, Run
from triptych.store import sha256

CHECKPOINTS = "checkpoints"


@dataclass
class Tally:
    """What became of the processes: killed, killed while a checkpoint lay half written, runs that came to their end."""

    kills: int = 0
    in_save: int = 0
    runs: int = 0


def kill_and_compare(
    start: Callable[[Path], int],
    folder: Path,
    *,
    kills: int,
    in_save: int,
    seed: int,
    say: Callable[[str], None] = print,
) -> Tally:
    """Let runs be killed until ``kills`` of them, ``in_save`` within a save, have been; compare each with the reference.

    ``start(folder)`` starts a process that trains in the folder, or goes on there, and gives its id. Raises RuntimeError
    where a run differs from the reference or a process fails.
    """
    rng, tally = random.Random(seed), Tally()
    begun = time.monotonic()
    _finished(start(folder / "never"))
    seconds = time.monotonic() - begun
    while tally.kills < kills or tally.in_save < in_save:
        run = folder / f"killed-{tally.runs}"
        _kill_until_its_end(partial(start, run), run, tally, (kills, in_save), rng, seconds, say)
        tally.runs += 1
        told = differences(Run.open(folder / "never"), Run.open(run))
        if told:
            raise RuntimeError(f"{run} differs from the run that was never killed: {told}")
    return tally


def differences(reference: Run, other: Run) -> str:
    """How two runs differ that should be the same; nothing where they do not."""
    names, others = ([path.name for path in run.checkpoints] for run in (reference, other))
    if names != others:
        return f"checkpoints {names} and {others}"
    for place in (*(f"{CHECKPOINTS}/{name}" for name in names), "samples"):
        one, two = (_hashes(run.folder / place) for run in (reference, other))
        for name in sorted(one.keys() | two.keys()):
            if one.get(name) != two.get(name):
                return f"{place}/{name}"
    lines, other_lines = (
        [{key: value for key, value in line.items() if not key.startswith("time_")} for line in run.metrics()]
        for run in (reference, other)
    )
    steps = [line["step"] for line in other_lines if "step" in line]
    if steps != sorted(set(steps)):
        return "a step that is there twice"
    return "" if lines == other_lines else "metrics.jsonl"


def _hashes(folder: Path) -> dict[str, str]:
    """The hash of each file in a folder."""
    return {path.name: sha256(path) for path in folder.iterdir() if path.is_file()}


def _kill_until_its_end(
    start: Callable[[], int],
    run: Path,
    tally: Tally,
    wanted: tuple[int, int],
    rng: random.Random,
    seconds: float,
    say: Callable[[str], None],
) -> None:
    """Start processes until one ends by itself; the others are killed, within a save where such kills are still wanted."""
    while True:
        process = start()
        left, left_in_save = wanted[0] - tally.kills, wanted[1] - tally.in_save
        if left <= 0 and left_in_save <= 0:
            return _finished(process)
        save = rng.random() * max(left, 1) < left_in_save
        # A moment in the middle of the run, so that every process gets somewhere and few come to the end.
        moment = time.monotonic() + rng.uniform(0.0, 0.8) * seconds
        patience = rng.randrange(300)  # looks at half-written checkpoints: early or late in a save, or in a later one
        while not _ended(process):
            beside = _half_written(run) if save else None
            patience -= bool(beside)
            if (save and beside and patience < 0) or (not save and time.monotonic() > moment):
                os.kill(process, signal.SIGKILL)
                _wait(process)
                within = bool(_half_written(run))
                tally.kills, tally.in_save = tally.kills + 1, tally.in_save + within
                say(f"kill {tally.kills}{' within a save' if within else ''}, {_reached(run)}")
                break
            time.sleep(0.0002)
        else:
            return None


def _half_written(run: Path) -> list[Path] | None:
    """Checkpoints that are being written, or were when their writer was killed."""
    return list((run / CHECKPOINTS).glob(".*.part")) or None


def _reached(run: Path) -> str:
    found = Run.open(run).checkpoints if (run / CONFIG).is_file() else []
    return f"newest checkpoint {found[-1].name}" if found else "no checkpoint yet"


def _ended(process: int) -> bool:
    """Whether a process has ended by itself. Raises RuntimeError where its status is not 0."""
    pid, status = os.waitpid(process, os.WNOHANG)
    if pid and status:
        raise RuntimeError(f"a process ended with status {os.waitstatus_to_exitcode(status)}")
    return bool(pid)


def _finished(process: int) -> None:
    status = _wait(process)
    if status:
        raise RuntimeError(f"a process ended with status {status}")


def _wait(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def command(run: Path, steps: int, every: int) -> list[str]:
    """The command line that trains in a folder, or goes on there."""
    words = ["gan", "train", "wgan-gp", "--data", "digits", "--out", str(run), "--steps", str(steps)]
    words += [
        "--width",
        "8",
        "--batch",
        "16",
        "--log-every",
        "1",
        "--checkpoint-every",
        str(every),
        "--grid-every",
        "25",
    ]
    resume = ["--resume"] if (run / CONFIG).is_file() else []
    return [sys.executable, "-m", "triptych", *words, *resume]


def main() -> None:
    parser = argparse.ArgumentParser(description="SIGKILL a run, resume it, compare.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--in-save", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150, help="length of the run (default 150)")
    parser.add_argument("--every", type=int, default=5, help="steps from one checkpoint to the next (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", help="keep the runs here; a temporary folder otherwise")
    options = parser.parse_args()

    def start(run: Path) -> int:
        words = command(run, options.steps, options.every)
        return subprocess.Popen(words, stdout=subprocess.DEVNULL).pid

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        tally = kill_and_compare(start, folder, kills=options.kills, in_save=options.in_save, seed=options.seed)
    print(
        f"{tally.kills} kills, {tally.in_save} within a save, over {tally.runs} runs of {options.steps} steps: "
        "all ended with the bytes and the metrics of the run that was never killed"
    )


if __name__ == "__main__":
    main()
