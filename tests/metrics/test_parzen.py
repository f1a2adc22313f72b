"""The Parzen log-likelihood: a loop with SciPy's normal density as the oracle, closed forms, and what it refuses."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from triptych.check import InputError
from triptych.metrics import parzen as module
from triptych.metrics.parzen import SIGMAS, choose_sigma, log_likelihoods, parzen
from triptych.metrics.truths import centroids, expected_bias, mnist_cases, parzen_cases


def normal(n, d, seed, dtype=torch.float64):
    return torch.randn(n, d, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (7, 5, 3), (40, 11, 2)])
def test_it_is_the_logarithm_of_a_mean_of_normal_densities(n, m, d):
    samples, points = normal(n, d, 0), normal(m, d, 1)
    theory = [
        math.log(np.mean([multivariate_normal.pdf(x, s, 0.49 * np.eye(d)) for s in samples.numpy()]))
        for x in points.numpy()
    ]
    found = log_likelihoods(samples, points, 0.7)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, theory, rtol=1e-12, atol=1e-12)


def test_far_points_do_not_underflow():
    """exp(-d² / 2) is 0 in float64 from d = 39 on; the logarithm is not."""
    found = log_likelihoods(torch.zeros(3, 1), torch.tensor([[1000.0]]), 1.0)
    assert found.item() == pytest.approx(norm.logpdf(1000.0), rel=1e-14)


@pytest.mark.parametrize("chunk", [1, 3, 10, 1000])
def test_chunks_change_nothing(chunk):
    samples, points = normal(20, 4, 0), normal(10, 4, 1)
    torch.testing.assert_close(
        log_likelihoods(samples, points, 0.5, chunk=chunk), log_likelihoods(samples, points, 0.5), rtol=1e-13, atol=0
    )


def test_it_is_computed_in_float64_whatever_is_given():
    """Pictures in [0, 1] far from 0: x² - 2xs + s² would lose half the digits of float32."""
    samples, points = (normal(n, 300, n, torch.float32) * 0.01 + 100 for n in (30, 20))
    theory = log_likelihoods(samples.double(), points.double(), 0.02)
    distances = (points.double()[:, None] - samples.double()).square().sum(2)
    plain = (-distances / (2 * 0.02**2)).logsumexp(1) - math.log(30) - 300 * math.log(0.02 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(log_likelihoods(samples, points, 0.02), theory, rtol=0, atol=0)
    torch.testing.assert_close(theory, plain, rtol=1e-9, atol=1e-6)


def test_moving_and_scaling_everything_is_known():
    """p(a x + b) = p(x) / |a|^d."""
    samples, points = normal(15, 3, 0), normal(6, 3, 1)
    theory = log_likelihoods(samples, points, 0.4) - 3 * math.log(5)
    torch.testing.assert_close(log_likelihoods(5 * samples + 7, 5 * points + 7, 2.0), theory, rtol=1e-12, atol=1e-12)


def test_the_width_is_the_validation_sets():
    samples, validation, test = normal(300, 2, 0), normal(200, 2, 1), normal(50, 2, 2) + 1
    means = [log_likelihoods(samples, validation, sigma).mean().item() for sigma in SIGMAS]
    best = SIGMAS[int(np.argmax(means))]
    assert SIGMAS[0] < best < SIGMAS[-1]  # else the grid, not the data, would choose
    assert choose_sigma(samples, validation) == best
    score = parzen(samples, test, validation=validation)
    found = log_likelihoods(samples, test, best).numpy()
    assert score.sigma == best
    assert score.mean == pytest.approx(found.mean(), rel=1e-12)
    assert score.standard_error == pytest.approx(found.std(ddof=1) / math.sqrt(50), rel=1e-12)


def test_the_grid_is_goodfellows():
    np.testing.assert_allclose(SIGMAS, np.logspace(-1, 0, 10), rtol=1e-12)


def test_distances_are_computed_once_for_all_widths(monkeypatch):
    calls, true = [], torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *a, **k: (calls.append(1), true(*a, **k))[1])
    choose_sigma(normal(30, 2, 0), normal(10, 2, 1))
    assert len(calls) == 1
    assert module.CHUNK >= 10


WRONG = {
    "a row": (lambda x: log_likelihoods(x[0], x, 1.0), "samples must be floats"),
    "whole numbers": (lambda x: log_likelihoods(x.long(), x, 1.0), "samples must be floats"),
    "no points": (lambda x: log_likelihoods(x, x[:0], 1.0), "points must be floats"),
    "a list": (lambda x: log_likelihoods([[0.0]], x, 1.0), "samples must be floats (n, d), got 'list'"),
    "NaN": (lambda x: log_likelihoods(x, x / 0 * 0, 1.0), "points must be finite numbers, but some are not"),
    "other dimensions": (lambda x: log_likelihoods(x, x[:, :1], 1.0), "samples are of 2 dimensions, but points of 1"),
    "sigma 0": (lambda x: log_likelihoods(x, x, 0.0), "sigma must be a finite number above 0"),
    "chunk 0": (lambda x: log_likelihoods(x, x, 1.0, chunk=0), "chunk must be"),
    "no widths": (lambda x: choose_sigma(x, x, ()), "sigmas must be at least one width"),
    "one test point": (lambda x: parzen(x, x[:1], validation=x), "test must be at least two points"),
}


@pytest.mark.parametrize(("call", "words"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_named(call, words):
    with pytest.raises(InputError) as caught:
        call(normal(4, 2, 0))
    assert words in str(caught.value)


def test_the_known_cases_hold_and_notice_a_wrong_constant(monkeypatch):
    assert all(case.holds for case in parzen_cases())
    true = module._log_likelihoods
    monkeypatch.setattr(module, "_log_likelihoods", lambda s, x, sigmas, chunk: true(s, x, sigmas, chunk) + 0.02)
    assert not any(case.holds for case in parzen_cases())


def test_the_bias_is_the_variance_of_the_estimate():
    """-Var(p̂) / 2p² at points x, averaged: by simulation of one kernel, where tails weigh little (a wide kernel)."""
    s = 1.0
    x, y = normal(4_000_000, 2, 5).split(2_000_000)
    kernel = torch.exp(-(x - y).square().sum(1) / (2 * s)) / (2 * math.pi * s)
    density = torch.exp(-x.square().sum(1) / (2 * (1 + s))) / (2 * math.pi * (1 + s))
    relative = (kernel / density).square().mean().item()
    assert expected_bias(100, s) == pytest.approx(-(relative - 1) / 200, rel=0.02)


def test_centroids_score_above_what_they_are_the_centroids_of():
    """Why the score ranks no models (Theis et al. 2016): 20 centroids above 400 points of N(0, I) in 50 dimensions."""
    data, test, validation = (normal(400, 50, seed) for seed in (1, 2, 3))
    true, middle = (parzen(samples, test, validation=validation) for samples in (data, centroids(data, 20)))
    assert middle.mean > true.mean + 5 * true.standard_error


def test_mnist_cases_are_computed_from_the_images_given(monkeypatch):
    """Noise instead of MNIST fails; what is passed on are the first 10,000 images, other ones and the test images."""
    from triptych.images import Images
    from triptych.metrics import truths

    asked = []

    def recorded(samples, test, *, validation):
        asked.append((len(samples), len(test), len(validation)))
        return module.ParzenScore(100.0 + len(asked), 1.0, 0.2)

    monkeypatch.setattr(truths, "parzen", recorded)
    monkeypatch.setattr(truths, "centroids", lambda x, k=1000: x[:k])
    images = Images(torch.zeros(60_000, 1, 2, 2, dtype=torch.uint8))
    true, above = mnist_cases(images, images.take(slice(0, 100)))
    assert asked == [(10_000, 100, 1000), (1000, 100, 1000)]
    assert not true.holds
    assert true.measured == 101.0
    assert true.theory == 243.0
    assert above.holds
