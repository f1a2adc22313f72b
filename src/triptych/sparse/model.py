"""Saved dictionaries: a fitted `ConvolutionalDictionaryLearning` as a folder of safetensors and JSON, and back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from triptych import store
from triptych.check import InputError, real, whole
from triptych.sparse.codes import Codes
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.learning.learn import State
from triptych.sparse.learning.statistics import Statistics

KIND = "sparse"
PARAMETERS = (
    "n_atoms", "size", "stride", "boundary", "reg", "reg_scale", "nonnegative", "rank_one", "max_iter", "tol",
    "batch_size", "forget", "code_tol", "signal_shape",
)  # fmt: skip
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, OverflowError)


class Fitted(Protocol):
    """What is saved of an estimator, and set when it is loaded."""

    reg_: float
    objective_: list[float]
    converged_: bool
    signal_shape_: tuple[int, ...]
    n_features_in_: int
    _form: tuple[int, ...]
    _seed: int
    _state: State

    def _describe(self) -> None: ...


E = TypeVar("E", bound=Fitted)


def save(estimator: Fitted, folder: str | Path, resumable: bool) -> Path:
    """Write a fitted estimator, with the codes and sums of `fit` where it is to be ``resumable``."""
    state = estimator._state
    tensors = {"atoms": state.dictionary.atoms}
    if resumable:
        tensors |= {
            "lengths": torch.tensor([len(index) for index in state.codes.index]),
            "index": torch.cat(state.codes.index),
            "value": torch.cat(state.codes.value),
            "pairs": state.statistics.pairs,
            "patches": state.statistics.patches,
        }
    meta = {
        "parameters": {name: plain(getattr(estimator, name)) for name in PARAMETERS},
        "reg": estimator.reg_,
        "objective": estimator.objective_,
        "converged": estimator.converged_,
        "signal_shape": list(estimator.signal_shape_),
        "form": list(estimator._form),
        "n_features_in": int(estimator.n_features_in_),
        "seed": estimator._seed,
        "epoch": state.epoch,
        "resumable": resumable,
        "energy": state.statistics.energy,
        "penalty": state.statistics.penalty,
    }
    return store.save(folder, tensors, meta, kind=KIND)


def load(cls: Callable[..., E], folder: str | Path) -> E:
    """Read what `save` wrote. Raises InputError for a folder of another kind, and for any damage."""
    tensors, meta = store.load(folder, kind=KIND)
    try:
        return _estimator(cls, tensors, meta)
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{folder} is no dictionary of this version ({reason}); learn and save it again") from error


def _estimator(cls: Callable[..., E], tensors: dict[str, Tensor], meta: dict[str, Any]) -> E:
    """The estimator of saved parts."""
    parameters: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in meta["parameters"].items()
    }
    estimator = cls(**parameters)
    estimator.signal_shape_ = tuple(whole("signal_shape", n) for n in meta["signal_shape"])
    estimator._form = tuple(whole("form", n) for n in meta["form"])
    estimator.n_features_in_ = whole("n_features_in", meta["n_features_in"])
    estimator.reg_ = real("reg", meta["reg"], above=0.0)
    estimator.objective_ = [real("objective", value) for value in meta["objective"]]
    estimator.converged_ = bool(meta["converged"])
    estimator._seed = whole("seed", meta["seed"], low=0)
    dictionary = ConvDictionary(tensors["atoms"], parameters["stride"], parameters["boundary"])
    shape = (dictionary.n_atoms, *dictionary.code_shape(estimator.signal_shape_[1:]))
    codes, statistics = Codes(shape, [], []), Statistics.empty(dictionary)
    if meta["resumable"]:
        lengths = tensors["lengths"].tolist()
        codes = Codes(shape, list(tensors["index"].split(lengths)), list(tensors["value"].split(lengths)))
        if tensors["pairs"].shape != statistics.pairs.shape or tensors["patches"].shape != statistics.patches.shape:
            raise ValueError("the sums do not fit the atoms")
        statistics = Statistics(tensors["pairs"], tensors["patches"], float(meta["energy"]), float(meta["penalty"]))
    if not all(bool(t.isfinite().all()) for t in tensors.values()) or dictionary.channels != estimator.signal_shape_[0]:
        raise ValueError("its numbers are not finite, or do not fit together")
    epoch = whole("epoch", meta["epoch"], low=0) if meta["resumable"] else 0
    estimator._state = State(dictionary, codes, statistics, epoch)
    estimator._describe()
    return estimator


def plain(value: Any) -> Any:
    """A parameter, or a dict of them, as JSON holds it."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    return value.item() if hasattr(value, "item") else value
