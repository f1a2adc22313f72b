"""Several processes on one machine, for test_processes.py: a script that forks them from one that has loaded everything.

python processes.py FOLDER: plays each scenario in FOLDER and writes result.json there.
"""

import gc
import importlib.util
import json
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import accelerate.utils  # noqa: F401, TID253  before the forks, as all that takes time
import torch
from torch import Tensor

from triptych.check import InputError, NotConverged
from triptych.engine import Engine, start
from triptych.gan import checkpoint
from triptych.gan.draw import Latent
from triptych.gan.held_out import HeldOut
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.objectives import WassersteinGP
from triptych.gan.optimiser import Optimiser
from triptych.gan.recipe import Recipe
from triptych.gan.run import Every, Run, play
from triptych.gan.schedule import Constant
from triptych.gan.settings import to_json
from triptych.gan.train import Rules, train
from triptych.images import Images
from triptych.store import write_tensors

STEPS = 20
OPTIMISER = Optimiser(lr=1e-3)
NET = DCGAN(width=4, norm="none")  # batch normalisation knows one process's images alone
RULES = Rules(Latent(4), OPTIMISER, OPTIMISER, steps=STEPS, half_life=50.0)
RECIPE = Recipe("tiny", "no one", WassersteinGP(steps=2), NET, NET, (1, 8, 8), batch=7, mirror=True, rules=RULES)
PIXELS = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IMAGES = Images(PIXELS)
CONFIG = {"recipe": to_json(RECIPE), "seed": 3, "precision": "float32", "data": {"checksum": IMAGES.checksum()}}
EVERY = Every(log=1, checkpoint=4, grid=8, compare=3)


def forked(action: Callable[[], int | None], said: Path, **environment: object) -> int:
    """Start a process that does something, ends as a command would, and writes what it says to a file; its id."""
    process = os.fork()
    if process:
        return process
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update({name: str(value) for name, value in environment.items()})
    sys.stderr = said.open("w")
    try:
        status = action() or 0
    except NotConverged as error:
        print(error, file=sys.stderr)
        status = 1
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    except BaseException:
        traceback.print_exc()
        status = 99
    if status:  # as triptych.cli.entry does
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def together(folder: Path, n: int, action: Callable[[], int | None]) -> dict:
    """Processes as torchrun starts them: their exit statuses and what each said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    place = {"WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    said = [folder / f"said-{rank}" for rank in range(n)]
    ids = [forked(action, said[rank], RANK=rank, LOCAL_RANK=rank, **place) for rank in range(n)]
    return {"status": [ended(process) for process in ids], "said": [path.read_text() for path in said]}


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def same_nets(folder: Path, precision: str) -> None:
    """Train and save every process's parameters."""
    with start("cpu", precision) as engine:
        players = RECIPE.players(3, engine)
        batches = RECIPE.batches(IMAGES, engine)
        rules, schedule = RECIPE.rules, Constant(RECIPE.batch)
        game = train(players, RECIPE.objective, batches, seed=3, rules=rules, schedule=schedule, engine=engine)
        parts = [next(game).parts for _ in range(STEPS)][-1]
        tensors = {f"part/{name}": value for name, value in parts.items()}
        write_tensors(folder / f"{engine.rank}.safetensors", {**tensors, **checkpoint.networks(players)})


def words(folder: Path) -> None:
    """What the processes say to each other, written by each."""
    with start("cpu") as engine:
        given = [
            torch.full((2, 3), float(engine.rank)),
            torch.tensor([engine.rank]),
            torch.full((2,), 5.0 + engine.rank),
        ]
        engine.broadcast(given)
        told = {
            "sum": engine.sum(torch.tensor([1.0, engine.rank])).tolist(),
            "broadcast": [tensor.tolist() for tensor in given],
            "share": engine.share({"a": [1, "ü"]} if engine.main else None),
            "any": [engine.any(engine.rank == 2), engine.any(False)],
            "main": engine.main,
        }
        engine.agree("the counts", 2**62)
        engine.wait()
        (folder / f"{engine.rank}.json").write_text(json.dumps(told))


def disagree() -> None:
    with start("cpu") as engine:
        engine.agree("the parameters", int(engine.rank == 1))


def wrong_on_one() -> None:
    with start("cpu") as engine:
        if engine.main:
            raise InputError("images must be there, got none")
        engine.wait()


def opened(folder: Path, engine: Engine) -> Run:
    """The run of a folder, new or to go on with; the main process alone touches the folder."""
    if not engine.main:
        return Run(folder, CONFIG)
    return (Run.resume if (folder / "config.json").is_file() else Run.create)(folder, CONFIG, {})


def measured(folder: Path, dies: bool = False) -> None:
    """Train on nine tenths and measure on the others; ``dies``: at the second grid."""
    held_out = HeldOut.tenth(IMAGES, RECIPE.batch)
    assert held_out is not None

    def grid(step: int, _: object) -> bytes:
        if dies and step == 16:
            os.kill(os.getpid(), signal.SIGKILL)
        return b""

    with start("cpu") as engine:
        every = replace(EVERY, measure=3)
        play(opened(folder, engine), RECIPE, held_out, engine=engine, every=every, draw_grid=grid)


def trained(folder: Path, on: Callable[[Engine, int], Tensor | None] | None = None) -> None:
    """Train in a run folder, or go on there; ``on(engine, step)`` is called in every process before it reads images.

    What it returns is added to them.
    """
    with start("cpu") as engine:
        run = opened(folder, engine)
        batches = RECIPE.batches(IMAGES, engine)

        def watched(seed: int, seen: int, n: int):
            added = on(engine, seen // (2 * RECIPE.batch)) if on else None
            batch = batches(seed, seen, n)
            return batch if added is None else replace(batch, images=batch.images + added)

        play(run, RECIPE, watched, engine=engine, every=EVERY, draw_grid=lambda step, _: b"grid %d" % step)


def dies(engine: Engine, step: int) -> None:
    if engine.rank == engine.size - 1 and step == 11:
        os.kill(os.getpid(), signal.SIGKILL)


def first_dies(engine: Engine, step: int) -> None:
    if engine.main and step == 11:
        os.kill(os.getpid(), signal.SIGKILL)


def interrupted(engine: Engine, step: int) -> None:
    if engine.rank == engine.size - 1 and step == 9:
        os.kill(os.getpid(), signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once


def spoils() -> Callable[[Engine, int], Tensor | None]:
    """Spoil one process's images of step 11, once: a game that diverges where one process alone can see why."""
    done: list[int] = []

    def spoil(engine: Engine, step: int) -> Tensor | None:
        if engine.rank == 1 and step == 11 and not done:
            done.append(step)
            return torch.tensor(float("nan"))
        return None

    return spoil


def full(engine: Engine, step: int) -> None:
    if step == 10:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))


def killed(folder: Path) -> dict:
    """The benchmark of kills, with processes that need no start."""
    spec = importlib.util.spec_from_file_location("kill", Path(__file__).parents[2] / "benchmarks/kill.py")
    kill = importlib.util.module_from_spec(spec)
    sys.modules["kill"] = kill
    spec.loader.exec_module(kill)
    runs = folder / "runs"

    def begin(run: Path) -> int:
        return forked(lambda: trained(run), folder / "said")

    tally = kill.kill_and_compare(begin, runs, kills=4, in_save=2, seed=0, say=lambda _: None)
    return vars(tally)


def scenarios(folder: Path) -> dict:
    result = {}
    for n in (1, 2, 4):
        for precision in ("float32", "float64"):
            place = folder / f"same-{n}-{precision}"
            result[place.name] = together(
                place, n, lambda place=place, precision=precision: same_nets(place, precision)
            )
    result["words"] = together(folder / "words", 3, lambda: words(folder / "words"))
    result["disagree"] = together(folder / "disagree", 2, disagree)
    result["wrong on one"] = together(folder / "wrong", 2, wrong_on_one)
    for name, then in (("two", 2), ("four", 4), ("one", 1)):
        runs = folder / f"death-{name}"
        result[f"death, then {name}"] = [
            together(folder / "said", 2, lambda runs=runs: trained(runs, dies)),
            together(folder / "said", then, lambda runs=runs: trained(runs)),
        ]
    runs = folder / "first"
    result["the first dies"] = [
        together(folder / "said", 3, lambda: trained(runs, first_dies)),
        together(folder / "said", 2, lambda: trained(runs)),
    ]
    result["poisoned"] = together(folder / "said", 2, lambda: trained(folder / "poisoned", spoils()))
    result["never"] = together(folder / "said", 2, lambda: trained(folder / "never"))
    result["alone"] = together(folder / "said", 1, lambda: trained(folder / "alone"))
    runs = folder / "interrupted"
    result["interrupted"] = [
        together(folder / "said", 2, lambda: trained(runs, interrupted)),
        sorted(path.name for path in (runs / "checkpoints").iterdir()),
        together(folder / "said", 2, lambda: trained(runs)),
    ]
    result["full"] = [
        together(folder / "said", 1, lambda: trained(folder / "full", full)),
        together(folder / "said", 1, lambda: trained(folder / "full")),
    ]
    for n in (1, 2):
        result[f"measured by {n}"] = together(folder / "said", n, lambda n=n: measured(folder / f"measured-{n}"))
    runs = folder / "measured-killed"
    result["measured, killed"] = [
        together(folder / "said", 2, lambda dies=dies: measured(runs, dies)) for dies in (True, False)
    ]
    result["killed"] = killed(folder / "killed-runs")
    return result


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    RECIPE.players(0, Engine())  # the first optimiser loads a second's worth of modules
    gc.collect()
    gc.freeze()  # else every process copies the heap when it ends
    (folder / "killed-runs").mkdir(parents=True)
    result = scenarios(folder)
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
