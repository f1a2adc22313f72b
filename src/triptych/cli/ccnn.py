"""ccnn fit, ccnn predict, ccnn show: convexified networks, trained to a certified optimum."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App, Parameter

from triptych.cli.console import Console, Json, Whole, console
from triptych.cli.training import TOL, Training, saved, shortfall, trained

if TYPE_CHECKING:
    from triptych.bench.sections import Section
    from triptych.cli.prediction import Grade, Prediction

SHOWN = 20  # predictions on a table; --out and --json have all

app = App(name="ccnn", help="Fit, use and show convexified networks.")


@Parameter(name="*")
@dataclass(frozen=True)
class Reading:
    """Which images are read.

    Parameters
    ----------
    side
        Resize to side x side pixels.
    fit
        crop: the shorter side becomes `--side` and the centre is kept; squash: both sides become `--side`.
    split
        The split to train on; train where there is one.
    limit
        The first images only.
    """

    side: Whole | None = None
    fit: str = "crop"
    split: str | None = None
    limit: Whole | None = None


READING, TRAINING = Reading(), Training()  # every option at its default


@app.command
def fit(
    *,
    out: Path,
    data: str = "digits",
    reading: Reading = READING,
    training: Training = TRAINING,
    json: Json = False,
) -> None:
    """Train a network on labelled images, certify it, and save it.

    Parameters
    ----------
    out
        The folder of the model: a new one, or a model, which is replaced.
    data
        A file or folder of images, the word digits, or a fetched set such as mnist.
    """
    from triptych.check import NotConverged, whole
    from triptych.cli.model import check_place, layer_facts, upright_table
    from triptych.data import load, splits

    voice = console(json)
    check_place("out", out)
    whole("seed", training.seed, low=0, high=2**32 - 1)
    split = "train" if reading.split is None and "train" in splits(data) else reading.split
    images = load(data, side=reading.side, fit=reading.fit, split=split, limit=reading.limit)
    source = {"data": data, "split": split, "side": reading.side, "fit": reading.fit, "limit": reading.limit}
    command = _command(data, reading, training)
    classifier, seconds = trained(voice, training, images, source["data"])
    saved(classifier, out, training, images, source, command)
    facts, classes = layer_facts(classifier), [str(name) for name in classifier.classes_]
    n, c, h, w = images.shape
    if not json:
        voice.say(f"{n:,} images of {c} x {h} x {w}, {len(classes)} classes; {seconds:.1f} s")
        voice.table(*upright_table(facts, len(classes)))
    voice.finish(
        {
            "model": str(out),
            **source,
            "images": n,
            "shape": [c, h, w],
            "classes": classes,
            "tol": TOL if training.tol is None else training.tol,
            "converged": all(fact["converged"] for fact in facts),
            "layers": facts,
            "seconds": seconds,
        },
        f"saved {out}; `triptych ccnn show {out}` draws its filters",
    )
    short = shortfall(facts, len(classes), training)
    if short and training.tol is not None:
        raise NotConverged(f"{short}; the model is saved in {out}")
    if short:
        voice.warn(f"warning: {short}")


@app.command
def predict(
    model: Path,
    *paths: str,
    split: str | None = None,
    side: Whole | None = None,
    fit: str | None = None,
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Say which classes images are of, and the error where their labels are to be had.

    Parameters
    ----------
    model
        A folder that `triptych ccnn fit` wrote.
    paths
        Pictures, folders of them, data files, digits or fetched sets; of other sizes than the model's they are resized.
    split
        The split to predict; the held-out one where there are some.
    side
        The side of the model's images, which is also what is taken where none is given.
    fit
        How others than squares become square, crop or squash; as in training where none is given.
    out
        A .csv or .json file for all predictions.
    """
    from triptych.ccnn.estimator import CCNNClassifier
    from triptych.check import InputError
    from triptych.cli.model import check_place, read_record
    from triptych.cli.prediction import graded, predicted, read, write

    voice = console(json)
    if out is not None:
        check_place("out", out, suffixes=(".csv", ".json"))
    classifier = CCNNClassifier.load(model)
    if not paths:
        raise InputError("paths must name at least one picture, folder of pictures or data file, got none")
    size = side, fit or str(read_record(model).get("data", {}).get("fit", "crop"))
    batches = [read(path, classifier.image_shape_, size, split) for path in paths]
    found = [predicted(classifier, batch) for batch in batches]
    grade = graded(batches, found, [str(name) for name in classifier.classes_])
    notes = [*(note for batch in batches for note in batch.notes), *grade.notes]
    for note in notes:
        voice.warn(f"note: {note}")
    flat = [one for batch in found for one in batch]
    if out is not None:
        write(out, flat)
    if not json:
        _tell(voice, flat, grade, out)
    voice.finish(
        {
            "model": str(model),
            "images": len(flat),
            "labelled": grade.labelled,
            "error_percent": grade.error_percent,
            "notes": notes,
            "predictions": [one.to_json() for one in flat],
        }
    )


@app.command
def show(model: Path, *, out: Path | None = None, json: Json = False) -> None:
    """Show the certificate of a model in words and numbers, its settings, and its filters as a picture.

    Parameters
    ----------
    model
        A folder that `triptych ccnn fit` wrote.
    out
        The .png file of the filters; filters.png in the model's folder where none is given.
    """
    from triptych import store
    from triptych.ccnn.estimator import CCNNClassifier
    from triptych.cli import model as about

    voice = console(json)
    if out is not None:
        about.check_place("out", out, suffixes=(".png",))
    classifier = CCNNClassifier.load(model)
    facts, classes = about.layer_facts(classifier), [str(name) for name in classifier.classes_]
    settings = [about.settings_of(layer) for layer in classifier.layers_]
    store.write_bytes(out or model / about.FILTERS, about.filters_png(classifier))
    if not json:
        voice.table(*about.upright_table(facts, len(classes)))
        for fact, pairs in zip(facts, settings):
            voice.say("\n" + about.in_words(fact, len(classes)))
            voice.table([f"layer {fact['layer']}", ""], pairs)
        voice.say(f"\n{about.filters_in_words(classifier)}")
    voice.finish(
        {
            "model": str(model),
            "shape": list(classifier.image_shape_),
            "classes": classes,
            "layers": [{**fact, "settings": dict(pairs)} for fact, pairs in zip(facts, settings)],
            "made": about.read_record(model),
            "filters": str(out or model / about.FILTERS),
        },
        f"wrote {out or model / about.FILTERS}",
    )


def model_sections(path: Path) -> "list[Section]":
    """The sections of a saved model's report. Raises InputError."""
    from triptych.cli.model import model_sections

    return model_sections(path)


def _tell(voice: Console, predictions: "Sequence[Prediction]", grade: "Grade", out: Path | None) -> None:
    """Print the first predictions, how many more there are, and the error."""
    width = 4 if any(one.label is not None for one in predictions) else 3
    rows = [[one.picture, one.name, f"{one.probability:.3f}", one.label or ""] for one in predictions[:SHOWN]]
    voice.table(["picture", "class", "probability", "label"][:width], [row[:width] for row in rows])
    if len(predictions) > SHOWN:
        voice.say(
            f"and {len(predictions) - SHOWN:,} more; {f'{out} has' if out else '--out FILE.csv or --json gives'} all"
        )
    if grade.error_percent is not None:
        voice.say(f"error_percent {grade.error_percent:.2f} ({grade.wrong:,} of {grade.labelled:,} labelled images)")
    if out is not None:
        voice.say(f"wrote {out}")


def _command(data: str, reading: Reading, training: Training) -> str:
    """The command line that makes the same model, in a folder MODEL; options at their defaults are left away."""
    words = ["triptych", "ccnn", "fit", "--data", data, "--out", "MODEL"]
    for chosen, default in ((reading, READING), (training, TRAINING)):
        for name, value in vars(chosen).items():
            if value != getattr(default, name):
                words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
