"""CPU seconds to a dictionary as good: learning from 20 photographs, ours against sporco's batch and online learning.

The crops are the middle 256 x 256 pixels of the first 20 photographs of a folder (the Kodak photographs in TRIPTYCH_DATA), grey,
their low frequencies taken off as in sporco's examples. 64 atoms of 8 x 8, circular, lambda 0.1, from the same random atoms.
sporco learns with the settings of its own examples (cbpdndl_gry: consensus; onlinecdl_gry), in float32, in a process with an
environment of its own: pip install sporco pyfftw. How good a dictionary is: the least objective that any codes reach
with it, summed over the photographs, certified to 1e-3 by `triptych.sparse.pursue`, outside the clock and for all alike.

    python benchmarks/learning.py --peer-python PYTHON [--seconds 600] [--atoms 64] [--size 8] [--lam 0.1]
    python benchmarks/learning.py --smoke          (ours alone: four crops of 64 x 64, a few visits)
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "OPENBLAS_NUM_THREADS")
METHODS = ("ours", "batch", "online")


def crops(folder: Path, count: int, side: int) -> np.ndarray:
    """The middle of the first photographs, grey, without their low frequencies, (count, side, side) float32."""
    from PIL import Image

    found = []
    for path in sorted(folder.glob("*.png"))[:count]:
        grey = np.asarray(Image.open(path).convert("L"), np.float64) / 255
        top, left = ((n - side) // 2 for n in grey.shape)
        found.append(high(grey[top : top + side, left : left + side]))
    if len(found) < count:
        sys.exit(f"{folder} must hold {count} photographs (png), it holds {len(found)}")
    return np.stack(found).astype(np.float32)


def high(image: np.ndarray, lam: float = 5.0, pad: int = 16) -> np.ndarray:
    """The image less its Tikhonov-smoothed self, edges reflected: sporco's `tikhonov_filter`."""
    padded = np.pad(image, pad, "symmetric")
    squares = [np.abs(np.exp(2j * np.pi * f) - 1) ** 2 for f in map(np.fft.fftfreq, padded.shape)]
    low = np.fft.ifft2(np.fft.fft2(padded) / (1 + lam * (squares[0][:, None] + squares[1]))).real
    return image - low[pad:-pad, pad:-pad]


def start(atoms: int, size: int) -> np.ndarray:
    """The atoms that all begin with, (atoms, size, size)."""
    made = np.random.default_rng(0).standard_normal((atoms, size, size))
    return made / np.linalg.norm(made, axis=(1, 2), keepdims=True)


def batch(signals: np.ndarray, atoms: np.ndarray, lam: float, seconds: float) -> list[tuple[float, np.ndarray]]:
    """sporco's `ConvBPDNDictLearn`: CPU seconds and atoms, now and then."""
    from sporco.dictlrn import cbpdndl

    used, at = 0.0, time.process_time()
    options = {
        "Verbose": False,
        "MaxMainIter": 1,
        "CBPDN": {"rho": 50.0 * lam + 0.5},
        "CCMOD": {"rho": 10.0},
    }
    opt = cbpdndl.ConvBPDNDictLearn.Options(options, dmethod="cns")
    first = atoms.transpose(1, 2, 0).astype(np.float32)
    learner = cbpdndl.ConvBPDNDictLearn(first, signals.transpose(1, 2, 0).copy(), lam, opt, dmethod="cns")
    log, done = [], 0
    while used < seconds:
        some = max(1, done // 8)
        learner.opt["MaxMainIter"] = some
        learner.solve()
        done += some
        used += time.process_time() - at
        log.append((used, learner.getdict().squeeze().transpose(2, 0, 1).copy()))
        at = time.process_time()
    print(f"sporco batch: {done} iterations")
    return log


def online(signals: np.ndarray, atoms: np.ndarray, lam: float, seconds: float) -> list[tuple[float, np.ndarray]]:
    """sporco's `OnlineConvBPDNDictLearn`, over the photographs in random order: CPU seconds and atoms, now and then."""
    from sporco.dictlrn import onlinecdl

    coding = {"rho": 5.0, "AutoRho": {"Enabled": True}, "RelaxParam": 1.8, "RelStopTol": 1e-7, "MaxMainIter": 50}
    options = {"Verbose": False, "ZeroMean": False, "eta_a": 10.0, "eta_b": 20.0, "DataType": np.float32}
    options["CBPDN"] = {**coding, "FastSolve": False, "DataType": np.float32}
    at = time.process_time()
    opt = onlinecdl.OnlineConvBPDNDictLearn.Options(options)
    learner = onlinecdl.OnlineConvBPDNDictLearn(atoms.transpose(1, 2, 0).astype(np.float32), lam, opt)
    rng, used, log, since = np.random.default_rng(1), 0.0, [], 0
    order: list[int] = []
    while used < seconds:
        order = order or rng.permutation(len(signals)).tolist()
        learner.solve(signals[order.pop()][:, :, None].copy())
        used += time.process_time() - at
        since += 1
        if since >= max(1, len(log)):
            log.append((used, learner.getdict().squeeze().transpose(2, 0, 1).copy()))
            since = 0
        at = time.process_time()
    return log


def ours(signals: np.ndarray, atoms: np.ndarray, lam: float, seconds: float) -> list[tuple[float, np.ndarray]]:
    """`triptych.sparse.learning`: CPU seconds and atoms after every visit to a photograph."""
    import torch

    from triptych.sparse import ConvDictionary
    from triptych.sparse.learning.learn import Signals, begun, visits

    torch.set_num_threads(1)
    at = time.process_time()
    first = ConvDictionary(torch.from_numpy(atoms).float()[:, None], 1, "circular")
    data = Signals(torch.from_numpy(signals)[:, None], lam)
    state, used, log = begun(first, data), 0.0, []
    while used < seconds:
        for turn in visits(data, state):
            used += time.process_time() - at
            if isinstance(turn, ConvDictionary):
                log.append((used, turn.atoms[:, 0].numpy()))
            else:
                state = turn
            at = time.process_time()
    return log


def objective(signals: np.ndarray, atoms: np.ndarray, lam: float) -> float:
    """The least objective with these atoms, made unit, certified to 1e-3."""
    import torch

    from triptych.sparse import Coding, ConvDictionary, pursue

    torch.set_num_threads(1)
    dictionary = ConvDictionary(
        torch.from_numpy(np.ascontiguousarray(atoms)).float()[:, None], 1, "circular"
    ).normalise()
    found = pursue(Coding(dictionary, torch.from_numpy(signals)[:, None], lam, "absolute"), "working_set", tol=1e-3)
    return float(found.solution.objective.sum())


def thinned(log: list[tuple[float, np.ndarray]], most: int = 16) -> list[tuple[float, np.ndarray]]:
    """A few entries of a log, evenly in the logarithm of time, with the last."""
    times = np.array([used for used, _ in log])
    wanted = np.geomspace(times[0], times[-1], most)
    return [log[i] for i in np.unique(np.abs(times[None] - wanted[:, None]).argmin(1))]


def report(values: dict[str, list[tuple[float, float]]]) -> None:
    """All logs, and for each of the peers' objectives how much earlier ours had it."""
    for name, log in values.items():
        print(f"{name}: " + ", ".join(f"{used:.1f} s {value:.1f}" for used, value in log))
    mine = values["ours"]
    for name in METHODS[1:]:
        for used, value in values.get(name, []):
            reached = next((s for s, v in mine if v <= value), None)
            said = "not reached" if reached is None else f"{reached:.1f} s, ratio {used / reached:.1f}"
            print(f"sporco {name} at {used:.1f} s: {value:.1f}; ours: {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python")
    parser.add_argument("--photographs", type=Path, help="a folder; TRIPTYCH_DATA/photos/kodak")
    parser.add_argument("--seconds", type=float, default=600.0, help="of each of sporco's; ours has a quarter")
    parser.add_argument("--atoms", type=int, default=64)
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--lam", type=float, default=0.1)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--run", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.run:
        kept = np.load(args.file)
        log = globals()[args.run](kept["signals"], kept["atoms"], args.lam, args.seconds)
        few = thinned(log)
        np.savez(f"{args.file}.{args.run}.npz", seconds=[s for s, _ in few], atoms=np.stack([a for _, a in few]))
        return
    folder = args.photographs or Path(os.environ.get("TRIPTYCH_DATA", "")) / "photos" / "kodak"
    signals = crops(folder, *((4, 64) if args.smoke else (20, 256)))
    if not args.peer_python and not args.smoke:
        parser.error("--peer-python must name a Python with sporco; see above")
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    values = {}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "problem.npz"
        np.savez(file, signals=signals, atoms=start(args.atoms, args.size))
        for name in METHODS[:1] if args.smoke else METHODS:
            seconds = 1.0 if args.smoke else args.seconds / 4 if name == "ours" else args.seconds
            python = sys.executable if name == "ours" else args.peer_python
            command = [
                python,
                __file__,
                "--run",
                name,
                "--file",
                str(file),
                "--lam",
                str(args.lam),
                "--seconds",
                str(seconds),
            ]
            subprocess.run(command, check=True, env=environment)
            kept = np.load(f"{file}.{name}.npz")
            values[name] = [(s, objective(signals, a, args.lam)) for s, a in zip(kept["seconds"], kept["atoms"])]
    report(values)


if __name__ == "__main__":
    main()
