"""Saved models: a fitted `CCNNClassifier` as a folder of safetensors and JSON, and back; the same fit, the same bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from triptych import store
from triptych.ccnn.features import PatchFeatures
from triptych.ccnn.kernels import Cosine, Expansion, Identity, Kernel, Linear, Monomials, Nystrom
from triptych.ccnn.layer import ConvexLayer
from triptych.ccnn.settings import KERNELS, Layer
from triptych.check import InputError, real, whole
from triptych.convex import Check, Solution, Status

KIND = "ccnn"
PARAMETERS = ("radius", "tol", "max_iter", "image_shape", "memory_limit", "precision")
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, OverflowError, ArithmeticError)


class Fitted(Protocol):
    """What is saved of a classifier, and set when it is loaded."""

    classes_: np.ndarray
    scale_: float
    image_shape_: tuple[int, int, int]
    n_features_in_: int
    layers_: list[ConvexLayer]

    def _describe(self) -> None: ...

    def predict(self, X: Any) -> np.ndarray:
        """Labels (n,)."""
        ...

    def transform(self, X: Any) -> np.ndarray:
        """Feature maps."""
        ...


C = TypeVar("C", bound=Fitted)


def save(classifier: Fitted, folder: str | Path) -> Path:
    """Write a fitted classifier; labels must be numbers, strings or booleans. Raises InputError otherwise."""
    classes = classifier.classes_
    if classes.dtype.kind not in "iufbUO" or not all(isinstance(c, str | int | float | bool) for c in classes.tolist()):
        raise InputError(
            f"labels must be numbers, strings or booleans to be saved, got {classes.dtype}; encode them before fit"
        )
    tensors: dict[str, Tensor] = {}
    for number, layer in enumerate(classifier.layers_):
        tensors |= {f"{number}.{name}": value for name, value in _tensors(layer).items()}
    meta = {
        "classes": classes.tolist(),
        "classes_dtype": "object" if classes.dtype.kind == "O" else classes.dtype.str,
        "scale": classifier.scale_,
        "image_shape": list(classifier.image_shape_),
        "n_features_in": int(classifier.n_features_in_),
        "parameters": {name: _plain(getattr(classifier, name)) for name in PARAMETERS},
        "layers": [_facts(layer) for layer in classifier.layers_],
    }
    return store.save(folder, tensors, meta, kind=KIND)


def load(cls: Callable[..., C], folder: str | Path) -> C:
    """Read what `save` wrote. Raises InputError for a folder of another kind, and for any damage."""
    tensors, meta = store.load(folder, kind=KIND)
    try:
        return _classifier(cls, tensors, meta)
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{folder} is no model of this version ({reason}); fit and save it again") from error


def _classifier(cls: Callable[..., C], tensors: dict[str, Tensor], meta: dict[str, Any]) -> C:
    """The classifier of saved parts, tried on a blank image: parts that do not fit together raise here, not later."""
    if not all(bool(t.isfinite().all()) for t in tensors.values()):
        raise ValueError("a tensor holds values that are not finite")
    c, h, w = (whole("image_shape", size) for size in meta["image_shape"])
    layers = [
        _layer(facts, {key.split(".", 1)[1]: t for key, t in tensors.items() if key.startswith(f"{number}.")})
        for number, facts in enumerate(meta["layers"])
    ]
    parameters = dict(meta["parameters"])
    if parameters["image_shape"] is not None:
        parameters["image_shape"] = tuple(parameters["image_shape"])
    classifier = cls([layer.settings for layer in layers], **parameters)
    classifier.classes_ = np.array(list(meta["classes"]), dtype=meta["classes_dtype"])
    classifier.scale_ = real("scale", meta["scale"], above=0.0)
    classifier.image_shape_ = (c, h, w)
    classifier.n_features_in_ = whole("n_features_in", meta["n_features_in"])
    classifier.layers_ = layers
    if classifier.n_features_in_ != c * h * w or any(layer.classes != len(classifier.classes_) for layer in layers):
        raise ValueError("the numbers of pixels or classes do not agree")
    classifier._describe()
    blank = np.zeros((1, classifier.n_features_in_), np.uint8)
    classifier.predict(blank)
    classifier.transform(blank)
    return classifier


def _tensors(layer: ConvexLayer) -> dict[str, Tensor]:
    """The tensors that define a layer."""
    f = layer.features
    named = {"A": layer.A, "filters": layer.filters, "centre": f.centre, "mix": f.mix}
    if f.mean is not None and f.whiten is not None:
        named |= {"mean": f.mean, "whiten": f.whiten}
    return named | {f"expansion.{name}": value for name, value in f.expansion.tensors().items()}


def _facts(layer: ConvexLayer) -> dict[str, Any]:
    """The rest of a layer, as JSON; no time of day and no duration, so that the same fit has the same bytes."""
    f, s = layer.features, layer.solution
    kernel = f.settings.kernel
    settings = {name: _plain(value) for name, value in vars(f.settings).items()}
    settings["kernel"] = [kernel.name, {name: _plain(value) for name, value in vars(kernel).items()}]
    return {
        "settings": settings,
        "shape": list(f.shape),
        "expansion": type(f.expansion).__name__,
        "dtype": str(f.dtype).removeprefix("torch."),
        "scale": f.scale,
        "map_scale": layer.map_scale,
        "status": s.status[0].name,
        "steps": int(s.steps),
        "objective": float(s.objective),
        "lower_bound": float(s.lower_bound),
        "history": [[check.step, float(check.objective), float(check.lower_bound)] for check in s.history],
    }


def _layer(facts: dict[str, Any], tensors: dict[str, Tensor]) -> ConvexLayer:
    """The inverse of `_tensors` and `_facts`."""
    name, kernel_fields = facts["settings"]["kernel"]
    settings = Layer(**(facts["settings"] | {"kernel": KERNELS[name](**kernel_fields)}))
    parts = {key.removeprefix("expansion."): t for key, t in tensors.items() if key.startswith("expansion.")}
    c, h, w = (whole("shape", size) for size in facts["shape"])
    dtype = getattr(torch, facts["dtype"])
    if isinstance(settings.kernel, Linear) != ("whiten" not in tensors) or ("mean" in tensors) != ("whiten" in tensors):
        raise ValueError("whitening and kernel do not agree")
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError("the dtype is not one of floating-point numbers")
    features = PatchFeatures(
        settings, (c, h, w), _expansion(facts["expansion"], settings.kernel, parts),
        tensors.get("mean"), tensors.get("whiten"), tensors["centre"], tensors["mix"],
        whole("window", settings.window), whole("stride", settings.stride), dtype, real("scale", facts["scale"], above=0),
    )  # fmt: skip
    A = tensors["A"]
    if tuple(A.shape) != (features.components, A.shape[1] // features.positions * features.positions):
        raise ValueError("A does not fit the features")
    history = tuple(
        Check(whole("step", step), _one(objective), _one(bound), 0.0) for step, objective, bound in facts["history"]
    )
    steps, status = torch.tensor([whole("steps", facts["steps"])]), (Status[facts["status"]],)
    solution = Solution(A[None], status, steps, _one(facts["objective"]), _one(facts["lower_bound"]), history)
    return ConvexLayer(features, A, tensors["filters"], real("map_scale", facts["map_scale"], above=0), solution)


def _expansion(kind: str, kernel: Kernel, parts: dict[str, Tensor]) -> Expansion:
    """The expansion of a saved kind."""
    if kind == "Nystrom":
        return Nystrom(kernel, parts["landmarks"], parts["root"])
    if kind == "Identity":
        return Identity(int(parts["dim"]))
    return {"Cosine": Cosine, "Monomials": Monomials}[kind](**parts)


def _one(value: Any) -> Tensor:
    """A finite number as a float64 tensor (1,)."""
    return torch.tensor([real("a number of the certificate", value)], dtype=torch.float64)


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, which JSON can hold; also within a tuple."""
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value
