"""The dictionary that ships with the package, learned on the Kodak photographs alone.

Grey values, cut into patches of 8 x 8 that do not overlap, from two places of every photograph, without their means: what
`triptych.sparse.restore` codes. 512 atoms at stride 8, an l1 weight of 30 on the scale 0 to 255, seed 0, one thread; some minutes.

    python benchmarks/shipped.py --data KODAK --out src/triptych/sparse/weights/kodak.safetensors [--atoms 512] [--visits 40]
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.exceptions import ConvergenceWarning

from triptych import ConvolutionalDictionaryLearning
from triptych.sparse.shipped import save_dictionary

SIZE, LAM, SIDES = 8, 30.0, (496, 744)
STARTS = ((0, 0), (3, 5))


def patchwise(image: np.ndarray, start: tuple[int, int]) -> np.ndarray:
    """The part (496, 744) of an image that begins somewhere, every patch of it less its mean."""
    h, w = SIDES
    part = image[start[0] : start[0] + h, start[1] : start[1] + w].reshape(h // SIZE, SIZE, w // SIZE, SIZE)
    return (part - part.mean((1, 3), keepdims=True)).reshape(h, w)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--atoms", type=int, default=512)
    parser.add_argument("--visits", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    images = [np.asarray(Image.open(path).convert("L"), np.float32) for path in sorted(args.data.glob("*.png"))]
    wide = [image if image.shape[0] < image.shape[1] else image.T for image in images]
    X = np.stack([patchwise(image, start) for image in wide for start in STARTS])
    learner = ConvolutionalDictionaryLearning(
        args.atoms,
        size=SIZE,
        stride=SIZE,
        reg=LAM,
        reg_scale="absolute",
        max_iter=args.visits,
        random_state=0,
        verbose=1,
    ).fit(X)
    path = save_dictionary(args.out, learner.dictionary_)
    print(f"wrote {path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
