"""The truth suite: every case holds, and every objective, penalty and part of the loop, broken once, makes one fail."""

import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

from triptych.check import Case
from triptych.gan.game import Batch, GameLoss
from triptych.gan.objectives import (
    OBJECTIVES,
    Auxiliary,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Regularised,
    Relativistic,
    Wasserstein,
    WassersteinGP,
)
from triptych.gan.penalty import input_gradient
from triptych.gan.truths import SUITE, dirac, loop, optima, penalties, wasserstein
from triptych.gan.truths.own import dirac_report, owed


@pytest.mark.parametrize("group", SUITE, ids=lambda group: group.__name__)
def test_every_case_holds(group):
    cases = list(group())
    assert cases
    assert [case for case in cases if not case.holds] == []
    assert all(case.why and math.isfinite(case.tolerance) for case in cases)


def test_a_case_holds_within_its_tolerance_alone():
    assert Case("", 1.0, 1.5, 0.5, "").holds
    assert not Case("", 1.0, 1.51, 0.5, "").holds
    assert not Case("", 1.0, math.nan, 0.5, "").holds
    assert not Case("", 1.0, math.inf, 0.5, "").holds


def plant(monkeypatch, name, value):
    """Put something else in a name's place wherever the suite has it."""
    found = [m for m in sys.modules.values() if getattr(m, "__name__", "").startswith("triptych.gan.truths")]
    places = [module for module in found if name in vars(module)]
    assert places
    for module in places:
        monkeypatch.setattr(module, name, value)


def caught(groups):
    """The first case that fails."""
    return next((case for group in groups for case in group() if not case.holds), None)


def scaled(loss, factor):
    return GameLoss(loss.total * factor, loss.parts)


def broken(kind, name, change):
    """A subclass whose method gives what ``change`` makes of the true loss."""

    def method(self, *given):
        return change(self, getattr(kind, name)(self, *given), *given)

    return type(kind.__name__, (kind,), {name: method})


def exchanged(kind):
    """A critic's loss with the two batches exchanged: the sign of the game."""
    return type(
        kind.__name__,
        (kind,),
        {"critic_loss": lambda self, critic, real, fake, draw: kind.critic_loss(self, critic, fake, real, draw)},
    )


def other(kind, **fields):
    """The objective with some fields other than they are said to be."""

    def forced(self):
        kind.__post_init__(self)
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    return type(kind.__name__, (kind,), {"__post_init__": forced})


def flipped(kind):
    return broken(kind, "generator_loss", lambda self, loss, *_: scaled(loss, -1))


def doubled(kind, name="critic_loss"):
    return broken(kind, name, lambda self, loss, *_: scaled(loss, 2))


def added(kind, name, of):
    return broken(kind, name, lambda self, loss, *given: GameLoss(loss.total + of(*given), loss.parts))


def penalty_of(loss):
    return loss.parts["penalty"]


OPTIMA = [optima.optimal_critics, optima.generators, optima.classes]
LINEAR = [wasserstein.linear_critics, penalties.known_penalties]
MUTANTS = {
    "minimax, sign of G": (flipped(Minimax), OPTIMA),
    "minimax, sign of D": (exchanged(Minimax), OPTIMA),
    "minimax, twice": (doubled(Minimax), OPTIMA),
    "minimax, non-saturating": (type("Minimax", (NonSaturating,), {}), OPTIMA),
    "non-saturating, sign of G": (flipped(NonSaturating), OPTIMA),
    "non-saturating, sign of D": (exchanged(NonSaturating), OPTIMA),
    "non-saturating, halved": (other(NonSaturating, halved=True), OPTIMA),
    "least squares, exchanged": (exchanged(LeastSquares), OPTIMA),
    "least squares, target of D": (other(LeastSquares, fake=0.0), OPTIMA),
    "least squares, target of G": (other(LeastSquares, generator=1.0), OPTIMA),
    "least squares, halved": (other(LeastSquares, halved=True), OPTIMA),
    "wasserstein, sign of D": (exchanged(Wasserstein), [wasserstein.clipped_critics]),
    "wasserstein, sign of G": (flipped(Wasserstein), OPTIMA),
    "wasserstein, clip": (other(Wasserstein, clip=0.02), [wasserstein.clipped_critics]),
    "wasserstein, never clipped": (
        type("Wasserstein", (Wasserstein,), {"constrain": lambda self, critic, when: None}),
        [wasserstein.clipped_critics],
    ),
    "wasserstein gp, sign of D": (exchanged(WassersteinGP), LINEAR),
    "wasserstein gp, sign of G": (flipped(WassersteinGP), OPTIMA),
    "wasserstein gp, weight": (
        broken(
            WassersteinGP,
            "critic_loss",
            lambda o, loss, *_: GameLoss(loss.total + o.weight * penalty_of(loss), loss.parts),
        ),
        LINEAR,
    ),
    "wasserstein gp, no penalty": (
        broken(
            WassersteinGP,
            "critic_loss",
            lambda o, loss, *_: GameLoss(loss.total - o.weight * penalty_of(loss), loss.parts),
        ),
        LINEAR,
    ),
    "wasserstein gp, target": (other(WassersteinGP, target=1.0), LINEAR),
    "wasserstein gp, one-sided": (other(WassersteinGP, one_sided=True), LINEAR),
    "wasserstein gp, two-sided": (other(WassersteinGP, one_sided=False), LINEAR),
    "wasserstein gp, drift": (other(WassersteinGP, drift=0.0), LINEAR),
    "hinge, sign of D": (exchanged(Hinge), OPTIMA),
    "hinge, sign of G": (flipped(Hinge), OPTIMA),
    "hinge, twice": (doubled(Hinge), OPTIMA),
    "relativistic, sign of D": (exchanged(Relativistic), OPTIMA),
    "relativistic, sign of G": (flipped(Relativistic), OPTIMA),
    "relativistic, twice": (doubled(Relativistic, "generator_loss"), OPTIMA),
    "relativistic, averaged": (other(Relativistic, averaged=True), OPTIMA),
    "relativistic, paired": (other(Relativistic, averaged=False), OPTIMA),
    "r1, not halved": (
        added(Regularised, "critic_loss", lambda critic, real, *_: input_gradient(critic, real).square().mean()),
        LINEAR,
    ),
    "r1 for r2": (exchanged(Regularised), LINEAR),
    "no r2": (other(Regularised, r2=0.0), LINEAR),
    "r1, sign": (broken(Regularised, "critic_loss", lambda o, loss, *_: scaled(loss, -1)), LINEAR),
    "auxiliary, weight of D": (other(Auxiliary, critic_weight=1.0), OPTIMA),
    "auxiliary, weight of G": (other(Auxiliary, generator_weight=0.1), OPTIMA),
    "auxiliary, real alone": (other(Auxiliary, on_fake=False), OPTIMA),
    "auxiliary, both": (other(Auxiliary, on_fake=True), OPTIMA),
    "auxiliary, exchanged": (exchanged(Auxiliary), OPTIMA),
}


@pytest.mark.parametrize(("mutant", "groups"), MUTANTS.values(), ids=MUTANTS)
def test_an_objective_broken_once_is_caught(mutant, groups, monkeypatch):
    plant(monkeypatch, mutant.__name__, mutant)
    assert caught(groups) is not None


def test_every_objective_is_broken_somewhere():
    assert {mutant.__name__ for mutant, _ in MUTANTS.values()} == {kind.__name__ for kind in OBJECTIVES}
    assert caught([*OPTIMA, *LINEAR, wasserstein.clipped_critics]) is None  # unbroken, the same groups hold


@pytest.mark.parametrize("name", ["Minimax", "NonSaturating", "Wasserstein", "WassersteinGP", "Regularised"])
def test_the_dirac_gan_tells_another_game(name, monkeypatch):
    """Half a critic's loss: the game turns more slowly."""
    kind = getattr(dirac, name)
    plant(monkeypatch, name, broken(kind, "critic_loss", lambda objective, loss, *_: scaled(loss, 0.5)))
    groups = [dirac.wandering] if name.startswith("Wasserstein") else [dirac.dirac_gans]
    assert caught(groups) is not None


def whole_batch(critic, real, fake, draw, *, target=1.0, one_sided=False):
    """One norm for all images, as a well-known library has it."""
    return (penalised(critic, real, fake, draw).norm() - target) ** 2


def root(critic, real, fake, draw, *, target=1.0, one_sided=False):
    return ((penalised(critic, real, fake, draw).square().sum(1).sqrt() - target) ** 2).mean()


def one_alpha(critic, real, fake, draw, *, target=1.0, one_sided=False):
    return ((penalised(critic, real, fake, draw, same=True).norm(dim=1) - target) ** 2).mean()


def cut(critic, real, fake, draw, *, target=1.0, one_sided=False):
    return ((penalised(critic, real, fake, draw).detach().norm(dim=1) - target) ** 2).mean() + 0 * critic(
        real
    ).value.sum()


def penalised(critic, real, fake, draw, same=False):
    alpha = draw.uniform("alpha", (1, 1, 1), like=real.images)
    alpha = alpha[:1] if same else alpha
    return input_gradient(critic, Batch(real.images + alpha * (fake.images - real.images))).flatten(1)


PLANTED = {
    "one norm a batch": ("gradient_penalty", whole_batch, penalties.known_penalties),
    "NaN at 0": ("gradient_penalty", root, penalties.known_penalties),
    "one number for all pairs": ("gradient_penalty", one_alpha, penalties.derivatives),
    "no second derivative": ("gradient_penalty", cut, penalties.derivatives),
    "pooling": ("conv_pool", lambda x, w: nn.functional.conv2d(x, w, stride=2, padding=1), penalties.fused),
    "doubling": (
        "upsample_conv",
        lambda x, w: nn.functional.interpolate(nn.functional.conv2d(x, w, padding=1), scale_factor=2),
        penalties.fused,
    ),
    "average": ("average", lambda into, module, decay: loop_average(into, module, decay**2), loop.averages),
    "resume without optimisers": (
        "restore",
        lambda players, checkpoint: forgetful(players, checkpoint, "critic_optimiser/"),
        loop.resumed,
    ),
    "resume without the average": (
        "restore",
        lambda players, checkpoint: forgetful(players, checkpoint, "average/"),
        loop.resumed,
    ),
}
loop_average, loop_restore = loop.average, loop.restore


def forgetful(players, checkpoint, begins):
    """Restore, and change what was saved under a name."""
    tensors = {name: t * 1.0001 if name.startswith(begins) else t for name, t in checkpoint.tensors.items()}
    loop_restore(players, type(checkpoint)(tensors, checkpoint.meta))


@pytest.mark.parametrize(("name", "value", "group"), PLANTED.values(), ids=PLANTED)
def test_what_is_not_an_objective_is_caught_too(name, value, group, monkeypatch):
    plant(monkeypatch, name, value)
    assert caught([group]) is not None


def test_an_average_that_forgets_by_steps_is_caught(monkeypatch):
    monkeypatch.setattr("triptych.gan.train.Turn.decay", lambda self, images, seen: 0.5 ** (1 / 64))
    assert caught([loop.averages]) is not None


def test_pieces_that_do_not_add_up_are_caught(monkeypatch):
    monkeypatch.setattr(
        "triptych.engine.Engine.slices",
        lambda self, batch, pieces=1: [(0, batch // pieces)] * pieces,
    )
    assert caught([loop.pieces]) is not None


def test_the_derivative_notices_a_wrong_adjoint(monkeypatch):
    """Half the slope that a leaky ReLU has below 0, in the second derivative alone."""
    true = torch.ops.aten.leaky_relu_backward
    monkeypatch.setattr(
        "triptych.gan.networks.layers.gate", lambda u, y, slope=0.0: true(u, y.detach(), slope / 2, True)
    )
    assert caught([penalties.derivatives]) is not None


# What any objective owes: all of ours pass, and faults that are seen in the wild do not.

OURS = [
    Minimax(simultaneous=True),
    NonSaturating(),
    LeastSquares(),
    Wasserstein(clip=1.0),
    WassersteinGP(),
    WassersteinGP(weight=5, target=1, one_sided=True, drift=0.01),
    Hinge(),
    Relativistic(),
    Relativistic(averaged=True),
    Regularised(NonSaturating(), r1=1, r2=1),
    Auxiliary(WassersteinGP(), on_fake=True),
]


@pytest.mark.parametrize("objective", OURS, ids=repr)
def test_our_objectives_pass_what_any_owes(objective):
    cases = list(owed(objective))
    assert [case for case in cases if not case.holds] == []
    assert len(cases) >= 13


class WholeBatch(WassersteinGP):
    def critic_loss(self, critic, real, fake, draw):
        between = Batch((real.images + fake.images) / 2, real.labels, draw)
        penalty = (input_gradient(critic, between).norm() - 1) ** 2
        gap = critic(real).value.mean() - critic(fake).value.mean()
        return GameLoss(10 * penalty - gap, {"penalty": penalty})


class Root(WassersteinGP):
    def critic_loss(self, critic, real, fake, draw):
        between = Batch((real.images + fake.images) / 2, real.labels, draw)
        penalty = ((input_gradient(critic, between).square().sum(1).sqrt() - 1) ** 2).mean()
        return GameLoss(10 * penalty - critic(real).value.mean() + critic(fake).value.mean())


class Summed(Hinge):
    def critic_loss(self, critic, real, fake, draw):
        return scaled(super().critic_loss(critic, real, fake, draw), len(real.images))


class SummedG(Hinge):
    def generator_loss(self, critic, fake, real):
        return scaled(super().generator_loss(critic, fake, real), len(fake.images))


class Vector(Hinge):
    def critic_loss(self, critic, real, fake, draw):
        loss = super().critic_loss(critic, real, fake, draw)
        return GameLoss(loss.total, {"values": critic(real).value})


class Clash(Hinge):
    def generator_loss(self, critic, fake, real):
        loss = super().generator_loss(critic, fake, real)
        return GameLoss(loss.total, {"critic_real": loss.total})


class Careless(Hinge):
    def critic_loss(self, critic, real, fake, draw):
        loss = super().critic_loss(critic, real, fake, draw)
        return GameLoss(loss.total + 0 * torch.rand(()), loss.parts)


class Noisy(Hinge):
    count = 0

    def critic_loss(self, critic, real, fake, draw):
        Noisy.count += 1
        return scaled(super().critic_loss(critic, real, fake, draw), 1 + 1e-3 * Noisy.count)


class Idle(Hinge):
    def critic_steps(self, step):
        return 0 if step == 700 else 1


class Ordered(Hinge):
    def critic_loss(self, critic, real, fake, draw):
        weights = torch.arange(len(real.images)).double() + 1
        return GameLoss((torch.relu(1 - critic(real).value) * weights).sum() / weights.sum())


class Paired(Relativistic):
    def generator_loss(self, critic, fake, real):
        return scaled(super().generator_loss(critic, fake, real), -1)


class Against(Hinge):
    def critic_loss(self, critic, real, fake, draw):
        return scaled(super().critic_loss(critic, fake, real, draw), 1)


class Rising(Hinge):
    def constrain(self, critic, when):
        with torch.no_grad():
            critic.w.sub_(0.2)


FAULTS = {
    "norm of the whole batch": (WholeBatch(), "penalty of a critic of slope 1, 4 images"),
    "norm of the whole batch, more images": (WholeBatch(), "the critic's loss of two pairs of images, given 32 times"),
    "root at 0": (Root(), "losses, parts and gradients at a flat critic that are not finite"),
    "a sum": (Summed(), "the critic's loss of a batch given twice"),
    "a sum over generated images": (SummedG(), "the generator's loss of a batch given twice"),
    "a row as a part": (
        Vector(),
        "names of parts that both players have, and losses and parts that are no single number",
    ),
    "a name twice": (Clash(), "names of parts that both players have, and losses and parts that are no single number"),
    "global randomness": (Careless(), "the same draw, another loss; PyTorch's own random numbers used"),
    "other every time": (Noisy(), "the same draw, another loss; PyTorch's own random numbers used"),
    "no step": (Idle(), "critic steps before steps 0 to 1000 that are no whole number of at least 1"),
    "first images count less": (Ordered(), "the critic's loss of a batch given in another order"),
    "generator flees": (Paired(), "then the generator is sent towards the data: 1 says yes"),
    "sign of D": (Against(), "then the generator is sent towards the data: 1 says yes"),
    "a set that undoes the steps": (Rising(), "the critic's loss has fallen after 60 steps: 1 says yes"),
}


@pytest.mark.parametrize(("objective", "name"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found_by_its_case(objective, name):
    assert name in [case.name for case in owed(objective) if not case.holds]


EIGENVALUES = {  # Mescheder et al. 2018, by hand: f'(0) is 1/2 for a logistic loss and 1 for a linear one
    "minimax": (Minimax(), (0.5j, -0.5j)),
    "non-saturating": (NonSaturating(), (0.5j, -0.5j)),
    "wasserstein": (Wasserstein(clip=1, steps=1, long_until=0, long_every=0), (1j, -1j)),
    "hinge": (Hinge(), (1j, -1j)),
    "relativistic": (Relativistic(), (0.5j, -0.5j)),
    "r1": (Regularised(NonSaturating(), r1=0.6), (-0.3 + 0.4j, -0.3 - 0.4j)),
    "much r1": (Regularised(NonSaturating(), r1=1.25), (-1, -0.25)),
    "r1 and r2": (Regularised(Hinge(), r1=0.6, r2=0.6), (-0.6 + 0.8j, -0.6 - 0.8j)),
}


@pytest.mark.parametrize(("objective", "theory"), EIGENVALUES.values(), ids=EIGENVALUES)
def test_the_dirac_report_has_the_games_eigenvalues(objective, theory):
    report = dirac_report(objective, steps=200)
    found = sorted(report.eigenvalues, key=lambda v: (v.real, v.imag))
    for one, two in zip(found, sorted(map(complex, theory), key=lambda v: (v.real, v.imag))):
        assert abs(one - two) < 1e-5
    assert report.converges == (theory[0].real < 0)
    assert ("it converges" if report.converges else "it does not converge") in report.in_words()
    assert (report.distance < 0.02) == report.converges


def test_the_dirac_report_of_a_game_that_is_not_smooth():
    """The penalty of WGAN-GP has a kink at the equilibrium itself."""
    report = dirac_report(WassersteinGP(weight=1, steps=1), steps=200)
    assert report.eigenvalues is None
    assert not report.converges
    assert "not smooth" in report.in_words()
    assert report.distance > 0.1


@pytest.mark.parametrize("law", [wasserstein.Line((2.0,), 1.0), wasserstein.Line((1.0, 4.0), 0.5**0.5)], ids=str)
def test_the_best_gap_on_a_line_is_that_of_simulated_pairs(law):
    """W1 + ∫ F² / 2λρ with F and ρ counted from a million pairs instead of computed."""
    rng, n, width = np.random.default_rng(0), 1_000_000, 0.05
    x = rng.normal(size=n)
    y = rng.choice(law.centres, n) + law.std * rng.normal(size=n)
    edges = np.arange(-8, 10 + width, width)
    rho = np.histogram(x + rng.uniform(size=n) * (y - x), edges)[0] / n / width
    counts = np.histogram(x, edges)[0] - np.histogram(y, edges)[0]
    f = np.abs(np.cumsum(counts) - counts / 2) / n
    seen = rho > 0
    distance, best = law.best(10.0)
    assert distance == pytest.approx(np.abs(np.sort(x) - np.sort(y)).mean(), rel=5e-3)
    assert best == pytest.approx((f[seen] + f[seen] ** 2 / 20 / rho[seen]).sum() * width, rel=5e-3)


def test_the_suite_leaves_the_global_random_numbers_alone():
    before = torch.get_rng_state()
    for group in (loop.resumed, penalties.derivatives, optima.gaussians):
        list(group())
    assert torch.equal(before, torch.get_rng_state())
