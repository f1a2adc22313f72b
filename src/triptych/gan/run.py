"""Train in a run folder: log, draw, save; go on after a kill with the same bits; go back where the game diverges."""

import hashlib
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import triptych
from triptych.check import InputError, whole, wrong
from triptych.engine import Engine
from triptych.gan import checkpoint
from triptych.gan.folder import Run
from triptych.gan.game import BatchSource
from triptych.gan.guard import Diverged, Guard
from triptych.gan.held_out import HeldOut, measured
from triptych.gan.pretrained import from_pretrained, is_pretrained
from triptych.gan.recipe import Recipe
from triptych.gan.schedule import Constant
from triptych.gan.settings import from_json
from triptych.gan.train import ONE_PROCESS, Players, train
from triptych.images import Images
from triptych.store import DISK_FULL, write_bytes

ROLLBACKS = 3

DrawGrid = Callable[[int, nn.Module], bytes]
"""``draw_grid(step, average)``: the PNG of a grid of the generator's average at a step."""
Judge = Callable[[int, nn.Module], Mapping[str, float]]
"""``judge(step, average)``: scores of the generator's average at a step, which are logged; it leaves the network as it is."""
OnProgress = Callable[[int, Mapping[str, Any] | None], None]
"""``on_progress(step, line)``: called in the main process after every step, with the line that was logged, or None."""


@dataclass(frozen=True)
class Every:
    """Steps from one metrics line, checkpoint, grid, comparison of the processes, measurement on held-out images and score to the next;
    ``keep`` checkpoints stay; ``score`` None: no scores.
    """

    log: int = 10
    checkpoint: int = 500
    grid: int = 500
    compare: int = 100
    keep: int = 3
    measure: int = 100
    score: int | None = None

    def __post_init__(self) -> None:
        if self.score is not None:
            whole("score", self.score)
        for name in ("log", "checkpoint", "grid", "compare", "keep", "measure"):
            whole(name, getattr(self, name))


def play(
    run: Run,
    recipe: Recipe,
    images: Images | HeldOut | BatchSource,
    *,
    engine: Engine = ONE_PROCESS,
    every: Every | None = None,
    draw_grid: DrawGrid | None = None,
    judge: Judge | None = None,
    on_progress: OnProgress | None = None,
) -> Players:
    """Train from the run's newest checkpoint, or from the start, to ``recipe.rules.steps``.

    Killed anywhere and called again, it ends with the bits of a run that was never killed, on the same device, threads and
    number of processes. Of held-out images the log says what a ``HeldOut`` measures. Every process calls it; the main one alone touches the folder. Where the guard sees divergence, the
    players go back to the last good checkpoint with half the learning rates and other noise. Ctrl-C ends the step, writes a
    checkpoint and goes on as KeyboardInterrupt; a second one is not waited for. Raises InputError, Diverged after three
    rollbacks, ProcessLost where another process has gone.
    """
    if not engine.repeatable:
        raise wrong(
            "the engine", "one of engine.start, under deterministic algorithms", engine.device, "else no run repeats"
        )
    whole("batch", recipe.batch, low=engine.size, remedy="each process takes an image or more")
    held_out = images if isinstance(images, HeldOut) else None
    source = _source(recipe, images, engine)
    with run.locked() if engine.main else nullcontext(), _ctrl_c() as asked:
        players = recipe.players(run.config["seed"], engine)
        course = Course(run, recipe, engine, every or Every(), players, held_out, judge)
        course.go_on()
        engine.compiled(course.players.generator)
        course.follow(source, asked, draw_grid, on_progress or _nothing)
    return course.players


def _source(recipe: Recipe, images: Images | HeldOut | BatchSource, engine: Engine) -> BatchSource:
    """What is trained on."""
    if isinstance(images, HeldOut):
        return recipe.batches(images.train, engine, images.train_index)
    return recipe.batches(images, engine) if isinstance(images, Images) else images


def load_generator(folder: str | Path, step: int | None = None) -> tuple[Recipe, nn.Module]:
    """The recipe of a run and its generator's average, of the newest checkpoint or of a step's; those of a folder that
    ``save_pretrained`` wrote. Raises InputError.
    """
    if is_pretrained(folder):
        if step is not None:
            raise InputError(f"checkpoint must be left away, as {folder} is an exported generator, got {step}")
        return from_pretrained(folder)
    run = Run.open(folder)
    recipe, path = from_json(run.config["recipe"]), run.checkpoint(step)
    saved = checkpoint.read(path)
    generator, _ = recipe.networks(0)
    checkpoint.restore_module(generator, "average", saved, str(path))
    return recipe, generator.requires_grad_(False).eval()


def advanced(seed: int, rollbacks: int) -> int:
    """The noise seed after so many rollbacks: the run's own before the first, then a hash."""
    if not rollbacks:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} rollback {rollbacks}".encode()).digest()[:6], "little")


@dataclass
class Course:
    """A run on its way: the players, the guard, the rollbacks so far, the clock."""

    run: Run
    recipe: Recipe
    engine: Engine
    every: Every
    players: Players
    held_out: HeldOut | None = None
    judge: Judge | None = None
    guard: Guard = field(default_factory=Guard)
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    clock: "Clock" = field(default_factory=lambda: Clock())

    @property
    def folder(self) -> Path:
        """The folder of checkpoints."""
        return self.run.folder / "checkpoints"

    def go_on(self) -> None:
        """Take up the newest checkpoint; where there is none, write the first, so that there always is one to go back to."""
        found = self.run.checkpoints if self.engine.main else []
        saved = checkpoint.read(found[-1]) if found else None
        if saved is None and self.engine.main:
            if self.run.config.get("init_from"):
                other = Run.open(self.run.config["init_from"]).checkpoint()
                checkpoint.restore_networks(self.players, checkpoint.read(other), str(other))
            saved = self.taken()
            self.write(saved)
        self.take_up(saved, str(found[-1]) if found else "the start")
        self.cut()
        if self.engine.main:
            with self.disk():  # a kill after the last checkpoint was written may have left one too many
                checkpoint.prune(self.folder, self.every.keep)

    def take_up(self, saved: checkpoint.Checkpoint | None, where: str) -> None:
        """Bring players, guard and rollbacks of every process to the main one's checkpoint."""
        saved = checkpoint.sent(saved, self.engine)
        lacking = next((name for name in ("guard", "rollbacks") if name not in saved.meta), None)
        if lacking:
            raise InputError(f"{where} is damaged: it does not say {lacking}; remove it to go on from an older one")
        checkpoint.restore(self.players, saved, where)
        self.guard.restore(saved.meta["guard"])
        self.rollbacks = list(saved.meta["rollbacks"])
        self.clock = Clock(self.clock.start, self.players.seen)

    def follow(
        self, source: BatchSource, asked: list[bool], draw_grid: DrawGrid | None, on_progress: OnProgress
    ) -> None:
        """Play to the last step, and after each step do what is due."""
        players, rules, seed = self.players, self.recipe.rules, self.run.config["seed"]
        schedule, objective = Constant(self.recipe.batch), self.recipe.objective
        game = train(players, objective, source, seed=seed, rules=rules, schedule=schedule, engine=self.engine)
        while players.step < rules.steps:
            progress = next(game)
            step, numbers = progress.step, progress.numbers()
            stop = self.engine.any(bool(asked))
            due = stop or step == rules.steps or step % self.every.checkpoint == 0
            reason = self.guard.reason(numbers) or (self.unsound() if due else None)
            line = self.go_back(step, reason) if reason else self.log(step, numbers, step == rules.steps)
            if not reason:
                self.draw(step, draw_grid, step == rules.steps)
                self.save(step, due)
            if self.engine.main:
                on_progress(players.step, line)
            if stop:
                self.engine.wait()  # a process that left first would end the one that is writing
                raise KeyboardInterrupt

    def unsound(self) -> str | None:
        """Why no checkpoint should be written: the losses of a step are older than the weights that it leaves."""
        name = checkpoint.unsound(checkpoint.taken(self.players, {}).tensors)
        if not self.engine.any(name is not None):  # statistics of batch normalisation are each process's own
            return None
        return f"{name or 'a tensor of another process'} is not finite"

    def log(self, step: int, numbers: Mapping[str, float], last: bool) -> dict[str, Any] | None:
        """Append a line of metrics where one is due: the losses and parts of this very step."""
        players, rules = self.players, self.recipe.rules
        judged = self.held_out is not None and (last or step % self.every.measure == 0)
        scored = self.judge is not None and self.every.score is not None and (last or step % self.every.score == 0)
        if not (last or judged or scored or step % self.every.log == 0):
            return None
        rates = {
            f"{player}_rate": getattr(rules, f"{player}_optimiser").rate(step - 1, rules.steps) * players.rate_scale
            for player in ("generator", "critic")
        }
        counters = {"step": step, "seen": players.seen, "critic_updates": players.critic_updates}
        line = {**counters, "rollbacks": len(self.rollbacks), **rates, **numbers, **self.clock.lap(players.seen)}
        if judged and self.held_out and self.engine.main:
            line |= measured(self.held_out, self.recipe, players, self.engine, potential="gap" in numbers)
        if scored and self.judge and self.engine.main and not checkpoint.unsound(checkpoint.taken(players, {}).tensors):
            line |= self.judge(step, players.average)
        if self.engine.main:
            with self.disk():
                self.run.append(line)
        return line

    def draw(self, step: int, draw_grid: DrawGrid | None, last: bool) -> None:
        """Draw the grid where one is due."""
        if draw_grid and self.engine.main and (last or step % self.every.grid == 0):
            grid = draw_grid(step, self.players.average)
            with self.disk():
                write_bytes(self.run.folder / "samples" / f"{step:08d}.png", grid)

    def save(self, step: int, due: bool) -> None:
        """Compare the processes, and write a checkpoint where one is due."""
        if due or step % self.every.compare == 0:
            self.engine.agree("the parameters", checkpoint.fingerprint(self.players) if self.engine.size > 1 else 0)
        if due and self.engine.main:
            self.write(self.taken())

    def go_back(self, step: int, reason: str) -> dict[str, Any]:
        """Return to the last good checkpoint with half the rates and other noise; all of it is saved and logged.

        A checkpoint from which the game diverged before it reached the next was not good: the one before it is taken.
        """
        n, found = len(self.rollbacks) + 1, self.run.checkpoints if self.engine.main else []
        if n > ROLLBACKS:
            raise Diverged(
                f"the run diverged at step {step} ({reason}) after {ROLLBACKS} rollbacks, each of which halved the learning "
                f"rates; its last good checkpoint is in {self.folder}"
            )
        if self.engine.main and not found:
            raise InputError(f"{self.folder} must hold a checkpoint to go back to, but it is empty now")
        again = n > 1 and found and found[-1].name == checkpoint.name_of(self.rollbacks[-1]["to"], n - 1)
        path = found[-2 if again and len(found) > 1 else -1] if found else None
        before = self.rollbacks
        self.take_up(checkpoint.read(path) if path else None, str(path))
        self.players.rate_scale, self.players.noise_seed = 0.5**n, advanced(self.run.config["seed"], n)
        entry = {"rollback": n, "from": step, "to": self.players.step, "reason": reason}
        entry |= {"rate_scale": self.players.rate_scale, "noise_seed": self.players.noise_seed}
        self.rollbacks = [*before, entry]
        if self.engine.main:
            self.write(self.taken())  # before the metrics are cut: a kill between the two repeats the cut
        self.cut()
        return entry

    def taken(self) -> checkpoint.Checkpoint:
        """The checkpoint of this moment."""
        versions = {"triptych": triptych.__version__, "torch": torch.__version__, "numpy": np.__version__}
        versions["python"] = platform.python_version()
        meta = {"rollbacks": self.rollbacks, "guard": self.guard.state(), "versions": versions}
        return checkpoint.taken(self.players, {**meta, "config": dict(self.run.config)})

    def write(self, taken: checkpoint.Checkpoint) -> None:
        """Write a checkpoint, and remove those before the last few."""
        with self.disk():
            self.run.flush()  # else a power cut could leave the checkpoint without the lines before it
            checkpoint.write(self.folder / checkpoint.name_of(self.players.step, len(self.rollbacks)), taken)
            checkpoint.prune(self.folder, self.every.keep)

    def cut(self) -> None:
        """Take back what was written after this moment."""
        if self.engine.main:
            with self.disk():
                self.run.cut(self.players.step, self.rollbacks)

    @contextmanager
    def disk(self) -> Iterator[None]:
        """Say of a full disk what to do; what was written before stays whole."""
        try:
            yield
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            remedy = f"{error.strerror}; make room and go on with --resume from the last checkpoint"
            raise OSError(error.errno, remedy, str(self.run.folder)) from error


@dataclass
class Clock:
    """The time since the start, and the images since the last lap."""

    start: float = field(default_factory=time.perf_counter)
    seen: int = 0
    last: float = field(default_factory=time.perf_counter)

    def lap(self, seen: int) -> dict[str, float]:
        """Seconds since the start, and real images a second since the last lap."""
        now = time.perf_counter()
        speed = (seen - self.seen) / max(now - self.last, 1e-9)
        self.seen, self.last = seen, now
        return {"time_seconds": round(now - self.start, 3), "time_images_per_second": round(speed, 1)}


@contextmanager
def _ctrl_c() -> Iterator[list[bool]]:
    """Note the first Ctrl-C in a list instead of raising it; the second is raised. Where it is ignored, it stays so."""
    asked: list[bool] = []

    def note(number: int, frame: Any) -> None:
        if asked:
            signal.default_int_handler(number, frame)
        asked.append(True)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN
    before = signal.signal(signal.SIGINT, note) if ours else None
    try:
        yield asked
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def _nothing(step: int, line: Mapping[str, Any] | None) -> None:
    del step, line
