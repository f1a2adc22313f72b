"""Whether a conditional generator makes the digit it is asked for: a convolutional network trained on real MNIST reads its samples.

The judge is trained on MNIST's 60,000 training images (shifted by up to two pixels) until its error on the 10,000 test
images is about 0.6 %. It then reads samples of a run, as many of each class, drawn from the generator's average.

    python benchmarks/judge_digits.py RUN --data DIR [--n 10000] [--epochs 6]
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from triptych import load
from triptych.gan.run import load_generator
from triptych.gan.sample import Sampler


class Judge(nn.Module):
    """Two stages of two 3 x 3 convolutions with batch normalisation, and a linear layer of 256."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, 32), (32, 32), (0, 0), (32, 64), (64, 64), (0, 0)):
            layers += (
                [nn.MaxPool2d(2)]
                if not before
                else [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            )
        self.stack = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(64 * 49, 256), nn.ReLU(), nn.Dropout(0.4), nn.Linear(256, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.stack(x)


def shifted(x: Tensor, rng: torch.Generator) -> Tensor:
    """Each batch shifted by up to two pixels, zeros coming in."""
    down, right = (int(torch.randint(-2, 3, (), generator=rng)) for _ in range(2))
    return F.pad(x, (2 + right, 2 - right, 2 + down, 2 - down))[:, :, 2:-2, 2:-2]


def trained(data: str, epochs: int) -> tuple[Judge, float]:
    """The judge, and its error on MNIST's test images in percent."""
    torch.manual_seed(0)
    train, test = load(data, split="train"), load(data, split="test")
    judge, rng, batch = Judge(), torch.Generator().manual_seed(0), 128
    steps = epochs * (len(train) // batch)
    optimiser = torch.optim.AdamW(judge.parameters(), 1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for step in range(steps):
        chosen = train.batch(0, step * batch, batch)
        optimiser.zero_grad()
        F.cross_entropy(judge(shifted(chosen.floats(), rng)), chosen.labels).backward()
        optimiser.step()
        schedule.step()
    judge.eval()
    return judge, 100 * float((read(judge, test.pixels) != test.labels).float().mean())


@torch.no_grad()
def read(judge: Judge, pixels: Tensor) -> Tensor:
    """The classes that the judge reads in bytes (n, 1, 28, 28)."""
    return torch.cat([judge(part.float() / 255).argmax(1) for part in pixels.split(500)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True, help="a folder with MNIST's four files")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    judge, error = trained(options.data, options.epochs)
    print(f"judge: {error:.2f} % error on 10,000 real test images; {time.perf_counter() - start:.0f} s")
    recipe, generator = load_generator(options.run)
    sampler = Sampler(recipe, generator)
    labels = sampler.labels(0, options.n)
    if labels is None:
        raise SystemExit(f"{options.run} is not conditional: it was trained without --labels")
    right = read(judge, torch.cat(list(sampler.sample(options.seed, options.n)))) == labels
    print(f"{options.run}: {100 * float(right.float().mean()):.2f} % of {options.n:,} samples read as their label")
    for digit in range(recipe.classes):
        of = right[labels == digit].float()
        print(f"  {digit}: {100 * float(of.mean()):.1f} % of {len(of):,}")


if __name__ == "__main__":
    main()
