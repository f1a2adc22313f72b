"""PSNR of photographs with missing pixels filled in, beside cubic interpolation of the same pixels.

Grey values (Pillow's "L") of all of a folder; every pixel is missing with the same probability, by masks that the image's
number seeds. Cubic: scipy.interpolate.griddata, the nearest known pixel beyond the hull of the known ones. PSNR over all pixels,
the mean over the images.

    python benchmarks/inpainting.py --data FOLDER [--missing 0.5] [--images N] [--out FILE.json]
    python benchmarks/inpainting.py --smoke        (one small image made here)
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from denoising import made, photographs, psnr


def mask_of(image: np.ndarray, missing: float, number: int) -> np.ndarray:
    """True where a pixel is known."""
    return np.random.default_rng(number).random(image.shape) >= missing


def cubic(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    from scipy.interpolate import griddata

    at, grid = np.nonzero(known), tuple(np.mgrid[: image.shape[0], : image.shape[1]])
    inside = griddata(at, image[known], grid, "cubic")
    nearest = griddata(at, image[known], grid, "nearest")
    return np.where(known, image, np.where(np.isnan(inside), nearest, inside))


def ours(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    import torch

    from triptych.sparse.restore import inpaint

    torch.set_num_threads(1)
    given = torch.from_numpy(np.where(known, image, np.float32(np.nan)))[None, None]
    return inpaint(given, torch.from_numpy(known)[None, None].float()).image[0, 0].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--missing", type=float, default=0.5)
    parser.add_argument("--images", type=int, help="the first ones only")
    parser.add_argument("--out", type=Path, help="all numbers as JSON")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    if args.data is None and not args.smoke:
        parser.error("--data must name a folder of pictures, or give --smoke")
    images = made() if args.smoke else photographs(args.data, args.images)
    found: dict[str, list[float]] = {}
    print(f"{len(images)} images, {100 * args.missing:g} % of the pixels missing")
    for name, method in (("cubic", cubic), ("ours", ours)):
        start = time.perf_counter()
        masks = [mask_of(x, args.missing, i) for i, x in enumerate(images)]
        found[name] = [psnr(method(x, known), x) for x, known in zip(images, masks)]
        seconds = (time.perf_counter() - start) / len(images)
        print(f"{name:8}{np.mean(found[name]):8.2f} dB{seconds:8.1f} s an image", flush=True)
    gain = [a - b for a, b in zip(found["ours"], found["cubic"])]
    print(f"ours - cubic: mean {np.mean(gain):.2f} dB, least {min(gain):.2f}, most {max(gain):.2f}")
    if args.out:
        args.out.write_text(json.dumps({"images": len(images), "missing": args.missing, "psnr": found}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
