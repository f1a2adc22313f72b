"""Seconds of one thread to code a signal: ours against sporco's ADMM on images and alphacsc's greedy descent on lines.

    image   scikit-image's camera, 512 x 512, its low frequencies taken off as in sporco's examples (Tikhonov, lambda 5, 16 px
            of padding), sporco's own dictionaries with unit atoms, circular; sporco: ConvBPDN in float32 with FastSolve,
            with numexpr and without it, whichever is faster over five iterations
    line    100,000 samples, 32 atoms of 64, codes not negative; alphacsc: locally greedy coordinate descent (numba, compiled
            before the clock starts)

The peer runs in a process with an environment of its own: pip install sporco alphacsc scikit-image pyfftw numexpr numba.
Objectives are computed in float64 from the codes, outside the clock; "optimum" is the least of all of them. Ours also says
when its gap certified as much.

    python benchmarks/coding.py image --peer-python PYTHON [--size 8|12] [--lam 0.05] [--iterations N]
    python benchmarks/coding.py line --peer-python PYTHON [--lam 0.3]
    python benchmarks/coding.py image|line ... --ours FILE      (ours again, on what a run with --ours FILE kept)
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from triptych.sparse import Codes

TARGETS = (1e-2, 1e-3, 1e-4)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def made_image(size: int) -> dict:
    """The signal and the atoms of the image problem, by the peer's own tools."""
    import numpy as np
    from skimage import data
    from sporco import signal, util

    low_high = signal.tikhonov_filter(data.camera().astype(np.float32) / 255, 5.0, 16)
    atoms = util.convdicts()["G:8x8x64" if size == 8 else "G:12x12x144"].transpose(2, 0, 1)
    atoms = atoms / np.linalg.norm(atoms.reshape(len(atoms), -1), axis=1)[:, None, None]
    return {"signal": low_high[1].astype(np.float32), "atoms": atoms.astype(np.float32)}


def made_line() -> dict:
    """100,000 samples: 3,000 spikes of 32 smooth random atoms, and noise."""
    import numpy as np

    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((32, 64)).cumsum(1) * np.hanning(64)
    atoms -= atoms.mean(1, keepdims=True)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    signal = 0.1 * rng.standard_normal(100_000)
    for at, k, size in zip(rng.integers(0, 100_000 - 63, 3000), rng.integers(0, 32, 3000), rng.gamma(4, 0.5, 3000)):
        signal[at : at + 64] += size * atoms[k]
    return {"signal": signal, "atoms": atoms}


def sporco(problem: dict, lam: float, iterations: int) -> list[tuple[float, float]]:
    """CPU seconds and objectives after some iterations: the lower of those of ADMM's two codes."""
    import numpy as np
    from sporco import fft
    from sporco.admm import cbpdn

    fft.pyfftw_threads = 1
    signal, atoms = problem["signal"], np.ascontiguousarray(problem["atoms"].transpose(1, 2, 0))
    spectra = np.fft.rfft2(problem["atoms"].astype(np.float64), signal.shape)

    def objective(code: np.ndarray) -> float:
        total = sum(spectra[k] * np.fft.rfft2(code[..., k].squeeze().astype(np.float64)) for k in range(len(spectra)))
        residual = np.fft.irfft2(total, signal.shape) - signal
        return float((residual**2).sum() / 2 + lam * np.abs(code, dtype=np.float64).sum())

    options = {"Verbose": False, "MaxMainIter": 1, "RelStopTol": 1e-12, "FastSolve": True, "DataType": np.float32}
    solver = cbpdn.ConvBPDN(atoms, signal, lam, cbpdn.ConvBPDN.Options(options))
    log, used, done = [], 0.0, 0
    while done < iterations:
        some = max(1, done // 12)
        solver.opt["MaxMainIter"] = some
        start = time.process_time()
        solver.solve()
        used, done = used + time.process_time() - start, done + some
        log.append((used, min(objective(solver.Y), objective(solver.X))))
    return log


def alphacsc(problem: dict, lam: float) -> list[tuple[float, float]]:
    """CPU seconds and objectives at falling tolerances, each from the start."""
    import numpy as np
    from alphacsc.update_z_multi import update_z_multi

    signal, atoms = problem["signal"], problem["atoms"][:, None]

    def run(samples: int, tol: float) -> np.ndarray:
        kwargs = {"tol": tol, "max_iter": 10_000_000}
        return update_z_multi(signal[None, None, :samples], atoms, lam, solver="lgcd", solver_kwargs=kwargs)[0][0]

    run(4000, 1e-2)
    log = []
    for tol in (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3):
        start = time.process_time()
        code = run(len(signal), tol)
        used = time.process_time() - start
        z = sum(np.convolve(code[k], atoms[k, 0]) for k in range(len(code)))
        log.append((used, float(((signal - z) ** 2).sum() / 2 + lam * np.abs(code).sum())))
    return log


def peer(kind: str, file: Path, size: int, lam: float, iterations: int, numexpr: bool) -> None:
    """The peer's part, in its own process: makes the signal, and writes it and the log to a file."""
    warnings.simplefilter("ignore")
    if not numexpr:
        sys.modules["numexpr"] = None  # pyright: ignore[reportArgumentType]
    import numpy as np

    problem = made_image(size) if kind == "image" else made_line()
    log = sporco(problem, lam, iterations) if kind == "image" else alphacsc(problem, lam)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    np.savez(file, log=np.array(log), peak=peak, **problem)


def ours(kind: str, file: Path, lam: float) -> None:
    """Our part, in its own process: adds its log to the file."""
    import numpy as np
    import torch

    from triptych.convex import solve
    from triptych.sparse import Coding, ConvDictionary
    from triptych.sparse.pursuits import working_set

    torch.set_num_threads(1)
    with np.load(file) as held:
        kept = dict(held)
    atoms, signal = torch.from_numpy(kept["atoms"])[:, None], torch.from_numpy(kept["signal"])[None, None]
    dictionary = ConvDictionary(atoms.contiguous(), 1, "circular" if kind == "image" else "valid")
    coding = Coding(dictionary, signal, lam, "absolute", nonnegative=kind == "line")
    clock, before = [], time.process_time()
    found = solve(
        coding.problem(),
        working_set.solver(coding),
        signal.new_zeros(1, 1),
        certify=working_set.certify,
        tol=1e-7,
        relative=True,
        every_step=True,
        patience=10**6,
        max_steps=40,
        progress=lambda step, best: clock.append(time.process_time() - before),
    )
    log = [(s, float(c.objective), float(c.lower_bound)) for s, c in zip(clock, found.history)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    codes = cast("Codes", found.x)
    np.savez(file, **{**kept, "our_log": np.array(log), "our_peak": peak, "nonzeros": codes.nonzeros.numpy()})


def first(log, level: float) -> float:
    """The seconds of the first entry with an objective of at most a level; infinity where none has."""
    return next((float(entry[0]) for entry in log if entry[1] <= level), float("inf"))


def report(kind: str, size: int, lam: float, file: Path) -> None:
    """Both logs of a file, side by side."""
    import numpy as np

    kept = np.load(file)
    log, mine = kept["log"], kept["our_log"]
    optimum = min(log[:, 1].min(), mine[:, 1].min())
    print(f"{kind} {size if kind == 'image' else ''} lam {lam:g}: optimum {optimum:.5f}, ", end="")
    print(f"ours {mine[:, 1].min():.5f}, peer {log[:, 1].min():.5f}, {int(kept['nonzeros'][0])} non-zeros")
    print(f"peak memory: ours {float(kept['our_peak']):.2f} GB, peer {float(kept['peak']):.2f} GB")
    for target in TARGETS:
        level = optimum * (1 + target)
        a, b = first(mine, level), first(log, level)
        certified = next((s for s, objective, bound in mine if objective - bound <= target * objective), None)
        last = f"{log[-1, 0]:.1f} s and more" if b == float("inf") else f"{b:.1f} s"
        ratio = (log[-1, 0] if b == float("inf") else b) / a
        says = "not certified" if certified is None else f"certified at {certified:.1f} s"
        print(f"to {target:g}: ours {a:.2f} s ({says}), peer {last}, ratio {ratio:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["image", "line"])
    parser.add_argument("--peer-python")
    parser.add_argument("--size", type=int, choices=[8, 12], default=8)
    parser.add_argument("--lam", type=float)
    parser.add_argument("--iterations", type=int, help="of sporco's; 160 with atoms of 8 x 8, 60 with 12 x 12")
    parser.add_argument("--numexpr", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ours", type=Path)
    args = parser.parse_args()
    lam = args.lam or (0.05 if args.kind == "image" else 0.3)
    iterations = args.iterations or (160 if args.size == 8 else 60)
    if args.peer:
        peer(args.kind, args.peer, args.size, lam, iterations, args.numexpr)
        return
    if args.ours and args.ours.exists() and not args.peer_python:
        ours(args.kind, args.ours, lam)
        report(args.kind, args.size, lam, args.ours)
        return
    if not args.peer_python:
        parser.error("--peer-python must name a Python with sporco and alphacsc; see above")
    import numpy as np

    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    same = [__file__, args.kind, "--size", str(args.size), "--lam", str(lam)]
    with tempfile.TemporaryDirectory() as folder:
        file = args.ours or Path(folder) / "problem.npz"

        def theirs(iterations: int, numexpr: bool) -> None:
            flags = ["--iterations", str(iterations), "--numexpr" if numexpr else "--no-numexpr", "--peer", str(file)]
            subprocess.run([args.peer_python, *same, *flags], check=True, env=environment)

        fast = True
        if args.kind == "image":
            per = {}
            for numexpr in (True, False):
                theirs(5, numexpr)
                per[numexpr] = float(np.load(file)["log"][-1, 0]) / 5
            fast = per[True] < per[False]
            print(f"sporco an iteration: {per[True]:.2f} s with numexpr, {per[False]:.2f} s without")
        theirs(iterations, fast)
        subprocess.run([sys.executable, *same, "--ours", str(file)], check=True, env=environment)


if __name__ == "__main__":
    main()
