"""Cases in which a metric's value is known."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from triptych.check import Case
from triptych.images import Images
from triptych.metrics.features import Moments
from triptych.metrics.frechet import frechet_distance
from triptych.metrics.kernel_distance import squared_mmd
from triptych.metrics.ms_ssim import WEIGHTS, ms_ssim
from triptych.metrics.parzen import log_likelihoods, parzen
from triptych.metrics.sliced_wasserstein import sliced_wasserstein

THEIS = 243.0  # nats: true MNIST images as samples, Theis et al., ICLR 2016, Table 1


def parzen_cases(n: int = 4000, sigma: float = 0.3) -> Iterator[Case]:
    """One sample, a normal density in ten dimensions; n from N(0, I) in the plane, N(0, (1 + sigma²) I) blurred."""
    rng = torch.Generator().manual_seed(0)
    x, s = (torch.randn(1, 10, dtype=torch.float64, generator=rng) for _ in range(2))
    theory = -((x - s).square().sum().item() / (2 * sigma**2) + 5 * math.log(2 * math.pi * sigma**2))
    why = "float64 rounding, 1e-16 of squares of about 200"
    yield Case("Parzen: one sample, the normal density", theory, log_likelihoods(s, x, sigma).item(), 1e-12, why)
    samples, test = (torch.randn(n, 2, dtype=torch.float64, generator=rng) for _ in range(2))
    s = sigma**2
    blurred = -math.log(2 * math.pi * (1 + s)) - test.square().sum(1).mean().item() / (2 * (1 + s))
    bias, spread = expected_bias(n, s), s / (1 + s) / n**0.5
    why = f"4 standard deviations over samples, each {spread:.4f}, and as much as the bias, {bias:.4f} to second order"
    measured = log_likelihoods(samples, test, sigma).mean().item()
    name = f"Parzen: {n} samples of N(0, I) in the plane, sigma {sigma:g}: N(0, (1 + sigma²) I)"
    yield Case(name, blurred + bias, measured, 4 * spread + abs(bias), why)


def expected_bias(n: int, s: float) -> float:
    """What E log p̂ is below log p for n samples of N(0, I) in the plane, s = sigma²: -Var(p̂) / 2p², averaged over N(0, I)."""
    c = 1 + 1 / (1 + s / 2) - 2 / (1 + s)
    return -((1 + s) ** 2 / ((1 + s / 2) * c * 2 * s) - 1) / (2 * n)


def score_cases() -> Iterator[Case]:
    """Scores of samples, of moments and of images for which they are known."""
    yield from frechet_cases()
    yield from kernel_cases()
    yield from sliced_cases()
    yield from similarity_cases()


def frechet_cases(d: int = 6) -> Iterator[Case]:
    """Gaussians whose covariances share their axes: ‖μ - ν‖² + Σ (σ_i - τ_i)²."""
    rng = torch.Generator().manual_seed(0)
    mean, s, t = (torch.randn(d, dtype=torch.float64, generator=rng) for _ in range(3))
    axes = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=rng)).Q
    n = 10**6
    a, b = (Moments(n, m, axes * x**2 @ axes.T * (n - 1)) for m, x in ((0 * mean, s), (mean, t)))
    theory = (mean.square().sum() + (s.abs() - t.abs()).square().sum()).item()
    yield Case(
        "Fréchet distance of two Gaussians with common axes", theory, frechet_distance(a, b), 1e-10, "float64 rounding"
    )


def kernel_cases(n: int = 50, trials: int = 200) -> Iterator[Case]:
    """MMD² of samples of one law, which is 0 on average: the estimate is unbiased."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(trials, 2, n, 4, dtype=torch.float64, generator=rng)
    found = torch.tensor([squared_mmd(a, b) for a, b in x], dtype=torch.float64)
    error = (found.std() / trials**0.5).item()
    why = f"4 standard errors over {trials} pairs of {n} samples"
    yield Case("Kernel distance of samples of one law, on average", 0.0, found.mean().item(), 4 * error, why)


def sliced_cases(n: int = 1000, d: int = 147, directions: int = 512) -> Iterator[Case]:
    """Points and the same points moved by m: every projection moves by m · θ, on average ‖m‖ Γ(d/2) / (√π Γ((d+1)/2))."""
    rng = torch.Generator().manual_seed(0)
    x, m = (torch.randn(k, d, dtype=torch.float64, generator=rng) for k in (n, 1))
    share = math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)
    spread = math.sqrt((1 / d - share**2) / directions)
    measured = sliced_wasserstein(x, x + m, directions, 1, rng) / m.norm().item()
    why = f"4 standard deviations over {directions} directions, each {spread:.4f}"
    yield Case(f"Sliced Wasserstein: points of {d} dimensions moved by 1", share, measured, 4 * spread, why)


def similarity_cases(low: float = 60.0, high: float = 200.0) -> Iterator[Case]:
    """Two even images: contrast and structure are 1 at all scales, and the luminance of the last is all there is."""
    a, b = (torch.full((1, 1, 64, 64), value, dtype=torch.float64) for value in (low, high))
    c = (0.01 * 255) ** 2
    theory = ((2 * low * high + c) / (low**2 + high**2 + c)) ** WEIGHTS[-1]
    measured = ms_ssim(a, b, data_range=255, small="shrink").item()
    why = "float64 rounding, 1e-16 of squares of 40,000 against a constant of 58"
    yield Case(f"MS-SSIM: even images of {low:g} and {high:g}, five scales", theory, measured, 1e-12, why)


def mnist_cases(train: Images, test: Images) -> Iterator[Case]:
    """MNIST's own images score as Theis et al. found, and below k-means centroids: the score ranks no models.

    It takes about half a minute.
    """
    x, unseen = train.floats().flatten(1), test.floats().flatten(1)
    validation = x[50_000:51_000]
    true = parzen(x[:10_000], unseen, validation=validation)
    why = "twice 1.7, the standard deviation between five samples of 10,000 images on the same test images"
    yield Case("Parzen: 10,000 images of MNIST on its test images, nats", THEIS, true.mean, 3.4, why)
    centres = parzen(centroids(x[:50_000]), unseen, validation=validation)
    name = f"Parzen: 1,000 k-means centroids, {centres.mean:.1f}, above the data, {true.mean:.1f}: 1 says yes"
    yield Case(name, 1.0, float(centres.mean > true.mean), 0.0, "a comparison")


def centroids(x: Tensor, k: int = 1000) -> Tensor:
    """k-means centroids (k, d) of points (n, d), ten rounds from random points."""
    from sklearn.cluster import KMeans

    found = KMeans(k, init="random", n_init=1, max_iter=10, random_state=0, tol=0).fit(x.numpy())  # pyright: ignore[reportArgumentType]
    return torch.from_numpy(found.cluster_centers_)
