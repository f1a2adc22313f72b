"""gan sample, walk, arithmetic: what a trained generator makes, as pictures, films and arrays."""

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from triptych import store
from triptych.check import InputError, nearest, real, shown, whole, wrong
from triptych.cli.console import console
from triptych.cli.gan_options import Choice, Drawn, Way
from triptych.cli.place import check_place
from triptych.gan.folder import Run
from triptych.gan.pictures import MODES, enlarged_frames, gif, grid_png, in_rows, pngs
from triptych.gan.pretrained import is_pretrained
from triptych.gan.run import load_generator
from triptych.gan.sample import Sampler
from triptych.gan.walk import arithmetic, path
from triptych.store import read_json

MOST_IN_A_GRID = 4096
MOST_IMAGES = 2**63  # of a seed
ARRAYS = (".npz", ".npy")


def sampled(folder: Path, out: Path, choice: Choice, drawn: Drawn, json: bool) -> None:
    """Write images of a run. Raises InputError."""
    voice, kind = console(json), _kind(out)
    for name, number in (("n", choice.n), ("columns", choice.columns)):
        if number is not None:
            whole(name, number)
    sampler, names = _opened(folder, drawn)
    labels = None if choice.labels is None else class_numbers(choice.labels, sampler.recipe.classes, names)
    if choice.each_class and labels is not None:
        raise InputError("labels must be left away with --each-class, which draws all of them")
    rows = max(1, sampler.recipe.classes) if choice.each_class else 1
    n = _count(choice, kind, rows)
    total = n * rows
    _check_drawable(sampler, kind, n, rows)
    with voice.progress("images", total) as progress:
        if choice.each_class:
            images = sampler.each_class(drawn.seed, n, choice.truncation)
            told = torch.arange(sampler.recipe.classes).repeat_interleave(n)
        else:
            blocks = sampler.sample(drawn.seed, n, labels=labels, truncation=choice.truncation)
            images = torch.cat([_counted(block, progress.advance) for block in blocks])
            told = sampler.labels(0, n, labels)
        progress.advance(total - progress.done)
    columns = n if choice.each_class and choice.columns is None else choice.columns
    if kind == ".png":
        store.write_bytes(out, grid_png(images, columns))
    elif kind in ARRAYS:
        store.write_bytes(out, _array_file(kind, images, told))
    else:
        _write_folder(out, images, told, names)
    what = f"{total:,} {'image' if total == 1 else 'images'} of {' x '.join(map(str, images.shape[1:]))}"
    facts = {"run": str(folder), "out": str(out), "images": total, "shape": list(images.shape[1:]), "seed": drawn.seed}
    voice.finish({**facts, "labels": None if told is None else told.tolist()}, f"wrote {out}: {what}")


def walked(folder: Path, out: Path, way: Way, drawn: Drawn, json: bool) -> None:
    """Write a film of a walk. Raises InputError."""
    voice = console(json)
    check_place("out", out, suffixes=(".gif", ".mp4"))
    fps = real("fps", way.fps, low=1, high=100)
    if out.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise InputError("out must be a .gif file, as a .mp4 needs the program ffmpeg, which is not installed here")
    sampler, names = _opened(folder, drawn)
    label = _one_label(way.label, sampler, names)
    _check_drawable(sampler, ".gif", 1)
    z = path(sampler, way.kind, frames=way.frames, seed=drawn.seed, points=way.points)
    with voice.progress("frames", len(z)) as progress:
        blocks = z.split(16)
        images = torch.cat([_counted(sampler.images(block, _same(label, block)), progress.advance) for block in blocks])
    data = gif(images, fps) if out.suffix.lower() == ".gif" else _mp4(images, fps)
    store.write_bytes(out, data)
    facts = {"run": str(folder), "out": str(out), "kind": way.kind, "frames": len(z), "seed": drawn.seed}
    voice.finish(facts, f"wrote {out}: {len(z)} frames, {len(z) / fps:.1f} s")


def added(
    folder: Path,
    out: Path,
    terms: tuple[Sequence[str], Sequence[str]],
    label: str | None,
    drawn: Drawn,
    json: bool,
) -> None:
    """Write the picture of a sum of means. Raises InputError."""
    voice = console(json)
    check_place("out", out, suffixes=(".png",))
    plus, minus = ([_numbers(name, text) for text in texts] for name, texts in zip(("plus", "minus"), terms))
    sampler, names = _opened(folder, drawn)
    number = _one_label(label, sampler, names)
    _check_drawable(sampler, ".png", 1)
    rows = [sampler.images(z, _same(number, z)) for z in arithmetic(sampler, plus, minus, drawn.seed)]
    store.write_bytes(out, grid_png(*in_rows(rows)))
    facts = {"run": str(folder), "out": str(out), "plus": plus, "minus": minus, "seed": drawn.seed}
    voice.finish(
        facts, f"wrote {out}: a row for each of {len(rows) - 1} terms, the sum and {len(rows[-1]) - 1} neighbours"
    )


def class_numbers(text: str, classes: int, names: Sequence[str]) -> list[int]:
    """The numbers of classes that are named, or numbered, in a list divided by commas. Raises InputError."""
    if not classes:
        raise InputError("labels must be left away, as the run is not conditional: it was trained without --labels")
    numbers = []
    for word in (part.strip() for part in text.split(",")):
        if word in names:
            numbers.append(names.index(word))
        elif (number := _number(word)) is not None and number < classes:
            numbers.append(number)
        else:
            known = f"a class of the run ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})"
            raise InputError(
                f"labels must name {known} or its number below {classes}, got {shown(word)}{nearest(word, names)}"
            )
    return numbers


def _opened(folder: Path, drawn: Drawn) -> tuple[Sampler, list[str]]:
    """The generator of a run, and the names of its classes."""
    whole("seed", drawn.seed, low=0)
    recipe, generator = load_generator(folder, drawn.checkpoint)
    data = (
        read_json(folder / "config.json")["about"].get("data")
        if is_pretrained(folder)
        else Run.open(folder).config.get("data")
    )
    names = data.get("classes") if isinstance(data, dict) else None
    return Sampler(recipe, generator), list(names or map(str, range(recipe.classes)))


def _kind(out: Path) -> str:
    """The suffix of a file, nothing for a folder. Raises InputError where it cannot be written."""
    if out.suffix and not out.is_dir():
        check_place("out", out, suffixes=(".png", *ARRAYS))
        return out.suffix.lower()
    check_place("out", out)
    if out.is_dir() and any(out.iterdir()):
        raise InputError(
            f"out must be a new folder or a .png, .npz or .npy file, but {out} is a folder that is not empty"
        )
    return ""


def _count(choice: Choice, kind: str, rows: int) -> int:
    """The images of each row: as many as are asked for, else so many that a grid holds them."""
    if choice.n is not None:
        return choice.n
    if not choice.each_class:
        return 64
    return max(1, min(8, MOST_IN_A_GRID // rows)) if kind == ".png" else 8


def _check_drawable(sampler: Sampler, kind: str, count: int, rows: int = 1) -> None:
    channels = sampler.recipe.shape[0]
    if kind not in ARRAYS and channels not in MODES:
        raise InputError(
            f"out must be a .npz or .npy file, as no picture can have {channels} channels, got {kind or 'a folder'}"
        )
    if kind == ".png" and count * rows > MOST_IN_A_GRID:
        if rows > 1:
            got = f"but {count:,} each of {rows:,} classes are {count * rows:,}"
            raise InputError(
                f"the images of a grid must be at most {MOST_IN_A_GRID:,}, {got}; give a folder or a .npz file"
            )
        raise InputError(f"n must be at most {MOST_IN_A_GRID} in a grid, got {count}; give a folder or a .npz file")


def _one_label(text: str | None, sampler: Sampler, names: Sequence[str]) -> int | None:
    """The one class that is named, the first where none is; None for a run without classes. Raises InputError."""
    if text is None:
        return 0 if sampler.recipe.classes else None
    numbers = class_numbers(text, sampler.recipe.classes, names)
    if len(numbers) > 1:
        raise InputError(f"label must be one class, got {shown(text)}")
    return numbers[0]


def _same(label: int | None, z: Tensor) -> Tensor | None:
    return None if label is None else torch.full((len(z),), label)


def _numbers(name: str, text: str) -> list[int]:
    """Image numbers divided by commas."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise InputError(f"{name} must be image numbers divided by commas, such as 3,17,20, got {shown(text)}")
    numbers = [number for word in words if (number := _number(word)) is not None]
    if len(numbers) < len(words):
        raise wrong(name, f"image numbers below {MOST_IMAGES:,}", text)
    return numbers


def _number(word: str) -> int | None:
    """The number of an image or a class that digits say; None where they are none, or the number is above all of these."""
    if not word.isdecimal() or len(word) > len(str(MOST_IMAGES)):
        return None
    return int(word) if int(word) < MOST_IMAGES else None


def _counted(block: Tensor, advance: Callable[[float], None]) -> Tensor:
    advance(len(block))
    return block


def _array_file(kind: str, images: Tensor, labels: Tensor | None) -> bytes:
    """Pixels (n, c, h, w) as x and labels (n,) as y, as `triptych data info` reads them; .npy has pixels alone."""
    file = io.BytesIO()
    if kind == ".npy":
        np.save(file, images.numpy(), allow_pickle=False)
    else:
        arrays = {"x": images.numpy()} if labels is None else {"x": images.numpy(), "y": labels.numpy()}
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def _write_folder(out: Path, images: Tensor, labels: Tensor | None, names: Sequence[str]) -> None:
    """One PNG an image, named by its number; one sub-folder a class where there are classes."""
    safe = all(Path(name).name == name and not name.startswith(".") for name in names)
    with store.filled(out) as folder:
        for i, data in enumerate(pngs(images)):
            place = folder
            if labels is not None:
                number = int(labels[i])
                place = folder / (names[number] if safe else str(number))
                place.mkdir(exist_ok=True)
            (place / f"{i:06d}.png").write_bytes(data)


def _mp4(images: Tensor, fps: float) -> bytes:
    """Frames as H.264 by ffmpeg, which wants even sides. Raises InputError with ffmpeg's last words where it fails."""
    frames = enlarged_frames(images)
    frames = np.repeat(frames, 3, -1) if frames.shape[-1] == 1 else frames[..., :3]
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        command = [
            "ffmpeg",
            "-v",
            "error",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-s",
            size,
            "-r",
            f"{fps:g}",
            "-i",
            "-",
        ]
        command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(film)]
        done = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
        if done.returncode or not film.is_file():
            words = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise InputError(f"ffmpeg could not write the film ({words[-1]}); write a .gif instead")
        return film.read_bytes()
