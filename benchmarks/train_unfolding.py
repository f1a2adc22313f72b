"""Train the denoiser that ships with the package, on the Kodak photographs alone.

Grey crops at full size, 0.7 and half of it, mirrored and turned, with noise of a deviation drawn from 10 to 55 for every crop;
mean squared error, divided by the noise's variance to the power 0.75 so that no level drowns the others; Adam with a falling
rate. What counts is the mean over the 64 grids. In the first 30 % of the time every crop is coded on one grid drawn at random,
then on two, f and g, with the error
v = (|f - x|² + |g - x|²) / 2 and the product b = <f - x, g - x>, whose mean over all pairs is the error of the mean over many
grids: the loss is b + (v - b) / n for the mean of n grids, n = 4 at first, then 16 and 64. (64 from the start lets v grow until
all diverges.) Products of matrices in bfloat16 until the last 30 % of the time.

    python benchmarks/train_unfolding.py --out FILE [--minutes 60] [--threads 1]

TRIPTYCH_DATA/photos holds kodak. `benchmarks/denoising.py` measures what comes with the package, beside BM3D.
"""

import argparse
import math
import os
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np

SIDE, BATCH, RATE = 99, 16, 4e-3
GRIDS = ((0.3, 1), (0.8, 4), (0.9, 16), (1.0, 64))  # until when, and of how many grids the mean counts
SCALES = (1.0, 0.7, 0.5)
EXACT = 0.7  # from when on in float32


def pictures(folder: Path) -> "list[np.ndarray]":
    """Grey pictures, values from 0 to 1, each at all scales."""
    from PIL import Image

    paths = sorted(folder.glob("*.png"))
    if not paths:
        sys.exit(f"{folder} must hold pictures (png)")
    found = []
    for path, scale in product(paths, SCALES):
        picture = Image.open(path).convert("L")
        size = [round(scale * n) for n in picture.size]
        found.append(np.asarray(picture.resize(size, Image.Resampling.LANCZOS), np.float32) / 255)
    return found


def train(out: Path, minutes: float, threads: int) -> None:
    """Train for so long; weights are written every few minutes."""
    import torch

    from triptych.sparse.unfolding import Unfolding

    torch.set_num_threads(threads)
    folder = Path(os.environ["TRIPTYCH_DATA"]) / "photos" / "kodak"
    photographs = [torch.from_numpy(p) for p in pictures(folder)]
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    net = Unfolding()
    optimiser = torch.optim.Adam(net.parameters(), RATE)
    grid = list(product(range(net.stride), repeat=2))
    start, saved, steps, mean = time.process_time(), 0.0, 0, 0.0
    while (done := (time.process_time() - start) / (60 * minutes * threads)) < 1:
        optimiser.param_groups[0]["lr"] = (
            RATE * min(1, (steps + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        )
        clean = torch.stack([crop(photographs[rng.integers(len(photographs))], rng) for _ in range(BATCH)])[:, None]
        sigma = torch.from_numpy(rng.uniform(10, 55, BATCH).astype(np.float32)) / 255
        noisy = clean + sigma.reshape(-1, 1, 1, 1) * torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
        count = next(count for end, count in GRIDS if done < end)
        shifts = [grid[i] for i in rng.choice(len(grid), min(count, 2), replace=False)]
        with torch.autocast("cpu", torch.bfloat16, enabled=done < EXACT):
            off = torch.stack([net(noisy, sigma, [shift]).float() - clean for shift in shifts])
        each, together = (error.mean((1, 2, 3)) for error in (off.square().mean(0), off[0] * off[-1]))
        error = together + (each - together) / count
        loss = (error / sigma**1.5).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        steps, mean = steps + 1, 0.98 * mean + 0.02 * float(loss.detach())
        if done - saved > 0.05:
            saved = done
            net.save(out)
            print(f"{100 * done:.0f} % of the time, {steps} steps, loss {mean / (1 - 0.98**steps):.5f}", flush=True)
    net.save(out)
    print(f"{steps} steps; {out} has {out.stat().st_size} bytes")


def crop(picture, rng: np.random.Generator):
    """A crop, mirrored and turned."""
    import torch

    top, left = (int(rng.integers(n - SIDE + 1)) for n in picture.shape)
    part = picture[top : top + SIDE, left : left + SIDE]
    if rng.integers(2):
        part = part.flip(1)
    return torch.rot90(part, int(rng.integers(4)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--minutes", type=float, default=60.0, help="of CPU time")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    train(args.out, args.minutes, args.threads)


if __name__ == "__main__":
    main()
