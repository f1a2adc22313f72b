"""Multi-layer basis pursuit solved exactly on a learned model of MNIST, beside plain primal-dual iterations, in one process.

    triptych sparse learn --data MNIST --out MODEL --layers 32x6s2,64x6s2,512x4 --side 28 --count 10000 \
        --keep-low --reg 0.03 --visits 12
    python benchmarks/multilayer.py MODEL [--digits 64] [--lam .03 .03 .3] [--steps 6000]

For relative gaps of 1e-2, 1e-3 and 1e-4 of all digits: CPU seconds and iterations of `pursue_layers` (method "exact"), of restarted
primal-dual iterations, and of the plain iteration of Chambolle & Pock with one step for all parts; certificates included, the same
dense map and the same certificates for all. Then how far above the optimum ML-FISTA ends. TRIPTYCH_DATA names the folder that holds mnist.
"""

import argparse
import os
import time
from pathlib import Path

import torch
from torch import Tensor

GAPS = (1e-2, 1e-3, 1e-4)


def reached(history: list[tuple[int, float, float]]) -> str:
    """CPU seconds and iterations to each gap."""
    found = []
    for gap in GAPS:
        hit = next(((step, seconds) for step, seconds, worst in history if worst <= gap), None)
        found.append(f"{gap:g}: " + ("not reached" if hit is None else f"{hit[1]:.1f} s ({hit[0]})"))
    return ", ".join(found)


def followed(run) -> list[tuple[int, float, float]]:
    """(iterations, CPU seconds, worst relative gap) of a call that is given `progress`."""
    history, start = [], time.process_time()

    def told(step: int, best) -> None:
        history.append((step, time.process_time() - start, float((best.gap / best.objective).max())))

    run(told)
    return history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--digits", type=int, default=64)
    parser.add_argument("--lam", type=float, nargs=3, default=(0.03, 0.03, 0.3))
    parser.add_argument("--steps", type=int, default=6000)
    args = parser.parse_args()

    from triptych import MultiLayerSparseCoder, load
    from triptych.convex import solve
    from triptych.sparse.deep import MultiLayerCoding, certifier, ml_fista, primal_dual, pursue_layers

    model = MultiLayerSparseCoder.load(args.model).dictionary_
    y = load(Path(os.environ["TRIPTYCH_DATA"]) / "mnist", split="test").floats()[: args.digits]
    print(f"densities {', '.join(f'{d:.4f}' for d in model.density())}; {args.digits} digits, lambda {tuple(args.lam)}")

    def coding() -> MultiLayerCoding:
        return MultiLayerCoding(model, y, tuple(args.lam), "absolute")

    def pursued(method: str):
        return lambda told: pursue_layers(coding(), method, tol=GAPS[-1], max_steps=args.steps, progress=told)

    def plain(told) -> None:
        c = coding()
        solver = primal_dual(c, plain=True)
        solve(
            c.problem(),
            solver,
            c.start(),
            certify=certifier(c),
            tol=GAPS[-1],
            max_steps=args.steps,
            relative=True,
            patience=10**6,
            progress=told,
        )

    for name, run in (
        ("exact", pursued("exact")),
        ("restarted primal-dual", pursued("primal-dual")),
        ("plain primal-dual", plain),
    ):
        print(f"{name}: {reached(followed(run))}", flush=True)
    best = pursue_layers(coding(), "exact", tol=1e-5, max_steps=args.steps)
    for shorten in (1.0, 0.1):
        c, start = coding(), time.process_time()
        stream = ml_fista(c, shorten)(c.problem(), c.start())
        for _ in range(500):
            g: Tensor = next(stream).x
        away = c.objective(g.double()) / best.objective - 1
        seconds = time.process_time() - start
        print(
            f"ML-FISTA, 500 iterations, steps times {shorten:g}: {float(away.mean()):.1e} above the optimum ({seconds:.1f} s)"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
