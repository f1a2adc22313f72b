"""What a user asks of a training: flags over a TOML file over, with --resume, what the run was made with."""

import os
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from triptych.check import InputError, choice, nearest, whole
from triptych.cli.gan_options import Game, Keeping, Machine, Reading
from triptych.engine import Engine
from triptych.gan import settings
from triptych.gan.catalogue import NAMES
from triptych.gan.folder import Run, check_free
from triptych.gan.held_out import HeldOut
from triptych.gan.optimiser import Optimiser
from triptych.gan.recipe import Recipe
from triptych.gan.recipes import RECIPES
from triptych.gan.run import Every
from triptych.gan.train import Rules
from triptych.images import Images

G = TypeVar("G", bound=Reading | Game | Machine | Keeping)
NEVER_IN_A_FILE = {"config", "out", "init_from", "resume"}
FROM_THE_IMAGES = ("name", "follows", "shape", "classes")  # or from the recipe
IN_RECIPE = ("batch", "mirror")
IN_RULES = ("steps", "accumulate")
KEEPING = {
    "log": "log_every",
    "checkpoint": "checkpoint_every",
    "grid": "grid_every",
    "keep": "keep",
    "measure": "measure_every",
    "score": "score_every",
}
TENTH, NONE = "a tenth", "none"  # what is held out where no images are named
UNLABELLED = "the images have no labels; leave --labels away, or give a folder with one sub-folder a class"


@dataclass(frozen=True)
class Wish:
    """A command line of ``gan train``, and then what it comes to: options that nobody gave are None.

    ``changes`` are the recipe's own settings in the file ``where``; ``run`` is the run that is gone on with.
    """

    recipe: str | None
    reading: Reading
    game: Game
    machine: Machine
    keeping: Keeping
    changes: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    run: Run | None = None

    def resolved(self) -> "Wish":
        """Flags over the file over the run. Raises InputError for wrong names, types and places; nothing is written."""
        if self.recipe is not None:
            choice("recipe", self.recipe, NAMES)
        wish = self if self.game.config is None else self._over_file(self.game.config)
        for name in ("seed", "steps", "batch", "width", "accumulate"):
            value = getattr(wish.game, name)
            if value is not None:
                whole(name, value, low=0 if name == "seed" else 1)
        if self.keeping.resume:
            return wish._over_run()
        if self.recipe is None:
            raise InputError(f"recipe must be one of {', '.join(NAMES)}, got none; or go on with a run by --resume")
        if wish.keeping.out is not None:
            check_free(wish.keeping.out)
        return wish

    def built(self, images: Images, count: int | None = None) -> Recipe:
        """The recipe for these images, all settings laid over it. Raises InputError where they do not suit it.

        ``count`` is how many there are, where ``images`` are some of them.
        """
        labelled = bool(self.reading.labels)
        if labelled and images.labels is None:
            raise InputError(
                "the images have no labels; leave --labels away, or give a folder with one sub-folder a class"
            )
        if self.run is not None:
            recipe = settings.from_json(self.run.config["recipe"], f"{self.run.folder / 'config.json'}")
        else:
            classes = len(images.classes) if labelled else 0
            recipe = RECIPES[str(self.recipe)](images.shape[1:], classes, self.game.width, count or len(images))
        recipe = settings.override(recipe, self.changes, self.where)
        chosen = {
            name: getattr(self.reading if name == "mirror" else self.game, name) for name in (*IN_RECIPE, *IN_RULES)
        }
        recipe = recipe.changed(**{name: value for name, value in chosen.items() if value is not None})
        recipe.batches(images, Engine())  # refuses other shapes, classes and too few images
        return recipe

    def config(self, recipe: Recipe, images: Images, held_out: HeldOut | None = None) -> dict[str, Any]:
        """What config.json says of the run."""
        data, (_, precision), every = self.reading, self.machine_settings, self.intervals
        path = str(data.data)
        source = {name: getattr(data, name) for name in ("side", "fit", "split", "limit")}
        init_from = self.game.init_from
        return {
            "recipe": settings.to_json(recipe),
            "seed": self.seed,
            "precision": precision,
            "compile": bool(self.machine.compile),
            "width": self.game.width,
            "labels": bool(data.labels),
            "data": {
                "checksum": f"sha256:{images.checksum()}",
                "name": Path(path).name,
                "path": os.path.realpath(path) if Path(path).exists() else path,
                **source,
                "images": len(images),
                "classes": list(images.classes) if data.labels else [],
            },
            "held_out": self._held_out(held_out),
            "init_from": None if init_from is None else os.path.realpath(init_from),
            "every": every,
        }

    def _held_out(self, held_out: HeldOut | None) -> dict[str, Any] | None:
        """What config.json says of the held-out images: where they are, how many, their checksum where they are a set of their own."""
        if held_out is None:
            return None
        apart, named = held_out.index is None, str(self.reading.held_out)
        return {
            "from": os.path.realpath(named) if apart and Path(named).exists() else named,
            "images": held_out.count,
            "checksum": f"sha256:{held_out.images.checksum()}" if apart else None,
        }

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.game.seed or 0

    @property
    def machine_settings(self) -> tuple[str | None, str]:
        """The device, None for the best there is, and the precision."""
        return self.machine.device, self.machine.precision or "float32"

    @property
    def intervals(self) -> dict[str, Any]:
        """Steps from one line, checkpoint and grid to the next, and how many checkpoints stay."""
        given = {name: getattr(self.keeping, option) for name, option in KEEPING.items()}
        return {name: getattr(Every, name) if value is None else value for name, value in given.items()}

    def command(self) -> str:
        """The command line, without options at their defaults, for a run in a folder RUN."""
        words = ["triptych", "gan", "train", *([self.recipe] if self.recipe else []), "--out", "RUN"]
        for group in (self.reading, self.game, self.machine, self.keeping):
            for name, value in vars(group).items():
                if value != getattr(type(group)(), name) and name != "out":
                    flag = f"--{name.replace('_', '-')}"
                    off = f"--no-{flag[2:]}"
                    words += ([flag] if value else [off]) if isinstance(value, bool) else [flag, str(value)]
        return shlex.join(words)

    def _over_file(self, path: Path) -> "Wish":
        """The options of a TOML file where no flag was given, and the recipe's settings in it."""
        table, groups = read_toml(path), (self.reading, self.game, self.machine, self.keeping)
        options = [f.name for group in groups for f in fields(group) if f.name not in NEVER_IN_A_FILE]
        own = [name for name in Recipe.__dataclass_fields__ if name not in (*options, *FROM_THE_IMAGES)]
        for name in table:
            if name not in (*options, *own):
                raise InputError(f"{path}: {name} is no setting{_hint(name, [*options, *own])}")
        changes = {name: table.pop(name) for name in list(table) if name not in options}
        if isinstance(table.get("labels"), str):  # the way that the critic is told them
            changes["labels"], table["labels"] = table["labels"], True
        over = [
            _over(
                group,
                settings.override(type(group)(), {n: v for n, v in table.items() if hasattr(group, n)}, str(path)),
            )
            for group in groups
        ]
        return replace(
            self, **dict(zip(("reading", "game", "machine", "keeping"), over)), changes=changes, where=str(path)
        )

    def _over_run(self) -> "Wish":
        """The options of the run that is gone on with, where neither a flag nor the file says otherwise."""
        if self.keeping.out is None:
            raise InputError("out must be the folder of the run to go on with, got none; give --out RUN --resume")
        run = Run.open(self.keeping.out)
        try:
            old, data, name = run.config, run.config["data"], run.config["recipe"]["name"]
            apart = old["held_out"]["from"] if old.get("held_out") else NONE
            below = Reading(
                data["path"], data["side"], data["fit"], data["split"], data["limit"], old["labels"], held_out=apart
            )
            game = Game(width=old["width"], seed=old["seed"], init_from=old["init_from"] and Path(old["init_from"]))
            machine = Machine(precision=old["precision"], compile=old["compile"])
            keeping = Keeping(**{option: old["every"].get(name) for name, option in KEEPING.items()})
        except (KeyError, TypeError):
            raise InputError(
                f"{run.folder} is no run that `triptych gan train` can go on with; train a new one"
            ) from None
        if self.recipe not in (None, name):
            raise InputError(f"{self.keeping.out} was made with the recipe {name}, got {self.recipe!r}; leave it away")
        return replace(
            self,
            recipe=name,
            reading=_over(self.reading, below),
            game=_over(self.game, game),
            machine=_over(self.machine, machine),
            keeping=_over(self.keeping, keeping),
            run=run,
        )


def _hint(name: str, known: list[str]) -> str:
    """What may have been meant: a name that is near, the tables where others have it, or all that are known."""
    inner = {"rules": Rules, "rules.generator_optimiser": Optimiser, "rules.critic_optimiser": Optimiser}
    places = [table for table, kind in inner.items() if name in kind.__dataclass_fields__]
    tables = [table for table in inner if table.endswith(f".{name}")]
    if places or tables:
        return f"; write it in the table {' or '.join(f'[{one}]' for one in (places or tables))}"
    return nearest(name, known) or f"; the settings here are {', '.join(known)}"


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file. Raises InputError where there is none or it is broken."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"config must be a TOML file, but there is no file {path}") from None
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"config must be a TOML file, but {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"config must be a TOML file, but {path} is no text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"config must be a TOML file, but {path} is not: {error}") from None


def _over(group: G, below: G) -> G:
    """A group of options; those that were not given are taken from another."""
    return replace(group, **{name: getattr(below, name) for name, value in vars(group).items() if value is None})
