"""The calibrated Wasserstein estimate: a critic's gap over its slope, beside the gap, where the distance is known.

Data N(0, 1), generated images of it 2 further on: W1 = 2. A perceptron is trained as WGAN-GP's critic (weight 10) by several seeds; both numbers are
read on 262,144 held-out images of each law, independent of each other and of those that the critic was trained on.

    python benchmarks/calibrated.py           (ten seeds, about two minutes on one core)
    python benchmarks/calibrated.py --smoke
"""

import argparse
import statistics

import torch

from triptych.gan.calibrated import wasserstein_estimate
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, scorer
from triptych.gan.networks.mlp import MLP
from triptych.gan.networks.target import Target
from triptych.gan.objectives import WassersteinGP
from triptych.gan.truths.small import STILL, Play, Source
from triptych.gan.truths.wasserstein import FALLING

DISTANCE, WEIGHT, WIDTH = 2.0, 10.0, 64


def estimate(seed: int, steps: int, pairs: int):
    """The estimate by a critic of a seed."""

    def batches(of: int, seen: int, n: int) -> Batch:
        return Batch(Draw(of, 0, seen, n, f"calibrated/{seed}/").normal("x", (1,)))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critic = MLP(critic_widths=(WIDTH, WIDTH)).critic(Target((1,)))
    source = Source(lambda draw: draw.named(f"{seed}").normal("fake", (1,)) + DISTANCE)
    Play(source, critic, WassersteinGP(weight=WEIGHT, steps=50), batches, 512, STILL, FALLING).run(steps)
    draw = Draw(seed, 1, 0, pairs, "held out/")
    real = draw.normal("x", (1,))
    fake = draw.normal("fake", (1,)) + DISTANCE
    return wasserstein_estimate(scorer(critic), Batch(real), Batch(fake), draw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--seeds", type=int, default=10)
    told = parser.parse_args()
    seeds, steps, pairs = (2, 4, 4096) if told.smoke else (told.seeds, 40, 262_144)
    found = [estimate(seed, steps, pairs) for seed in range(seeds)]
    for name in ("gap", "slope", "distance"):
        values = [abs(getattr(one, name)) for one in found]
        print(f"{name}: mean {statistics.fmean(values):.4f}, from {min(values):.4f} to {max(values):.4f}")
    print(f"standard error of a distance by its images: {found[0].standard_error:.4f}")
    print(f"W1 is {DISTANCE:g}; the best critic's slope is 1 + W1 / 2λ = {1 + DISTANCE / (2 * WEIGHT):.3f}")


if __name__ == "__main__":
    main()
