"""Optimisers: first steps worked out by hand, and how rates and momentum change."""

import math

import pytest
import torch
from torch import nn

from triptych.check import InputError
from triptych.gan.optimiser import FALLS, KINDS, Optimiser

GRADIENTS = [2.0, -0.5, 3.0]


def walked(chosen: Optimiser, gradients: list[float] = GRADIENTS) -> list[float]:
    """Where one parameter that starts at 1 is after each step along these gradients."""
    parameter = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimiser = chosen.build([parameter])
    places = []
    for step, gradient in enumerate(gradients):
        chosen.set(optimiser, step, len(gradients), seen=10 * step)
        parameter.grad = torch.full((1,), gradient, dtype=torch.float64)
        optimiser.step()
        places.append(float(parameter.detach()))
    return places


def adam(lr: float, beta1: float, beta2: float, eps: float, decay: float) -> list[float]:
    x, m, v, places = 1.0, 0.0, 0.0, []
    for t, g in enumerate(GRADIENTS, 1):
        g = g + decay * x
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        x -= lr * m / (1 - beta1**t) / (math.sqrt(v / (1 - beta2**t)) + eps)
        places.append(x)
    return places


@pytest.mark.parametrize(
    ("beta1", "beta2", "eps", "decay"), [(0.5, 0.999, 1e-8, 0.0), (0, 0.9, 1e-8, 0.0), (0.9, 0.99, 0.1, 0.3)]
)
def test_adam_walks_as_kingma_and_ba_say(beta1, beta2, eps, decay):
    chosen = Optimiser("adam", 0.1, beta1, beta2, eps, weight_decay=decay)
    assert walked(chosen) == pytest.approx(adam(0.1, beta1, beta2, eps, decay), rel=1e-12)


def test_rmsprop_walks_as_its_formula_says():
    x, v, places = 1.0, 0.0, []
    for g in GRADIENTS:
        v = 0.9 * v + 0.1 * g * g
        x -= 0.05 * g / (math.sqrt(v) + 1e-3)
        places.append(x)
    assert walked(Optimiser("rmsprop", 0.05, eps=1e-3, alpha=0.9)) == pytest.approx(places, rel=1e-12)


def test_sgd_walks_with_the_momentum_of_the_moment():
    chosen = Optimiser("sgd", 0.1, momentum=0.2, momentum_end=0.8, momentum_from=0, momentum_until=20)
    x, v, places = 1.0, 0.0, []
    for g, momentum in zip(GRADIENTS, (0.2, 0.5, 0.8), strict=True):  # at 0, 10 and 20 images
        v = momentum * v + g
        x -= 0.1 * v
        places.append(x)
    assert walked(chosen) == pytest.approx(places, rel=1e-12)


def test_the_momentum_rises_between_its_two_moments_and_stays():
    chosen = Optimiser("sgd", momentum=0.5, momentum_end=0.7, momentum_from=100, momentum_until=300)
    assert [chosen.momentum_at(seen) for seen in (0, 100, 200, 300, 999)] == pytest.approx([0.5, 0.5, 0.6, 0.7, 0.7])
    assert Optimiser("sgd", momentum=0.5).momentum_at(10**9) == 0.5


@pytest.mark.parametrize(
    ("fall", "expected"),
    [
        ("constant", [8, 8, 8, 8, 8, 8]),
        ("linear", [8, 6, 4, 2, 0, 0]),
        ("late", [8, 8, 8, 4, 0, 0]),
        ("exponential", [8, 2, 0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_the_rate_falls_as_its_word_says(fall, expected):
    factor = 4**0.01 if fall == "exponential" else 1.0  # a quarter after 100 steps
    chosen = Optimiser(lr=8.0, fall=fall, factor=factor, floor=0.5)
    assert [chosen.rate(step, 400) for step in (0, 100, 200, 300, 400, 500)] == pytest.approx(expected)
    assert set(FALLS) == {"constant", "linear", "late", "exponential"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_scale_multiplies_the_rate(kind):
    parameter = nn.Parameter(torch.ones(1))
    chosen = Optimiser(kind, 0.4, fall="linear", momentum=0.3)
    optimiser = chosen.build([parameter])
    chosen.set(optimiser, 5, 10, 0, scale=0.25)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.05)
    assert optimiser.param_groups[0].get("momentum") == {"sgd": 0.3, "rmsprop": 0}.get(kind)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"kind": "adamw"}, "kind must be one of adam, rmsprop, sgd"),
        ({"fall": "cosine"}, "fall must be one of"),
        ({"lr": 0}, "lr must be"),
        ({"lr": math.nan}, "lr must be"),
        ({"beta1": 1.0}, "beta1 must be at least 0 and below 1"),
        ({"beta2": -0.1}, "beta2 must be"),
        ({"momentum_end": 1.5}, "momentum_end must be"),
        ({"factor": 0.9}, "factor must be"),
        ({"floor": -1}, "floor must be"),
        ({"weight_decay": -1e-3}, "weight_decay must be"),
        ({"momentum_from": 5, "momentum_until": 5}, "momentum_until must be"),
    ],
)
def test_bad_numbers_are_refused(numbers, words):
    with pytest.raises(InputError, match=words):
        Optimiser(**numbers)
