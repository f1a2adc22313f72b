"""Train the denoiser that ships with the package, on the Kodak photographs alone, and measure it beside BM3D.

Grey crops at full size, 0.7 and half of it, mirrored and turned, with noise of a deviation drawn from 10 to 55 for every crop;
mean squared error, divided by the noise's variance to the power 0.75 so that no level drowns the others; Adam with a falling
rate. What counts is the mean over the 64 grids. In the first 30 % of the time every crop is coded on one grid drawn at random,
then on two, f and g, with the error
v = (|f - x|² + |g - x|²) / 2 and the product b = <f - x, g - x>, whose mean over all pairs is the error of the mean over many
grids: the loss is b + (v - b) / n for the mean of n grids, n = 4 at first, then 16 and 64. (64 from the start lets v grow until
all diverges.) Products of matrices in bfloat16 until the last 30 % of the time.

    python benchmarks/train_unfolding.py train --out FILE [--minutes 60] [--threads 1]
    python benchmarks/train_unfolding.py measure [--weights FILE] [--peer-python PYTHON] [--images N]

``measure`` denoises set12 at 15, 25 and 50 with noise from seed 0; BM3D (PyPI, in an environment of its own) is given the same
pictures. TRIPTYCH_DATA/photos holds kodak and set12.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np

SIDE, BATCH, RATE = 99, 16, 4e-3
GRIDS = ((0.3, 1), (0.8, 4), (0.9, 16), (1.0, 64))  # until when, and of how many grids the mean counts
SCALES = (1.0, 0.7, 0.5)
EXACT = 0.7  # from when on in float32
SIGMAS = (15, 25, 50)


def pictures(folder: Path, scales: "tuple[float, ...]" = (1.0,)) -> "list[np.ndarray]":
    """Grey pictures, values from 0 to 1, each at some scales."""
    from PIL import Image

    paths = sorted(folder.glob("*.png"))
    if not paths:
        sys.exit(f"{folder} must hold pictures (png)")
    found = []
    for path, scale in product(paths, scales):
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
    photographs = [torch.from_numpy(p) for p in pictures(folder, SCALES)]
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


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """In dB, of values from 0 to 1 that are cut to that range."""
    return float(-10 * np.log10(((np.clip(a, 0, 1) - b) ** 2).mean()))


def measure(weights: Path | None, peer: str | None, count: int) -> None:
    """PSNR on set12, beside BM3D."""
    import torch

    from triptych.sparse.unfolding import Unfolding

    torch.set_num_threads(1)
    net = Unfolding.load(weights)
    clean = pictures(Path(os.environ["TRIPTYCH_DATA"]) / "photos" / "set12")[:count]
    for level in SIGMAS:
        rng = np.random.default_rng(0)
        noisy = [p + level / 255 * rng.standard_normal(p.shape).astype(np.float32) for p in clean]
        start = time.process_time()
        with torch.no_grad():
            found = [net(torch.from_numpy(p)[None, None], level / 255)[0, 0].numpy() for p in noisy]
        seconds = time.process_time() - start
        said = f"sigma {level}: unfolding {np.mean([psnr(f, p) for f, p in zip(found, clean)]):.3f} dB ({seconds:.0f} CPU s)"
        if peer:
            theirs = bm3d(peer, noisy, level / 255)
            said += f", BM3D {np.mean([psnr(f, p) for f, p in zip(theirs, clean)]):.3f} dB"
        print(said, flush=True)


def bm3d(peer: str, noisy: "list[np.ndarray]", sigma: float) -> "list[np.ndarray]":
    """The peer's denoised pictures, in its own process."""
    code = (
        "import sys, numpy as np, bm3d\n"
        "held = np.load(sys.argv[1])\n"
        "np.savez(sys.argv[2], **{k: bm3d.bm3d(held[k].astype(np.float64), float(sys.argv[3])) for k in held})\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "noisy.npz", Path(folder) / "found.npz"
        np.savez(before, **{str(i): p for i, p in enumerate(noisy)})
        subprocess.run([peer, "-c", code, str(before), str(after), str(sigma)], check=True)
        with np.load(after) as held:
            return [held[str(i)] for i in range(len(noisy))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0, help="of CPU time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--peer-python")
    parser.add_argument("--images", type=int, default=12)
    args = parser.parse_args()
    if args.what == "train":
        if args.out is None:
            parser.error("--out must name the file to write")
        train(args.out, args.minutes, args.threads)
    else:
        measure(args.weights, args.peer_python, args.images)


if __name__ == "__main__":
    main()
