"""demo: train a small certified network, test it on held-out images, and write a report to look at."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from triptych.cli.console import Json, Whole, console
from triptych.cli.training import Training, saved, shortfall, trained

if TYPE_CHECKING:
    from triptych.bench.sections import Section
    from triptych.cli.prediction import Prediction
    from triptych.images import Images

RADIUS = 40.0  # at 100 the optimum interpolates, and nothing is known of its rank; the error is the same
HELD_OUT = 0.25
MOST = 4000  # images, so that a demo takes seconds whatever it is given
SIDE = 32  # what pictures from a camera are resized to
SHOWN = 24


def demo(*, data: str = "digits", out: Path = Path("demo"), seed: Whole = 0, json: Json = False) -> None:
    """Train on small images, print the certificate and the error on held-out images, write a report.

    Parameters
    ----------
    data
        A file or folder of labelled images, the word digits, or a fetched set such as mnist; at most 4,000 images are
        taken, and large ones are resized to 32 x 32.
    out
        The folder of the report and the model.
    seed
        Seed of the split and of the random features.
    """
    from triptych.bench.report import write_report
    from triptych.bench.sections import Heading
    from triptych.check import whole
    from triptych.cli.model import check_place, in_words, layer_facts, model_sections, upright_table
    from triptych.cli.prediction import Batch, predicted

    voice, model = console(json), out / "model"
    check_place("out", model)
    training = Training(radius=RADIUS, max_iter=500, seed=whole("seed", seed, low=0, high=2**32 - 1))
    train, test = parts(data, seed)
    classifier, seconds = trained(voice, training, train, data)
    command = shlex.join(["triptych", "demo", "--data", data, "--seed", str(seed)])
    saved(classifier, model, training, train, {"data": data}, command)
    held_out = Batch("held-out", tuple(str(i) for i in range(len(test))), test, ())
    found = predicted(classifier, held_out)
    wrong = sum(one.label != one.name for one in found)
    facts, classes = layer_facts(classifier), len(classifier.classes_)
    n, c, h, w = train.shape
    story = (
        f"A convolutional network of one convexified layer learned {classes} classes from {n:,} images of {c} x {h} x {w} "
        f"({data}) in {seconds:.1f} s. On {len(test):,} images held out it errs on {wrong}: "
        f"{100 * wrong / len(test):.2f} %."
    )
    about = model_sections(model)
    at = about.index(Heading("Settings"))
    sections = [*_introduction(story, train), *about[:at], *_errors(test, found), *about[at:]]
    write_report(sections, out, title="A network with a certificate", subtitle=f"triptych demo on {data}")
    if not json:
        voice.say(f"{story}\n")
        voice.table(*upright_table(facts, classes))
        voice.say("\n" + "\n".join(in_words(fact, classes) for fact in facts) + "\n")
    if text := shortfall(facts, classes, training):
        voice.warn(f"warning: {text}")
    voice.finish(
        {
            "data": data,
            "train_images": n,
            "test_images": len(test),
            "error_percent": 100 * wrong / len(test),
            "wrong": wrong,
            "layers": facts,
            "seconds": seconds,
            "model": str(model),
            "html": str(out / "report.html"),
            "markdown": str(out / "report.md"),
        },
        f"the report is {out / 'report.html'} (and report.md beside it), the model {model}",
    )


def parts(data: str, seed: int) -> "tuple[Images, Images]":
    """Images to train on and held-out ones: the data's own splits, or a seeded quarter held out. Raises InputError."""
    from triptych.check import InputError
    from triptych.cli.prediction import held_out
    from triptych.data import permute_split, splits

    there = splits(data)
    test_split = held_out(there)
    if "train" in there and test_split:
        test_count = int(MOST * HELD_OUT)
        test = _small(data, test_split, test_count)
        if test.labels is not None:
            return _small(data, "train", MOST - test_count), test
    images = _small(data, "train" if "train" in there else None, MOST)
    count = round(HELD_OUT * len(images))
    if not count:
        raise InputError(f"{data} must hold at least 3 images, so that a quarter can be held out, got {len(images)}")
    train, test = permute_split(images, [len(images) - count, count], seed)
    return train, test


def _small(data: str, split: str | None, limit: int) -> "Images":
    """The first images of a split; pictures, and larger images than 64 pixels a side, at 32 x 32."""
    from triptych.data import load, picture
    from triptych.data.folder import Folder
    from triptych.data.recognise import recognise
    from triptych.data.source import Size

    side = SIDE if isinstance(recognise(data), Folder) else None
    images = load(data, side=side, split=split, limit=limit)
    return picture.resized(images, Size(SIDE)) if max(images.shape[2:]) > 2 * SIDE else images


def _introduction(story: str, train: "Images") -> "list[Section]":
    """What was trained in words, and some of the images."""
    from triptych.bench import figure
    from triptych.bench.sections import Heading, Picture, Text

    how = (
        "Each image is cut into small patches. A kernel compares these with what filters may respond to, its features are "
        "averaged over neighbouring positions, and one matrix turns them into a score for every class. The matrix is "
        "found by convex optimisation over all those of bounded nuclear norm, a ball that holds every layer of few filters "
        "shared by all positions: so there is one best loss, and how far the trained network is from it is computed, "
        "not hoped for."
    )
    images = figure.images(train.pixels[: 2 * SHOWN].numpy(), columns=12) if train.shape[1] in (1, 3) else b""
    shown = [Picture(images, "Some of the training images", caption="Some of the training images.")] if images else []
    return [Heading("What was trained"), Text(f"{story}\n\n{how}"), *shown]


def _errors(test: "Images", found: "Sequence[Prediction]") -> "list[Section]":
    """The held-out images that were classified wrong, those first of which the network was surest."""
    from triptych.bench import figure
    from triptych.bench.sections import Gallery, Heading, Picture, Text

    wrong = sorted((i for i, one in enumerate(found) if one.label != one.name), key=lambda i: -found[i].probability)
    if not wrong:
        return [Heading("Classified wrong"), Text(f"None of the {len(found):,} held-out images.")]
    text = (
        f"{len(wrong):,} of {len(found):,} held-out images, the surest errors first"
        f"{f'; the first {SHOWN} are shown' if len(wrong) > SHOWN else ''}."
    )
    pixels = test.pixels if test.shape[1] in (1, 3) else test.pixels[:, :1]
    pictures = [
        Picture(
            figure.images(pixels[i : i + 1].numpy()),
            f"An image of class {found[i].label} that was taken for {found[i].name}",
            caption=f"{found[i].label}, taken for {found[i].name} ({100 * found[i].probability:.0f} %)",
        )
        for i in wrong[:SHOWN]
    ]
    return [Heading("Classified wrong"), Text(text), Gallery(pictures)]
