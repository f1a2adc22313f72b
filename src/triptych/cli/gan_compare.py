"""gan neighbours, audit, recover: generated images beside the training images that are most like them, and the other way round."""

from pathlib import Path

import torch
from torch import Tensor

from triptych import store
from triptych.check import InputError, whole
from triptych.cli.console import Console, console
from triptych.cli.gan_judge import Judged, count, extractor, keep, named
from triptych.cli.gan_judged import AUDIT, NEIGHBOURS, RECOVERED
from triptych.cli.gan_options import Drawn, Judging, Seeing
from triptych.cli.place import check_place
from triptych.gan.pictures import grid_png, in_rows
from triptych.gan.recover import recover, worse
from triptych.images import Images
from triptych.metrics.audit import Audit, InFeatures, InSpace, UpToShifts, audit
from triptych.metrics.features import Extractor, Pixels, extract
from triptych.metrics.neighbours import nearest_in_parts

SHOWN = 12  # suspicious samples in a picture
PART = 1 << 25  # pixels of the images whose features are in memory at a time


def neighbours(
    folder: Path, out: Path | None, judging: Judging, seeing: Seeing, crop: str | None, k: int, drawn: Drawn, json: bool
) -> None:
    """Draw samples over their nearest training images, by pixels and by features. Raises InputError."""
    voice = console(json)
    if out is not None:
        check_place("out", out, suffixes=(".png",))
    judged = Judged.open(folder, drawn.checkpoint, judging.device)
    images = judged.images(judging.data, judging.split)
    window = _window(crop, judged.recipe.shape)
    n = count("n", judging.n, 64, 8)
    made = judged.generated(voice, n, drawn.seed)
    rows, found = [made], {}
    about = {"step": judged.step, "seed": drawn.seed, "n": n, "data": named(judging.data, judged), "crop": crop, "k": k}
    entry = {**about, "real": images.checksum()[:16], "features": seeing.features}
    for by in (Pixels(), extractor(voice, seeing, images, judged.device)):
        distances, indices = _nearest(voice, by, made, images, k, window)
        rows += [made[:0], *(images.pixels[indices[:, i]] for i in range(k))]
        found[by.name] = {"distances": distances.tolist(), "images": indices.tolist()}
    out, picture = _placed(judged, out, "neighbours.png")
    store.write_bytes(out, grid_png(*in_rows(rows)))
    keep(judged.run.folder, NEIGHBOURS, {**entry, "by": found, "picture": picture}, tuple(entry))
    spaces = " and ".join(found)
    where = "" if window is None else f", in the crop {crop}"
    text = f"wrote {out}: {n} generated images in the first row, below them their {k} nearest of {len(images):,} by {spaces}{where}"
    voice.finish({"run": str(folder), "out": str(out), **entry, "by": found}, text)


def audited(
    folder: Path,
    out: Path | None,
    judging: Judging,
    seeing: Seeing,
    held_out: str | None,
    shift: int,
    drawn: Drawn,
    json: bool,
) -> None:
    """Tell whether a run has memorised, and draw its suspicious samples. Raises InputError."""
    voice = console(json)
    if out is not None:
        check_place("out", out, suffixes=(".png",))
    whole("shift", shift, low=0)
    judged = Judged.open(folder, drawn.checkpoint, judging.device)
    train, unseen = judged.apart(judging.data, held_out, judging.split)
    every = _together(train, unseen)  # neither features nor labels may know which images were trained on
    by = extractor(voice, seeing, every, judged.device)
    n = count("n", judging.n, 1 << 20, 1000)
    made = judged.generated(voice, n, drawn.seed, every)
    pool = train.pixels, unseen.pixels
    with voice.progress("comparisons", 1) as progress:
        found = audit(made, pool[0], pool[1], [UpToShifts(shift=shift), InFeatures(by)], seed=drawn.seed)
        progress.advance()
    about = {
        "step": judged.step,
        "seed": drawn.seed,
        "data": named(judging.data, judged),
        "samples": found.samples,
        "train": found.train,
        "held_out": found.held_out,
        "checksums": [images.checksum()[:16] for images in (train, unseen)],
        "features": by.name,
        "shift": shift,
    }
    entry = {**about, **_found(found)}
    out, picture = _placed(judged, out, "audit.png")
    worst = min(found.spaces, key=lambda space: space.p_value)
    store.write_bytes(out, _picture(worst, made, *pool))
    keep(judged.run.folder, AUDIT, {**entry, "picture": picture}, tuple(about))
    if not json:
        _say(voice, found, judged.step)
    text = f"wrote {out}: each row a generated image, its nearest training image, its nearest held-out image, by {worst.name}"
    voice.finish({"run": str(folder), "out": str(out), **entry}, text)


def _say(voice: Console, found: Audit, step: int) -> None:
    """The audit as a table, and its verdict."""
    rows = [
        (s.name, f"{s.nearer:.1%}", f"{s.expected:.1%}", f"{s.p_value:.3f}", len(s.suspicious())) for s in found.spaces
    ]
    headers = ["compared by", "nearer to training", "expected", "p", "suspicious"]
    title = f"step {step:,}: {found.samples:,} generated, {found.train:,} training, {found.held_out:,} held-out images"
    voice.table(headers, rows, title)
    voice.say(found.verdict())


def _together(train: Images, unseen: Images) -> Images:
    """Both sets as one, with labels where both have the same classes."""
    pixels = torch.cat([train.pixels, unseen.pixels])
    if train.labels is None or unseen.labels is None or train.classes != unseen.classes:
        return Images(pixels)
    return Images(pixels, torch.cat([train.labels, unseen.labels]), train.classes)


def recovered(
    folder: Path, out: Path | None, judging: Judging, held_out: str | None, steps: int, drawn: Drawn, json: bool
) -> None:
    """Find the noise of training and of held-out pictures, and compare the errors. Raises InputError."""
    voice = console(json)
    if out is not None:
        check_place("out", out, suffixes=(".png",))
    whole("steps", steps)
    judged = Judged.open(folder, drawn.checkpoint, judging.device)
    parts = judged.apart(judging.data, held_out, judging.split)
    n = count("n", judging.n, min(map(len, parts)), 32)
    chosen = [_drawn(images, n, drawn.seed) for images in parts]
    with voice.progress("pictures", 2 * n) as progress:
        found = []
        for images in chosen:
            labels = images.labels if judged.recipe.classes else None
            sampler, told = judged.sampler, progress.advance
            found.append(recover(sampler, images.pixels, labels, steps=steps, seed=drawn.seed, progress=told))
    errors = [one.error for one in found]
    entry = {
        "step": judged.step,
        "seed": drawn.seed,
        "data": named(judging.data, judged),
        "n": n,
        "steps": steps,
        "checksums": [images.checksum()[:16] for images in parts],
        "train_error": float(errors[0].median()),
        "held_out_error": float(errors[1].median()),
        "p_value": worse(errors[0], errors[1]),
    }
    out, picture = _placed(judged, out, "recovered.png")
    shown = min(n, SHOWN)
    rows = [x for images, one in zip(chosen, found) for x in (images.pixels[:shown], one.images[:shown])]
    store.write_bytes(out, grid_png(torch.cat(rows), shown))
    same = ("step", "seed", "data", "n", "steps", "checksums")
    keep(judged.run.folder, RECOVERED, {**entry, "picture": picture}, same)
    text = (
        f"median error of {n} training pictures {entry['train_error']:.1f}, of {n} held-out ones {entry['held_out_error']:.1f} grey levels "
        f"(p = {entry['p_value']:.3g} that training pictures are no easier)\n"
        f"wrote {out}: training pictures, what the generator makes of them, held-out pictures, what it makes of those"
    )
    voice.finish({"run": str(folder), "out": str(out), **entry}, text)


def _drawn(images: Images, n: int, seed: int) -> Images:
    """n images, a random draw."""
    return images.take(torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:n])


def _placed(judged: Judged, out: Path | None, name: str) -> tuple[Path, str | None]:
    """Where a picture is written, by default in the run's folder, and its name there, by which the report shows it; None elsewhere."""
    own = judged.run.folder / name
    out = own if out is None else out
    return out, name if out.resolve() == own.resolve() else None


def _found(found: Audit) -> dict:
    """What an audit found, as it is kept."""
    return {
        "draws": found.draws,
        "p_value": found.p_value,
        "verdict": found.verdict(),
        "by": {
            space.name: {
                "p_value": space.p_value,
                "nearer": space.nearer,
                "expected": space.expected,
                "suspicious": space.suspicious().tolist(),
            }
            for space in found.spaces
        },
    }


def _picture(space: InSpace, made: Tensor, train: Tensor, held_out: Tensor) -> bytes:
    """The samples that are most like training images beside those, and beside the nearest held-out ones."""
    chosen = space.suspicious()[:SHOWN]
    if not len(chosen):
        chosen = space.ratio.argsort(descending=True)[:SHOWN]
    three = torch.stack([made[chosen], train[space.train[chosen]], held_out[space.held_out[chosen]]], 1)
    return grid_png(three.flatten(0, 1), 3)


def _nearest(
    voice: Console, by: Extractor, made: Tensor, images: Images, k: int, window: tuple[slice, slice] | None
) -> tuple[Tensor, Tensor]:
    """The k nearest images of each generated one, in a window of both."""
    if whole("k", k) > len(images):
        raise InputError(f"k must be at most the {len(images):,} images, got {k}")
    cut = (lambda x: x) if window is None else (lambda x: x[:, :, window[0], window[1]].contiguous())
    with voice.progress(f"neighbours by {by.name}", 1) as progress:
        few = max(1, PART // images.pixels[0].numel())
        parts = (extract(by, cut(part)).features for part in images.pixels.split(few))
        found = nearest_in_parts(extract(by, cut(made)).features, parts, k)
        progress.advance()
    return found


def _window(crop: str | None, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """The window x,y,w,h, in pixels from the upper left corner. Raises InputError."""
    if crop is None:
        return None
    words = [word.strip() for word in crop.split(",")]
    if len(words) != 4 or not all(word.isdecimal() and len(word) < 7 for word in words):
        raise InputError(f"crop must be x,y,w,h in pixels, such as 8,8,48,48, got {crop!r}")
    x, y, w, h = map(int, words)
    if not w or not h or x + w > shape[2] or y + h > shape[1]:
        raise InputError(f"crop must lie within the images, {shape[2]} wide and {shape[1]} high, got {crop!r}")
    return slice(y, y + h), slice(x, x + w)
