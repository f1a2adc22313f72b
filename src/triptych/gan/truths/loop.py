"""What the loop itself owes: the generator's average, batches in pieces, a run that stops and goes on."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from triptych.check import Case
from triptych.gan.checkpoint import read, restore, taken, write
from triptych.gan.draw import Draw
from triptych.gan.game import Batch
from triptych.gan.networks.mlp import MLP
from triptych.gan.networks.target import Target
from triptych.gan.objectives import Auxiliary, Regularised, Wasserstein, WassersteinGP
from triptych.gan.optimiser import Optimiser
from triptych.gan.train import Players, Rules, average
from triptych.gan.truths.small import F64, Play, Point, Slope, always


def averages() -> Iterator[Case]:
    """The generator's average forgets by images, not by steps."""
    rounding = "float64 rounding of 64 steps"
    for batch in (16, 64):
        # Both sides of the gap are one point, so that no gradient moves the generator; its average begins one away.
        generator, critic = Point(F64.new_ones(1)), Slope(F64.new_zeros(1))
        free = Wasserstein(clip=1, steps=1, long_until=0, long_every=0)
        rules = Rules(half_life=1024, ramp=0)
        game = Play(generator, critic, free, always(F64.new_ones(batch, 1)), batch, rules=rules)
        players = game.players()
        players.average.load_state_dict({"shift": F64.new_zeros(1)})
        game.run(1024 // batch, players)
        share = next(players.average.parameters()).item()
        yield Case(f"average after a half-life of 1024 images in batches of {batch}", 0.5, share, 1e-13, rounding)
    ours, module = Point(F64.new_zeros(1)), Point(F64.new_zeros(1))
    values = Draw(0, count=10).normal("weights", (), F64)
    for value in values:
        module.load_state_dict({"shift": value[None]})
        average(ours, module, 0.9)
    theory = sum(0.1 * 0.9 ** (9 - i) * value.item() for i, value in enumerate(values))
    name = "average of ten weights, decay 0.9: Σ 0.1 · 0.9⁹⁻ⁱ wᵢ"
    yield Case(name, theory, ours.shift.item(), 1e-15, "float64 rounding")


def pieces() -> Iterator[Case]:
    """Four pieces of a batch give the gradients of the whole."""
    whole, cut = (small_game(accumulate=count).run(3) for count in (1, 4))
    apart = max((a - b).abs().max().item() for a, b in zip(tensors(whole).values(), tensors(cut).values()))
    name = "batch of 32 in four pieces against the whole, three steps: largest difference of a weight"
    yield Case(
        name, 0.0, apart, 1e-12, "float64 rounding; Adam divides by |gradient| + 1e-8, which may cost four digits"
    )


def resumed() -> Iterator[Case]:
    """Six steps, and three, a folder on the disk, other players brought to it, and three more: the same bytes."""
    through = small_game().run(6)
    with tempfile.TemporaryDirectory() as folder:
        halfway = write(Path(folder) / "checkpoint", taken(small_game().run(3), {}))
        again = small_game(seed=1).players()
        restore(again, read(halfway))
    small_game().run(3, again)
    one, other = (taken(players, {}) for players in (through, again))
    differ = sum(not torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
    differ += len(one.tensors.keys() ^ other.tensors.keys()) + (one.meta != other.meta)
    name = f"a run stopped halfway and resumed: which of {len(one.tensors)} tensors and the counters differ"
    yield Case(name, 0.0, float(differ), 0.0, "every bit is kept")


def small_game(accumulate: int = 1, seed: int = 0) -> Play:
    """Perceptrons on two classes of points in float64 with every penalty there is: WGAN-GP, R1, R2, auxiliary classes."""
    networks, target = MLP((8,), (8, 8)), Target((2,), 2, "linear", "auxiliary")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator, critic = networks.generator(target, 2).double(), networks.critic(target).double()
    adam = Optimiser("adam", lr=1e-2, beta1=0.5, beta2=0.9)
    objective = Auxiliary(Regularised(WassersteinGP(steps=2), r1=0.5, r2=0.5))
    return Play(generator, critic, objective, labelled, 32, adam, adam, 2, Rules(accumulate=accumulate))


def labelled(seed: int, seen: int, n: int) -> Batch:
    """Normal points (n, 2), a class for each."""
    draw = Draw(seed, 0, seen, n, "truths/")
    return Batch(draw.normal("points", (2,), F64), draw.whole_number("class", 2))


def tensors(players: Players) -> dict[str, Tensor]:
    """All weights of both networks."""
    networks: dict[str, nn.Module] = {"generator": players.generator, "critic": players.critic}
    return {f"{role}/{name}": p.detach() for role, net in networks.items() for name, p in net.named_parameters()}
