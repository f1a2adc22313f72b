"""CPU time of a critic step of WGAN-GP on the DCGAN critic of 32 px: ours against the usual one, in turns in one process.

    usual   three passes, nn.LeakyReLU, torch.autograd.grad(create_graph=True), float32, contiguous tensors
    exact   ours in float32: the same numbers, which is checked; channels last, the adjoint's pass for the penalty
    bf16    ours under autocast to bfloat16

A step is the forward and backward pass and Adam's update; each variant has weights of its own with the same start.

    python benchmarks/critic_step.py [--rounds 12] [--width 64] [--batch 64] [--side 32] [--threads 1]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from triptych.engine import Engine
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, scorer
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.target import Target
from triptych.gan.penalty import gradient_penalty

WEIGHT = 10.0


def usual_critic(channels: int, side: int, width: int) -> nn.Module:
    """5 x 5 convolutions of stride 2 with leaky ReLUs down to 4 x 4, and a linear layer."""
    layers: list[nn.Module] = []
    while side > 4:
        layers += [nn.Conv2d(channels, width, 5, 2, 2), nn.LeakyReLU(0.2)]
        channels, width, side = width, 2 * width, side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, 1))


def usual_loss(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """As it is commonly written."""
    x_hat = (alpha * fake + (1 - alpha) * real).requires_grad_()
    value = critic(x_hat)
    (gradient,) = torch.autograd.grad(value, x_hat, torch.ones_like(value), create_graph=True, retain_graph=True)
    penalty = ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
    return critic(fake).mean() - critic(real).mean() + WEIGHT * penalty


def our_loss(critic: nn.Module, engine: Engine, real: Tensor, fake: Tensor, draw: Draw) -> Tensor:
    """The same by the library."""
    score, x, y = scorer(critic), Batch(real), Batch(fake)
    with engine.autocast():
        gap = score(x).value.mean() - score(y).value.mean()
        return WEIGHT * gradient_penalty(score, x, y, draw) - gap


def step_of(critic: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """A step of Adam."""
    optimiser = torch.optim.Adam(critic.parameters(), 1e-4, (0.5, 0.9), fused=True)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss().backward()
        optimiser.step()

    return step


def variants(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """The steps by name; raises where the exact gradients are not the usual ones."""
    torch.manual_seed(0)
    shape = (options.batch, 3, options.side, options.side)
    real, fake = torch.rand(shape) * 2 - 1, torch.rand(shape) * 2 - 1
    draw = Draw(0, 0, 0, options.batch)
    alpha = draw.uniform("alpha", (1, 1, 1))
    usual = usual_critic(3, options.side, options.width)
    steps = {}
    nets = {"usual": usual}
    for name, engine in (("exact", Engine()), ("bf16", Engine(precision="bf16"))):
        ours = engine.place(DCGAN(options.width).critic(Target(shape[1:])))
        for mine, theirs in zip(ours.parameters(), usual.parameters(), strict=True):
            mine.data.copy_(theirs)
        x, y = (t.to(memory_format=torch.channels_last) for t in (real, fake))
        steps[name] = step_of(ours, lambda ours=ours, engine=engine, x=x, y=y: our_loss(ours, engine, x, y, draw))
        nets[name] = ours
        our_loss(ours, engine, x, y, draw).backward()
    usual_loss(usual, real, fake, alpha).backward()
    for name, net in nets.items():
        print(f"{name}: gradients differ from the usual ones by {difference(net, usual):.1e} of their norm")
    if not difference(nets["exact"], usual) < 1e-5:
        raise SystemExit("the exact variant is not exact")
    return {"usual": step_of(usual, lambda: usual_loss(usual, real, fake, alpha)), **steps}


def difference(one: nn.Module, other: nn.Module) -> float:
    """‖g - g'‖ / ‖g'‖ over all parameters' gradients."""
    flat = [torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None]) for m in (one, other)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--rounds", 12), ("--width", 64), ("--batch", 64), ("--side", 32), ("--threads", 1)):
        parser.add_argument(name, type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    steps = variants(options)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(options.rounds + 2):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if round_ >= 2:
                times[name].append(time.process_time() - start)
    show(times)


def show(times: dict[str, list[float]]) -> None:
    """Median and minimum in ms, and how many times faster than the first, by each."""
    first = next(iter(times.values()))
    print(f"{'step':10}{'median ms':>10}{'min ms':>10}{'x median':>10}{'x min':>10}")
    for name, taken in times.items():
        middle, least = statistics.median(taken), min(taken)
        print(
            f"{name:10}{1e3 * middle:10.1f}{1e3 * least:10.1f}"
            f"{statistics.median(first) / middle:10.2f}{min(first) / least:10.2f}"
        )


if __name__ == "__main__":
    main()
