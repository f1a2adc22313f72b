"""What the command sparse learn does."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from triptych import store
from triptych.check import InputError, real
from triptych.cli.console import Console
from triptych.cli.place import check_place
from triptych.data import load
from triptych.sparse import model
from triptych.sparse.coherence import mutual_coherence
from triptych.sparse.estimator import ConvolutionalDictionaryLearning
from triptych.sparse.restore import split

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Plan:
    """What is asked for: see `triptych.cli.sparse.learn`."""

    data: Path
    out: Path
    atoms: int
    size: int
    stride: int
    reg: float
    side: int
    count: int
    colour: bool
    visits: int
    seed: int
    layers: str | None = None
    density: float = 0.02
    keep_low: bool = False


def learned(voice: Console, plan: Plan, resume: bool) -> None:
    """Learn a dictionary, and write the model after every visit. Raises InputError."""
    check_place("out", plan.out)
    real("reg", plan.reg, above=0.0, high=1.0)
    learner = _resumed(plan) if resume else _begun(plan)
    signals = signals_of(plan)
    n = described(voice, plan, signals)

    def told(visit: int, objective: float) -> None:
        learner.save(plan.out)
        voice.say(f"visit {visit}: objective {objective:.6g}")

    learner.set_params(verbose=told, max_iter=plan.visits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        learner.fit(signals)
    learner.save(plan.out)
    mu = mutual_coherence(learner.dictionary_)
    why = "the objective fell by less than a thousandth" if learner.converged_ else "the visits were used up"
    voice.finish(
        {
            "out": str(plan.out),
            "pictures": n,
            "side": plan.side,
            "atoms": plan.atoms,
            "size": plan.size,
            "stride": plan.stride,
            "reg": learner.reg_,
            "visits": learner.n_iter_,
            "converged": learner.converged_,
            "objective": learner.objective_,
            "coherence": mu,
            "low_frequencies": "kept" if plan.keep_low else "split off",
        },
        f"wrote {plan.out} after {learner.n_iter_} visits ({why}); coherence {mu:.3f}; no optimum is claimed: learning is not "
        "convex",
    )


def _begun(plan: Plan) -> ConvolutionalDictionaryLearning:
    """A learner that has seen nothing. Raises InputError where a model would be written over."""
    if plan.out.is_dir() and any(plan.out.iterdir()):
        what = "a model" if store.kind_of(plan.out) == model.KIND else "something else"
        raise InputError(
            f"out must be a new or empty folder, but {plan.out} holds {what}; choose another, or --resume a model"
        )
    return ConvolutionalDictionaryLearning(
        plan.atoms, size=plan.size, stride=plan.stride, reg=plan.reg, random_state=plan.seed, warm_start=True
    )


def _resumed(plan: Plan) -> ConvolutionalDictionaryLearning:
    """The learner that a stopped run left. Raises InputError where it was another run's."""
    learner = ConvolutionalDictionaryLearning.load(plan.out)
    asked = {"n_atoms": plan.atoms, "size": plan.size, "stride": plan.stride, "reg": plan.reg}
    for name, value in asked.items():
        if getattr(learner, name) != value:
            raise InputError(
                f"resume must be with the settings of the run: {name.removeprefix('n_')} {getattr(learner, name)}, got {value}"
            )
    return learner.set_params(warm_start=True)


def described(voice: Console, plan: Plan, signals: np.ndarray) -> int:
    """Say what is learned from; how many pictures."""
    n, c, h, w = signals.shape
    low = "taken as they are" if plan.keep_low else "their low frequencies were split off"
    voice.say(f"{n} pictures, {w} x {h} pixels, {'colour' if c == 3 else 'grey'}; {low}")
    return n


def signals_of(plan: Plan) -> np.ndarray:
    """The pictures' high frequencies, or the pictures, (n, c, side, side) on the scale 0 to 255. Raises InputError."""
    images = load(plan.data, side=plan.side, limit=plan.count)
    values = images.pixels.float()
    if plan.colour and values.shape[1] != 3:
        raise InputError(f"data must be pictures in colour for --colour, but {plan.data} is grey; leave it away")
    if not plan.colour and values.shape[1] == 3:
        values = (values * torch.tensor(GREY)[:, None, None]).sum(1, keepdim=True)
    return values.numpy() if plan.keep_low else split(values)[1].numpy()
