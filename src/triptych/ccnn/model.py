"""Saved models: a fitted `CCNNClassifier` as a folder of safetensors and JSON, and back."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from triptych import store
from triptych.ccnn.features import PatchFeatures
from triptych.ccnn.kernels import Cosine, Expansion, Identity, Kernel, Monomials, Nystrom
from triptych.ccnn.layer import ConvexLayer
from triptych.ccnn.settings import KERNELS, Layer
from triptych.check import InputError
from triptych.convex import Check, Solution, Status

if TYPE_CHECKING:
    from triptych.ccnn.estimator import CCNNClassifier

KIND = "ccnn"
PARAMETERS = ("radius", "tol", "max_iter", "image_shape", "memory_limit", "precision")


def save(classifier: "CCNNClassifier", folder: str | Path) -> Path:
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
        "parameters": {name: getattr(classifier, name) for name in PARAMETERS},
        "layers": [_facts(layer) for layer in classifier.layers_],
    }
    return store.save(folder, tensors, meta, kind=KIND)


def load(cls: "type[CCNNClassifier]", folder: str | Path) -> "CCNNClassifier":
    """Read what `save` wrote. Raises InputError for a folder of another kind, and for any damage."""
    tensors, meta = store.load(folder, kind=KIND)
    try:
        layers = [
            _layer(facts, {key.split(".", 1)[1]: t for key, t in tensors.items() if key.startswith(f"{number}.")})
            for number, facts in enumerate(meta["layers"])
        ]
        parameters = dict(meta["parameters"])
        if parameters["image_shape"] is not None:
            parameters["image_shape"] = tuple(parameters["image_shape"])
        classifier = cls([layer.settings for layer in layers], **parameters)
        classifier.classes_ = np.array(meta["classes"], dtype=meta["classes_dtype"])
        classifier.scale_ = float(meta["scale"])
        classifier.image_shape_ = tuple(meta["image_shape"])
        classifier.n_features_in_ = int(meta["n_features_in"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{folder} is no model of this version ({error}); fit and save it again") from error
    classifier.layers_ = layers
    classifier._describe()
    return classifier


def _tensors(layer: ConvexLayer) -> dict[str, Tensor]:
    """The tensors that define a layer."""
    f, solution = layer.features, layer.solution
    named = {"A": layer.A, "filters": layer.filters, "centre": f.centre, "mix": f.mix}
    if f.mean is not None and f.whiten is not None:
        named |= {"mean": f.mean, "whiten": f.whiten}
    history = [
        [check.step, float(check.objective), float(check.lower_bound), check.seconds] for check in solution.history
    ]
    named["history"] = torch.tensor(history, dtype=torch.float64)
    return named | {f"expansion.{name}": value for name, value in f.expansion.tensors().items()}


def _facts(layer: ConvexLayer) -> dict[str, Any]:
    """The rest of a layer, as JSON."""
    f, s = layer.features, layer.solution
    settings = asdict(f.settings) | {"kernel": [f.settings.kernel.name, asdict(f.settings.kernel)]}  # pyright: ignore
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
    }


def _layer(facts: dict[str, Any], tensors: dict[str, Tensor]) -> ConvexLayer:
    """The inverse of `_tensors` and `_facts`."""
    name, kernel_fields = facts["settings"]["kernel"]
    settings = Layer(**(facts["settings"] | {"kernel": KERNELS[name](**kernel_fields)}))
    parts = {key.removeprefix("expansion."): t for key, t in tensors.items() if key.startswith("expansion.")}
    c, h, w = facts["shape"]
    features = PatchFeatures(
        settings, (c, h, w), _expansion(facts["expansion"], settings.kernel, parts),
        tensors.get("mean"), tensors.get("whiten"), tensors["centre"], tensors["mix"],
        settings.window or 1, settings.stride or 1, getattr(torch, facts["dtype"]), float(facts["scale"]),
    )  # fmt: skip
    A = tensors["A"]
    one = torch.tensor
    history = tuple(
        Check(int(step), one([objective]).double(), one([bound]).double(), seconds)
        for step, objective, bound, seconds in tensors["history"].tolist()
    )
    solution = Solution(
        A[None], (Status[facts["status"]],), one([facts["steps"]]),
        one([facts["objective"]], dtype=torch.float64), one([facts["lower_bound"]], dtype=torch.float64), history,
    )  # fmt: skip
    return ConvexLayer(features, A, tensors["filters"], float(facts["map_scale"]), solution)


def _expansion(kind: str, kernel: Kernel, parts: dict[str, Tensor]) -> Expansion:
    """The expansion of a saved kind."""
    if kind == "Nystrom":
        return Nystrom(kernel, parts["landmarks"], parts["root"])
    if kind == "Identity":
        return Identity(int(parts["dim"]))
    return {"Cosine": Cosine, "Monomials": Monomials}[kind](**parts)
