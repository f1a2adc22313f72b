"""CPU time of whole training steps, ours against two peers' on the same networks, in turns.

    torchgan          WGAN-GP on its own DCGAN networks of 32 px, 4 x 4 kernels, 64 filters, batch 64: five times its two critic
                      losses' ``train_ops``, then its generator loss's. It runs in a process with an environment of its own
                      (made by pip on the first call, or --peer-python), where an empty module stands for torchvision, which
                      these parts do not use. Its penalty takes one norm over the batch, which is wrong and costs the same.
                      Its penalty's ``train_ops`` is an update of its own: it generates a second batch, which it does not
                      detach, so that its backward pass goes through the generator as well, to gradients that nobody uses,
                      and makes a second step of Adam. Each of its five critic steps is thus two updates, and a generator step
                      has ten passes of the generator before its own, where ours has five: part of the ratio is this
                      work, not speed. Its networks have biases besides, 449 numbers in the critic and 3 in the generator.
    pytorch/examples  DCGAN of 64 px, 4 x 4 kernels, 64 filters, batch 64, written here from its recipe: binary cross-entropy of
                      sigmoids, real and generated images apart, the critic's batch once more for the generator.

Ours is the loop's step with all that belongs to it (noise by image, the generator's average), in float32 and bfloat16.

    python benchmarks/gan_peers.py [--rounds 12] [--peer torchgan|examples] [--peer-python PYTHON] [--threads 1]
"""

import argparse
import subprocess
import sys
import tempfile
import time
import types
import venv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from triptych.gan.recipe import Recipe

BATCH, LATENT, WIDTH = 64, 100, 64
Step = Callable[[], float]


def timed(step: Callable[[], object]) -> Step:
    """A step as the CPU seconds that it takes."""

    def run() -> float:
        start = time.process_time()
        step()
        return time.process_time() - start

    return run


def our_recipe(side: int, game: str) -> "Recipe":
    """DCGAN with BatchNorm in both for 'examples', WGAN-GP without it in the critic for 'torchgan'."""
    from triptych.gan.draw import Latent
    from triptych.gan.networks.dcgan import DCGAN
    from triptych.gan.objectives import NonSaturating, WassersteinGP
    from triptych.gan.optimiser import Optimiser
    from triptych.gan.recipe import Recipe
    from triptych.gan.train import Rules

    wgan = game == "torchgan"
    adam = Optimiser("adam", 1e-4, 0.5, 0.9) if wgan else Optimiser("adam", 2e-4, 0.5, 0.999)
    objective = WassersteinGP() if wgan else NonSaturating()
    nets = DCGAN(WIDTH, kernel=4, critic_norm="none" if wgan else "batch", bias=False)
    rules = Rules(Latent(LATENT), adam, adam, reuse_noise=not wgan)
    return Recipe("peer", game, objective, nets, nets, (3, side, side), batch=BATCH, rules=rules)


def ours(side: int, precision: str, game: str) -> Step:
    """A step of our loop."""
    from triptych.engine import Engine
    from triptych.gan.game import Batch
    from triptych.gan.schedule import Constant
    from triptych.gan.train import train

    recipe, engine = our_recipe(side, game), Engine(precision=precision)
    images = pictures(side).to(memory_format=torch.channels_last)
    stream = train(
        recipe.players(0, engine), recipe.objective, lambda seed, seen, n: Batch(images[:n]),
        seed=0, rules=recipe.rules, schedule=Constant(BATCH), engine=engine,
    )  # fmt: skip
    return timed(lambda: next(stream))


def pictures(side: int) -> Tensor:
    """A batch of noise in [-1, 1]; arithmetic takes as long for any other."""
    return torch.rand(BATCH, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def networks() -> tuple[nn.Sequential, nn.Sequential]:
    """Critic and generator of pytorch/examples' DCGAN."""
    D = nn.Sequential(*critic_layers(), nn.Conv2d(8 * WIDTH, 1, 4, 1, 0, bias=False), nn.Sigmoid())
    G = nn.Sequential(*generator_layers(), nn.ConvTranspose2d(WIDTH, 3, 4, 2, 1, bias=False), nn.Tanh())
    for module in (*D, *G):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    return D, G


def examples() -> Step:
    """The step in which pytorch/examples trains its DCGAN."""
    D, G = networks()
    d_adam, g_adam = (torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (D, G))
    cross_entropy, images = nn.BCELoss(), pictures(64)

    def step() -> tuple[float, ...]:
        ones, zeros = torch.ones(BATCH), torch.zeros(BATCH)
        D.zero_grad()
        said = D(images).flatten()
        on_real = cross_entropy(said, ones)
        on_real.backward()
        fake = G(torch.randn(BATCH, LATENT, 1, 1))
        said_of_fake = D(fake.detach()).flatten()
        on_fake = cross_entropy(said_of_fake, zeros)
        on_fake.backward()
        d_adam.step()
        G.zero_grad()
        again = D(fake).flatten()
        loss = cross_entropy(again, ones)
        loss.backward()
        g_adam.step()
        return tuple(x.mean().item() for x in (said, said_of_fake, again, on_real + on_fake, loss))

    return timed(step)


def critic_layers() -> list[nn.Module]:
    """64 pixels to 4."""
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for k in (WIDTH, 2 * WIDTH, 4 * WIDTH):
        layers += [nn.Conv2d(k, 2 * k, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * k), nn.LeakyReLU(0.2, inplace=True)]
    return layers


def generator_layers() -> list[nn.Module]:
    """One pixel to 32."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT, 8 * WIDTH, 4, 1, 0, bias=False)]
    for k in (8 * WIDTH, 4 * WIDTH, 2 * WIDTH):
        layers += [nn.BatchNorm2d(k), nn.ReLU(True), nn.ConvTranspose2d(k, k // 2, 4, 2, 1, bias=False)]
    return [*layers, nn.BatchNorm2d(WIDTH), nn.ReLU(True)]


def torchgan_step() -> Step:
    """In the peer's own process: its networks, its losses, its order of work."""
    sys.modules["torchvision"] = types.ModuleType("torchvision")
    from torchgan import losses, models

    G = models.DCGANGenerator(LATENT, 32, 3, WIDTH)
    D = models.DCGANDiscriminator(32, 3, WIDTH, batchnorm=False, last_nonlinearity=nn.Identity())
    g_adam, d_adam = (torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.5, 0.9)) for net in (G, D))
    of_critic = losses.WassersteinDiscriminatorLoss(), losses.WassersteinGradientPenalty()
    of_generator, images, device = losses.WassersteinGeneratorLoss(), pictures(32), torch.device("cpu")

    def step() -> None:
        for _ in range(5):
            for loss in of_critic:
                loss.train_ops(G, D, d_adam, images, device)
        of_generator.train_ops(G, D, g_adam, device, BATCH)

    return timed(step)


def serve(threads: int) -> None:
    """Take a step of torchgan's for every line that comes in, and say its CPU seconds."""
    torch.set_num_threads(threads)
    step = torchgan_step()
    for _ in sys.stdin:
        print(step(), flush=True)


def torchgan(python: Path, threads: int) -> Step:
    """The peer's process as a step."""
    command = [str(python), __file__, "--serve", f"--threads={threads}"]
    peer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step() -> float:
        assert peer.stdin is not None
        assert peer.stdout is not None
        peer.stdin.write("\n")
        peer.stdin.flush()
        return float(peer.stdout.readline())

    return step


def environment(folder: Path) -> Path:
    """The Python of an environment with this PyTorch and torchgan."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, f"torch=={torch.__version__.split('+')[0]}", "numpy", "pillow", "tqdm"], check=True)
    subprocess.run([*pip, "--no-deps", "torchgan==0.1.0"], check=True)
    return python


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer", choices=("torchgan", "examples"), action="append")
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.threads)
        return
    from critic_step import show

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.peer or ("torchgan", "examples"):
            side, reals = (32, 5 * BATCH) if name == "torchgan" else (64, BATCH)
            if name == "torchgan":
                peer = torchgan(options.peer_python or environment(Path(folder)), options.threads)
            else:
                peer = examples()
            steps = {name: peer, **{p: ours(side, p, name) for p in ("float32", "bf16")}}
            times: dict[str, list[float]] = {name: [] for name in steps}
            for round_ in range(options.rounds + 2):
                for which, step in steps.items():
                    taken = step()
                    if round_ >= 2:  # the first ones choose algorithms
                        times[which].append(taken)
            print(f"\n{name}, {side} px, {reals} real images a step, {options.threads} thread(s)")
            show(times)


if __name__ == "__main__":
    main()
