"""The sliced Wasserstein distance of patches, scale by scale: which sizes of detail differ between two sets of images.

Karras et al., ICLR 2018, section 5. Descriptors are normalised by each set's own means and standard deviations, as the authors do:
the distance does not see a change of colour, brightness or contrast that is the same in all images of a set.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import InputError, whole, wrong
from triptych.images import Images
from triptych.metrics.features import as_pixels, rows, same_width

LEAST = 16  # the side of the coarsest level
PATCHES, SIZE = 128, 7
DIRECTIONS, REPEATS = 128, 4
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
BLOCK = 1 << 22  # floats of images, or of their patches, at a time: 16 MB
PROJECTED = 1 << 25  # projections of each set at a time: 128 MB; of few directions the product would wait for memory


@dataclass(frozen=True)
class SlicedWasserstein:
    """Distances times 1,000 at ``levels``, each (h, w), finest first; their ``mean``; ``n`` images of each set."""

    levels: tuple[tuple[int, int], ...]
    values: tuple[float, ...]
    mean: float
    n: int


def pyramid_distance(
    a: Tensor | Images,
    b: Tensor | Images,
    *,
    patches: int = PATCHES,
    size: int = SIZE,
    directions: int = DIRECTIONS,
    repeats: int = REPEATS,
    seed: int = 0,
    normalise: bool = True,
) -> SlicedWasserstein:
    """The distance of two sets of uint8 images (n, c, h, w), as many in each, at every level of their Laplacian pyramids.

    ``patches`` patches of ``size`` x ``size`` are taken of each image. Positions and directions follow from ``seed``, and positions
    are the same in both sets: equal sets are at distance 0. Without ``normalise`` descriptors stay in grey levels, 0 to 255, and the
    values are thousandths of one. The distance falls with n between sets of one law: compare values of the same n only.

    The descriptors of one level are in memory at a time, 4 · n · patches · c · size² bytes for each set, 1.2 GB for 16,384 images in
    colour with 128 patches each; beside them 0.4 GB at most. Raises InputError, also where a side is below 16, or is odd and would
    have to be halved before the shorter one is below 32.
    """
    a, b = _pair(a, b)
    levels = _sides(a, LEAST)
    whole("patches", patches)
    whole("size", size, high=min(levels[-1]), remedy="a patch must fit into the coarsest level")
    whole("directions", directions)
    whole("repeats", repeats)
    seeds = torch.randint(1 << 62, (len(levels), 2), generator=_seeded(whole("seed", seed, low=0))).tolist()
    values = []
    for level, (where, along) in enumerate(seeds):
        x = _gathered(a, level, patches, size, normalise, where)
        y = _gathered(b, level, patches, size, normalise, where)
        values.append(1000 * _distance(x, y, directions, repeats, _seeded(along)))
        del x, y  # before there are others: they fill the memory
    return SlicedWasserstein(tuple(levels), tuple(values), sum(values) / len(values), len(a))


def laplacian_pyramid(images: Tensor, least: int = LEAST) -> list[Tensor]:
    """Float images (n, c, h, w) as differences of scales (n, c, h / 2^k, w / 2^k), finest first, and what remains, the last level.

    Burt & Adelson, IEEE Transactions on Communications 1983: a level is the image less its halved version doubled again. The filter
    is binomial, (1 4 6 4 1) / 16 along either axis, borders are mirrored about the outermost pixel. The shorter side of the last
    level is from ``least`` to 2 · least - 1. Raises InputError where a side is shorter, or an odd one would have to be halved.
    """
    _maps("images", images)
    levels = []
    for _ in _sides(images, whole("least", least, low=2))[1:]:
        down, up = zip(*(_halving(n, images) for n in images.shape[2:]))
        smaller = down[0] @ images @ down[1].T
        levels.append(images - up[0] @ smaller @ up[1].T)
        images = smaller
    return [*levels, images]


def descriptors(level: Tensor, patches: int, size: int, rng: torch.Generator) -> Tensor:
    """Patches at random places inside float images (n, c, h, w), ``patches`` of each: (n · patches, c · size²).

    Two calls that share a generator, on the first images and on the rest, draw what one call on all of them does. Raises InputError.
    """
    _maps("level", level)
    n, _, h, w = level.shape
    whole("size", size, high=min(h, w), remedy="a patch must fit into the level")
    places = torch.rand(n * whole("patches", patches), 2, dtype=torch.float64, generator=rng)
    y, x = (places * torch.tensor([h - size + 1, w - size + 1])).long().to(level.device).unbind(1)
    image = torch.arange(n, device=level.device).repeat_interleave(patches)
    return level.unfold(2, size, 1).unfold(3, size, 1)[image, :, y, x].flatten(1)


def normalise_(found: Tensor, channels: int) -> Tensor:
    """Descriptors (m, channels · size²) changed in place: of mean 0 and standard deviation 1 in each channel, over all patches.

    Raises InputError where a channel is the same everywhere, or numbers are not finite.
    """
    rows("descriptors", found[:1])
    if found.shape[1] % whole("channels", channels):
        raise wrong("channels", f"a divisor of the {found.shape[1]} numbers of a descriptor", channels)
    by_channel = found.view(len(found), channels, -1)
    std, mean = torch.std_mean(by_channel, dim=(0, 2), correction=0, keepdim=True)
    if not bool((std.isfinite() & (std > 0)).all()):
        raise InputError(
            "descriptors must be finite, and in no channel all the same, to be normalised; use normalise=False"
        )
    by_channel.sub_(mean).div_(std)
    return found


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int, repeats: int, rng: torch.Generator) -> float:
    """The mean 1-Wasserstein distance of points (n, d) and (n, d), projected on ``repeats`` · ``directions`` random directions.

    Rabin et al., SSVM 2011. Between one-dimensional samples of one size it is the mean difference of the sorted values. Raises
    InputError.
    """
    a, b = rows("descriptors", a), rows("descriptors", b)
    same_width(a, b)
    if len(a) != len(b) or a.dtype != b.dtype:
        found = f"{len(a):,} of {a.dtype} and {len(b):,} of {b.dtype}"
        raise InputError(
            f"descriptors must be as many, and of one type, in both sets, got {found}; take as many of each"
        )
    return _distance(a, b, whole("directions", directions), whole("repeats", repeats), rng)


def _distance(a: Tensor, b: Tensor, directions: int, repeats: int, rng: torch.Generator) -> float:
    """Directions are drawn repeat by repeat, and used a few at a time: all projections would be more than the descriptors."""
    n, d = a.shape
    total = 0.0
    for _ in range(repeats):
        drawn = torch.randn(directions, d, dtype=torch.float64, generator=rng)
        drawn = (drawn / drawn.norm(dim=1, keepdim=True)).to(a)
        for part in drawn.split(max(1, PROJECTED // n)):
            total += _apart(part @ a.T, part @ b.T)
    return total / (repeats * directions)


def _apart(a: Tensor, b: Tensor) -> float:
    """The 1-Wasserstein distances of the rows of projections, summed; what is in them is lost."""
    return float(_sorted(a).sub_(_sorted(b)).abs_().mean(1).sum())


def _sorted(values: Tensor) -> Tensor:
    """Rows in order, in place where they are in main memory: there NumPy sorts an order of magnitude faster than torch."""
    if values.device.type != "cpu":
        return values.sort(1).values
    values.numpy().sort(axis=1)
    return values


def _gathered(pixels: Tensor, level: int, patches: int, size: int, normalise: bool, seed: int) -> Tensor:
    """The descriptors of one level of all images, of which a few are floats at a time."""
    rng = _seeded(seed)
    n, c = pixels.shape[:2]
    found = torch.empty(n * patches, c * size**2, device=pixels.device)
    step = max(1, BLOCK // max(pixels[0].numel(), patches * c * size**2))
    for first in range(0, n, step):
        part = laplacian_pyramid(pixels[first : first + step].float())[level]
        found[first * patches : (first + len(part)) * patches] = descriptors(part, patches, size, rng)
    return normalise_(found, c) if normalise else found


def _halving(n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """What halves an axis of n pixels (n / 2, n): the filter at every other pixel; and what doubles it again (n, n / 2).

    Doubling puts a zero after each pixel and filters with twice the weights.
    """
    blur, places = torch.zeros(n, n, dtype=torch.float64), torch.arange(n)
    for offset, weight in enumerate(BINOMIAL, -2):
        mirrored = (n - 1) - ((n - 1) - (places + offset).abs()).abs()
        blur.index_put_((places, mirrored), torch.tensor(weight, dtype=torch.float64), accumulate=True)
    return blur[::2].to(like), 2 * blur[:, ::2].to(like)


def _sides(images: Tensor, least: int) -> list[tuple[int, int]]:
    """The sides of all levels, finest first."""
    h, w = images.shape[2:]
    if min(h, w) < least:
        raise InputError(
            f"images must have sides of at least {least}, got {h} x {w}; resize them, or use a metric of whole images"
        )
    found = [(h, w)]
    while min(h, w) // 2 >= least:
        if h % 2 or w % 2:
            full = " x ".join(str(n) for n in images.shape[2:])
            raise InputError(
                f"images of {full} cannot be halved until a side is below {2 * least}, since {h} x {w} has an odd side; "
                "crop or resize them to sides that can, as powers of two can"
            )
        h, w = h // 2, w // 2
        found.append((h, w))
    return found


def _pair(a: Tensor | Images, b: Tensor | Images) -> tuple[Tensor, Tensor]:
    """The pixels of both sets, of one shape and as many."""
    a, b = (images.pixels if isinstance(images, Images) else images for images in (a, b))
    as_pixels(a[:1])
    as_pixels(b[:1])
    if a.shape[1:] != b.shape[1:]:
        raise InputError(f"both sets must be images of one shape, got {tuple(a.shape[1:])} and {tuple(b.shape[1:])}")
    if len(a) != len(b):
        raise InputError(
            f"both sets must have as many images, got {len(a):,} and {len(b):,}; take {min(len(a), len(b)):,} of each"
        )
    return a, b


def _maps(name: str, images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.numel() or not images.is_floating_point():
        found = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise wrong(name, "floats (n, c, h, w)", found)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
