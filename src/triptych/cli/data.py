"""data info, deduplicate, fetch: look at data; find near duplicates; fetch well-known sets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cyclopts import App

from triptych.cli.console import Console, Json, Progress, Whole, console

SHOWN = 20  # classes on a table; --json has all

app = App(name="data", help="Look at data; fetch well-known sets.")


@app.command
def info(
    path: str,
    *,
    side: Whole | None = None,
    fit: str = "crop",
    split: str | None = None,
    limit: Whole | None = None,
    json: Json = False,
) -> None:
    """Say what lies at a path: its kind, splits, shape, classes with their counts, and a checksum.

    Parameters
    ----------
    path
        A file or folder of images, the word digits, or a fetched set such as mnist.
    side
        Resize to side x side pixels.
    fit
        crop: the shorter side becomes `--side` and the centre is kept; squash: both sides become `--side`.
    split
        One split only, such as train or test.
    limit
        The first images only.
    """
    from triptych.data import load
    from triptych.data.recognise import recognise

    voice, source = console(json), recognise(path)
    images = load(path, side=side, fit=fit, split=split, limit=limit)
    n, c, h, w = images.shape
    labels = images.labels
    counts = (
        {} if labels is None else dict(zip(images.classes, labels.bincount(minlength=len(images.classes)).tolist()))
    )
    data = {
        "path": path,
        "kind": source.kind,
        "splits": list(source.splits),
        "split": split,
        "images": n,
        "shape": [c, h, w],
        "classes": None if labels is None else counts,
        "checksum": f"sha256:{images.checksum()}",
    }
    if not json:
        _show(voice, data)
    voice.finish(data)


@app.command
def fetch(name: str, *, to: Path | None = None, json: Json = False) -> None:
    """Download a data set, or a network's weights for scores, check it, and say where it is; what broke off before is gone on with.

    Parameters
    ----------
    name
        mnist, fashion-mnist or cifar-10; inception-fid, inception-torchvision or vgg16, of 96, 109 and 553 MB.
    to
        The folder to put it in; the cache folder (TRIPTYCH_CACHE, or the user's) where none is given.
    """
    from triptych.check import choice
    from triptych.data.fetch import SETS
    from triptych.data.fetch import fetch as fetch_set
    from triptych.metrics.weights import KNOWN, fetch_weights

    voice = console(json)
    if choice("name", name, [*SETS, *KNOWN]) in KNOWN:
        with voice.progress(name, 1) as progress:
            shown = _shown(progress)
            place = fetch_weights(name, to, lambda received, total: shown(name, received, total))
            progress.describe(name)
            progress.advance(1 - progress.done)
        voice.finish({"name": name, "file": str(place)}, f"{name} is {place}")
        return
    files = SETS[name].files
    with voice.progress(name, len(files)) as progress:
        folder = fetch_set(name, to, _shown(progress))
        progress.describe(name)
        progress.advance(len(files) - progress.done)
    voice.finish({"name": name, "folder": str(folder)}, f"{name} is in {folder}")


@app.command
def deduplicate(
    path: str,
    *,
    out: Path | None = None,
    side: Whole | None = None,
    limit: Whole | None = None,
    seed: Whole = 0,
    json: Json = False,
) -> None:
    """Find near duplicates: the same picture again, moved a little, darker or compressed anew. Nothing is deleted.

    Parameters
    ----------
    path
        A file or folder of images, the word digits, or a fetched set such as mnist.
    out
        A folder for duplicates.json, the groups with their distances, and duplicates.png, up to 40 pairs to look at.
    side
        Resize to side x side pixels, the shorter side first, then the centre; needed where sizes differ.
    limit
        The first images only.
    seed
        Seeds the network that proposes pairs.
    """
    from triptych.cli.data_deduplicate import deduplicated

    deduplicated(path, out, side, limit, seed, json)


def _shown(progress: Progress) -> Callable[[str, int, int | None], None]:
    """A function that moves the bar as the bytes of the files come."""
    fractions: dict[str, float] = {}

    def shown(name: str, received: int, total: int | None) -> None:
        fraction = received / total if total else 0.0
        of = f" of {total / 1e6:.1f}" if total else ""
        progress.describe(f"{name} {received / 1e6:.1f}{of} MB")
        progress.advance(fraction - fractions.get(name, 0.0))
        fractions[name] = fraction

    return shown


def _show(voice: Console, data: dict[str, Any]) -> None:
    """Print it for a human."""
    c, h, w = data["shape"]
    splits = ", ".join(data["splits"]) or "none"
    rows = [
        ("kind", data["kind"]),
        ("splits", splits if data["split"] is None else f"{splits} (only {data['split']} is shown)"),
        ("images", f"{data['images']:,}"),
        ("shape", f"{c} x {h} x {w} (channels, height, width)"),
        ("classes", "none" if data["classes"] is None else len(data["classes"])),
        ("checksum", data["checksum"]),
    ]
    voice.table([data["path"], ""], rows)
    if data["classes"]:
        shown = list(data["classes"].items())
        voice.say("")
        voice.table(["class", "images"], shown[:SHOWN])
        if len(shown) > SHOWN:
            voice.say(f"and {len(shown) - SHOWN:,} more classes; --json lists them all")
