"""The audit of memorisation: how often it catches generators that copy, and how often it accuses honest ones.

Of a labelled set, random disjoint parts are training images, held-out images, and images that neither has: what a generator without memory would
make. A trial draws them anew. Copying generators give, as all of their samples or as a tenth, training images as they are, mirrored, or moved by up
to two pixels; honest ones give other images, as they are or blurred by half a pixel.

    python benchmarks/audit.py --data MNIST            (MNIST, about half an hour on one core)
    python benchmarks/audit.py --smoke                 (embedded digits, a few trials)
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F

from triptych.ccnn.extractor import default_extractor
from triptych.data import load
from triptych.metrics.audit import InFeatures, UpToShifts, audit
from triptych.metrics.features import Seen

LEVEL = 0.01


def moved(x: torch.Tensor, rng: torch.Generator, most: int) -> torch.Tensor:
    """Each image moved by up to so many pixels on each axis, and at least by one; what comes in is the edge repeated."""
    steps = [(i, j) for i in range(-most, most + 1) for j in range(-most, most + 1) if i or j]
    chosen = torch.randint(len(steps), (len(x),), generator=rng).tolist()
    wide = F.pad(x.float(), (most,) * 4, mode="replicate").byte()
    h, w = x.shape[2:]
    parts = [
        wide[k, :, most + i : most + i + h, most + j : most + j + w]
        for k, (i, j) in enumerate(steps[c] for c in chosen)
    ]
    return torch.stack(parts)


def blurred(x: torch.Tensor) -> torch.Tensor:
    """Each image moved by half a pixel on both axes, which averages neighbours."""
    wide = F.pad(x.float(), (1, 0, 1, 0), mode="replicate")
    return F.avg_pool2d(wide, 2, 1).round().byte()


class Remembered:
    """An extractor that looks at an image once: trials draw from a few thousand."""

    def __init__(self, extractor):
        self.extractor, self.name, self.known = extractor, extractor.name, {}

    def __call__(self, images: torch.Tensor) -> Seen:
        keys = [image.numpy().tobytes() for image in images]
        new = [i for i, key in enumerate(keys) if key not in self.known]
        if new:
            found = self.extractor(images[new]).features
            self.known |= {keys[i]: row for i, row in zip(new, found)}
        return Seen(torch.stack([self.known[key] for key in keys]))


CHANGES = {
    "copies": lambda x, rng, most: x,
    "mirrored copies": lambda x, rng, most: x.flip(3),
    "copies moved by a pixel or two": moved,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--honest", type=int, default=400)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--size", type=int, default=1000, help="training images, and held-out images")
    parser.add_argument("--begin", type=int, default=0, help="the first seed of the honest trials")
    parser.add_argument("--json")
    told = parser.parse_args()
    if told.smoke:
        told.trials, told.honest, told.samples, told.size = 2, 4, 200, 400
    images = load(told.data, split="train") if told.data != "digits" else load("digits")
    apart = torch.randperm(len(images), generator=torch.Generator().manual_seed(9))
    taught = min(5000, len(images) // 4)
    extractor = Remembered(default_extractor(images.take(apart[:taught])))  # on images that no trial uses
    rest = apart[taught : taught + 4 * told.size]
    most = 2 if min(images.shape[2:]) > 16 else 1
    comparisons = [UpToShifts(32, most), InFeatures(extractor)]
    print(f"{images!r}; {told.samples} samples, {told.size} training and held-out images; {extractor.name}", flush=True)
    found: dict[str, list[float]] = {}
    start = time.process_time()

    def trial(kind: str, seed: int, change, share: float) -> None:
        rng = torch.Generator().manual_seed(1_000_003 * seed + 17)
        order = rest[torch.randperm(len(rest), generator=rng)]
        train, held, other = order[: 2 * told.size + told.samples].split([told.size, told.size, told.samples])
        samples = images.pixels[other]
        copies = round(share * told.samples)
        if copies:
            samples = torch.cat([change(images.pixels[train[:copies]], rng, most), samples[copies:]])
        elif change is not None:
            samples = change(samples)
        result = audit(samples, images.pixels[train], images.pixels[held], comparisons, seed=seed)
        found.setdefault(kind, []).append(result.p_value)

    for seed in range(told.trials):
        for name, change in CHANGES.items():
            for share in (1.0, 0.1):
                trial(f"{name}, {share:.0%} of samples", seed, change, share)
        print(f"{time.process_time() - start:.0f} CPU s, trial {seed + 1}", flush=True)
    for seed in range(told.begin, told.begin + told.honest):
        trial(
            "honest" if seed % 2 else "honest, blurred by half a pixel",
            10_000 + seed,
            None if seed % 2 else blurred,
            0.0,
        )
    for kind, p in found.items():
        accused = sum(value <= LEVEL for value in p)
        print(f"{kind}: accused {accused} of {len(p)} at level {LEVEL:g}; median p {sorted(p)[len(p) // 2]:.3f}")
    print(f"{time.process_time() - start:.0f} CPU s")
    if told.json:
        with open(told.json, "w") as file:
            json.dump(found, file)


if __name__ == "__main__":
    main()
