"""Multi-scale structural similarity: how alike two images are; over pairs of one set, how little the set varies."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from triptych.check import InputError, choice, real, whole, wrong
from triptych.images import Images
from triptych.metrics.features import as_pixels

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first
K1, K2 = 0.01, 0.03
SIZE, SIGMA = 11, 1.5
BLOCK = 1 << 20  # pixels of each side of the pairs at a time: 4 MB


@dataclass(frozen=True)
class Diversity:
    """The mean MS-SSIM of pairs of different images, its standard error over the pairs, how many there were, and of how many scales.

    The standard error is that of a choice of pairs from these images; what other images of the same law would give it leaves out.
    """

    mean: float
    standard_error: float
    pairs: int
    scales: int


def diversity(
    images: Tensor | Images, *, pairs: int = 10_000, seed: int = 0, labels: Tensor | None = None
) -> Diversity:
    """The mean MS-SSIM of random pairs of uint8 images (n, c, h, w): 1 where all are the same; less is more varied.

    Odena et al., ICML 2017, section 4.2; Karras et al., ICLR 2018, section 5. With ``labels`` (n,), whole numbers, both images of a
    pair are of one class, drawn first and evenly from those that have two images or more. Images of one pair have different
    indices; a pair may be drawn again.

    Windows shrink with the scale as in ``ms_ssim(small="shrink")``, data range 255. There are five scales for sides of 32 and more,
    else as many as leave the coarsest a side of 2, with weights of ``weights_of``. Raises InputError.
    """
    pixels = images.pixels if isinstance(images, Images) else images
    as_pixels(pixels[:1])
    scales = scales_of(*pixels.shape[2:])
    weights = weights_of(scales)
    rng = torch.Generator().manual_seed(whole("seed", seed, low=0))
    drawn = pairs_of(len(pixels), whole("pairs", pairs, low=2), rng, labels).to(pixels.device)
    found = []
    for part in drawn.split(max(1, BLOCK // pixels[0].numel())):
        a, b = (pixels[index].float() for index in part.unbind(1))
        found.append(ms_ssim(a, b, data_range=255, weights=weights, small="shrink"))
    values = torch.cat(found).double()
    return Diversity(float(values.mean()), float(values.std() / pairs**0.5), pairs, scales)


def pairs_of(n: int, pairs: int, rng: torch.Generator, labels: Tensor | None = None) -> Tensor:
    """Indices (pairs, 2) of different ones among n images, of one class where there are ``labels`` (n,). Raises InputError."""
    labels = torch.zeros(n, dtype=torch.int64) if labels is None else labels
    if not isinstance(labels, Tensor) or labels.shape != (n,) or labels.is_floating_point():
        found = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise wrong("labels", f"whole numbers ({n},), one for each image", found)
    order = labels.cpu().argsort(stable=True)
    counts = labels.cpu().unique(return_counts=True)[1]
    starts = counts.cumsum(0) - counts
    enough = (counts > 1).nonzero()[:, 0]
    if not len(enough):
        raise InputError(f"pairs need two images of one class at least, got {n:,} of {len(counts):,}; give more images")
    chosen = enough[torch.randint(len(enough), (pairs,), generator=rng)]
    first, step = torch.rand(2, pairs, dtype=torch.float64, generator=rng)
    i = (first * counts[chosen]).long()
    j = (i + 1 + (step * (counts[chosen] - 1)).long()) % counts[chosen]
    return order[starts[chosen, None] + torch.stack([i, j], 1)]


def scales_of(h: int, w: int) -> int:
    """How many scales images of h x w have: five, or as many as leave the coarsest a side of 2; at least one."""
    return max(1, min(len(WEIGHTS), min(h, w).bit_length() - 1))


def weights_of(scales: int) -> tuple[float, ...]:
    """The weights of so many scales: the five of Wang et al., or the first of them divided by their sum. Raises InputError."""
    first = WEIGHTS[: whole("scales", scales, high=len(WEIGHTS))]
    return first if scales == len(WEIGHTS) else tuple(weight / sum(first) for weight in first)


def ms_ssim(
    a: Tensor,
    b: Tensor,
    *,
    data_range: float,
    weights: Sequence[float] = WEIGHTS,
    size: int = SIZE,
    sigma: float = SIGMA,
    small: str = "error",
) -> Tensor:
    """MS-SSIM (n,) of float images (n, c, h, w) with those of the same index, with a scale for each weight, the finest first.

    Wang, Simoncelli & Bovik, Asilomar 2003, equation 7: the product of the scales' contrast and structure, and of the last scale's
    luminance, each to the power of its weight; averaged over windows and channels first, and 0 where it is negative.
    ``data_range`` is 255 for images of bytes, 1 for images in [0, 1]. Windows are Gaussian, ``size`` x ``size`` pixels (odd) with
    standard deviation ``sigma``; between scales pixels are averaged 2 x 2.

    ``small="error"`` is what torchmetrics computes: at the last scale the window goes over every pixel, borders mirrored, elsewhere
    over places inside the image. A scale smaller than the window is refused: five scales need sides of 176, three of 44.
    ``small="shrink"`` is what Karras et al. compute, as in Wang et al.'s own code: the window stays inside the image at all scales,
    and at one with a side below ``size`` it is of that side, ``sigma`` in proportion. Raises InputError.
    """
    shrink = choice("small", small, ("error", "shrink")) == "shrink"
    _alike(a, b)
    if whole("size", size) % 2 == 0:
        raise wrong("size", "an odd number", size)
    weights = [real("weights", weight, above=0) for weight in weights]
    _enough(a, len(weights), 1 if shrink else size)
    sigma, data_range = real("sigma", sigma, above=0), real("data_range", data_range, above=0)
    found = torch.ones(len(a), dtype=a.dtype, device=a.device)
    for scale, weight in enumerate(weights):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        side, last = min(size, *a.shape[2:]), scale == len(weights) - 1
        window = gaussian(side, sigma * side / size).to(a)
        if last and not shrink:
            a, b = (F.pad(x, [size // 2] * 4, mode="reflect") for x in (a, b))
        found = found * _similarity(a, b, window, data_range, luminance=last).clamp_min(0) ** weight
    return found


def gaussian(size: int, sigma: float) -> Tensor:
    """The window along one axis: float64 (size,) with sum 1, around its middle."""
    places = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    window = (-places.square() / (2 * sigma**2)).exp()
    return window / window.sum()


def _similarity(a: Tensor, b: Tensor, window: Tensor, data_range: float, luminance: bool) -> Tensor:
    """Contrast and structure, and luminance where asked for, averaged over channels and all windows in the images: (n,)."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    of_a, of_b, aa, bb, ab = _windowed(torch.stack([a, b, a * a, b * b, a * b]), window)
    square_a, square_b, product = of_a.square(), of_b.square(), of_a * of_b
    variances = (aa - square_a).clamp_min(0) + (bb - square_b).clamp_min(0)
    found = (2 * (ab - product) + c2) / (variances + c2)
    if luminance:
        found = found * ((2 * product + c1) / (square_a + square_b + c1))
    return found.flatten(1).mean(1)


def _windowed(maps: Tensor, window: Tensor) -> Tensor:
    """Weighted means (..., h - size + 1, w - size + 1) over all windows in maps (..., h, w).

    As products with a band matrix, which take a fifth of the time of torch's convolutions of one channel.
    """
    down, across = (_band(n, window) for n in maps.shape[-2:])
    return down @ maps @ across.T


def _band(n: int, window: Tensor) -> Tensor:
    """Row i (n - size + 1, n) holds the window from place i on."""
    places = n - len(window) + 1
    return F.pad(window, (0, n - len(window) + 1)).repeat(places)[: places * n].view(places, n)


def _alike(a: Tensor, b: Tensor) -> None:
    for name, x in (("a", a), ("b", b)):
        if not isinstance(x, Tensor) or x.ndim != 4 or not x.numel() or not x.is_floating_point():
            found = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise wrong(name, "floats (n, c, h, w)", found)
        if not bool(x.isfinite().all()):
            raise InputError(f"{name} must be finite numbers, but some are not")
    if a.shape != b.shape or a.dtype != b.dtype:
        found = f"{a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}"
        raise InputError(f"both sets of images must be of one shape and type, got {found}")


def _enough(images: Tensor, scales: int, size: int) -> None:
    """Refuse images whose last scale has a side below ``size``."""
    if not scales:
        raise wrong("weights", "at least one weight", [])
    h, w = images.shape[2:]
    if min(h, w) >> (scales - 1) < size:
        remedy = 'give fewer weights, or small="shrink"' if size > 1 else "give fewer weights"
        raise InputError(f"{scales} scales need sides of at least {size << (scales - 1)}, got {h} x {w}; {remedy}")
