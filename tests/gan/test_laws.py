"""The laws of points: exact moments, scikit-learn's swiss roll, and points that are functions of (seed, index)."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2, chisquare, ks_2samp, kstest
from sklearn.datasets import make_swiss_roll

from triptych.check import InputError
from triptych.engine import Engine
from triptych.gan.draw import Draw
from triptych.gan.game import Batch
from triptych.gan.laws import BLOCK, Mixture, SwissRoll, batches, blurred, grid, ring

LAWS = [ring(), ring(count=5, radius=1, std=0.01, divisor=1), grid(), grid(side=3, divisor=1), SwissRoll()]
MIXTURES = [law for law in LAWS if isinstance(law, Mixture)]
POINTS, LEAST_P = 20_000, 1e-4  # at a fixed seed: either always below or never


@pytest.mark.parametrize("law", MIXTURES, ids=lambda law: f"{len(law.centres)} at {law.std:.3f}")
def test_a_mixture_has_its_centres_evenly_and_its_spread(law):
    x = law.sample(Draw(0, 0, 0, POINTS), torch.empty(0, dtype=torch.float64)).numpy()
    centres = np.array(law.centres)
    squared = ((x[:, None] - centres) ** 2).sum(2)
    nearest = squared.argmin(1)
    assert chisquare(np.bincount(nearest, minlength=len(centres))).pvalue > LEAST_P
    assert kstest(squared.min(1) / law.std**2, chi2(2).cdf).pvalue > LEAST_P
    noise = (x - centres[nearest]) / law.std
    assert abs((noise[:, 0] * noise[:, 1]).mean()) < 4 / math.sqrt(POINTS)


def test_the_numbers_are_those_of_the_papers():
    assert {round(math.hypot(*centre), 12) for centre in ring().centres} == {round(2 / 1.414, 12)}
    assert ring().std == pytest.approx(0.02 / 1.414)
    assert sorted({round(x * 2.828, 9) for x, _ in grid().centres}) == [-4, -2, 0, 2, 4]
    assert len(set(grid().centres)) == 25
    assert grid().std == pytest.approx(0.05 / 2.828)
    assert sorted({x for x, _ in grid(divisor=1).centres}) == [-4, -2, 0, 2, 4]


def test_the_swiss_roll_is_that_of_scikit_learn():
    ours = SwissRoll().sample(Draw(1, 0, 0, POINTS)).numpy()
    theirs = make_swiss_roll(POINTS, noise=0.25, random_state=0)[0][:, [0, 2]] / 7.5
    for direction in ((1, 0), (0, 1), (0.6, 0.8), (0.8, -0.6)):
        assert ks_2samp(ours @ direction, theirs @ direction).pvalue > LEAST_P
    assert ks_2samp(np.hypot(*ours.T), np.hypot(*theirs.T)).pvalue > LEAST_P


@pytest.mark.parametrize("law", LAWS, ids=lambda law: repr(law)[-20:])
def test_a_point_is_a_function_of_seed_and_index(law):
    source = batches(law)
    whole = source(3, 10, 50).images
    assert torch.equal(whole[20:35], source(3, 30, 15).images)
    assert not torch.equal(whole, source(4, 10, 50).images)
    assert len(whole.unique(dim=0)) == 50
    assert whole.shape == (50, 2)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: repr(law)[-20:])
def test_points_are_drawn_in_blocks_that_leave_no_seam(law):
    expected = law.sample(Draw(2, 0, BLOCK - 3, 6, "points/"))
    assert torch.equal(batches(law)(2, BLOCK - 3, 6).images, expected)
    assert torch.equal(batches(law)(2, BLOCK - 2, 2 * BLOCK + 4).images[:5], expected[1:])
    assert len(batches(law)(2, 2 * BLOCK, BLOCK).images) == BLOCK


@pytest.mark.parametrize("law", LAWS, ids=lambda law: repr(law)[-20:])
def test_points_have_the_type_of_the_engine(law):
    double = batches(law, Engine(precision="float64"))(0, 0, 9).images
    single = batches(law)(0, 0, 9).images
    assert (double.dtype, single.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(double.float(), single, rtol=1e-5, atol=1e-5)


def test_the_fixed_generator_adds_standard_normal_noise_to_the_points_beside_it():
    real = Batch(torch.full((POINTS, 2), 7.0, dtype=torch.float64))
    x = blurred(real, Draw(0, 5, 0, POINTS)).images - 7
    assert kstest(x[:, 0].numpy(), "norm").pvalue > LEAST_P
    assert kstest(x[:, 1].numpy(), "norm").pvalue > LEAST_P
    assert abs(float((x[:, 0] * x[:, 1]).mean())) < 4 / math.sqrt(POINTS)
    assert not torch.equal(x, blurred(real, Draw(0, 6, 0, POINTS)).images - 7)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Mixture((), 1.0), "centres must be"),
        (lambda: Mixture(((0.0,),), 1.0), "centres must be"),  # pyright: ignore[reportArgumentType]
        (lambda: ring(std=0), "std must be"),
        (lambda: ring(count=0), "count must be"),
        (lambda: ring(divisor=0), "divisor must be"),
        (lambda: grid(side=2.5), "side must be"),  # pyright: ignore[reportArgumentType]
        (lambda: grid(step=math.inf), "step must be"),
        (lambda: SwissRoll(noise=-1), "noise must be"),
        (lambda: SwissRoll(divisor=0), "divisor must be"),
    ],
)
def test_bad_numbers_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
