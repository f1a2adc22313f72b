"""The loop's laws, on games small enough to play by hand."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import pytest
import torch
from torch import nn

from triptych.check import InputError
from triptych.engine import Engine
from triptych.gan.draw import Draw, Latent
from triptych.gan.game import Batch, GameLoss, scorer
from triptych.gan.optimiser import Optimiser
from triptych.gan.schedule import Constant
from triptych.gan.train import Players, Rules, Turn, average, generate, train

DOUBLE = Engine(precision="float64")
STEP = 0.1
SGD = Optimiser("sgd", STEP)


class Point(nn.Module):
    """The generator that puts all its mass on one point: G(z) = theta."""

    def __init__(self, theta: float):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))

    def forward(self, z):
        return self.theta.expand(len(z), 1)


class Slope(nn.Module):
    """The critic D(x) = psi · (the sum of x)."""

    def __init__(self, psi: float):
        super().__init__()
        self.psi = nn.Parameter(torch.tensor(psi, dtype=torch.float64))

    def forward(self, x):
        return (self.psi * x).flatten(1).sum(1)


@dataclass
class Linear:
    """Wasserstein's two losses without a constraint; it writes down what it was given."""

    steps: int | Callable[[int], int] = 1
    simultaneous: bool = False
    seen: list = field(default_factory=list)

    def critic_steps(self, step):
        return self.steps(step) if callable(self.steps) else self.steps

    def critic_loss(self, critic, real, fake, draw):
        self.seen.append(("critic", real, fake, draw))
        gap = critic(real).value.mean() - critic(fake).value.mean()
        return GameLoss(-gap, {"gap": gap})

    def generator_loss(self, critic, fake, real):
        self.seen.append(("generator", real, fake, None))
        return GameLoss(-critic(fake).value.mean())

    def constrain(self, critic, when):
        self.seen.append((when, None, None, None))

    def fakes(self, who):
        return [fake.images.detach() for name, _, fake, _ in self.seen if name == who]

    def reals(self, who):
        return [real.images for name, real, _, _ in self.seen if name == who]


def players(generator, critic, generator_optimiser=SGD, critic_optimiser=SGD, seed=0):
    return Players(
        generator,
        critic,
        copy.deepcopy(generator).requires_grad_(False),
        generator_optimiser.build(generator.parameters()),
        critic_optimiser.build(critic.parameters()),
        noise_seed=seed,
    )


def counted(seed, seen, n):
    """A source whose image i is the number i."""
    del seed
    return Batch(torch.arange(seen, seen + n, dtype=torch.float64)[:, None])


def three(seed, seen, n):
    """A source of threes."""
    del seed, seen
    return Batch(torch.full((n, 1), 3.0, dtype=torch.float64))


def play(who, objective, source, turns, batch=4, seed=0, engine=DOUBLE, **rules):
    given = Rules(**{"generator_optimiser": SGD, "critic_optimiser": SGD, "latent": Latent(2), **rules})
    going = train(who, objective, source, seed=seed, rules=given, schedule=Constant(batch), engine=engine)
    return list(islice(going, turns))


def place(who):
    """Where the two parameters stand."""
    return float(who.generator.theta.detach()), float(who.critic.psi.detach())


def by_hand(turns, steps, simultaneous, theta=1.0, psi=0.5):
    """(theta, psi) after turns of: critic psi += h (3 - theta), generator theta += h psi."""
    for _ in range(turns):
        for _ in range(steps):
            before, psi = psi, psi + STEP * (3 - theta)
        theta += STEP * (before if simultaneous else psi)
    return theta, psi


@pytest.mark.parametrize("simultaneous", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_order_of_updates_is_that_of_the_algorithm(steps, simultaneous):
    who = players(Point(1.0), Slope(0.5))
    play(who, Linear(steps, simultaneous), three, 4)
    expected = by_hand(4, steps, simultaneous)
    assert place(who) == pytest.approx(expected, rel=1e-12)
    assert (who.step, who.seen, who.critic_updates) == (4, 16 * steps, 4 * steps)


def test_the_two_orders_differ():
    assert by_hand(4, 1, False) != by_hand(4, 1, True)


def test_the_number_of_critic_steps_may_depend_on_the_step():
    objective = Linear(lambda step: 4 if step == 0 else 2)
    who = players(Point(1.0), Slope(0.5))
    play(who, objective, three, 3)
    assert who.critic_updates == 4 + 2 + 2


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_a_number_of_critic_steps_that_is_none_is_refused(steps):
    with pytest.raises(InputError, match="critic_steps must be"):
        play(players(Point(1.0), Slope(0.5)), Linear(steps), three, 1)


def test_every_critic_step_has_fresh_images_and_is_constrained_before_and_after():
    objective = Linear(2)
    play(players(Point(1.0), Slope(0.5)), objective, counted, 2, batch=3)
    assert [name for name, *_ in objective.seen] == ["before", "critic", "after"] * 2 + ["generator"] + [
        "before",
        "critic",
        "after",
    ] * 2 + ["generator"]
    assert torch.cat(objective.reals("critic")).flatten().tolist() == list(range(12))
    assert [x.flatten().tolist() for x in objective.reals("generator")] == [[3, 4, 5], [9, 10, 11]]


class Spread(nn.Module):
    """A generator whose images are its noise, times one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, z):
        return self.weight * z


def noise_of(who, turns=2, steps=2, seed=0, **rules):
    """The noise of the critic's steps and of the generator's, in a game that changes no weight."""
    still = Optimiser("sgd", 1e-300)
    objective = Linear(steps)
    play(who, objective, counted, turns, seed=seed, generator_optimiser=still, critic_optimiser=still, **rules)
    return objective.fakes("critic"), objective.fakes("generator"), objective.reals("critic")


def test_every_step_has_noise_of_its_own():
    critic, generator, _ = noise_of(players(Spread(), Slope(0.0)))
    every = torch.cat([*critic, *generator])
    assert len(every.unique()) == every.numel() == (4 + 2) * 4 * 2


def pairs(seed, seen, n):
    return Batch(counted(seed, seen, n).images.expand(-1, 2))


def test_what_was_frozen_stays_frozen():
    critic = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    critic[0].requires_grad_(False)
    who, before = players(Spread(), critic), [p.detach().clone() for p in critic.parameters()]
    play(who, Linear(2), pairs, 2)
    after = list(critic.parameters())
    assert [p.requires_grad for p in after] == [False, False, True, True]
    assert [torch.equal(a, b) for a, b in zip(after, before)] == [True, True, False, True]  # no gradient by an offset


def test_a_critic_says_one_value_an_image():
    critic = nn.Linear(2, 2).double()
    with pytest.raises(InputError, match=r"critic must be a network with one value for each of 4 images, got \(4, 2\)"):
        play(players(Spread(), critic), Linear(), pairs, 1)


def test_reused_noise_is_that_of_the_last_critic_step():
    critic, generator, _ = noise_of(players(Spread(), Slope(0.0)), reuse_noise=True)
    assert torch.equal(generator[0], critic[1])
    assert torch.equal(generator[1], critic[3])
    assert not torch.equal(critic[0], critic[1])


@pytest.mark.parametrize("simultaneous", [False, True])
def test_reused_images_are_those_that_their_noise_would_make_again(simultaneous):
    """In one piece the images of the critic's last step serve the generator's; in two they are made again."""
    adam, made = Optimiser("adam", 1e-2), []
    whole, again = (players(Counting(Small(2)), Small(1), adam, adam) for _ in range(2))
    for who, pieces in ((whole, 1), (again, 2)):
        rules = {"generator_optimiser": adam, "critic_optimiser": adam, "reuse_noise": True, "accumulate": pieces}
        play(who, Penalised(2, simultaneous), plane, 4, batch=6, **rules)
        made.append(who.generator.made)
    torch.testing.assert_close(weights(whole), weights(again), rtol=1e-12, atol=1e-12)
    assert made == [4 * 2 * 6, 4 * 3 * 6]


class Counting(nn.Module):
    """A generator that counts the images it makes."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.made = network, 0

    def forward(self, z):
        self.made += len(z)
        return self.network(z)


def test_the_noise_follows_the_players_seed_and_the_images_the_runs():
    def source(seed, seen, n):
        return Batch(Draw(seed, 0, seen, n).uniform("x", (1,), torch.empty(0, dtype=torch.float64)))

    def made(noise_seed, seed):
        objective = Linear()
        play(players(Spread(), Slope(0.0), seed=noise_seed), objective, source, 1, seed=seed)
        return objective.fakes("critic")[0], objective.reals("critic")[0]

    first, noise, images = made(0, 0), made(1, 0), made(0, 1)
    assert torch.equal(first[0], images[0])
    assert torch.equal(first[1], noise[1])
    assert not torch.equal(first[0], noise[0])
    assert not torch.equal(first[1], images[1])


def test_the_generators_batch_is_a_multiple_of_the_critics():
    objective = Linear()
    play(players(Spread(), Slope(0.0)), objective, counted, 1, batch=3, generator_factor=2)
    assert len(objective.fakes("critic")[0]) == 3
    assert len(objective.fakes("generator")[0].unique()) == 2 * 3 * 2
    assert objective.reals("generator")[0].flatten().tolist() == [0, 0, 1, 1, 2, 2]


class Small(nn.Module):
    """A network with a penalty-worthy curvature."""

    def __init__(self, last: int):
        super().__init__()
        generator = torch.Generator().manual_seed(last)
        self.layers = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, last)).double()
        with torch.no_grad():
            for parameter in self.layers.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))

    def forward(self, x):
        return self.layers(x)


@dataclass
class Penalised(Linear):
    """Linear with a gradient penalty at random points between real and fake."""

    def critic_loss(self, critic, real, fake, draw):
        alpha = draw.uniform("alpha", (1,), like=real.images)
        x = (alpha * real.images + (1 - alpha) * fake.images).requires_grad_(True)
        (slope,) = torch.autograd.grad(critic(Batch(x)).value.sum(), x, create_graph=True)
        base = super().critic_loss(critic, real, fake, draw)
        penalty = ((slope.norm(dim=1) - 1) ** 2).mean()
        return GameLoss(base.total + penalty, {**base.parts, "penalty": penalty})


def plane(seed, seen, n):
    return Batch(Draw(seed, 0, seen, n).normal("x", (2,), torch.empty(0, dtype=torch.float64)))


def weights(who):
    return torch.cat(
        [p.detach().flatten() for net in (who.generator, who.critic, who.average) for p in net.parameters()]
    )


@pytest.mark.parametrize("pieces", [2, 3, 50])
def test_a_batch_in_pieces_is_the_batch(pieces):
    adam = Optimiser("adam", 1e-2)
    rules = {"generator_optimiser": adam, "critic_optimiser": adam, "half_life": 20, "generator_factor": 2}
    whole, cut = (players(Small(2), Small(1), adam, adam) for _ in range(2))
    told = [play(who, Penalised(2), plane, 5, batch=7, accumulate=k, **rules) for who, k in ((whole, 1), (cut, pieces))]
    torch.testing.assert_close(weights(cut), weights(whole), rtol=1e-12, atol=1e-12)
    for one, other in zip(*told, strict=True):
        assert one.numbers() == pytest.approx(other.numbers(), rel=1e-9)


def test_a_run_that_was_interrupted_between_two_steps_goes_on_with_the_same_numbers():
    adam = Optimiser("adam", 1e-2, fall="linear")
    rules = {"generator_optimiser": adam, "critic_optimiser": adam, "steps": 8}
    through, again = (players(Small(2), Small(1), adam, adam) for _ in range(2))
    play(through, Penalised(2), plane, 8, **rules)
    play(again, Penalised(2), plane, 3, **rules)
    play(again, Penalised(2), plane, 5, **rules)
    assert torch.equal(weights(through), weights(again))


def test_progress_has_the_means_over_the_critic_steps():
    objective = Linear(3)
    who = players(Point(1.0), Slope(0.5))
    (progress,) = play(who, objective, three, 1)
    psi = [0.5 + k * STEP * 2 for k in range(4)]
    gap = sum(2 * p for p in psi[:3]) / 3
    assert progress.numbers() == pytest.approx({"critic_loss": -gap, "gap": gap, "generator_loss": -psi[3] * 1.0})
    assert (progress.step, progress.seen) == (1, 12)


def test_a_rate_scale_multiplies_both_players_steps():
    who = players(Point(1.0), Slope(0.5))
    who.rate_scale = 0.5
    play(who, Linear(), three, 1)
    psi = 0.5 + STEP / 2 * 2
    assert place(who) == pytest.approx((1 + STEP / 2 * psi, psi))


def test_rates_fall_over_the_length_of_the_run():
    linear = Optimiser("sgd", STEP, fall="linear")
    who = players(Point(1.0), Slope(0.5), linear, linear)
    play(who, Linear(), three, 4, generator_optimiser=linear, critic_optimiser=linear, steps=4)
    theta, psi = 1.0, 0.5
    for rate in (STEP, 0.75 * STEP, 0.5 * STEP, 0.25 * STEP):
        psi += rate * (3 - theta)
        theta += rate * psi
    assert place(who) == pytest.approx((theta, psi))


@pytest.mark.parametrize(("batch", "turns", "steps"), [(4, 8, 1), (32, 1, 1), (8, 2, 2)])
def test_the_half_life_is_in_images(batch, turns, steps):
    who = players(Point(1.0), Slope(0.0))
    who.average.theta.fill_(5.0)
    still = Optimiser("sgd", 1e-300)
    rules = {"generator_optimiser": still, "critic_optimiser": still, "half_life": 16.0, "ramp": 0.0}
    play(who, Linear(steps), three, turns, batch=batch, **rules)
    assert float(who.average.theta) == pytest.approx(1 + 4 * 0.5 ** (32 / 16), rel=1e-12)


def test_the_half_life_begins_at_a_share_of_the_images_seen():
    who = players(Point(1.0), Slope(0.0))
    turn = Turn(who, Linear(), three, 0, Rules(half_life=100.0, ramp=0.5), DOUBLE)
    assert turn.decay(10, 40) == pytest.approx(0.5 ** (10 / 20))
    assert turn.decay(10, 1000) == pytest.approx(0.5 ** (10 / 100))
    assert Turn(who, Linear(), three, 0, Rules(half_life=0.0), DOUBLE).decay(10, 40) == 0


def test_an_average_takes_buffers_too_and_copies_counters():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    into = copy.deepcopy(module)
    before = copy.deepcopy(into)
    with torch.no_grad():
        module[0].weight += 1
    module(torch.randn(9, 3))
    average(into, module, 0.75)
    for name, value in into.state_dict().items():
        old, new = before.state_dict()[name], module.state_dict()[name]
        torch.testing.assert_close(value, 0.75 * old + 0.25 * new if value.is_floating_point() else new)
    assert int(into[1].num_batches_tracked) == 1
    assert not torch.equal(into[1].running_mean, before[1].running_mean)


def test_the_generators_step_leaves_no_gradient_on_the_critic_and_the_critics_none_on_the_generator():
    who = players(Small(2), Small(1))
    turn = Turn(who, Linear(), plane, 0, Rules(latent=Latent(2)), DOUBLE)
    stage = Constant(6).at(0)
    reals, made, _ = turn.critic_gradients(stage, 0)
    assert all(p.grad is None for p in who.generator.parameters())
    before = [p.grad.clone() for p in who.critic.parameters()]
    turn.generator_gradients(stage, 0, reals, made)
    assert all(torch.equal(p.grad, old) for p, old in zip(who.critic.parameters(), before, strict=True))
    assert all(p.grad is not None for p in who.generator.parameters())
    assert all(p.requires_grad for p in who.critic.parameters())


class Labelled(nn.Module):
    """A network of this package: it is told labels and a draw."""

    takes_draw = True

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.told: list = []

    def forward(self, x, labels, draw):
        self.told.append((labels, draw))
        return (self.weight * x).sum(1) if x.shape[1] == 1 else self.weight * x[:, :1]


class OwnCritic(Labelled):
    def forward(self, x, labels, draw):
        from triptych.gan.game import Scores

        return Scores(super().forward(x, labels, draw))


def test_networks_of_this_package_are_told_labels_and_draws_and_generated_images_have_the_labels_of_real_ones():
    def source(seed, seen, n):
        del seed
        return Batch(torch.ones(n, 1, dtype=torch.float64), torch.arange(seen, seen + n) % 3)

    objective = Linear()
    who = players(Labelled(), OwnCritic())
    play(who, objective, source, 1, batch=5)
    labels = torch.arange(5) % 3
    assert [torch.equal(told, labels) for told, _ in [*who.generator.told, *who.critic.told]] == [True] * 5
    draws = [draw.path for _, draw in [*who.generator.told, *who.critic.told]]
    assert len({*draws}) == 5, draws  # no two passes share a dropout mask, not even the two networks' in one step
    fakes = [fake.labels for _, _, fake, _ in objective.seen if fake is not None]
    assert all(torch.equal(one, labels) for one in fakes)


def test_any_other_module_is_called_plainly():
    z = torch.ones(2, 3)
    assert torch.equal(generate(nn.Identity(), z), z)
    critic = scorer(nn.Linear(3, 1))
    assert critic(Batch(z)).value.shape == (2,)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"steps": 0}, "steps must be"),
        ({"generator_factor": 0}, "generator_factor must be"),
        ({"accumulate": 1.5}, "accumulate must be"),
        ({"half_life": -1}, "half_life must be"),
        ({"ramp": float("nan")}, "ramp must be"),
    ],
)
def test_bad_rules_are_refused(numbers, words):
    with pytest.raises(InputError, match=words):
        Rules(**numbers)
