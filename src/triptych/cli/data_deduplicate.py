"""What the command data deduplicate does."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from triptych import store
from triptych.bench import figure
from triptych.cli.console import Console, console
from triptych.cli.place import check_place
from triptych.data import load
from triptych.data.deduplicate import Duplicates, deduplicate
from triptych.data.folder import Folder
from triptych.data.recognise import recognise
from triptych.images import Images

SHOWN, DRAWN = 20, 40  # groups in a table, pairs on the sheet
ACROSS, WIDEST = 4, 128  # pairs a row; pixels of a picture's longer side
LIST, SHEET = "duplicates.json", "duplicates.png"
Name = str | int


def deduplicated(path: str, out: Path | None, side: int | None, limit: int | None, seed: int, json: bool) -> None:
    """Find the near duplicates at a path and say which; write their list and a sheet of pairs. Raises InputError."""
    voice = console(json)
    if out is not None:
        check_place("out", out)
    images = load(path, side=side, limit=limit)
    with voice.progress(f"near duplicates among {len(images):,} images"):
        found = deduplicate(images, seed=seed)
    names = _names(path, limit, len(images))
    data = {
        "path": path,
        "images": len(images),
        "near_duplicates": int((~found.keep).sum()),
        "radius": found.radius,
        "distance": found.distance,
        "groups": _groups(found, names),
    }
    if out is not None:
        store.write_json(out / LIST, {**data, "side": side, "limit": limit, "seed": seed})
        store.write_bytes(out / SHEET, sheet(images, found))
    if not json:
        _show(voice, data)
    written = "" if out is None else f"{out / LIST} lists them, {out / SHEET} shows up to {DRAWN} pairs"
    voice.finish({**data, "out": None if out is None else str(out)}, written)


def sheet(images: Images, found: Duplicates) -> bytes:
    """Pairs side by side as a PNG, the least alike first; a white picture where there are none."""
    chosen = found.pairs[found.distances.argsort(descending=True, stable=True)[:DRAWN]]
    if not len(chosen):
        h, w = images.shape[2:]
        return figure.images(torch.full((1, 1, min(h, WIDEST), min(w, WIDEST)), 255, dtype=torch.uint8).numpy(), 1)
    pairs = torch.cat([_small(images.pixels[column]) for column in chosen.T], 3)
    return figure.images(pairs.numpy(), min(ACROSS, len(pairs)))


def _small(pixels: Tensor) -> Tensor:
    """Pictures (n, c, h, w) of at most 128 pixels a side."""
    h, w = pixels.shape[2:]
    if max(h, w) <= WIDEST:
        return pixels
    size = tuple(max(1, round(length * WIDEST / max(h, w))) for length in (h, w))
    small = F.interpolate(pixels.float(), size=size, mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).byte()


def _names(path: str, limit: int | None, n: int) -> list[Name]:
    """The pictures' paths within their folder; elsewhere, the images' indices."""
    source = recognise(path)
    if not isinstance(source, Folder) or source.path.is_file():
        return list(range(n))
    return [one.path.relative_to(source.path).as_posix() for one in source.chosen(None, limit)]


def _groups(found: Duplicates, names: list[Name]) -> list[dict[str, Any]]:
    """The groups by name, each with its pairs and their distances."""
    group = {i: number for number, members in enumerate(found.groups) for i in members}
    groups = [{"images": [names[i] for i in members], "pairs": []} for members in found.groups]
    for (i, j), distance in zip(found.pairs.tolist(), found.distances.tolist()):
        groups[group[i]]["pairs"].append([names[i], names[j], round(distance, 6)])
    return groups


def _show(voice: Console, data: dict[str, Any]) -> None:
    """Print it for a human."""
    groups, count = data["groups"], data["near_duplicates"]
    kept = f"; one of each group and all others are {data['images'] - count:,}" if count else ""
    voice.say(f"{data['images']:,} images, {count:,} near duplicates in {len(groups):,} groups{kept}")
    if not groups:
        return
    rows = [
        (number, f"{max(distance for _, _, distance in one['pairs']):.3f}", ", ".join(map(str, one["images"])))
        for number, one in enumerate(groups[:SHOWN], 1)
    ]
    voice.table(["group", "distance", "images"], rows)
    if len(groups) > SHOWN:
        voice.say(f"and {len(groups) - SHOWN:,} more groups; --json lists them all")
