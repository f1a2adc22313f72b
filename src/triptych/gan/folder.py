"""A run folder: config.json, env.json, metrics.jsonl, samples/ and checkpoints/; what is in it after a kill, and mended."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych.check import InputError, shown
from triptych.gan import checkpoint
from triptych.gan.recipe import SCALES
from triptych.store import read_json, write_bytes, write_json

KIND = "gan-run"
VERSION = 1
CONFIG, ENVIRONMENTS, METRICS, LOCK = "config.json", "env.json", "metrics.jsonl", ".lock"
NETWORKS = ("shape", "classes", "labels", "output", "generator", "critic", "rules.latent.size")
# The same images and the same start may be found elsewhere; what stays, and when a run is measured and scored, is nobody's arithmetic.
NOT_COMPARED = (
    "init_from",
    "data.name",
    "data.path",
    "held_out.from",
    "every.keep",
    "every.measure",
    "every.score",
    "scored",
)
NEEDED = ("recipe", "seed")
GRID = re.compile(r"\d{8,}\.png")


@dataclass(frozen=True)
class Run:
    """A run folder and its config, a JSON object with the keys

    ``recipe`` (as gan/settings.py writes it), ``seed``, ``precision``, ``data`` (``checksum``, and ``name`` or ``path``,
    which may change), ``init_from`` (the folder of another run, or None), and any others.
    """

    folder: Path
    config: Mapping[str, Any]

    @classmethod
    def create(cls, folder: str | Path, config: Mapping[str, Any], env: Mapping[str, Any]) -> "Run":
        """Make the folder of a new run. Raises InputError where it is there, or ``init_from`` has other networks."""
        path = Path(os.path.realpath(folder))
        check_free(folder)
        if config.get("init_from"):
            check_networks(cls.open(config["init_from"]), config["recipe"])
        for name in ("samples", "checkpoints"):
            (path / name).mkdir(parents=True, exist_ok=True)
        run = cls(path, dict(config))
        with run.locked():
            check_free(folder)  # once more: another process may have been as quick
            write_json(path / ENVIRONMENTS, [dict(env)])
            run._write_config()  # last: a folder with a config is a run
        return run

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open a run folder. Raises InputError where there is none, it is damaged or of a newer version."""
        path = Path(os.path.realpath(folder))
        if not (path / CONFIG).is_file():
            raise InputError(f"{folder} must be the folder of a run, but it holds no {CONFIG}")
        head = read_json(path / CONFIG)
        if not isinstance(head, dict) or head.get("kind") != KIND or not isinstance(head.get("version"), int):
            raise InputError(f"{path / CONFIG} must be the config of a run, but it is something else")
        if head["version"] > VERSION:
            raise InputError(
                f"{folder} is the run of a newer triptych (version {head['version']}, this one knows {VERSION}); "
                "update triptych"
            )
        config = head.get("config")
        lacking = "config" if not isinstance(config, dict) else next((key for key in NEEDED if key not in config), None)
        if lacking:
            raise InputError(f"{path / CONFIG} is damaged: it has no {lacking}; take it from another copy of the run")
        return cls(path, head["config"])

    @classmethod
    def resume(cls, folder: str | Path, config: Mapping[str, Any], env: Mapping[str, Any]) -> "Run":
        """Open a run to go on with it. Raises InputError where the data or the config differ, and says what does.

        More steps than before are taken where no rate depends on their number (``lengthens``): the longer run has the same steps.
        """
        run = cls.open(folder)
        told = differences(run.config, config)
        longer = [
            name
            for name, before, now in told
            if name == "recipe.rules.steps" and lengthens(config["recipe"]) and now > before
        ]
        told = [difference for difference in told if difference[0] not in longer]
        if told:
            raise InputError(f"{folder} was made with another {_listed(told)}; resume it with what it was made with")
        with run.locked():  # a run that is being trained stays as it is
            now = {"recipe": config["recipe"]} if longer else {}
            if config.get("scored"):  # from here on, if not before
                every = {**run.config.get("every", {}), "score": config["every"]["score"]}
                now |= {"scored": config["scored"], "every": every}
            if any(run.config.get(name) != value for name, value in now.items()):
                run = cls(run.folder, {**run.config, **now})
                run._write_config()
            write_json(run.folder / ENVIRONMENTS, [*run.environments(), dict(env)])
        return run

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints that lead to the newest, oldest first."""
        return checkpoint.listed(self.folder / "checkpoints")

    @property
    def samples(self) -> list[Path]:
        """The grids, oldest first."""
        return sorted(path for path in (self.folder / "samples").glob("*.png") if GRID.fullmatch(path.name))

    def checkpoint(self, step: int | None = None) -> Path:
        """The checkpoint of a step, by default the newest. Raises InputError where there is none."""
        found = {checkpoint.step_of(path): path for path in self.checkpoints}
        if not found:
            raise InputError(f"{self.folder} must hold a checkpoint, but it has none yet")
        if step is not None and step not in found:
            raise InputError(
                f"{self.folder} has no checkpoint of step {shown(step)}; it has {', '.join(map(str, found))}"
            )
        return found[max(found) if step is None else step]

    def environments(self) -> list[dict[str, Any]]:
        """What the run was made with, one entry for each time that it was started."""
        path = self.folder / ENVIRONMENTS
        return read_json(path) if path.is_file() else []

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl: steps, and rollbacks (with the key ``rollback``); a torn last line is left out."""
        return [line for line, _ in self._lines()]

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line at the end of metrics.jsonl, at once."""
        data = (json.dumps(line, allow_nan=False) + "\n").encode()
        with (self.folder / METRICS).open("ab", buffering=0) as file:
            while data:  # a nearly full disk takes a part
                data = data[file.write(data) :]

    def flush(self) -> None:
        """See that the lines of metrics.jsonl are on the disk."""
        if (self.folder / METRICS).is_file():
            with (self.folder / METRICS).open("ab") as file:
                os.fsync(file.fileno())

    def cut(self, step: int, rollbacks: list[dict[str, Any]]) -> None:
        """Take back what was written after a step: metrics but for these rollbacks, grids, half-written files."""
        told, texts = 0, []
        for line, text in self._lines():
            told += line.get("rollback", len(rollbacks) + 1) <= len(rollbacks)
            if line["rollback"] <= len(rollbacks) if "rollback" in line else line["step"] <= step:
                texts.append(text)
        texts += [json.dumps(entry) + "\n" for entry in rollbacks[told:]]
        if texts or (self.folder / METRICS).is_file():
            write_bytes(self.folder / METRICS, "".join(texts).encode())
        for path in self.samples:
            if int(path.stem) > step:
                path.unlink()
        for place in (self.folder, self.folder / "samples", self.folder / "checkpoints"):
            checkpoint.sweep(place)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in the folder. Raises InputError where one does."""
        try:
            import fcntl
        except ImportError:  # not on every system
            yield
            return
        with (self.folder / LOCK).open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{self.folder} is being trained in by another process; wait for its end") from None
            except OSError:  # a file system without locks
                pass
            yield

    def _lines(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Each whole line as an object and as text; what is torn or damaged is left out."""
        path = self.folder / METRICS
        if not path.is_file():
            return
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if text.endswith("\n") and isinstance(line, dict) and {"step", "rollback"} & line.keys():
                yield line, text

    def _write_config(self) -> None:
        head = {"format": "triptych", "kind": KIND, "version": VERSION}
        write_json(self.folder / CONFIG, {**head, "config": dict(self.config)})


def is_run(folder: str | Path) -> bool:
    """Whether a folder holds a run, of whatever version."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        return False
    head = read_json(path)
    return isinstance(head, dict) and head.get("kind") == KIND


def check_free(folder: str | Path) -> None:
    """Raise InputError unless a new run may have the folder: it is not there, empty, or left by a killed ``create``."""
    path = Path(folder)
    if is_run(path):
        raise InputError(f"{folder} holds a run already; go on with --resume, or choose another folder")
    if path.exists() and (not path.is_dir() or any(not _leftover(entry) for entry in path.iterdir())):
        raise InputError(f"{folder} must be a new or empty folder, but it is not; choose another")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Where two configs differ, as (dotted name, before, now), but for what may."""
    first, second = _flat(before), _flat(now)
    names = [*first, *(name for name in second if name not in first)]
    return [
        (name, first.get(name), second.get(name))
        for name in names
        if first.get(name) != second.get(name) and not name.startswith(NOT_COMPARED)
    ]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """A nested JSON value by dotted names; tuples are lists."""
    if isinstance(value, Mapping) and value:
        parts = [_flat(inner, f"{name}.{key}" if name else str(key)) for key, inner in value.items()]
        return {key: inner for part in parts for key, inner in part.items()}
    return {name: list(value) if isinstance(value, tuple) else value}


def _listed(told: list[tuple[str, Any, Any]]) -> str:
    shown_ones = [f"{name} ({shown(before, 40)}, now {shown(now, 40)})" for name, before, now in told[:4]]
    more = f" and {len(told) - 4} more" if len(told) > 4 else ""
    return ", ".join(shown_ones) + more


def lengthens(recipe: Mapping[str, Any]) -> bool:
    """Whether a run of a recipe, as JSON, may be given more steps: no rate depends on their number."""
    rules = recipe["rules"]
    return all(
        rules[f"{player}_optimiser"]["fall"] in ("constant", "exponential") for player in ("generator", "critic")
    )


def check_networks(other: Run, recipe: Mapping[str, Any]) -> None:
    """Check that another run has the networks of a recipe. Raises InputError."""
    theirs, ours = (
        {**_flat(one), "output": SCALES.get(str(one.get("scale")))} for one in (other.config["recipe"], recipe)
    )
    names = [name for name in {**theirs, **ours} if name in NETWORKS or name.startswith(("generator.", "critic."))]
    told = [(name, theirs.get(name), ours.get(name)) for name in names if theirs.get(name) != ours.get(name)]
    if told:
        raise InputError(
            f"{other.folder} must have the same networks to start from, but it has another {_listed(told)}"
        )
    other.checkpoint()


def _leftover(path: Path) -> bool:
    """Whether a killed ``create`` left this behind."""
    if path.name in (ENVIRONMENTS, LOCK) or path.name.endswith(".part"):
        return True
    return path.name in ("samples", "checkpoints") and path.is_dir() and not any(path.iterdir())
