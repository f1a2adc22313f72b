"""Ways through the space of z: straight, along great circles, smoothed noise; and sums of means."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from triptych.check import InputError, choice, real, whole
from triptych.gan.draw import Draw
from triptych.gan.sample import DOUBLE, Sampler

KINDS = ("smooth", "slerp", "lerp")
NEIGHBOURS, SPREAD = 8, 0.25
CUT = 4  # standard deviations at which the Gaussian window ends


def lerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """(1 - t) a + t b, for z (..., size)."""
    return (1 - t) * a + t * b


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The great circle from a to b (..., size), the length going over evenly: (sin((1-t) w) a/|a| + sin(t w) b/|b|) / sin w.

    White, 'Sampling generative networks' 2016; w is the angle. Where a and b are parallel or opposite: the straight line.
    """
    lengths = [torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (a, b)]
    u, v = (x / length.clamp_min(1e-300) for x, length in zip((a, b), lengths))
    # The angle from the chords is right near 0 and pi, where the arc cosine loses half of the digits.
    angle = 2 * torch.atan2(torch.linalg.vector_norm(u - v, dim=-1), torch.linalg.vector_norm(u + v, dim=-1))[..., None]
    sine = angle.sin()
    turned = (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / sine
    return torch.where(sine.abs() < 1e-9, lerp(a, b, t), lerp(lengths[0], lengths[1], t) * turned)


def path(sampler: Sampler, kind: str, *, frames: int, seed: int, points: int = 4) -> Tensor:
    """z (frames, size) of a closed walk, which begins where it ends. Raises InputError.

    'lerp' and 'slerp' go through the first ``points`` z of the seed; 'smooth' is noise blurred along time, every frame of
    which has the law of z, and takes about as long from one independent image to the next. A great circle needs z whose
    length tells nothing: not a uniform one.
    """
    choice("kind", kind, KINDS)
    whole("frames", frames, low=2)
    whole("points", points, low=2)
    if kind == "smooth":
        return smoothed(sampler, frames=frames, seed=seed, sigma=frames / points / 2)
    if kind == "slerp" and sampler.latent.law == "uniform":
        raise InputError("kind must be lerp or smooth, as the run's z is uniform in a cube, which great circles leave")
    between = slerp if kind == "slerp" else lerp
    keys = sampler.z(seed, 0, points)
    places = [points * frame / frames for frame in range(frames)]
    return torch.stack([between(keys[int(p)], keys[(int(p) + 1) % points], p % 1) for p in places])


def smoothed(sampler: Sampler, *, frames: int, seed: int, sigma: float) -> Tensor:
    """z (frames, size) from noise that a Gaussian of ``sigma`` frames blurs along closed time, brought back to the law of z.

    Karras et al., ICLR 2018 (their video of interpolations). A weighted sum of normal numbers divided by the root of the sum
    of squared weights is normal; a sphere's z is scaled to its length. Differs: a uniform z is the distribution function
    of a normal one, so that each frame is uniform.
    """
    latent, sigma = sampler.latent, real("sigma", sigma, above=0)
    noise = Draw(seed, 0, 0, whole("frames", frames)).named("walk").normal("z", (latent.size,), like=DOUBLE)
    reach = math.ceil(CUT * sigma)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.zeros(frames, dtype=torch.float64)
    weights.index_add_(0, offsets % frames, torch.exp(-0.5 * (offsets / sigma).double() ** 2))  # time is a circle
    blurred = torch.fft.irfft(torch.fft.rfft(weights)[:, None] * torch.fft.rfft(noise, dim=0), n=frames, dim=0)
    z = blurred / weights.square().sum().sqrt()
    if latent.law == "uniform":
        return (2 * torch.special.ndtr(z) - 1) * latent.half_width
    if latent.law == "sphere":
        return z * (latent.size**0.5 / torch.linalg.vector_norm(z, dim=1, keepdim=True))
    return z


def arithmetic(
    sampler: Sampler, plus: Sequence[Sequence[int]], minus: Sequence[Sequence[int]], seed: int
) -> list[Tensor]:
    """Rows of z: for each term its images' z and their mean; last the sum of all means, and eight neighbours of it.

    Radford et al. 2015, Figure 7: mean(plus) - mean(minus) + ..., over image numbers of a seed; neighbours have uniform
    noise of up to 0.25 added. Raises InputError where a term is empty.
    """
    terms = [(1, numbers) for numbers in plus] + [(-1, numbers) for numbers in minus]
    if not plus or not all(len(numbers) for _, numbers in terms):
        raise InputError("plus must name at least one image number, and no term may be empty")
    rows, total = [], torch.zeros(sampler.latent.size, dtype=torch.float64)
    for sign, numbers in terms:
        z = torch.cat([sampler.z(seed, whole("image numbers", number, low=0), 1) for number in numbers])
        rows.append(torch.cat([z, z.mean(0, keepdim=True)]))
        total = total + sign * z.mean(0)
    noise = 2 * Draw(seed, 0, 0, NEIGHBOURS).named("neighbours").uniform("z", (sampler.latent.size,), like=DOUBLE) - 1
    return [*rows, torch.cat([total[None], total + SPREAD * noise])]
