"""The published algorithm, plainly in NumPy: the peer that the speed of triptych's layers is measured against.

Zhang, Liang & Wainwright, 'Convexified Convolutional Neural Networks', ICML 2017, with the settings of its MNIST
experiment: each layer is Gaussian random features of whitened patches, then stochastic gradient steps on the logistic
loss, projected onto the nuclear-norm ball by a full SVD. Arrays are float32, matrix products are BLAS calls, temporary
arrays stay in the cache; the algorithm is left as it was published.
Differs: the whitening and centring statistics come from training images alone; the softmax subtracts its maximum.

    OPENBLAS_NUM_THREADS=1 python benchmarks/plain_ccnn.py --data DIR [--train N] [--test N] [--seed N] [--json]
"""

import argparse
import gzip
import json
import resource
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.linalg import svd
from threadpoolctl import threadpool_info

from triptych.check import InputError, whole, wrong

Array = np.ndarray


@dataclass(frozen=True)
class PlainSettings:
    """One layer: its features (gamma, m, patch, pool, zca), its head (R, lr, ...), the channels that it hands on."""

    gamma: float
    m: int
    R: float
    lr: float
    projections: int
    steps: int = 10  # gradient steps before each projection
    batch: int = 50
    window: int = 250  # projections that the averaged iterate covers, a multiple of `every`
    every: int = 50  # projections from one checkpoint to the next
    patch: int = 5
    pool: int = 2
    zca: float = 0.1
    channels: int = 16  # the published code keeps 25 filters, of which the next layer reads the first 16

    def __post_init__(self) -> None:
        if self.projections % self.every or self.window % self.every:
            raise wrong("every", "a divisor of projections and of window", self.every)


MNIST = (
    PlainSettings(gamma=0.2, m=500, R=200, lr=0.2, projections=1000),
    PlainSettings(gamma=2, m=1000, R=500, lr=1, projections=2000),
)


@dataclass(frozen=True)
class Layer:
    """Maps (n, h, w, c) -> Z (n, positions, m) -> logits, and the next maps; `objective` is the training loss at A."""

    settings: PlainSettings
    W: Array  # (patch * patch * c, m): whitening and frequencies in one matrix, for both are linear
    b: Array  # (m,)
    centre: Array  # (m,)
    scale: float
    A: Array = field(default_factory=partial(np.empty, 0))  # (classes - 1, positions * m)
    filters: Array = field(default_factory=partial(np.empty, 0))  # (m, channels)
    objective: float = float("nan")

    def features(self, maps: Array) -> Array:
        return (pooled_cosines(self.settings, self.W, self.b, maps) - self.centre) * self.scale

    def maps(self, Z: Array) -> Array:
        side = round(Z.shape[1] ** 0.5)
        return (Z @ self.filters).reshape(len(Z), side, side, -1)


@dataclass(frozen=True)
class Model:
    """The layers, and the CPU seconds of the process in each phase of their training."""

    layers: tuple[Layer, ...] = ()
    phases: dict[str, float] = field(default_factory=dict)


Callback = Callable[[int, Model, Callable[[], float]], object] | None  # projections, model so far, its training loss


class Clock:
    """CPU seconds of the process, booked on the phase that was entered last; "" is not counted."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.phase, self.since = "", time.process_time()

    def enter(self, phase: str) -> None:
        now = time.process_time()
        if self.phase:
            self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self.since
        self.phase, self.since = phase, now


def chunks(n: int, size: int = 8) -> Iterator[slice]:
    """Slices of few images: the phases of one are 1.2 MB in the first layer."""
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


def normalised_patches(maps: Array, side: int) -> Array:
    """Maps (n, h, w, c) -> (n * h' * w', side * side * c): p - mean(p), divided by its length + 0.1."""
    windows = sliding_window_view(maps, (side, side), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
    p = windows.reshape(-1, side * side * maps.shape[-1])
    p = p - (p @ np.full(p.shape[1], 1 / p.shape[1], p.dtype))[:, None]
    p /= np.sqrt(np.einsum("ij,ij->i", p, p))[:, None] + 0.1
    return p


def pooled_cosines(s: PlainSettings, W: Array, b: Array, maps: Array) -> Array:
    """Maps (n, h, w, c) -> (n, positions, m): sqrt(2/m) cos(patch W + b), averaged over pool x pool positions."""
    phi = normalised_patches(maps, s.patch) @ W
    phi += b
    np.cos(phi, out=phi)
    h, w = ((side - s.patch + 1) // s.pool * s.pool for side in maps.shape[1:3])
    phi = phi.reshape(len(maps), maps.shape[1] - s.patch + 1, -1, s.m)[:, :h, :w]
    corners = [phi[:, i :: s.pool, j :: s.pool] for i in range(s.pool) for j in range(s.pool)]
    z = corners[0].copy()
    for corner in corners[1:]:
        z += corner
    z *= (2 / s.m) ** 0.5 / s.pool**2
    return z.reshape(len(maps), -1, s.m)


def whitening(maps: Array, s: PlainSettings) -> Array:
    """The ZCA matrix U (S + zca)^(-1/2) U' (d, d), S and U from the covariance of all normalised patches of the maps."""
    d = s.patch**2 * maps.shape[-1]
    total, gram, count = np.zeros(d), np.zeros((d, d)), 0
    for rows in chunks(len(maps)):
        p = normalised_patches(maps[rows], s.patch)
        total += p.sum(0)
        gram += p.T @ p
        count += len(p)
    mean = total / count
    S, U = np.linalg.eigh(gram / count - np.outer(mean, mean))
    return (U / np.sqrt(S + s.zca)) @ U.T


def fit_features(s: PlainSettings, maps: Array, rng: np.random.Generator) -> tuple[Layer, Array]:
    """The features of a layer fitted to the training maps (n, h, w, c), and those maps' Z (n, positions, m)."""
    zca = whitening(maps, s)
    frequencies = rng.standard_normal((len(zca), s.m)) * (2 * s.gamma / maps.shape[-1]) ** 0.5
    W = (zca @ frequencies).astype(np.float32)
    b = rng.uniform(0, 2 * np.pi, s.m).astype(np.float32)  # uniform, whatever the patches' mean would shift it by
    h, w = ((side - s.patch + 1) // s.pool for side in maps.shape[1:3])
    Z = np.empty((len(maps), h * w, s.m), np.float32)
    total, square = np.zeros(s.m), 0.0
    for rows in chunks(len(maps)):
        z = Z[rows] = pooled_cosines(s, W, b, maps[rows])
        total += z.sum((0, 1))
        square += float(np.vdot(z, z))
    count = len(Z) * h * w
    centre = total / count
    scale = float((square / count - centre @ centre) ** -0.5)  # the mean of |z|^2 becomes 1
    layer = Layer(s, W, b, centre.astype(np.float32), scale)
    for rows in chunks(len(maps)):
        Z[rows] -= layer.centre
        Z[rows] *= scale
    return layer, Z


def project(A: Array, R: float) -> Array:
    """Matrix A onto the nuclear-norm ball of radius R: full SVD, then Duchi et al., ICML 2008, figure 1."""
    tall = A if A.shape[0] >= A.shape[1] else A.T  # the faster way round; scipy's SVD is float32, numpy's float64
    U, s, Vt = svd(tall, full_matrices=False, check_finite=False)
    if s.sum() <= R:
        return A
    excess = np.cumsum(s, dtype=np.float64) - R
    rho = np.flatnonzero(s * np.arange(1, len(s) + 1) > excess)[-1]
    B = (U * np.maximum(s - excess[rho] / (rho + 1), 0).astype(s.dtype)) @ Vt
    return np.ascontiguousarray(B if tall is A else B.T)


def probabilities(logits: Array) -> Array:
    """Logits (n, k) -> probabilities (n, k + 1): the logit of the last class is 0."""
    logits = np.hstack([logits, np.zeros((len(logits), 1), logits.dtype)])
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def gradient(Z: Array, targets: Array, A: Array) -> Array:
    """The gradient (k, d) in A of the mean logistic loss of Z (n, d), targets (n, k + 1) of zeros and ones."""
    return ((probabilities(Z @ A.T) - targets)[:, :-1] / len(Z)).T @ Z


def training_loss(Z: Array, labels: Array, A: Array) -> float:
    """Mean over the images of -log p(label), summed in float64."""
    total = 0.0
    for rows in chunks(len(Z), 500):
        p = probabilities((Z[rows].reshape(-1, A.shape[1]) @ A.T).astype(np.float64))
        total -= np.log(np.take_along_axis(p, labels[rows, None], 1)).sum()
    return float(total) / len(Z)


def fit_head(Z: Array, labels: Array, s: PlainSettings, rng: np.random.Generator) -> Iterator[tuple[int, Array]]:
    """Projected stochastic gradient: after every checkpoint's projections, the average (classes - 1, positions * m)."""
    flat = Z.reshape(len(Z), -1)
    targets = np.eye(labels.max() + 1, dtype=np.float32)[labels]
    A = np.zeros((targets.shape[1] - 1, flat.shape[1]), np.float32)
    batch = np.empty((s.batch, flat.shape[1]), np.float32)
    means: deque[Array] = deque(maxlen=s.window // s.every)
    for t in range(s.projections):
        for _ in range(s.steps):
            index = rng.integers(len(Z), size=s.batch)
            np.take(flat, index, axis=0, out=batch, mode="clip")  # 'raise' would copy twice
            A -= s.lr * gradient(batch, targets[index], A)
        A = project(A.reshape(-1, s.m), s.R).reshape(A.shape)
        if t % s.every == 0:
            means.append(np.zeros_like(A))
        means[-1] += A / s.every
        if (t + 1) % s.every == 0:
            yield t + 1, np.mean(means, axis=0)


def train(
    images: Array, labels: Array, settings: Sequence[PlainSettings] = MNIST, *, callback: Callback = None, seed: int = 0
) -> Model:
    """Layer after layer on images (n, h, w), float32 in [0, 1]; the callback looks on at each checkpoint, off the clock."""
    rng, clock, model = np.random.default_rng(seed), Clock(), Model()
    maps = images.astype(np.float32, copy=False)[..., None]
    for number, s in enumerate(settings, start=1):
        clock.enter(f"features L{number}")
        layer, Z = fit_features(s, maps, rng)
        clock.enter(f"head L{number}")
        for t, A in fit_head(Z, labels, s, rng):
            clock.enter("")
            layer = replace(layer, A=A)
            if callback is not None:
                now = Model((*model.layers, layer), dict(clock.seconds))
                callback(t, now, lambda Z=Z, A=A: training_loss(Z, labels, A))
            clock.enter(f"head L{number}")
        A = project(layer.A.reshape(-1, s.m), s.R)
        filters = svd(A, full_matrices=False, check_finite=False)[2][: s.channels].T
        layer = replace(layer, A=A.reshape(layer.A.shape), filters=filters)
        if number < len(settings):
            clock.enter(f"features L{number + 1}")
            maps = layer.maps(Z)
        clock.enter("")
        layer = replace(layer, objective=training_loss(Z, labels, layer.A))
        model = Model((*model.layers, layer), dict(clock.seconds))
        del Z  # gigabytes that the next layer has no use for
    return model


def predict(model: Model, images: Array) -> Array:
    """The class (n,) of each image (n, h, w) by the model's last layer."""
    classes = []
    for rows in chunks(len(images)):
        maps = images[rows].astype(np.float32, copy=False)[..., None]
        for layer in model.layers[:-1]:
            maps = layer.maps(layer.features(maps))
        Z = model.layers[-1].features(maps).reshape(len(maps), -1)
        classes.append(probabilities(Z @ model.layers[-1].A.T).argmax(1))
    return np.concatenate(classes)


def objective(model: Model, layer: int) -> float:
    """The training loss of layer 1, 2, ... at its averaged iterate, as `train` computed it off the clock."""
    return model.layers[whole("layer", layer, high=len(model.layers)) - 1].objective


def read_idx(path: Path) -> Array:
    """The array of bytes in a gzipped IDX file."""
    data = gzip.decompress(path.read_bytes())
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(np.frombuffer(data, ">u4", data[3], 4))


def measure(data: Path, n: int, n_test: int, layers: int, seed: int) -> dict[str, object]:
    """Train and test on MNIST's 70,000 images in a seeded order: training, 2,000 for validation, test."""
    settings = MNIST[: whole("--layers", layers, high=2)]
    first = max(whole("--train", n, high=60_000), 10_000) + 2_000
    last = first + whole("--test", n_test, high=70_000 - first)
    order = np.random.default_rng(whole("--seed", seed, low=0)).permutation(70_000)
    x = np.concatenate([read_idx(data / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")])[order]
    y = np.concatenate([read_idx(data / f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k")])[order]
    model = train(x[:n] / np.float32(255), y[:n].astype(int), settings, seed=seed)
    x, y = x[first:last] / np.float32(255), y[first:last]
    wrongs = [predict(Model(model.layers[: i + 1]), x) != y for i in range(layers)]
    return {
        "seed": seed,
        "train_images": n,
        "test_images": len(y),
        "train_cpu_seconds": model.phases,
        "objective": [layer.objective for layer in model.layers],
        "nuclear_norm": [float(np.linalg.norm(a.A.reshape(-1, len(a.filters)), "nuc")) for a in model.layers],
        "error_percent": [100 * float(np.mean(w)) for w in wrongs],
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "blas": [{k: v for k, v in library.items() if k != "filepath"} for library in threadpool_info()],
        "settings": [asdict(s) for s in settings],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="CCNN's published training on MNIST: CPU seconds, losses, test error.")
    parser.add_argument("--data", type=Path, required=True, help="folder of MNIST's four IDX .gz files")
    for name, default in {"train": 10_000, "test": 10_000, "layers": 2, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default:,}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    try:
        row = measure(asked.data, asked.train, asked.test, asked.layers, asked.seed)
    except InputError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"--data must be a folder with MNIST's four IDX .gz files, got {asked.data}: {error}")
    print(json.dumps(row) if asked.json else "\n".join(f"{name:18} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
