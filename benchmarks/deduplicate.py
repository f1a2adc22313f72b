"""Near duplicates planted among photographs: how many are found, at how many false ones, by triptych and by others.

Of 300 seeded images one changed copy each is added, of four kinds by turns: moved by 1 to 4 px of 128 (what leaves the
picture is lost, what enters repeats the border), JPEG of quality 30 to 70 by Pillow, brightness times 0.8 to 1.2, and
all three. Recall is the share of the copies that are paired with their original, or with a true duplicate of it. A
false positive is an image without any true duplicate, planted or of the set's own, that is paired with anything; their
rate is the share among all such images. The threshold of every method is set where its rate is the one that is stated.

The set is rooms128, photographs of houses (Ahmed & Moustafa, 2016). It has 24 duplicates of its own, which were looked
at by eye; they stand below. `triptych data deduplicate` on the set itself, and the pictures of --sheet, show others.

    triptych            what the library gives: pairs proposed by the hash, decided by the correlation of details
    hash                the Hamming distance of its codes alone
    hash above 0        the same of units that are above 0, as in the paper, not above their median
    as published        such bits of an autoencoder of plain crops, neither moved nor freed of brightness and contrast,
                        trained three times as long
    dHash               64 bits: whether a pixel of 9 x 8 grey ones is brighter than the next to the right
    pixels              the Euclidean distance of 32 x 32 crops

    python benchmarks/deduplicate.py [--data FOLDER] [--seeds 0 1 2] [--copies 300] [--sheet FILE.png] [--out FILE.json]
    python benchmarks/deduplicate.py --smoke       (the embedded digits)

FOLDER is rooms128 in the folder that TRIPTYCH_DATA names.
"""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from triptych.data import load
from triptych.data.deduplicate import (
    BATCH,
    DROPPED,
    DROPPED_UNITS,
    FALSE_SHARE,
    NOISE,
    RATE,
    SHIFT,
    SIDE,
    STEPS,
    UNITS,
    Candidates,
    components,
    learn,
    search,
    windows,
)
from triptych.data.folder import Folder
from triptych.data.recognise import recognise
from triptych.images import Images

KINDS = ("moved", "JPEG", "brightness", "all three")
RATES = (0.001, 0.003, 0.01, 0.03)
NEVER = 1e9  # the distance of what was not proposed
REAL = """
    10_kitchen 27_kitchen, 11_frontal 30_frontal, 12_bathroom 12_bedroom, 12_frontal 32_frontal, 9_bathroom 21_bathroom,
    9_bedroom 21_bedroom, 59_bathroom 72_bathroom, 59_frontal 72_frontal, 59_kitchen 72_kitchen,
    199_bathroom 214_bathroom, 199_bedroom 214_bedroom, 199_frontal 214_frontal, 199_kitchen 214_kitchen,
    227_bedroom 227_kitchen, 259_bathroom 296_bathroom, 259_bedroom 296_bedroom, 271_bedroom 305_bedroom,
    271_frontal 305_frontal, 271_kitchen 305_kitchen, 292_frontal 293_frontal, 331_frontal 351_frontal,
    343_bathroom 343_kitchen, 354_bathroom 354_bedroom, 466_bathroom 466_kitchen
"""


@dataclass(frozen=True, eq=False)
class Planted:
    """Images (n + m, c, h, w), the last m copies; whose, (m,); their kinds; and which true group each image is of."""

    pixels: Tensor
    original: Tensor
    kinds: list[str]
    group: Tensor

    @property
    def alone(self) -> Tensor:
        """Which images have no true duplicate."""
        return self.group.bincount(minlength=len(self.group))[self.group] == 1


def moved(x: Tensor, rng: np.random.Generator) -> Tensor:
    """An image (c, h, w) moved by up to 4 px of 128 in both directions, in one of them by at least 1."""
    while True:
        steps = [int(rng.integers(-4, 5)) * side for side in x.shape[1:]]
        down, right = (round(step / 128) for step in steps)
        if down or right:
            break
    rows, columns = (
        (torch.arange(side) + by).clamp(0, side - 1) for side, by in zip(x.shape[1:], (down, right), strict=True)
    )
    return x[:, rows][:, :, columns]


def compressed(x: Tensor, rng: np.random.Generator) -> Tensor:
    file = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(x.permute(1, 2, 0).numpy().squeeze()))
    picture.save(file, "JPEG", quality=int(rng.integers(30, 71)))
    pixels = np.array(Image.open(file)).reshape(*x.shape[1:], -1)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def brighter(x: Tensor, rng: np.random.Generator) -> Tensor:
    return (rng.uniform(0.8, 1.2) * x.float()).round().clamp(0, 255).byte()


CHANGES: dict[str, tuple[Callable[[Tensor, np.random.Generator], Tensor], ...]] = {
    "moved": (moved,),
    "JPEG": (compressed,),
    "brightness": (brighter,),
    "all three": (moved, brighter, compressed),
}


def plant(pixels: Tensor, own: list[tuple[int, int]], copies: int, seed: int) -> Planted:
    """The images and changed copies of some; ``own`` are the pairs of true duplicates that the set has itself."""
    rng, n = np.random.default_rng(seed), len(pixels)
    original = torch.from_numpy(rng.permutation(n)[:copies])
    kinds = [KINDS[k % len(KINDS)] for k in range(copies)]
    made = []
    for i, kind in zip(original.tolist(), kinds):
        x = pixels[i]
        for change in CHANGES[kind]:
            x = change(x, rng)
        made.append(x)
    pairs = torch.cat(
        [torch.tensor(own, dtype=torch.int64).view(-1, 2), torch.stack([original, n + torch.arange(copies)], 1)]
    )
    group = torch.arange(n + copies)
    for members in components(n + copies, pairs):
        group[list(members)] = members[0]
    return Planted(torch.cat([pixels, torch.stack(made)]), original, kinds, group)


def own_duplicates(path: str) -> list[tuple[int, int]]:
    """The indices of the pairs above, where the folder has such files."""
    source = recognise(path)
    if not isinstance(source, Folder):
        return []
    place = {one.path.stem: i for i, one in enumerate(source.chosen(None))}
    pairs = [tuple(pair.split()) for pair in REAL.split(",")]
    return [(place[a], place[b]) for a, b in pairs if a in place and b in place]


def of_candidates(found: Candidates) -> Tensor:
    """Distances (n, n) of the library's pairs."""
    n = len(found.first)
    table = torch.full((n, n), NEVER)
    i, j = found.pairs.T
    table[i, j] = table[j, i] = 1 - found.correlations
    table = table[found.first][:, found.first]
    table[found.first[:, None] == found.first] = 0
    return table


def hamming(bits: Tensor) -> Tensor:
    signs = bits.float() * 2 - 1
    return (bits.shape[1] - signs @ signs.T) / 2


def dhash(pixels: Tensor) -> Tensor:
    """64 bits an image: (n, 64)."""
    grey = pixels.float().mean(1, keepdim=True)
    small = F.interpolate(grey, size=(8, 9), mode="bilinear", antialias=True)
    return (small[..., 1:] > small[..., :-1]).flatten(1)


def euclidean(pixels: Tensor) -> Tensor:
    crops = windows(pixels)[..., SHIFT : SHIFT + SIDE, SHIFT : SHIFT + SIDE].flatten(1).float()
    return torch.cdist(crops, crops)


def as_published(pixels: Tensor, seed: int, steps: int) -> Tensor:
    """Bits (n, 128) of Radford et al.'s autoencoder; how much noise and dropout it had, the paper does not say.

    Crops lose the set's mean, without which no unit learns anything in so few steps.
    """
    crops = windows(pixels)[..., SHIFT : SHIFT + SIDE, SHIFT : SHIFT + SIDE].flatten(1).float() / 255
    crops -= crops.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = nn.Sequential(nn.Linear(crops.shape[1], UNITS), nn.ReLU())
        decoder = nn.Linear(UNITS, crops.shape[1])
        optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=RATE)
        for _ in range(steps):
            target = crops[torch.randint(len(crops), (BATCH,))]
            given = F.dropout(target + NOISE * torch.randn_like(target), DROPPED)
            loss = F.mse_loss(decoder(F.dropout(encoder(given), DROPPED_UNITS)), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        return encoder(crops) > 0


def tables(planted: Planted, found: Candidates, seed: int, steps: int) -> dict[str, Tensor]:
    """Every method's distances (n, n)."""
    crops = windows(planted.pixels)
    code = learn(crops, seed=seed, steps=steps)
    return {
        "triptych": of_candidates(found),
        "hash": hamming(code.bits(crops)),
        "hash above 0": hamming(code.values(crops) > 0),
        "as published": hamming(as_published(planted.pixels, seed, 3 * steps)),
        "dHash": hamming(dhash(planted.pixels)),
        "pixels": euclidean(planted.pixels),
    }


def nearest(planted: Planted, table: Tensor) -> tuple[Tensor, Tensor]:
    """Of each copy the distance to its nearest true duplicate; of each image without any that to the nearest image."""
    table = table.clone().fill_diagonal_(NEVER)
    copies = slice(len(table) - len(planted.original), None)
    true = planted.group[copies, None] == planted.group
    return table[copies].masked_fill(~true, NEVER).amin(1), table[planted.alone].amin(1)


def recalls(planted: Planted, copies: Tensor, below: float) -> dict[str, float]:
    """The share of copies that are nearer than that, of each kind and of all."""
    hit, kinds = (copies < below).double(), np.array(planted.kinds)
    return {**{kind: float(hit[torch.from_numpy(kinds == kind)].mean()) for kind in KINDS}, "all": float(hit.mean())}


def measured(planted: Planted, table: Tensor) -> dict[str, dict[str, float]]:
    """Recalls at every rate of false positives."""
    copies, others = nearest(planted, table)
    order = others.sort().values
    return {f"{rate:g}": recalls(planted, copies, float(order[int(rate * len(order))])) for rate in RATES}


def default(planted: Planted, found: Candidates) -> dict[str, float]:
    """What the library flags by itself, and how many falsely; and how many it expects."""
    least = found.least(FALSE_SHARE)
    copies, others = nearest(planted, of_candidates(found))
    below = 1 - least + 1e-6
    expected = float(found.law.share(torch.tensor([least]))[0]) * len(others)
    counts = {"false": float((others < below).sum()), "of": float(len(others)), "expected": expected}
    return {**recalls(planted, copies, below), **counts, "correlation": least, "radius": float(found.radius)}


def sheet(planted: Planted, found: Candidates) -> bytes:
    """The 40 most alike pairs that are no true duplicates, side by side."""
    from triptych.bench import figure

    false = planted.group[found.pairs[:, 0]] != planted.group[found.pairs[:, 1]]
    order = found.correlations.masked_fill(~false, -1).argsort(descending=True)[:40]
    pairs = found.pairs[order[false[order]]]
    return figure.images(torch.cat([planted.pixels[column] for column in pairs.T], 3).numpy(), 4)


def said(recall: dict[str, float]) -> str:
    return "".join(f"{100 * recall[kind]:>12.1f}" for kind in (*KINDS, "all"))


def show(found: dict[str, list[dict[str, dict[str, float]]]]) -> None:
    """Means over the seeds: recall by kind at 1 %, and of all at every rate."""
    print(
        f"\nrecall in % at 1 % false positives, mean of seeds\n{'':14}" + "".join(f"{k:>12}" for k in (*KINDS, "all"))
    )
    mean: dict[str, dict[str, dict[str, float]]] = {
        name: {
            rate: {kind: float(np.mean([one[rate][kind] for one in seeds])) for kind in seeds[0][rate]}
            for rate in seeds[0]
        }
        for name, seeds in found.items()
    }
    for name, rates in mean.items():
        print(f"{name:14}{said(rates['0.01'])}")
    print("\nrecall in % at other rates\n" + " " * 14 + "".join(f"{f'{100 * rate:g} %':>12}" for rate in RATES))
    for name, rates in mean.items():
        print(f"{name:14}" + "".join(f"{100 * rates[f'{rate:g}']['all']:>12.1f}" for rate in RATES), flush=True)


def run(pixels: Tensor, own: list[tuple[int, int]], args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """All numbers of one seed; what the library says by itself is printed."""
    planted = plant(pixels, own, args.copies, seed)
    start, cpu = time.perf_counter(), time.process_time()
    candidates = search(Images(planted.pixels), seed=seed, steps=args.steps)
    one = default(planted, candidates)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"seed {seed:<9}{said(one)}   by its own threshold, correlation {one['correlation']:.3f}")
    print(
        f"{'':14}false positives {one['false']:.0f} of {one['of']:.0f}, expected {one['expected']:.1f}; "
        f"radius {one['radius']:.0f}; {seconds:.1f} s, {cpu:.1f} s of CPU",
        flush=True,
    )
    if args.sheet and seed == args.seeds[0]:
        args.sheet.write_bytes(sheet(planted, candidates))
    every = tables(planted, candidates, seed, args.steps)
    rates = {name: measured(planted, table) for name, table in every.items()}
    return {"seed": seed, "seconds": seconds, "cpu_seconds": cpu, "default": one, "rates": rates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(Path(os.environ.get("TRIPTYCH_DATA", "")) / "rooms128"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--copies", type=int, default=300)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--sheet", type=Path, help="a picture of the most alike pairs that are no duplicates")
    parser.add_argument("--out", type=Path, help="all numbers as JSON")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    if args.smoke:
        pixels, own = load("digits", side=64, limit=150).pixels, []
        args.seeds, args.copies, args.steps = [0], 40, 40
    elif not Path(args.data).is_dir():
        parser.error(f"there is no folder {args.data}; name one with --data, or the data with TRIPTYCH_DATA")
    else:
        pixels, own = load(args.data).pixels, own_duplicates(args.data)
    print(f"{len(pixels):,} images, {len(own)} duplicates of their own, {args.copies} changed copies; recall in %")
    print(f"{'':14}" + "".join(f"{kind:>12}" for kind in (*KINDS, "all")))
    results = [run(pixels, own, args, seed) for seed in args.seeds]
    show({name: [one["rates"][name] for one in results] for name in results[0]["rates"]})
    if args.out:
        args.out.write_text(json.dumps({"images": len(pixels), "own": len(own), "seeds": results}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
