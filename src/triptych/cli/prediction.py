"""Images made fit for a model, its predictions for them, and what the labels say of these."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from triptych import store
from triptych.ccnn.estimator import CCNNClassifier
from triptych.check import InputError
from triptych.cli.model import listed
from triptych.data import load, picture
from triptych.data.folder import Folder
from triptych.data.recognise import recognise
from triptych.data.source import Size, Source
from triptych.images import Images

LUMA = (299, 587, 114)  # thousandths of red, green and blue in grey: ITU-R BT.601


@dataclass(frozen=True)
class Batch:
    """The images of one path in the shape that a model takes, a name for each, and notes on what was done to them."""

    path: str
    names: tuple[str, ...]
    images: Images
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Prediction:
    """One image: its name, the class that the model gives it, how probable that is, and its label where it has one."""

    picture: str
    name: str
    probability: float
    label: str | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"picture": self.picture, "class": self.name, "probability": self.probability, "label": self.label}


@dataclass(frozen=True)
class Grade:
    """How many labelled images there are and how many of them are predicted wrong, with notes on other labels."""

    labelled: int
    wrong: int
    notes: tuple[str, ...]

    @property
    def error_percent(self) -> float | None:
        """The error, None where nothing could be compared."""
        return 100 * self.wrong / self.labelled if self.labelled else None


def read(path: str, shape: tuple[int, int, int], size: tuple[int | None, str], split: str | None) -> Batch:
    """The images at a path, resized and recoloured to a shape (c, h, w); ``size`` is a side and a fit.

    Where there are splits and none is asked for, the held-out one is read. Raises InputError where that cannot be done.
    """
    (c, h, w), (side, fit) = shape, size
    if side is not None and (side, side) != (h, w):
        raise InputError(f"side must be that of the model's images, {h} x {w}, got {side}; leave it away")
    source = recognise(path)
    split = held_out(source.splits) if split is None else split
    files = _files(source, split)
    notes = []
    foreign = next((head for head in map(picture.header, files) if (head.height, head.width) != (h, w)), None)
    if foreign is not None and h != w:
        raise _misfit(path, (foreign.height, foreign.width), (h, w))
    images = load(path, side=h if foreign is not None else side, fit=fit, split=split)
    if images.shape[2:] != (h, w):
        if h != w:
            raise _misfit(path, images.shape[2:], (h, w))
        images, foreign = picture.resized(images, Size(h, fit)), images.shape
    if foreign is not None:
        notes.append(f"the images of {path} are resized to {h} x {w}, the model's size")
    if (channels := images.shape[1]) != c:
        images = recoloured(images, c, path)
        notes.append(f"the images of {path} are made {'grey' if c == 1 else 'colour'}: {channels} channels to {c}")
    names = tuple(map(str, files)) or tuple(f"{path}[{i}]" for i in range(len(images)))
    return Batch(path, names, images, tuple(notes))


def held_out(splits: Sequence[str]) -> str | None:
    """The split that predictions are made for: test, or else val, or else all there is."""
    return next((name for name in ("test", "val") if name in splits), None)


def recoloured(images: Images, channels: int, path: str) -> Images:
    """Grey images in colour or colour images in grey. Raises InputError for other numbers of channels."""
    pixels = images.pixels
    if (pixels.shape[1], channels) == (1, 3):
        return Images(pixels.expand(-1, 3, -1, -1).contiguous(), images.labels, images.classes)
    if (pixels.shape[1], channels) == (3, 1):
        total = sum(weight * pixels[:, i : i + 1].int() for i, weight in enumerate(LUMA))
        return Images(
            (torch.as_tensor(total) + 500).div(1000, rounding_mode="floor").byte(), images.labels, images.classes
        )
    raise InputError(f"{path} has images of {pixels.shape[1]} channels, but the model takes {channels}; convert them")


def predicted(classifier: CCNNClassifier, batch: Batch) -> list[Prediction]:
    """What a model says of a batch."""
    probabilities = classifier.predict_proba(batch.images)
    best = probabilities.argmax(1)
    labels = batch.images.labels
    true = [None] * len(best) if labels is None else [batch.images.classes[label] for label in labels.tolist()]
    return [
        Prediction(name, str(classifier.classes_[k]), float(row[k]), label)
        for name, k, row, label in zip(batch.names, best, probabilities, true)
    ]


def graded(batches: Sequence[Batch], predictions: Sequence[Sequence[Prediction]], classes: Sequence[str]) -> Grade:
    """Compare predictions with labels; a batch none of whose classes the model knows is left out, with a note."""
    labelled, wrong, notes = 0, 0, []
    for batch, found in zip(batches, predictions):
        names = sorted({one.label for one in found if one.label is not None})
        strange = [name for name in names if name not in classes]
        if not names:
            continue
        if len(strange) == len(names):
            notes.append(
                f"the labels of {batch.path} ({listed(names)}) are of other classes than the model's "
                f"({listed(list(classes))}), so that no error can be given"
            )
            continue
        if strange:
            count = sum(one.label in strange for one in found)
            notes.append(f"{count:,} images of {batch.path} count as wrong: the model does not know {listed(strange)}")
        labelled += len(found)
        wrong += sum(one.label != one.name for one in found)
    return Grade(labelled, wrong, tuple(notes))


def as_csv(predictions: Sequence[Prediction]) -> str:
    """Predictions as CSV: picture, class, probability, label."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("picture", "class", "probability", "label"))
    writer.writerows((one.picture, one.name, f"{one.probability:.6f}", one.label or "") for one in predictions)
    return text.getvalue()


def write(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions into a .csv or .json file, beside and renamed."""
    if path.suffix.lower() == ".csv":
        store.write_text_atomic(path, as_csv(predictions))
    else:
        store.write_json(path, [one.to_json() for one in predictions])


def _files(source: Source, split: str | None) -> list[Path]:
    """The picture files that a source reads, in order; none where it is no folder of pictures."""
    if not isinstance(source, Folder):
        return []
    parts = source.parts.values() if split is None else [source.parts.get(split, ())]
    return [one.path for part in parts for one in part]


def _misfit(path: str, there: Sequence[int], wanted: Sequence[int]) -> InputError:
    return InputError(
        f"{path} has images of {there[0]} x {there[1]} pixels (height x width), but the model takes "
        f"{wanted[0]} x {wanted[1]}; resize them to that"
    )
