"""The papers' tables and figures: one folder a paper, one file a table; a file there is found by its name."""

import pkgutil
from importlib import import_module

from triptych.bench.experiment import Experiment
from triptych.check import InputError, nearest


def names() -> list[str]:
    """List the experiments, '<paper>.<table>' each, without importing one."""
    found = []
    for paper in pkgutil.iter_modules(__path__):
        if paper.ispkg:
            folders = [f"{folder}/{paper.name}" for folder in __path__]
            found += [f"{paper.name}.{table.name}" for table in pkgutil.iter_modules(folders) if table.name[0] != "_"]
    return sorted(found)


def find(name: str) -> Experiment:
    """Import an experiment by its name. Raises InputError for an unknown one, with the known ones and the nearest."""
    known = names()
    if name not in known:
        raise InputError(
            f"name must be one of {', '.join(known) or 'none (no paper is installed)'}, got {name!r}{nearest(name, known)}"
        )
    experiment = import_module(f"{__name__}.{name}").EXPERIMENT
    if not isinstance(experiment, Experiment) or experiment.name != name:
        raise TypeError(f"{__name__}.{name}.EXPERIMENT must be an Experiment named {name!r}")
    return experiment
