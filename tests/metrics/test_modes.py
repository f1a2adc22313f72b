"""Mode scores: exact values, and a loop over samples with SciPy's entropy as the oracle."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from triptych.check import InputError
from triptych.metrics.modes import coverage, divergence, stacked

CENTRES = torch.tensor([[x, y] for x in (0.0, 1.0, 2.0) for y in (0.0, 1.0)])


def test_samples_at_the_centres_are_perfect():
    scores = coverage(CENTRES.repeat(7, 1), CENTRES, std=0.1)
    assert (scores.modes, scores.high_quality) == (6, 1.0)
    assert scores.kl == pytest.approx(0, abs=1e-15)


def test_one_mode_is_log_k_away_from_even():
    scores = coverage(CENTRES[:1].repeat(9, 1), CENTRES, std=0.1)
    assert scores.modes == 1
    assert scores.kl == pytest.approx(math.log(6))


def test_half_the_modes_are_log_two_away_from_even():
    assert coverage(CENTRES[:3], CENTRES, std=0.1).kl == pytest.approx(math.log(2))


def test_a_sample_counts_within_three_standard_deviations_and_no_further():
    step = torch.tensor([[0.0, 1.0]])
    near, far = CENTRES[5:] + 0.2999 * step, CENTRES[5:] + 0.3001 * step
    assert coverage(torch.cat([near, far, far, far]), CENTRES, std=0.1).high_quality == 0.25
    assert coverage(far, CENTRES, std=0.1).modes == 0
    assert coverage(far, CENTRES, std=0.1, within=3.01).modes == 1


def test_where_nothing_counts_there_is_no_divergence():
    scores = coverage(CENTRES + 50, CENTRES, std=0.1)
    assert (scores.modes, scores.high_quality, scores.kl) == (0, 0.0, None)


@pytest.mark.parametrize(("seed", "modes"), [(0, 10), (1, 10), (2, 10)])
def test_coverage_is_that_of_a_loop(seed, modes):
    rng = np.random.default_rng(seed)
    samples, centres, std = rng.normal(size=(300, 3)), rng.normal(size=(11, 3)), 0.2
    counts = np.zeros(11)
    for sample in samples:
        lengths = [math.dist(sample, centre) for centre in centres]
        if min(lengths) <= 3 * std:
            counts[int(np.argmin(lengths))] += 1
    scores = coverage(torch.from_numpy(samples), torch.from_numpy(centres), std)
    assert scores.modes == int((counts > 0).sum()) == modes
    assert scores.high_quality == pytest.approx(counts.sum() / 300)
    assert scores.kl == pytest.approx(entropy(counts / counts.sum(), np.full(11, 1 / 11)))


def test_a_fair_sample_of_a_gaussian_is_within_three_standard_deviations_as_often_as_chi_square_says():
    noise = torch.randn(40_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share, n = 1 - math.exp(-4.5), 40_000
    measured = coverage(0.1 * noise, torch.zeros(1, 2), std=0.1).high_quality
    assert abs(measured - share) < 4 * math.sqrt(share * (1 - share) / n)


def test_every_combination_once_is_all_modes_evenly():
    classes = torch.cartesian_prod(*[torch.arange(10)] * 3)
    scores = stacked(classes)
    assert scores.modes == 1000
    assert scores.kl == pytest.approx(0, abs=1e-14)
    assert stacked(classes[:100]).kl == pytest.approx(math.log(10))


@pytest.mark.parametrize(("n", "channels", "each"), [(50, 3, 10), (4000, 3, 10), (200, 2, 4), (30, 4, 3)])
def test_stacked_is_that_of_unique_rows(n, channels, each):
    classes = np.random.default_rng(n).integers(0, each, (n, channels))
    rows, counts = np.unique(classes, axis=0, return_counts=True)
    scores = stacked(torch.from_numpy(classes), each)
    assert scores.modes == len(rows)
    shares = np.concatenate([counts, np.zeros(each**channels - len(rows))]) / n
    assert scores.kl == pytest.approx(entropy(shares, np.full(each**channels, each**-channels)))


def test_divergence_of_known_shares():
    assert divergence(torch.tensor([3, 1])) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert divergence(torch.tensor([0, 0])) is None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: coverage(torch.zeros(3), CENTRES, 0.1), "samples must be floats"),
        (lambda: coverage(torch.zeros(3, 2).long(), CENTRES, 0.1), "samples must be floats"),
        (lambda: coverage(torch.zeros(3, 3), CENTRES, 0.1), "3 dimensions, but centres of 2"),
        (lambda: coverage(torch.full((3, 2), math.nan), CENTRES, 0.1), "samples must be finite"),
        (lambda: coverage(torch.zeros(3, 2), CENTRES, 0.0), "std must be"),
        (lambda: coverage(torch.zeros(3, 2), CENTRES, 0.1, within=-1), "within must be"),
        (lambda: stacked(torch.zeros(3, 3)), "classes must be whole numbers"),
        (lambda: stacked(torch.zeros(0, 3).long()), "classes must be whole numbers"),
        (lambda: stacked(torch.full((3, 3), 10)), "from 0 to 9"),
        (lambda: stacked(torch.full((3, 3), -1)), "from 0 to 9"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
