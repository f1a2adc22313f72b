"""CPU time of a whole step of WGAN-GP on the CIFAR ResNets: ours against the usual one, in turns in one process.

A step is --critic-steps updates of the critic and one of the generator, with the noise, the penalty and Adam.

    usual   nn.ReLU, convolutions before mean-pooling and after upsampling, contiguous tensors, three passes of the
            critic, autograd.grad(create_graph=True), float32
    exact   ours in float32, as `triptych.gan.train` takes it (with its average and its draws): fused convolutions, the
            penalty by the adjoint, channels last; that it computes the same is checked first, and printed
    bf16    ours under autocast to bfloat16

    python benchmarks/resnet_step.py [--rounds 12] [--width 128] [--batch 64] [--critic-steps 5] [--threads 1]
                                     [--generator-factor 2] [--json FILE]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.engine import Engine
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, scorer
from triptych.gan.objectives import WassersteinGP
from triptych.gan.recipe import Recipe
from triptych.gan.recipes import wgan_gp_resnet
from triptych.gan.schedule import Constant
from triptych.gan.train import Progress, train

SHAPE = (3, 32, 32)


class Block(nn.Module):
    """The usual residual block: 'first' and 'down' pool, 'up' doubles the side and has BatchNorm, '' keeps it."""

    def __init__(self, channels: int, width: int, kind: str) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if kind == "up" else (lambda channels: nn.Identity())
        self.kind, self.relu = kind, nn.ReLU()
        self.norm1, self.conv1 = norm(channels), nn.Conv2d(channels, width, 3, padding=1)
        self.norm2, self.conv2 = norm(width), nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, width, 1) if kind else None

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.kind == "first" else self.relu(self.norm1(x))
        if self.kind == "up":
            x, y = F.interpolate(x, scale_factor=2), F.interpolate(y, scale_factor=2)
        y = self.conv2(self.relu(self.norm2(self.conv1(y))))
        if self.kind == "first":
            return F.avg_pool2d(y, 2) + self.shortcut(F.avg_pool2d(x, 2))
        x = x if self.shortcut is None else self.shortcut(x)
        return F.avg_pool2d(y, 2) + F.avg_pool2d(x, 2) if self.kind == "down" else y + x


class UsualGenerator(nn.Module):
    """Linear to 4 x 4, three doublings, BatchNorm, ReLU, convolution, tanh."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(128, 16 * width)
        self.blocks = nn.Sequential(*(Block(width, width, "up") for _ in range(3)))
        self.norm, self.last = nn.BatchNorm2d(width), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.blocks(self.first(z).view(len(z), -1, 4, 4))
        return torch.tanh(self.last(F.relu(self.norm(x))))


class UsualCritic(nn.Module):
    """Two halvings, two blocks that keep the side, the mean over positions, a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        kinds = ("first", "down", "", "")
        self.blocks = nn.Sequential(*(Block(3 if kind == "first" else width, width, kind) for kind in kinds))
        self.last = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.blocks(x)).mean((2, 3)))


def usual_loss(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    x_hat = (alpha * fake + (1 - alpha) * real).requires_grad_()
    value = critic(x_hat)
    (slope,) = torch.autograd.grad(value, x_hat, torch.ones_like(value), create_graph=True, retain_graph=True)
    penalty = ((slope.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
    return critic(fake).mean() - critic(real).mean() + 10 * penalty


def usual_step(options: argparse.Namespace, real: Tensor) -> Callable[[], None]:
    generator, critic = UsualGenerator(options.width), UsualCritic(options.width)
    generator_adam, critic_adam = (
        torch.optim.Adam(network.parameters(), 2e-4, (0.0, 0.9)) for network in (generator, critic)
    )
    n = options.batch

    def step() -> None:
        for _ in range(options.critic_steps):
            with torch.no_grad():
                fake = generator(torch.randn(n, 128))
            critic_adam.zero_grad()
            usual_loss(critic, real, fake, torch.rand(n, 1, 1, 1)).backward()
            critic_adam.step()
        critic.requires_grad_(False)
        generator_adam.zero_grad()
        (-critic(generator(torch.randn(options.generator_factor * n, 128))).mean()).backward()
        generator_adam.step()
        critic.requires_grad_(True)

    return step


def our_steps(recipe: Recipe, precision: str, real: Tensor) -> Iterator[Progress]:
    engine = Engine(precision=precision)
    images = real.contiguous(memory_format=torch.channels_last)
    players = recipe.players(0, engine)
    batches = lambda seed, seen, n: Batch(images[:n])  # noqa: E731
    return train(
        players, recipe.objective, batches, seed=0, rules=recipe.rules, schedule=Constant(recipe.batch), engine=engine
    )


def difference(recipe: Recipe, options: argparse.Namespace, real: Tensor) -> dict[str, float]:
    """Relative differences from the usual at the same weights: images, and all gradients of the critic's loss."""
    generator, critic = (Engine().place(network) for network in recipe.networks(0))
    theirs, judge = UsualGenerator(options.width), UsualCritic(options.width)
    _copy(generator, theirs)
    _copy(critic, judge)
    h, w = 4, 4  # ours makes the first grid channel by channel in each position, the usual one position by position
    rows = (
        generator.first.weight.detach()
        .view(h * w, options.width, -1)
        .transpose(0, 1)
        .reshape(h * w * options.width, -1)
    )
    theirs.first.weight.data.copy_(rows)
    z, draw = torch.randn(len(real), 128), Draw(0, 0, 0, len(real))
    with torch.no_grad():
        fake, wanted = generator(z), theirs(z)
    loss = recipe.objective.critic_loss(scorer(critic), Batch(real), Batch(fake), draw).total
    ours = torch.autograd.grad(loss, list(critic.parameters()))
    usual = torch.autograd.grad(
        usual_loss(judge, real, fake, draw.uniform("alpha", (1, 1, 1))), list(judge.parameters())
    )
    square = sum(float((a - b).square().sum()) for a, b in zip(ours, usual))
    return {
        "images": float((fake - wanted).norm() / wanted.norm()),
        "gradients": (square / sum(float(b.square().sum()) for b in usual)) ** 0.5,
    }


def _copy(ours: nn.Module, theirs: nn.Module) -> None:
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        other.data.copy_(mine.detach())


def measure(options: argparse.Namespace) -> dict:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    game = WassersteinGP(weight=10.0, steps=options.critic_steps)
    recipe = wgan_gp_resnet(SHAPE, width=options.width).changed(
        objective=game, batch=options.batch, generator_factor=options.generator_factor
    )
    real = torch.rand(options.batch, *SHAPE) * 2 - 1
    found = {"difference": difference(recipe, options, real[:8])}
    print("relative difference from the usual at the same weights:", found["difference"], flush=True)
    if max(found["difference"].values()) > 1e-4:
        raise SystemExit("ours does not compute what the usual step computes")
    exact, bf16 = (our_steps(recipe, precision, real) for precision in ("float32", "bf16"))
    steps = {"usual": usual_step(options, real), "exact": lambda: next(exact), "bf16": lambda: next(bf16)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for k in range(options.rounds + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if k:  # the first round warms up
                times[name].append(time.process_time() - start)
    images = options.batch * options.critic_steps
    print(f"{'':8} {'median ms':>10} {'least ms':>10} {'real images/s':>14} {'x median':>9} {'x least':>8}")
    for name, taken in times.items():
        median, least = statistics.median(taken), min(taken)
        ratios = [statistics.median(times["usual"]) / median, min(times["usual"]) / least]
        found[name] = {"median_ms": 1e3 * median, "least_ms": 1e3 * least, "ratio": ratios[0], "ratio_least": ratios[1]}
        print(
            f"{name:8} {1e3 * median:10.0f} {1e3 * least:10.0f} {images / median:14.1f} "
            f"{ratios[0]:9.2f} {ratios[1]:8.2f}"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--critic-steps", type=int, default=5)
    parser.add_argument(
        "--generator-factor", type=int, default=2, help="the generator's batch over the critic's; the recipe's 2"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options)
    if options.json:
        options.json.write_text(
            json.dumps({"options": {k: str(v) for k, v in vars(options).items()}, **found}, indent=1)
        )


if __name__ == "__main__":
    main()
