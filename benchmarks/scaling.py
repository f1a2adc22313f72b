"""A fit on 10,000 and on 60,000 MNIST images, one default layer: CPU and wall seconds, peak memory, and their ratio.

python benchmarks/scaling.py --data DIR [--sizes 10000 60000] [--layers N]
"""

import argparse
import json
import resource
import subprocess
import sys
import time


def fit(data: str, size: int, layers: int) -> dict[str, float]:
    from triptych import CCNNClassifier, load

    images = load(data, split="train", limit=size)
    assert images.labels is not None
    wall, cpu = time.perf_counter(), time.process_time()
    model = CCNNClassifier(layers, random_state=0).fit(images.pixels, images.labels.numpy())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    test = load(data, split="test")
    assert test.labels is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {
        "images": size,
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "peak_rss_mb": peak,
        "steps": model.n_iter_,
        "relative_gap": float(model.relative_gap_.max()),
        "error_percent": 100 * (1 - model.score(test.pixels, test.labels.numpy())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of a fit against the number of images.")
    parser.add_argument("--data", required=True, help="folder of MNIST's four IDX files")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 60_000])
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(fit(options.data, options.one, options.layers)))
        return
    rows = []
    for size in options.sizes:  # each in a process of its own, so that its peak memory is its own
        command = [
            sys.executable,
            __file__,
            "--data",
            options.data,
            "--layers",
            str(options.layers),
            "--one",
            str(size),
        ]
        rows.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
        print(", ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
    for name in ("cpu_seconds", "wall_seconds"):
        print(
            f"{name}: ratio {rows[-1][name] / rows[0][name]:.2f} for {rows[-1]['images'] / rows[0]['images']:.1f} x the images"
        )


if __name__ == "__main__":
    main()
