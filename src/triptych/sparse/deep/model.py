"""Saved models of many layers: a fitted `MultiLayerSparseCoder` as a folder of safetensors and JSON, and back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from triptych import store
from triptych.check import InputError, real, whole
from triptych.sparse.deep.dictionary import MultiLayerDictionary
from triptych.sparse.deep.learning import DeepState, LayerShape
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.model import DAMAGE, plain

KIND = "sparse-deep"
PARAMETERS = (
    "layers", "density", "reg", "reg_scale", "nonnegative", "max_iter", "batch_size", "rate", "code_tol", "signal_shape",
)  # fmt: skip
STATE = ("entries", "first", "second")


class Fitted(Protocol):
    """What is saved of an estimator, and set when it is loaded."""

    dictionary_: MultiLayerDictionary
    reg_: float
    objective_: list[float]
    n_iter_: int
    n_samples_: int
    examples_: Tensor
    signal_shape_: tuple[int, ...]
    n_features_in_: int
    _form: tuple[int, ...]
    _seed: int
    _visit: list[float]
    _state: DeepState
    _resumable: bool

    def _shapes(self) -> tuple[LayerShape, ...]: ...


E = TypeVar("E", bound=Fitted)


def save(coder: Fitted, folder: str | Path, resumable: bool) -> Path:
    """Write a fitted estimator, with the entries that are not kept and Adam's means where it is to be ``resumable``."""
    resumable = resumable and coder._resumable
    tensors = {f"atoms_{i}": D.atoms for i, D in enumerate(coder.dictionary_.layers, 1)}
    tensors["examples"] = coder.examples_
    if resumable:
        for name in STATE:
            tensors |= {f"{name}_{i}": t for i, t in enumerate(getattr(coder._state, name), 1)}
        tensors["used"] = coder._state.used
    parameters = {name: getattr(coder, name) for name in PARAMETERS}
    if not isinstance(parameters["layers"], str):
        parameters["layers"] = [vars(layer) for layer in parameters["layers"]]
    meta = {
        "parameters": plain(parameters),
        "reg": coder.reg_,
        "objective": coder.objective_,
        "visit": coder._visit,
        "signal_shape": list(coder.signal_shape_),
        "form": list(coder._form),
        "n_features_in": int(coder.n_features_in_),
        "n_samples": coder.n_samples_,
        "seed": coder._seed,
        "step": coder._state.step,
        "resumable": resumable,
    }
    return store.save(folder, tensors, meta, kind=KIND)


def load(cls: Callable[..., E], folder: str | Path) -> E:
    """Read what `save` wrote. Raises InputError for a folder of another kind, and for any damage."""
    tensors, meta = store.load(folder, kind=KIND)
    try:
        return _estimator(cls, tensors, meta)
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{folder} is no model of this version ({reason}); learn and save it again") from error


def _estimator(cls: Callable[..., E], tensors: dict[str, Tensor], meta: dict[str, Any]) -> E:
    """The estimator of saved parts."""
    given = dict(meta["parameters"])
    if not isinstance(given["layers"], str):
        given["layers"] = tuple(LayerShape(**layer) for layer in given["layers"])
    given["signal_shape"] = None if given["signal_shape"] is None else tuple(given["signal_shape"])
    coder = cls(**given)
    coder.signal_shape_ = tuple(whole("signal_shape", n) for n in meta["signal_shape"])
    coder._form = tuple(whole("form", n) for n in meta["form"])
    coder.n_features_in_ = whole("n_features_in", meta["n_features_in"])
    coder.n_samples_ = whole("n_samples", meta["n_samples"])
    coder.reg_ = real("reg", meta["reg"], above=0.0)
    coder.objective_ = [real("objective", value) for value in meta["objective"]]
    coder._visit = [real("visit", value) for value in meta["visit"]]
    coder._seed = whole("seed", meta["seed"], low=0)
    coder.n_iter_, coder._resumable = len(coder.objective_), bool(meta["resumable"])
    shapes = coder._shapes()
    atoms = [tensors[f"atoms_{i}"] for i in range(1, len(shapes) + 1)]
    coder.dictionary_ = MultiLayerDictionary(tuple(ConvDictionary(a, s.stride) for a, s in zip(atoms, shapes)))
    coder.dictionary_.code_shapes(coder.signal_shape_[1:])
    coder.examples_ = tensors["examples"]
    finite = all(bool(t.isfinite().all()) for t in tensors.values())
    if not finite or (coder.dictionary_.channels, *coder.examples_.shape[2:]) != coder.signal_shape_:
        raise ValueError("its numbers are not finite, or do not fit together")
    entries, first, second = (
        tuple(tensors[f"{name}_{i}"] if coder._resumable else a for i, a in enumerate(atoms, 1)) for name in STATE
    )
    if any(t.shape != a.shape for part in (entries, first, second) for t, a in zip(part, atoms)):
        raise ValueError("the state of learning does not fit the atoms")
    used = tensors["used"] if coder._resumable else torch.zeros(len(atoms[-1]), dtype=torch.int64)
    coder._state = DeepState(shapes, entries, first, second, whole("step", meta["step"], low=0), used)
    return coder
