"""Draws: a plain Philox as the oracle, slices equal to the whole, and the laws of the numbers."""

import hashlib
import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest, norm

from triptych.check import InputError
from triptych.gan.draw import Draw, Latent

DOUBLE = torch.empty(0, dtype=torch.float64)
WORD = 2**64
LEAST_P = 1e-4  # at fixed seeds: either always below or never
SHAPES = [(), (1,), (3,), (4,), (2, 3), (3, 5, 5)]
KINDS = {
    "uniform": lambda draw, shape: draw.uniform("x", shape),
    "normal": lambda draw, shape: draw.normal("x", shape),
    "latent": lambda draw, shape: Latent(math.prod(shape)).sample(draw),
    "sphere": lambda draw, shape: Latent(math.prod(shape), "sphere").sample(draw),
    "whole_number": lambda draw, shape: draw.whole_number("x", 10 + len(shape)),
}


def philox(counter: int, key: int) -> list[int]:
    """Philox4x64-10, one block of four words (Salmon et al., SC 2011, Section 3.3), in whole numbers."""
    x = [counter >> (64 * word) & (WORD - 1) for word in range(4)]
    k = [key & (WORD - 1), key >> 64]
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * x[0], WORD)
        high1, low1 = divmod(0xCA5A826395121157 * x[2], WORD)
        x = [high1 ^ x[1] ^ k[0], low1, high0 ^ x[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) % WORD, (k[1] + 0xBB67AE8584CAA73B) % WORD]
    return x


def test_the_numbers_are_those_of_philox_under_the_hash_of_seed_step_and_name():
    key = int.from_bytes(hashlib.sha256(b"3 7 critic 2/alpha").digest()[:16], "little")
    draw = Draw(3, 7, first=5, count=2).named("critic 2")
    uniform, normal = draw.uniform("alpha", (6,), DOUBLE), draw.normal("alpha", (6,), DOUBLE)
    for row, image in enumerate((5, 6)):
        words = (philox(2 * image + 1, key) + philox(2 * image + 2, key))[:6]  # two blocks hold six numbers
        assert uniform[row].tolist() == [(word >> 11) / 2**53 for word in words]
        assert normal[row].tolist() == pytest.approx(
            [norm.ppf(((word >> 12) + 0.5) / 2**52) for word in words], rel=1e-9
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_slice_has_the_numbers_of_the_whole(kind, shape):
    make = KINDS[kind]
    whole = make(Draw(1, 2, 0, 12), shape)
    assert len(whole) == 12
    for first, count in ((0, 1), (3, 4), (7, 5)):
        assert torch.equal(make(Draw(1, 2, first, count), shape), whole[first : first + count])
        assert torch.equal(make(Draw(1, 2, 0, 12).part(first, count), shape), whole[first : first + count])
    part = Draw(1, 2, 2, 10).named("a").part(3, 4)
    assert torch.equal(make(part, shape), make(Draw(1, 2, 0, 12).named("a"), shape)[5:9])


def test_other_seeds_steps_names_and_paths_have_other_numbers():
    draws = [
        Draw(0, 0, 0, 500).uniform("x", (3,)),
        Draw(1, 0, 0, 500).uniform("x", (3,)),
        Draw(0, 1, 0, 500).uniform("x", (3,)),
        Draw(10, 0, 0, 500).uniform("x", (3,)),
        Draw(0, 0, 0, 500).uniform("y", (3,)),
        Draw(0, 0, 0, 500).named("x").uniform("x", (3,)),
        Draw(0, 0, 0, 500).named("x").named("x").uniform("x", (3,)),
        Draw(0, 0, 500, 500).uniform("x", (3,)),
    ]
    every = torch.stack(draws).flatten(1).double()
    assert len(every.unique()) > 0.999 * every.numel()
    correlation = torch.corrcoef(every) - torch.eye(len(draws))
    assert float(correlation.abs().max()) < 4.5 / math.sqrt(1500)


def test_uniform_numbers_are_uniform_and_normal_ones_normal():
    draw = Draw(4, 0, 0, 10_000)
    uniform, normal = draw.uniform("u", (3,), DOUBLE), draw.normal("n", (3,), DOUBLE)
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) < 1
    assert kstest(uniform.flatten().numpy(), "uniform").pvalue > LEAST_P
    assert kstest(normal.flatten().numpy(), "norm").pvalue > LEAST_P
    for numbers in (uniform, normal):
        neighbours = torch.corrcoef(torch.stack([numbers.flatten()[1:], numbers.flatten()[:-1]]))[0, 1]
        assert abs(float(neighbours)) < 4 / math.sqrt(30_000)


def test_whole_numbers_are_even_over_their_range():
    numbers = Draw(4, 0, 0, 20_000).whole_number("label", 7)
    assert numbers.dtype == torch.int64
    assert sorted(numbers.unique().tolist()) == list(range(7))
    assert chisquare(np.bincount(numbers.numpy())).pvalue > LEAST_P


def test_numbers_have_the_type_that_is_asked_for():
    draw = Draw(0, 0, 0, 3)
    assert draw.normal("x").dtype == torch.float32
    assert draw.normal("x", (), DOUBLE).dtype == torch.float64
    assert draw.uniform("x", (2, 2), DOUBLE.to(torch.bfloat16)).dtype == torch.bfloat16
    torch.testing.assert_close(draw.normal("x", (5,), DOUBLE).float(), draw.normal("x", (5,)))


def test_the_latent_laws():
    draw = Draw(2, 0, 0, 5_000)
    uniform = Latent(4, "uniform", half_width=math.sqrt(3)).sample(draw, DOUBLE)
    assert kstest(uniform.flatten().numpy(), "uniform", (-math.sqrt(3), 2 * math.sqrt(3))).pvalue > LEAST_P
    assert float(uniform.var()) == pytest.approx(1, abs=0.03)
    normal = Latent(4).sample(draw, DOUBLE)
    assert kstest(normal.flatten().numpy(), "norm").pvalue > LEAST_P
    sphere = Latent(4, "sphere").sample(draw, DOUBLE)
    torch.testing.assert_close(sphere.norm(dim=1), torch.full((5_000,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(sphere * (normal.norm(dim=1) / 2)[:, None], normal)


def test_no_draw_touches_the_global_random_state():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    Latent(8).sample(Draw(0, 0, 0, 5))
    Draw(0, 0, 0, 5).whole_number("x", 9)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Draw(-1), "seed must be"),
        (lambda: Draw(0, 1.5), "step must be"),
        (lambda: Draw(0, 0, -1), "first must be"),
        (lambda: Draw(0, 0, 0, 0), "count must be"),
        (lambda: Draw(0, 0, 0, 5).part(-1, 2), "first must be"),
        (lambda: Draw(0).whole_number("x", 0), "below must be"),
        (lambda: Latent(0), "size must be"),
        (lambda: Latent(2, "gaussian"), "law must be one of normal, uniform, sphere"),
        (lambda: Latent(2, "uniform", 0.0), "half_width must be"),
    ],
)
def test_bad_numbers_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
