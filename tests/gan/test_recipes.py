"""The recipes against a table of the published numbers, written out here once more, and a step of each."""

import inspect
import math

import numpy as np
import pytest
import torch

from triptych.check import InputError
from triptych.engine import Engine
from triptych.gan import objectives
from triptych.gan.networks.bottleneck import Bottleneck
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.mlp import MLP
from triptych.gan.networks.resnet import ResNet
from triptych.gan.recipes import METHODS, RECIPES, ROWS, figure2
from triptych.gan.schedule import Constant
from triptych.gan.train import train
from triptych.images import Images

MNIST, CIFAR, LSUN = (1, 28, 28), (3, 32, 32), (3, 64, 64)
ADAM = {"kind": "adam", "eps": 1e-8, "fall": "constant", "weight_decay": 0.0}
RMSPROP = {"kind": "rmsprop", "fall": "constant", "weight_decay": 0.0}
GOODFELLOW_SGD = {
    "kind": "sgd", "lr": 0.1, "momentum": 0.5, "momentum_end": 0.7, "momentum_from": 50_000,
    "momentum_until": 12_500_000, "fall": "exponential", "factor": 1.000004, "floor": 1e-6,
}  # fmt: skip

# name, shape: batch, steps, size and law of z, what a byte becomes, optimiser, objective
PUBLISHED = {
    ("goodfellow", MNIST): (100, 125_000, 100, "uniform", "unit", GOODFELLOW_SGD, {"simultaneous": True, "halved": True}),
    ("dcgan", LSUN): (
        128, 4_882, 100, "uniform", "signed", {**ADAM, "lr": 2e-4, "beta1": 0.5, "beta2": 0.999, "weight_decay": 1e-5},
        {"steps": 1, "simultaneous": False, "halved": False},
    ),
    ("dcgan", MNIST): (
        128, 39_062, 100, "uniform", "unit",
        {**ADAM, "lr": 2e-4, "beta1": 0.5, "weight_decay": 2.5e-5, "fall": "late"}, {"halved": False},
    ),
    ("lsgan", LSUN): (
        64, 200_000, 128, "normal", "signed", {**RMSPROP, "lr": 1e-4, "alpha": 0.9},
        {"real": 1, "fake": 0, "generator": 1, "halved": True},
    ),
    ("wgan", LSUN): (
        64, 3_906, 100, "normal", "signed", {**RMSPROP, "lr": 5e-5, "alpha": 0.99, "eps": 1e-8},
        {"clip": 0.01, "steps": 5, "long_steps": 100, "long_until": 25, "long_every": 500, "clip_when": "before"},
    ),
    ("wgan-gp", MNIST): (
        50, 200_000, 128, "normal", "unit", {**ADAM, "lr": 1e-4, "beta1": 0.5, "beta2": 0.9}, {"weight": 10, "steps": 5},
    ),
    ("wgan-gp", CIFAR): (
        64, 200_000, 128, "normal", "signed", {**ADAM, "lr": 1e-4, "beta1": 0.5, "beta2": 0.9}, {"weight": 10, "steps": 5},
    ),
    ("wgan-gp", LSUN): (
        64, 200_000, 128, "normal", "signed", {**ADAM, "lr": 1e-4, "beta1": 0.0, "beta2": 0.9},
        {"weight": 10, "steps": 5, "target": 1, "one_sided": False, "drift": 0},
    ),
    ("wgan-gp-resnet", CIFAR): (
        64, 100_000, 128, "normal", "dequantised", {**ADAM, "lr": 2e-4, "beta1": 0.0, "beta2": 0.9, "fall": "linear"},
        {"weight": 10, "steps": 5},
    ),
}  # fmt: skip
OBJECTIVES = {
    "goodfellow": "NonSaturating", "dcgan": "NonSaturating", "lsgan": "LeastSquares", "wgan": "Wasserstein",
    "wgan-gp": "WassersteinGP", "wgan-gp-resnet": "WassersteinGP",
}  # fmt: skip
NETS = {
    ("goodfellow", MNIST): {
        "generator_widths": (1200, 1200), "critic_widths": (240, 240), "critic_activation": "maxout", "pieces": 5,
        "dropout_input": 0.2, "dropout_hidden": 0.5, "init": "uniform", "generator_scale": 0.05, "critic_scale": 0.005,
    },
    ("dcgan", LSUN): {
        "width": 128, "kernel": 5, "norm": "batch", "critic_norm": "batch", "bias": False, "init": "normal", "scale": 0.02,
    },
    ("dcgan", MNIST): {"width": 64, "kernel": 5, "critic_norm": "batch", "bias": False, "dense": 1024},
    ("lsgan", LSUN): {"width": 64, "kernel": 5, "norm": "batch", "critic_norm": "batch", "bias": True, "init": "uniform"},
    ("wgan", LSUN): {"width": 64, "kernel": 4, "norm": "batch", "critic_norm": "batch", "bias": False, "scale": 0.02},
    ("wgan-gp", MNIST): {"width": 64, "kernel": 5, "norm": "none", "critic_norm": "none", "init": "he"},
    ("wgan-gp", CIFAR): {"width": 128, "kernel": 5, "norm": "batch", "critic_norm": "none", "init": "he"},
    ("wgan-gp", LSUN): {"width": 64, "kernel": 5, "norm": "batch", "critic_norm": "layer", "init": "uniform"},
    ("wgan-gp-resnet", CIFAR): {"width": 128},
}  # fmt: skip


def has(thing, wanted):
    assert {name: getattr(thing, name) for name in wanted} == wanted


@pytest.mark.parametrize("key", PUBLISHED, ids=str)
def test_numbers_are_the_published_ones(key):
    name, shape = key
    batch, steps, size, law, scale, optimiser, objective = PUBLISHED[key]
    recipe = RECIPES[name](shape)
    assert (recipe.name, recipe.batch, recipe.rules.steps, recipe.scale) == (name, batch, steps, scale)
    assert (recipe.rules.latent.size, recipe.rules.latent.law) == (size, law)
    for mine in (recipe.rules.generator_optimiser, recipe.rules.critic_optimiser):
        has(mine, optimiser)
    assert type(recipe.objective).__name__ == OBJECTIVES[name]
    has(recipe.objective, objective)
    for nets in (recipe.generator, recipe.critic):
        has(nets, NETS[key])
    assert recipe.rules.generator_factor == (2 if name == "wgan-gp-resnet" else 1)
    assert recipe.rules.reuse_noise == (name == "goodfellow")
    assert recipe.rules.latent.half_width == pytest.approx(math.sqrt(3) if name == "goodfellow" else 1)


def parameters(recipe):
    return [sum(p.numel() for p in network.parameters()) for network in recipe.networks(0)]


def test_networks_have_the_published_parameters():
    """Weights counted by hand from the papers' layers; biases and norms where the codes have them."""
    maxout = 784 * 1200 + 1200 + 240 * 1200 + 1200 + 240 + 1
    assert parameters(RECIPES["goodfellow"](MNIST)) == [100 * 1200 + 1200 + 1200 * 1201 + 1200 * 784 + 784, maxout]
    convolutions = 25 * 128**2 * (8 * 4 + 4 * 2 + 2 * 1)
    norms = 2 * 128 * (4 + 2 + 1)
    assert parameters(RECIPES["dcgan"](LSUN)) == [
        100 * 1024 * 16 + convolutions + 25 * 128 * 3 + norms + 2 * 1024,
        25 * 128 * 3 + convolutions + 1024 * 16 + norms - 2 * 128 + 2 * 1024,
    ]
    four = 16 * 64**2 * (8 * 4 + 4 * 2 + 2 * 1) + 16 * 64 * 3
    assert parameters(RECIPES["wgan"](LSUN)) == [
        100 * 512 * 16 + four + 2 * 64 * 15,
        four + 512 * 16 + 2 * 64 * 14,
    ]
    mnist = 25 * 64**2 * (4 * 2 + 2 * 1) + 25 * 64
    assert parameters(RECIPES["wgan-gp"](MNIST)) == [
        129 * 16 * 256 + mnist + 128 + 64 + 1,
        mnist + 64 + 128 + 256 + 16 * 256 + 1,
    ]


def test_conditional_forms():
    """Joined to the input everywhere but in the ResNets, which have a classifier of weights 1 and 0.1."""
    for name, preset in RECIPES.items():
        recipe = preset(CIFAR, 10)
        assert recipe.classes == 10
        assert recipe.labels == ("auxiliary" if name == "wgan-gp-resnet" else "concatenate")
    auxiliary = RECIPES["wgan-gp-resnet"](CIFAR, 10).objective
    assert isinstance(auxiliary, objectives.Auxiliary)
    assert (auxiliary.critic_weight, auxiliary.generator_weight) == (1.0, 0.1)
    assert auxiliary.objective == objectives.WassersteinGP(weight=10.0, steps=5)


def test_epochs_follow_the_number_of_images():
    """Goodfellow's 250 epochs of batches of 100, and his momentum's end; DCGAN's 25 at half a batch of 128 a player."""
    recipe = RECIPES["goodfellow"](MNIST, images=1_000)
    assert recipe.rules.steps == 2_500
    optimiser = recipe.rules.critic_optimiser
    assert optimiser.momentum_at(1_000) == 0.5
    assert optimiser.momentum_at(250_000) == pytest.approx(0.7)
    assert optimiser.rate(1_000, 0) == pytest.approx(0.1 * math.exp(-1_000 * math.log(1.000004)))
    assert RECIPES["dcgan"](LSUN, images=350_000).rules.steps == 350_000 * 25 // 256
    assert RECIPES["wgan-gp"](LSUN, images=7).rules.steps == 200_000
    assert RECIPES["dcgan"](LSUN, images=3).rules.steps == 1


@pytest.mark.parametrize("name", RECIPES)
def test_width_scales_both_networks(name):
    small, large = (RECIPES[name](CIFAR, width=width) for width in (8, 16))
    for a, b in zip(parameters(small), parameters(large)):
        assert 1.3 * a < b
    for width in (0, -3, 1.5):
        with pytest.raises(InputError, match="width must be a whole number"):
            RECIPES[name](CIFAR, width=width)


@pytest.mark.parametrize("name", RECIPES)
def test_the_first_sentence_describes_it(name):
    """It is what a list of recipes shows: one line, and the docstring names the source."""
    first, *rest = inspect.getdoc(RECIPES[name]).splitlines()
    assert first.endswith(".")
    assert 30 < len(first) < 100
    assert any(year in " ".join(rest) for year in ("2014", "2016", "2017"))
    assert list(inspect.signature(RECIPES[name]).parameters) == ["shape", "classes", "width", "images"]


def digits(shape, classes, n=12):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    return Images.from_arrays(pixels, np.arange(n) % classes if classes else None, channels="first")


def stepped(recipe):
    """The players after a step that is not one of WGAN's long ones, and what it logs."""
    engine = Engine()
    players = recipe.players(0, engine)
    players.step = 30
    batches = recipe.batches(digits(recipe.shape, recipe.classes), engine)
    progress = next(
        train(players, recipe.objective, batches, seed=0, rules=recipe.rules, schedule=Constant(recipe.batch))
    )
    return players, progress.numbers()


@pytest.mark.parametrize(("shape", "classes"), [((1, 16, 16), 3), ((3, 32, 32), 0)], ids=["labelled", "unlabelled"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_step_of_each_reaches_all_weights(name, shape, classes):
    """Every weight gets a gradient, nothing is NaN, and all that a run logs is finite."""
    recipe = RECIPES[name](shape, classes, width=40 if name == "goodfellow" else 5).changed(batch=4)
    players, parts = stepped(recipe)
    assert {"critic_loss", "generator_loss"} <= parts.keys()
    assert all(math.isfinite(value) for value in parts.values())
    assert ("class_loss" in " ".join(parts)) == (name == "wgan-gp-resnet" and classes > 0)
    for network in (players.generator, players.critic):
        for where, parameter in network.named_parameters():
            assert torch.isfinite(parameter).all(), where
            if parameter.dim() > 1:
                assert parameter.grad is not None, where
                assert parameter.grad.any(), where
    assert players.critic_updates == {"wgan": 5, "wgan-gp": 5, "wgan-gp-resnet": 5}.get(name, 1)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_each_pair_of_figure_2(row, method):
    recipe = figure2(row, method, (3, 8, 8), width=4).changed(batch=2)
    if row == 7:
        shallow = Bottleneck(4, 1, 1, critic_norm=recipe.critic.critic_norm)
        recipe = recipe.changed(generator=shallow, critic=shallow)
    _, parts = stepped(recipe)
    assert all(math.isfinite(value) for value in parts.values())


def test_figure_2_is_the_codes():
    """Optimisers, critic steps and norms by method; networks by row."""
    wanted = {
        "wgan-gp": (5, {"kind": "adam", "lr": 1e-4, "beta1": 0.0, "beta2": 0.9}, "layer"),
        "wgan": (5, {"kind": "rmsprop", "lr": 5e-5, "alpha": 0.9}, "batch"),
        "dcgan": (1, {"kind": "adam", "lr": 2e-4, "beta1": 0.5, "beta2": 0.999}, "batch"),
        "lsgan": (1, {"kind": "rmsprop", "lr": 1e-4, "alpha": 0.9}, "batch"),
    }
    for method, (steps, optimiser, norm) in wanted.items():
        recipe = figure2(1, method)
        assert [recipe.objective.critic_steps(step) for step in (0, 30, 500)] == [steps] * 3
        has(recipe.rules.critic_optimiser, {k: v for k, v in optimiser.items() if k != "kind"})
        assert recipe.rules.critic_optimiser.kind == optimiser["kind"]
        assert (recipe.batch, recipe.rules.steps, recipe.rules.latent.size) == (64, 200_000, 128)
        for row in (1, 2, 3, 5, 6, 7):
            assert figure2(row, method).critic.critic_norm == norm
        assert figure2(4, method).critic.critic_norm == figure2(4, method).generator.norm == "none"
    generators = {row: figure2(row, "wgan").generator for row in ROWS}
    kinds = [type(generators[row]) for row in sorted(ROWS)]
    assert kinds == [DCGAN, DCGAN, MLP, DCGAN, DCGAN, DCGAN, Bottleneck]
    assert generators[3].generator_widths == (512, 512, 512, 512)
    assert (generators[2].constant, generators[2].norm, generators[2].activation) == (True, "none", "relu")
    assert [generators[row].activation for row in (1, 5, 6)] == ["relu", "gated", "tanh"]
    assert [figure2(row, "wgan").critic.activation for row in (1, 2, 3, 5, 6)] == ["relu"] * 3 + ["gated", "tanh"]
    assert generators[7] == Bottleneck(64, outer=5, inner=6, critic_norm="batch")
    baseline = torch.cat([p.flatten() for p in figure2(1, "wgan").networks(0)[1].layers.parameters()]).detach()
    assert baseline.abs().max() == pytest.approx(0.02 * math.sqrt(3), rel=1e-4)  # uniform, of deviation 0.02


@pytest.mark.parametrize(
    ("row", "method", "says"),
    [(0, "wgan", "row must be"), (8, "wgan", "row must be"), (1, "wgan_gp", "did you mean wgan-gp")],
)
def test_figure_2_refuses_what_it_does_not_have(row, method, says):
    with pytest.raises(InputError, match=says):
        figure2(row, method)


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "goodfellow"])
def test_points_and_tiny_images_are_refused_with_a_sentence(name):
    for shape in ((2,), (1, 4, 4)):
        with pytest.raises(InputError, match=r"points take an MLP|at least 8|halve"):
            RECIPES[name](shape).networks(0)


def test_resnets_are_resnets():
    recipe = RECIPES["wgan-gp-resnet"](CIFAR)
    assert recipe.generator == recipe.critic == ResNet(128)
