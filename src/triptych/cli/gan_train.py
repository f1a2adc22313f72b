"""gan train: the images, the recipe, the run folder, the loop, and what is said of them."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from triptych.bench.machine import provenance
from triptych.check import InputError
from triptych.cli.console import Console, Progress, console
from triptych.cli.gan_wish import NONE, TENTH, UNLABELLED, Wish
from triptych.cli.place import check_place
from triptych.data import load
from triptych.data.folder import Folder
from triptych.data.recognise import recognise, splits
from triptych.data.shards import mapped
from triptych.engine import Engine, start
from triptych.gan import checkpoint
from triptych.gan.folder import Run, check_networks, lengthens
from triptych.gan.held_out import HeldOut
from triptych.gan.recipe import Recipe
from triptych.gan.run import Every, Judge, OnProgress, play
from triptych.gan.sample import fixed_grid
from triptych.gan.settings import to_json
from triptych.images import Images

LOOKED_AT = 2048  # images that a dry run reads of a folder of pictures: enough for a step, and nothing is kept
MATTERS = ("device", "threads", "libraries", "cpu", "processes")  # to the bits of a run


def trained(wish: Wish, json: bool) -> None:
    """Train, or go on training. Raises InputError before anything is written."""
    typed, wish = wish.command(), wish.resolved()
    if wish.keeping.out is None:
        raise InputError("out must be the folder of the run, got none; give --out RUN, or --dry-run to write nothing")
    check_place("out", wish.keeping.out)
    every = Every(**wish.intervals)
    _check_tensorboard(wish)
    if wish.run is not None and wish.run.checkpoints:
        checkpoint.read(wish.run.checkpoints[-1])  # refuses a damaged one before anything is written
    device, precision = wish.machine_settings
    with start(device, precision, compile=bool(wish.machine.compile)) as engine:
        voice = console(json) if engine.main else Silent()
        wish, images = opened(voice, wish, engine)
        recipe = wish.built(images)
        recipe.networks(wish.seed)  # refuses sides that the networks cannot have
        wish, held_out = apart(voice, wish, images, recipe, engine)
        config = wish.config(recipe, images, held_out)
        judge, config["scored"] = _judge(voice, recipe, images, engine) if every.score else (None, None)
        engine.agree("the images", int(config["data"]["checksum"].removeprefix("sha256:")[:15], 16))
        run = _run(wish, config, engine, typed)
        _note_differences(voice, run)
        begun, before = time.perf_counter(), _steps(run)
        with _shown(voice, wish.keeping.tensorboard and engine.main, recipe, run) as on_progress:
            draw = fixed_grid(recipe, wish.seed)
            shown = held_out or images
            drawn = {"draw_grid": draw, "judge": judge, "on_progress": on_progress}
            players = play(run, recipe, shown, engine=engine, every=every, **drawn)
        seconds = time.perf_counter() - begun
    if engine.main:
        _told(voice, run, recipe, {"step": players.step, "seen": players.seen, "before": before, "seconds": seconds})


def _judge(
    voice: Console, recipe: Recipe, images: Images, engine: Engine
) -> tuple[Judge | None, dict[str, Any] | None]:
    """What scores the run on its way, in the main process; the others wait for its features."""
    from triptych.cli.gan_score import on_the_way

    found = on_the_way(voice, recipe, images) if engine.main else (None, None)
    engine.wait()
    return found


def dry(wish: Wish, json: bool) -> None:
    """Say what would be trained. Raises InputError."""
    from triptych.cli.gan_dry import estimate, rows

    wish, voice = wish.resolved(), console(json)
    Every(**wish.intervals)
    _check_tensorboard(wish)
    device, precision = wish.machine_settings
    with start(device, precision, compile=bool(wish.machine.compile)) as engine:
        wish, images = opened(voice, wish, engine, looked_at=LOOKED_AT)
        recipe = wish.built(images, _count(wish))
        if wish.game.init_from is not None:
            check_networks(Run.open(wish.game.init_from), to_json(recipe))
        facts = estimate(recipe, images, engine, wish.seed)
    if not json:
        voice.table([recipe.name, ""], rows(recipe, facts))
    voice.finish(facts, "nothing was written")


def opened(voice: Console, wish: Wish, engine: Engine, looked_at: int | None = None) -> tuple[Wish, Images]:
    """The images that are asked for, and the wish with their split; ``looked_at``: of a folder of pictures only so many."""
    data = wish.reading.data or "digits"
    source = recognise(data)
    if wish.reading.labels and isinstance(source, Folder) and not source.classes:  # before it is decoded
        raise InputError(UNLABELLED)
    split = "train" if wish.reading.split is None and "train" in source.splits else wish.reading.split
    reading = replace(wish.reading, data=data, split=split, fit=wish.reading.fit or "crop")
    size = {"side": reading.side, "fit": reading.fit, "split": split}
    if looked_at is not None:
        most = looked_at if isinstance(source, Folder) else None
        limit = most if reading.limit is None or most is None else min(most, reading.limit)
        return replace(wish, reading=reading), load(data, **size, limit=limit or reading.limit)
    return replace(wish, reading=reading), _decoded(voice, engine, data, limit=reading.limit, **size)


def _decoded(voice: Console, engine: Engine, data: str, **reading: Any) -> Images:
    """Images, decoded by the main process; the others find it done."""
    with _decoding(voice, data) as progress:
        if not engine.main:
            engine.wait()
        images = mapped(data, **reading, progress=progress)
        if engine.main:
            engine.wait()
    return images


def apart(voice: Console, wish: Wish, images: Images, recipe: Recipe, engine: Engine) -> tuple[Wish, HeldOut | None]:
    """The held-out images that are asked for, beside those to train on; a tenth where none are named, if that leaves a batch."""
    named = wish.reading.held_out
    if named == NONE:
        return wish, None
    if named in (None, TENTH):
        found = HeldOut.tenth(images, recipe.batch)
        if found is None and wish.run is None:
            voice.warn("note: too few images to hold out a tenth, so that nothing is measured while they train")
        if found is not None and engine.main and (both := found.twice()):
            voice.warn(
                f"note: {both:,} of the {found.count:,} held-out images are training images too, so that what is measured on them says little; "
                "`triptych data deduplicate` finds what is there twice"
            )
        return replace(wish, reading=replace(wish.reading, held_out=TENTH if found else NONE)), found
    split = "test" if "test" in splits(str(named)) else None
    other = replace(wish, reading=replace(wish.reading, data=named, split=split, limit=None))
    return wish, HeldOut(images, other_images(voice, other, recipe, images.classes, engine))


def other_images(voice: Console, wish: Wish, recipe: Recipe, classes: tuple[str, ...], engine: Engine) -> Images:
    """Images read as those of a run are, labelled where it is. Raises InputError."""
    data, reading = str(wish.reading.data), wish.reading
    images = _decoded(
        voice, engine, data, side=reading.side, fit=reading.fit or "crop", split=reading.split, limit=None
    )
    if recipe.classes and (images.labels is None or images.classes != classes):
        raise InputError(f"held-out images must have the {recipe.classes} classes of the training images")
    return images


def _count(wish: Wish) -> int | None:
    """How many images a run has, where a dry run reads some of them: of a folder of pictures."""
    source = recognise(str(wish.reading.data))
    return len(source.chosen(wish.reading.split, wish.reading.limit)) if isinstance(source, Folder) else None


class Silent(Console):
    """The voice of all processes but the main one."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""

    @contextmanager
    def progress(self, description: str, total: float | None = None) -> Iterator[Progress]:
        """Show nothing."""
        yield Progress(description, total)


def _run(wish: Wish, config: Mapping[str, Any], engine: Engine, typed: str) -> Run:
    """The run folder: made, or opened again."""
    out = Path(str(wish.keeping.out))
    if not engine.main:
        engine.wait()
        return Run(Path(os.path.realpath(out)), config)
    env = {**provenance(str(engine.device)), "processes": engine.size, "command": typed}
    run = Run.resume(out, config, env) if wish.keeping.resume else Run.create(out, config, env)
    engine.wait()
    return run


def _steps(run: Run) -> int:
    """The steps that a run has done."""
    return checkpoint.step_of(run.checkpoints[-1]) if run.checkpoints else 0


def _note_differences(voice: Console, run: Run) -> None:
    """Say where a resumed run goes on elsewhere than it began: its bits are then others."""
    made = run.environments()
    told = [name for name in MATTERS if len(made) > 1 and made[-2].get(name) != made[-1].get(name)]
    if told:
        voice.warn(
            f"note: {', '.join(told)} are not what the run was made with; it goes on, but not with the same bits"
        )


@contextmanager
def _decoding(voice: Console, data: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that appears with the first picture that is decoded."""
    with ExitStack() as stack:
        bars: list[Progress] = []

        def progress(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(voice.progress(f"pictures of {data}, read once", total)))
            bars[0].advance(done - bars[0].done)

        yield progress


@contextmanager
def _shown(voice: Console, tensorboard: bool | None, recipe: Recipe, run: Run) -> Iterator[OnProgress]:
    """A bar that follows the run, words where it is rolled back, and TensorBoard where it is asked for."""
    with ExitStack() as stack:
        bar = stack.enter_context(voice.progress(recipe.name, recipe.rules.steps))
        write = stack.enter_context(_tensorboard(run)) if tensorboard else None

        def told(step: int, line: Mapping[str, Any] | None) -> None:
            bar.advance(step - bar.done)
            if line is None:
                return
            if "rollback" in line:
                voice.warn(
                    f"note: diverged at step {line['from']} ({line['reason']}); back to step {line['to']} with the learning "
                    f"rates times {line['rate_scale']:g} and other noise"
                )
                return
            losses = ", ".join(
                f"{name.replace('_', ' ')} {line[name]:.4g}" for name in ("critic_loss", "generator_loss")
            )
            bar.describe(f"{recipe.name}: {losses}, {line['time_images_per_second']:.0f} images/s")
            if write is not None:
                write(step, line)

        yield told


def _told(voice: Console, run: Run, recipe: Recipe, facts: Mapping[str, Any]) -> None:
    """Say the last word."""
    lines = [line for line in run.metrics() if "step" in line]
    last = lines[-1] if lines else {}
    done, seconds = facts["step"] - facts["before"], facts["seconds"]
    grids = run.samples
    if not done:
        text = f"{run.folder} has its {facts['step']:,} steps already; " + (
            "--steps N with a larger N goes on"
            if lengthens(run.config["recipe"])
            else "its rates fall over them, so that more need a new run (--init-from takes its networks)"
        )
    else:
        text = f"{done:,} steps in {seconds:.1f} s; `triptych gan sample {run.folder} --out grid.png` draws images"
    voice.finish(
        {
            "run": str(run.folder),
            "recipe": recipe.name,
            "step": facts["step"],
            "steps_done": done,
            "seen": facts["seen"],
            "seconds": seconds,
            "checkpoint": str(run.checkpoint()),
            "grid": str(grids[-1]) if grids else None,
            "last": last,
        },
        text,
    )


def _check_tensorboard(wish: Wish) -> None:
    """Raise InputError where TensorBoard is asked for and not installed."""
    if wish.keeping.tensorboard:
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise InputError(
                "tensorboard must be installed for --tensorboard; run: pip install 'triptych[track]'"
            ) from None


@contextmanager
def _tensorboard(run: Run) -> Iterator[Callable[[int, Mapping[str, Any]], None]]:
    """A writer of the numbers of a line to the run's tensorboard/ folder."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=_steps(run) + 1)

    def write(step: int, line: Mapping[str, Any]) -> None:
        for name, value in line.items():
            if name not in ("step", "seen"):
                writer.add_scalar(name, value, step)

    try:
        yield write
    finally:
        writer.close()
