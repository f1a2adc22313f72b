"""Objective and gap of every pursuit against CPU seconds, on the middle of a photograph, its low frequencies taken off.

The photograph is the first of the Kodak photographs in TRIPTYCH_DATA, grey, in float32; circular, one thread. Atoms are random
and unit, or those of a file (.npy, k x n x n). All methods run in turn in one process, each from 0 to a gap of --tol or for
--seconds; their certificates are inside the clock. "Optimum" is the least objective that any of them found.

    python benchmarks/pursuits.py [--atoms 64] [--size 8] [--side 256] [--reg 0.1] [--seconds 60] [--out FILE.png]
    python benchmarks/pursuits.py --smoke          (16 atoms, 64 x 64, 2 s a method)
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

METHODS = ("working_set", "admm", "fista", "greedy", "slices", "auto")
TARGETS = (1e-1, 1e-2, 1e-3)
Log = list[tuple[float, float, float]]


def photograph(path: Path, side: int) -> np.ndarray:
    """The middle of a photograph, grey in [0, 1], less its Tikhonov-smoothed self (weight 5), (side, side) float32."""
    from PIL import Image

    grey = np.asarray(Image.open(path).convert("L"), np.float64) / 255
    if min(grey.shape) < side:
        sys.exit(f"{path} must be at least {side} pixels a side, it is {grey.shape[1]} x {grey.shape[0]}")
    top, left = ((n - side) // 2 for n in grey.shape)
    image = np.pad(grey[top : top + side, left : left + side], 16, "symmetric")
    squares = [np.abs(np.exp(2j * np.pi * f) - 1) ** 2 for f in map(np.fft.fftfreq, image.shape)]
    low = np.fft.ifft2(np.fft.fft2(image) / (1 + 5.0 * (squares[0][:, None] + squares[1]))).real
    return (image - low)[16:-16, 16:-16].astype(np.float32)


def atoms_of(file: Path | None, count: int, size: int) -> np.ndarray:
    """Random atoms, or those of a file, (k, 1, n, n) float32."""
    if file is None:
        return np.random.default_rng(0).standard_normal((count, 1, size, size)).astype(np.float32)
    return np.load(file, allow_pickle=False).astype(np.float32)[:, None]


def run(coding, method: str, tol: float, seconds: float) -> tuple[Log, str]:
    """CPU seconds, objective and bound at every certificate; what became of it."""
    from triptych.sparse import pursue

    log: Log = []
    start = time.process_time()

    class Late(Exception):
        pass

    def watch(step: int, best) -> None:
        log.append((time.process_time() - start, float(best.objective), float(best.lower_bound)))
        if log[-1][0] > seconds:
            raise Late

    try:
        found = pursue(coding, method, tol=tol, max_steps=10**6, progress=watch)
    except Late:
        return log, "out of time"
    nonzeros = int(found.codes.nonzeros[0])
    return log, f"{found.method[0]}: {found.solution.status[0].name.lower()}, {nonzeros} non-zeros"


def first(log: Log, holds) -> str:
    """The seconds of the first entry that holds."""
    return next((f"{entry[0]:.2f}" for entry in log if holds(entry)), "-")


def table(logs: dict[str, Log], says: dict[str, str]) -> str:
    """Seconds until the objective is near the optimum, and until the gap says so, in Markdown."""
    optimum = min(objective for log in logs.values() for _, objective, _ in log)
    heads = [f"objective {t:g}" for t in TARGETS] + [f"gap {t:g}" for t in TARGETS]
    lines = [f"optimum {optimum:.5f}", "", f"| method | {' | '.join(heads)} | end |", f"| --- {'| --- ' * 7}|"]
    for method, log in logs.items():
        near = [first(log, lambda e, t=t: e[1] <= optimum * (1 + t)) for t in TARGETS]
        sure = [first(log, lambda e, t=t: e[1] - e[2] <= t * e[1]) for t in TARGETS]
        lines.append(f"| {method} | {' | '.join(near + sure)} | {log[-1][0]:.2f} s, {says[method]} |")
    return "\n".join(lines)


def draw(logs: dict[str, Log], file: Path) -> None:
    """Both against seconds, on logarithmic axes."""
    from matplotlib.figure import Figure

    optimum = min(objective for log in logs.values() for _, objective, _ in log)
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    for method, log in logs.items():
        t, objective, bound = np.array(log).T
        excess = np.maximum(objective / optimum - 1, 1e-9)
        left.loglog(t, excess, "--" if method == "auto" else "-", label=method)
        right.loglog(t, (objective - bound) / objective, "--" if method == "auto" else "-", label=method)
    left.set_ylim(1e-7, None)
    left.set_title("objective above the least found, relative")
    right.set_title("certified gap, relative")
    for axis in (left, right):
        axis.set_xlabel("CPU seconds")
        axis.grid(alpha=0.3)
    right.legend(frameon=False)
    beside = file.with_name(f".{file.name}")
    figure.savefig(beside, dpi=150, format="png")
    beside.replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=64)
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--reg", type=float, default=0.1, help="a fraction of lambda_max")
    parser.add_argument("--tol", type=float, default=1e-4)
    parser.add_argument("--seconds", type=float, default=60.0, help="at most, a method")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--dictionary", type=Path, help="a file .npy of atoms (k, n, n)")
    parser.add_argument("--photograph", type=Path)
    parser.add_argument("--out", type=Path, default=Path("pursuits.png"))
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    if args.smoke:
        args.atoms, args.side, args.seconds = 16, 64, 2.0
    import torch

    from triptych.sparse import Coding, ConvDictionary

    torch.set_num_threads(1)
    kodak = Path(os.environ.get("TRIPTYCH_DATA", "")) / "photos" / "kodak"
    path = args.photograph or next(iter(sorted(kodak.glob("*.png"))), None)
    if path is None:
        parser.error(f"{kodak} holds no photographs; name one with --photograph, or the data with TRIPTYCH_DATA")
    signal = torch.from_numpy(photograph(path, args.side))[None, None]
    atoms = torch.from_numpy(atoms_of(args.dictionary, args.atoms, args.size))
    coding = Coding(ConvDictionary(atoms, 1, "circular").normalise(), signal, args.reg)
    logs, says = {}, {}
    for method in args.methods.split(","):
        logs[method], says[method] = run(coding, method, args.tol, args.seconds)
        print(f"{method}: {logs[method][-1][0]:.1f} s, {says[method]}", flush=True)
    print(f"{path.name}, {args.side} x {args.side}, {tuple(atoms.shape)} atoms, reg {args.reg:g}; ", end="")
    print(table(logs, says))
    draw(logs, args.out)


if __name__ == "__main__":
    main()
