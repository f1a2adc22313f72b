"""How a command trains a network: the options, the bars while it runs, what is said where it stops early, saving."""

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from triptych.cli.console import Console, Progress, Whole

if TYPE_CHECKING:
    from triptych.ccnn.estimator import CCNNClassifier
    from triptych.convex import Certificate
    from triptych.images import Images

TOL = 1e-3


@Parameter(name="*")
@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Parameters
    ----------
    layers
        How many convexified layers.
    radius
        Radius of the nuclear-norm ball of every layer; each layer's own (100) where none is given.
    tol
        Certified gap to reach, relative to log(number of classes); 0.001 where none is given. Where one is given and
        not reached, the model is saved and the exit status is 1.
    max_iter
        Most solver steps a layer.
    seed
        Seed of the random features.
    precision
        What features are computed in: auto, bfloat16, float32 or float64.
    device
        cpu, or what torch calls the device.
    memory_limit
        GiB for the features of one layer; those that do not fit are made again at every step.
    """

    layers: Whole = 1
    radius: float | None = None
    tol: float | None = None
    max_iter: Whole = 1000
    seed: Whole = 0
    precision: str = "auto"
    device: str = "cpu"
    memory_limit: float = 4.0


def trained(voice: Console, training: Training, images: "Images", name: str) -> "tuple[CCNNClassifier, float]":
    """A classifier trained on labelled images, its classes their names, and the seconds that it took. Raises InputError."""
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning

    from triptych.ccnn.estimator import CCNNClassifier
    from triptych.check import InputError

    if images.labels is None:
        raise InputError(f"{name} has no labels to train on; give a folder of pictures with one sub-folder a class")
    y = np.array(images.classes)[images.labels.numpy()]
    classes = sorted(set(y.tolist()))
    if len(classes) < 2:
        raise InputError(f"{name} must hold at least two classes, got only {classes[0]!r} in {len(y):,} images read")
    tol = TOL if training.tol is None else training.tol
    with _layers_shown(voice, training.layers, tol, len(classes)) as told, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the command says it in its own words
        classifier = CCNNClassifier(
            training.layers,
            radius=training.radius,
            tol=tol,
            max_iter=training.max_iter,
            memory_limit=training.memory_limit,
            precision=training.precision,
            device=training.device,
            random_state=training.seed,
            verbose=told,
        )
        start = time.perf_counter()
        classifier.fit(images, y)
        return classifier, time.perf_counter() - start


def saved(
    classifier: "CCNNClassifier",
    folder: Path,
    training: Training,
    images: "Images",
    source: Mapping[str, Any],
    command: str,
) -> None:
    """Save a classifier and, beside it, how it was made; a picture of an older model's filters is removed."""
    from triptych.bench.machine import provenance
    from triptych.cli.model import FILTERS, write_record

    classifier.save(folder)
    (folder / FILTERS).unlink(missing_ok=True)
    data = {**source, "images": len(images), "checksum": f"sha256:{images.checksum()}"}
    made = {
        "command": command,
        "data": data,
        "seed": training.seed,
    }  # no time of day or of work: a fit repeats to the byte
    write_record(folder, {**made, "provenance": provenance(training.device)})


@contextmanager
def _layers_shown(
    voice: Console, layers: int, tol: float, classes: int
) -> "Iterator[Callable[[int, int, Certificate], None]]":
    """Show a bar a layer that fills as the certified gap falls, on a logarithmic scale, from its first value to tol."""
    total = 100 if sys.stderr.isatty() else None  # a pipe gets one line a layer, and no use of its hundredths
    with ExitStack() as stack:
        at, first, bar = 0, 0.0, Progress("", None)

        def opened(layer: int) -> None:
            nonlocal at, first, bar
            stack.close()
            at, first = layer, 0.0
            bar = stack.enter_context(voice.progress(f"layer {layer} of {layers}: features", total))

        def told(layer: int, step: int, certificate: "Certificate") -> None:
            nonlocal first
            if layer != at:
                opened(layer)
            gap = float(certificate.gap) / math.log(classes)
            first = first or gap
            bar.describe(f"layer {layer} of {layers}, step {step}: certified gap {100 * gap:.3g} % of log {classes}")
            share = math.log(first / gap) / math.log(first / tol) if first > tol and gap > 0 else 1.0
            bar.advance(max(0.0, 100 * min(1.0, share) - bar.done))
            if gap <= tol and layer < layers:
                opened(layer + 1)

        opened(1)
        yield told


def shortfall(facts: Sequence[Mapping[str, Any]], classes: int, training: Training) -> str:
    """What to say of layers that stopped before the tolerance; nothing where all reached it."""
    short = [fact for fact in facts if not fact["converged"]]
    if not short:
        return ""
    gaps = " and ".join(
        f"layer {fact['layer']} stopped after {fact['steps']} steps at a certified gap of "
        f"{100 * fact['relative_gap']:.3g} % of log {classes}"
        for fact in short
    )
    tol = TOL if training.tol is None else training.tol
    remedy = "raise --max-iter or --tol" if any(fact["steps"] >= training.max_iter for fact in short) else "raise --tol"
    return f"{gaps}, above --tol {tol:g} ({100 * tol:g} %); {remedy}"
