"""PSNR of denoised photographs: the default, plain l1 coding, the trained unfolding where there is one, beside BM3D.

Grey values (Pillow's "L") of all of a folder, white Gaussian noise of standard deviation 15, 25 and 50 on the scale 0 to 255,
not clipped, seeded by the image's number; sigma is given to all methods. PSNR = 10 log10(255² / mean squared error), the mean
over the images. BM3D is PyPI's bm3d with its own settings, in an environment of its own: pip install bm3d.

    python benchmarks/denoising.py --data FOLDER [--sigmas 15 25 50] [--images N] [--peer-python PYTHON] [--out FILE.json]
                                   [--methods default BM3D]
    python benchmarks/denoising.py --smoke         (one small image made here)
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SUFFIXES = {".png", ".jpg", ".jpeg"}
METHODS = ("plain l1", "default", "unfolding", "BM3D")
Method = Callable[[np.ndarray, float], np.ndarray]


def photographs(folder: Path, count: int | None) -> list[np.ndarray]:
    """Grey values as float32."""
    from PIL import Image

    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)[:count]
    return [np.asarray(Image.open(path).convert("L"), np.float32) for path in paths]


def made() -> list[np.ndarray]:
    """One small picture: a disc on a wave."""
    y, x = np.mgrid[:48, :56].astype(np.float32)
    return [100 + 60 * np.sin(x / 5 + y / 9) + 50 * ((x - 30) ** 2 + (y - 20) ** 2 < 150)]


def noisy(image: np.ndarray, sigma: float, number: int) -> np.ndarray:
    """The image with noise that its number and sigma decide."""
    rng = np.random.default_rng((number, round(sigma)))
    return (image + sigma * rng.standard_normal(image.shape)).astype(np.float32)


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(image.astype(np.float64) - truth).mean()))


def ours(method: str) -> Method:
    import torch

    from triptych.sparse.restore import denoise

    torch.set_num_threads(1)
    return lambda image, sigma: denoise(torch.from_numpy(image)[None, None], sigma, method=method).image[0, 0].numpy()


def unfolding() -> Method | None:
    """The trained unfolding, where its weights are there."""
    from triptych.sparse.unfolding import SHIPPED

    return ours("unfolding") if SHIPPED.exists() else None


def bm3d(python: str) -> Method:
    """BM3D in a process of its own."""

    def run(image: np.ndarray, sigma: float) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "image.npz"
            np.savez(file, image=image, sigma=sigma)
            threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
            subprocess.run([python, __file__, "--peer", str(file)], check=True, env={**os.environ, **threads})
            with np.load(file) as held:
                return held["estimate"]

    return run


def peer(file: Path) -> None:
    """The peer's part: reads an image and writes its estimate."""
    from bm3d import bm3d as run

    with np.load(file) as held:
        image, sigma = held["image"], float(held["sigma"])
    np.savez(file, estimate=run(image, sigma))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sigmas", type=float, nargs="+", default=[15.0, 25.0, 50.0])
    parser.add_argument("--images", type=int, help="the first ones only")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--peer-python")
    parser.add_argument("--out", type=Path, help="all numbers as JSON")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        peer(args.peer)
        return
    if args.data is None and not args.smoke:
        parser.error("--data must name a folder of pictures, or give --smoke")
    images = made() if args.smoke else photographs(args.data, args.images)
    methods: dict[str, Method | None] = {
        "plain l1": ours("plain"),
        "default": ours("shifts"),
        "unfolding": unfolding(),
        "BM3D": bm3d(args.peer_python) if args.peer_python else None,
    }
    found: dict[str, dict[str, list[float]]] = {}
    print(f"{len(images)} images; PSNR in dB, seconds an image")
    print(f"{'':10}" + "".join(f"{f'sigma {sigma:g}':>18}" for sigma in args.sigmas), flush=True)
    chosen = {name: methods[name] for name in METHODS if name in args.methods}
    for name, method in {"noisy": lambda image, sigma: image, **chosen}.items():
        if method is None:
            print(f"{name:10}not run", flush=True)
            continue
        cells = []
        for sigma in args.sigmas:
            start = time.perf_counter()
            values = [psnr(method(noisy(x, sigma, i), sigma), x) for i, x in enumerate(images)]
            found.setdefault(name, {})[f"{sigma:g}"] = values
            cells.append(f"{np.mean(values):10.2f}{(time.perf_counter() - start) / len(images):7.1f}s")
        print(f"{name:10}" + "".join(cells), flush=True)
    if args.out:
        args.out.write_text(json.dumps({"images": len(images), "psnr": found}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
