"""Figure 3 of Gulrajani et al. (2017) within a given time: each of the four methods trains for so many seconds and is scored on the way.

The experiment `gulrajani2017.figure3` has fixed numbers of iterations; this one takes the width of the paper and as many iterations as the
time allows, which suits a machine that is lent by the minute. Seconds are of training alone, scores not counted. Printed: iterations, the
score at the end, the kernel distance, images a second; written: both panels as one picture, and all numbers as JSON.

    python benchmarks/figure3_time.py --data CIFAR [--device cuda] [--width 128] [--seconds 120] [--every 15] [--images 2000]
                                      [--method gp-adam ...] [--seed 0] [--out figure3.png] [--json FILE]
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from triptych.bench import figure
from triptych.bench.experiment import Context, Scale
from triptych.bench.sections import Curves, Series
from triptych.data import load, splits
from triptych.engine import Engine
from triptych.images import Images
from triptych.papers._generators import Yardstick, course, drawn
from triptych.papers.gulrajani2017.figure3 import METHODS, recipe_of
from triptych.store import write_bytes, write_json

CHUNK = 10  # iterations from one look at the clock to the next


def played(method: str, images: Images, yardstick: Yardstick, options: argparse.Namespace) -> dict[str, list[float]]:
    """Columns step, seconds and scores; the first line is scored after the first chunk."""
    recipe = recipe_of(method, images.shape[1:], options.width)
    players = recipe.players(options.seed, Engine(device=torch.device(options.device)))
    context = Context(Scale.PAPER, seed=options.seed, device=options.device)
    found: dict[str, list[float]] = {}
    due = 0.0
    for moment in course(recipe, players, images, context, 10**9, CHUNK):
        over = moment.seconds >= options.seconds
        if moment.seconds >= due or over:
            due += options.every
            line = {"step": moment.step, "seconds": moment.seconds}
            for name, value in {**line, **yardstick.scores(drawn(recipe, players, options.images))}.items():
                found.setdefault(name, []).append(value)
        if over:
            break
    return found


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Play all methods, print a table, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--every", type=float, default=15.0)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--method", action="append", choices=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    images = load(options.data, split="train" if "train" in splits(options.data) else None)
    yardstick = Yardstick.of(images, options.images, Context(Scale.LAPTOP))
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu"
    print(
        f"{device}, torch {torch.__version__}, width {options.width}; {yardstick.count} images a score; {yardstick.extractor.name}"
    )
    print(f"{'method':28}{'iterations':>12}{'seconds':>10}{'score':>8}{'best':>8}{'KID':>9}{'iterations/s':>14}")
    courses = {}
    for method in options.method or METHODS:
        c = courses[method] = played(method, images, yardstick, options)
        rate = c["step"][-1] / c["seconds"][-1]
        print(
            f"{METHODS[method]:28}{c['step'][-1]:12,.0f}{c['seconds'][-1]:10.1f}{c['is'][-1]:8.3f}{max(c['is']):8.3f}"
            f"{c['kid'][-1]:9.4f}{rate:14.2f}",
            flush=True,
        )
        if options.json:  # what is done is kept, should the time run out
            told = {"device": device, "width": options.width, "extractor": yardstick.extractor.name, "courses": courses}
            write_json(options.json, told)
    if options.out:
        panels = [
            Curves(
                [Series(METHODS[m], c[x], c["is"]) for m, c in courses.items()], f"Score over {label}", label, "score"
            )
            for x, label in (("step", "generator iterations"), ("seconds", "seconds of training"))
        ]
        write_bytes(options.out, figure.panels(panels))
    return courses


if __name__ == "__main__":
    main()
