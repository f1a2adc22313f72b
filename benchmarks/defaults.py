"""What the defaults reach: `CCNNClassifier()` with no setting at all, on data sets that it was not tuned on.

JPEG-decoded CIFAR-10 (10,000 training, 10,000 test images), rooms128 at 32 pixels (five stratified folds), and any other
data set that triptych reads (--other PATH: its own split, or five folds). An SVM on pixels stands beside it with --svm.

    python benchmarks/defaults.py --cifar DIR --rooms DIR [--other PATH]... [--side N] [--layers N] [--svm]
"""

import argparse
import time
import warnings

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

from triptych import CCNNClassifier, load
from triptych.data import splits

LIMIT = 10_000


def fold_errors(make, pixels: np.ndarray, labels: np.ndarray, folds) -> list[float]:
    """Test error in percent of every fold."""
    errors = []
    for train, test in folds:
        model = make().fit(pixels[train], labels[train])
        errors.append(100 * float(np.mean(model.predict(pixels[test]) != labels[test])))
    return errors


class PixelSVM:
    """scikit-learn's SVC (C = 10, gamma = 'scale') on pixels in [0, 1]."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> "PixelSVM":
        self.machine = SVC(C=10).fit(x.reshape(len(x), -1) / np.float32(255), y)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.machine.predict(x.reshape(len(x), -1) / np.float32(255))


def measure(name: str, path: str, side: int | None, options: argparse.Namespace) -> None:
    names = splits(path)
    if names:
        train = load(path, split=names[0], side=side, limit=LIMIT)
        test = load(path, split=names[1], side=side, limit=LIMIT)
        pixels = np.concatenate([train.pixels.numpy(), test.pixels.numpy()])
        labels = np.concatenate([train.labels.numpy(), test.labels.numpy()])
        folds = [(np.arange(len(train)), np.arange(len(train), len(pixels)))]
    else:
        images = load(path, side=side)
        pixels, labels = images.pixels.numpy(), images.labels.numpy()
        folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(labels, labels))
    systems = {"CCNNClassifier": lambda: CCNNClassifier(options.layers, random_state=0)}
    if options.svm:
        systems["SVM_rbf on pixels"] = PixelSVM
    for system, make in systems.items():
        start = time.process_time()
        errors = fold_errors(make, pixels, labels, folds)
        seconds = time.process_time() - start
        spread = f" ({min(errors):.2f} to {max(errors):.2f})" if len(errors) > 1 else ""
        print(
            f"{name}: {system}: error {np.mean(errors):.2f} %{spread}, {len(folds)} fold(s), {seconds:.0f} CPU s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Test error of the defaults.")
    parser.add_argument("--cifar", help="CIFAR-10's binary folder; say 'JPEG-decoded' of the figure where it is")
    parser.add_argument("--rooms", help="folder of pictures, one sub-folder a class")
    parser.add_argument("--other", action="append", default=[], help="another data set; may be repeated")
    parser.add_argument("--side", type=int, default=32, help="pixels a side for pictures (default 32)")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--svm", action="store_true", help="an SVM on pixels beside it")
    options = parser.parse_args()
    warnings.simplefilter("always")
    if options.cifar:
        measure("CIFAR-10", options.cifar, None, options)
    if options.rooms:
        measure("rooms128", options.rooms, options.side, options)
    for path in options.other:
        measure(path, path, None, options)


if __name__ == "__main__":
    main()
