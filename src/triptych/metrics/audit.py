"""Has a generator memorised? Each sample's nearest neighbour in the training set against that in images never trained on.

Where training and held-out images are a random split of one set, and the generator has learned their law and not the images, nothing
tells which of them were trained on: labels drawn anew are as good as the true ones. So they are drawn anew, and the p-value is the
share of them under which samples are as much nearer to "training" images as they are in truth. That holds for every n, law and
distance that does not know which images were trained on, for blurred samples as for sharp ones, and whatever several samples have in common (Fisher, 1935; Phipson & Smyth, 2010).
Distances to the training set alone do not tell blur from copying, nor do they have a null (Gulrajani, Raffel & Metz, 2019).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Protocol

import torch
from torch import Tensor

from triptych.check import InputError, real, whole, wrong
from triptych.images import check_apart
from triptych.metrics.features import Extractor, as_pixels, extract, rows, same_width, shrunk_pixels
from triptych.metrics.neighbours import BLOCK, MORE_ROUGHLY, Centred, nearest

DRAWS = 999  # p-values are whole thousandths
MISSED = 1e-3  # how often a list of neighbours may hold no image of one of the two sets
MOST = 200  # neighbours in a list
SAMPLES = 1024  # whose windows are in memory at a time
FLOOR = 1e-3  # of the median distance: what is nearer counts as a copy, and no ratio is larger for it


class Comparison(Protocol):
    """A way to say how far samples are from images, with a name."""

    @property
    def name(self) -> str:
        """What is compared, in a few words."""
        ...

    def nearest(self, samples: Tensor, images: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Distances and indices, both (n, k), of the k images nearest to each sample, of uint8 (n, c, h, w), (m, c, h, w)."""
        ...


@dataclass(frozen=True)
class InFeatures:
    """Euclidean distance of an extractor's features."""

    extractor: Extractor

    @property
    def name(self) -> str:
        """The extractor's."""
        return self.extractor.name

    def nearest(self, samples: Tensor, images: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The nearest images by features."""
        a, b = (extract(self.extractor, part).features for part in (samples, images))
        same_width(a, b)
        return nearest(a, b, k, roughly=True)


@dataclass(frozen=True)
class UpToShifts:
    """Euclidean distance of pixels, averaged to at most ``side`` x side, the least over shifts of up to ``shift`` of them and, with
    ``mirror``, over left and right: a copy that was moved or mirrored is as near as the image.

    What is compared is a sample's window of ``shift`` pixels less on each side, laid over all places of it.
    """

    side: int = 32
    shift: int = 2
    mirror: bool = True

    @property
    def name(self) -> str:
        """What it does."""
        return f"pixels up to {'mirroring and ' if self.mirror else ''}shifts of {self.shift} at {self.side}"

    def nearest(self, samples: Tensor, images: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The nearest images over all shifts."""
        a, b = (shrunk_pixels(part, self.side) for part in (samples, images))
        if a.shape[1:] != b.shape[1:]:
            raise InputError(f"samples must have the images' shape {tuple(b.shape[1:])}, got {tuple(a.shape[1:])}")
        s = whole("shift", self.shift, low=0)
        if min(a.shape[2:]) <= 2 * s:
            raise wrong("shift", f"less than half the images' side, {min(a.shape[2:])}", s)
        inner = b[:, :, s : b.shape[2] - s, s : b.shape[3] - s].flatten(1)
        if whole("k", k) > len(inner):
            raise InputError(f"k must be at most {len(inner)}, the images that there are, got {k}")
        step, centred = max(1, min(SAMPLES, BLOCK // len(inner))), Centred.of(inner, torch.float32)
        found = [self._nearest(self._windows(a[i : i + step], s), inner, centred, k) for i in range(0, len(a), step)]
        distances, indices = (torch.cat(parts) for parts in zip(*found))
        return distances, indices

    def _nearest(self, windows: list[Tensor], inner: Tensor, centred: Centred, k: int) -> tuple[Tensor, Tensor]:
        """Candidates by squares in float32, the least over windows; their distances then from differences in float64."""
        best = torch.full((len(windows[0]), len(inner)), torch.inf)
        for window in windows:
            best = torch.minimum(best, centred.squared_distances(window))
        chosen = best.topk(min(k + MORE_ROUGHLY, len(inner)), dim=1, largest=False).indices.sort(1).values
        exact = torch.stack([self._exact([w[i] for w in windows], inner[row]) for i, row in enumerate(chosen)])
        order = exact.argsort(dim=1, stable=True)[:, :k]
        return exact.gather(1, order), chosen.gather(1, order)

    def _exact(self, windows: list[Tensor], candidates: Tensor) -> Tensor:
        """The least distance of one sample's windows (d,) to each of the candidates (m, d), (m,)."""
        x, y = torch.stack(windows).double(), candidates.double()
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").min(0).values

    def _windows(self, a: Tensor, s: int) -> list[Tensor]:
        """Every window of samples, and of their mirror images, as rows."""
        h, w = a.shape[2] - 2 * s, a.shape[3] - 2 * s
        sides = [a, a.flip(3)] if self.mirror else [a]
        places = [(i, j) for i in range(2 * s + 1) for j in range(2 * s + 1)]
        return [x[:, :, i : i + h, j : j + w].flatten(1) for x in sides for i, j in places]


@dataclass(frozen=True, eq=False)
class InSpace:
    """What one comparison found.

    ``ratio`` (n,) log of the distance to the nearest held-out image over that to the nearest training image: above 0 where a sample is
    nearer to training. ``statistic`` its mean. ``nearer`` the share of samples whose neighbour is a training image, ``expected`` what
    it would be of images that were not learned by heart. ``train``, ``held_out`` (n,) the neighbours, indices into either set;
    ``train_distance``, ``held_out_distance`` (n,).
    """

    name: str
    p_value: float
    statistic: float
    nearer: float
    expected: float
    ratio: Tensor
    train: Tensor
    held_out: Tensor
    train_distance: Tensor
    held_out_distance: Tensor

    def suspicious(self, false_share: float = 0.1) -> Tensor:
        """Indices of samples, the worst first, of which no more than about ``false_share`` are there by chance.

        Samples as far on the other side of 0 tell how many those are: Barber & Candès, Annals of Statistics 2015, equation 1.9. Samples with
        one neighbour count once, so that a hundred equal ones are no evidence of a hundred. Of sets of unequal size the others count more,
        by the largest factor that there is where distances follow a power law, the square of the sizes' ratio. Empty where no threshold
        will do.
        """
        real("false_share", false_share, above=0, high=1)
        odds = self.expected / (1 - self.expected)
        odds = max(odds, odds**2)
        order = self.ratio.argsort(descending=True, stable=True)
        near, far = _largest(self.ratio, self.train), _largest(-self.ratio, self.held_out)
        for least in near[near > 0].sort().values:
            if odds * (1 + int((far >= least).sum())) <= false_share * int((near >= least).sum()):
                return order[: int((self.ratio >= least).sum())]
        return order[:0]


def _largest(values: Tensor, group: Tensor) -> Tensor:
    """The largest of the values (n,) of each group (n,)."""
    groups, place = group.unique(return_inverse=True)
    return values.new_full((len(groups),), -torch.inf).scatter_reduce(0, place, values, "amax")


@dataclass(frozen=True)
class Audit:
    """What all comparisons found, and a p-value for all together: the chance that any of them looks as bad without memorisation."""

    p_value: float
    spaces: tuple[InSpace, ...]
    samples: int
    train: int
    held_out: int
    draws: int

    def verdict(self, level: float = 0.01) -> str:
        """One sentence."""
        worst = min(self.spaces, key=lambda space: space.p_value)
        if self.p_value <= real("level", level, above=0, high=1):
            return (
                f"memorised: samples are nearer to training images than to held-out ones (p = {self.p_value:.3g}), most of all by "
                f"{worst.name}"
            )
        return f"no sign of memorisation among {self.samples:,} samples (p = {self.p_value:.3g})"


def audit(
    samples: Tensor,
    train: Tensor,
    held_out: Tensor,
    comparisons: Sequence[Comparison],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Audit:
    """Compare samples with training and held-out images, uint8 (n, c, h, w), which must be a random split of one set, of any sizes.

    A statistic per comparison: the mean over samples of log(distance to held-out / distance to training). ``draws`` random labellings
    of all images give its p-value, (1 + as large ones) / (1 + draws), and that of the least of the p-values of all comparisons
    (Westfall & Young, 1993). Raises InputError, also where more than a tenth of the held-out images are training images.
    """
    if not comparisons or len({c.name for c in comparisons}) != len(comparisons):
        raise wrong("comparisons", "at least one, of distinct names", [c.name for c in comparisons])
    for name, part in {"samples": samples, "train": train, "held_out": held_out}.items():
        _images(name, part, samples)
    check_apart(held_out, train)
    pool = torch.cat([train, held_out])
    truth = torch.arange(len(pool)) < len(train)
    k = _length(len(train), len(held_out))
    lists = [_List.of(comparison, samples, pool, k) for comparison in comparisons]
    rng = torch.Generator().manual_seed(whole("seed", seed, low=0))
    table = torch.empty(whole("draws", draws) + 1, len(lists), dtype=torch.float64)
    for row in range(len(table)):
        labels = truth if row == 0 else truth[torch.randperm(len(pool), generator=rng)]
        table[row] = torch.stack([found.ratios(labels).mean() for found in lists])
    p = _p_values(table)
    least = p.min(1).values
    together = float((least <= least[0]).double().mean())
    spaces = []
    for i, (comparison, found) in enumerate(zip(comparisons, lists)):
        near = found.nearest(truth, 0, comparison, samples, train)
        far = found.nearest(~truth, len(train), comparison, samples, held_out)
        spaces.append(found.space(comparison.name, float(p[0, i]), truth, near, far))
    return Audit(together, tuple(spaces), len(samples), len(train), len(held_out), draws)


def _images(name: str, given: Tensor, like: Tensor) -> None:
    as_pixels(given[:1]) if isinstance(given, Tensor) else as_pixels(given)
    if given.shape[1:] != like.shape[1:]:
        raise InputError(f"{name} must have the samples' shape {tuple(like.shape[1:])}, got {tuple(given.shape[1:])}")
    if len(given) < 2:
        raise wrong(name, "at least 2 images", len(given))


def _length(train: int, held_out: int) -> int:
    """How many neighbours a list has, so that it seldom lacks one of the two sets."""
    share = max(train, held_out) / (train + held_out)
    return min(MOST, train + held_out, ceil(log(MISSED) / log(share)))


def _p_values(table: Tensor) -> Tensor:
    """Of every row and column the share of rows that are as large: (1 + draws, comparisons)."""
    order = table.sort(0).values
    below = torch.stack([torch.searchsorted(o.contiguous(), c.contiguous()) for o, c in zip(order.T, table.T)], 1)
    return (len(table) - below).double() / len(table)


@dataclass(frozen=True, eq=False)
class _List:
    """Of every sample its nearest images of the pool, (n, k), nearest first, and what is too near to be told apart."""

    distances: Tensor
    indices: Tensor
    least: float

    @classmethod
    def of(cls, comparison: Comparison, samples: Tensor, pool: Tensor, k: int) -> "_List":
        distances, indices = comparison.nearest(samples, pool, k)
        distances = rows(f"distances of {comparison.name}", distances).double()
        least = FLOOR * float(distances[:, 0].median()) or FLOOR * float(distances.mean())
        return cls(distances, indices, max(least, 1e-12))

    def ratios(self, labels: Tensor) -> Tensor:
        """log(distance to held-out / distance to training) under labels of the pool, (n,)."""
        found = labels[self.indices]
        train, held_out = self._first(found), self._first(~found)
        return ((held_out + self.least) / (train + self.least)).log()

    def _first(self, found: Tensor) -> Tensor:
        """The distance of the first that is marked; of the last of the list where none is."""
        place = torch.where(found.any(1), found.byte().argmax(1), found.shape[1] - 1)
        return self.distances.gather(1, place[:, None])[:, 0]

    def nearest(
        self, marked: Tensor, first: int, comparison: Comparison, samples: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Distances and indices (n,) of the nearest images that are marked, which begin at ``first`` in the pool: out of the list, or
        by comparison for those samples whose list has none.
        """
        found = marked[self.indices]
        distances = self._first(found)
        indices = self.indices.gather(1, found.byte().argmax(1)[:, None])[:, 0] - first
        rest = (~found.any(1)).nonzero()[:, 0]
        if len(rest):
            far, index = comparison.nearest(samples[rest], images, 1)
            distances[rest], indices[rest] = far[:, 0].double(), index[:, 0]
        return distances, indices

    def space(
        self, name: str, p_value: float, truth: Tensor, train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor]
    ) -> InSpace:
        """What the true labels say, with the nearest images of each set."""
        (near, near_index), (far, far_index) = train, held_out
        return InSpace(
            name=name,
            p_value=p_value,
            statistic=float(self.ratios(truth).mean()),
            nearer=float(truth[self.indices[:, 0]].double().mean()),
            expected=int(truth.sum()) / len(truth),
            ratio=((far + self.least) / (near + self.least)).log(),
            train=near_index,
            held_out=far_index,
            train_distance=near,
            held_out_distance=far,
        )


def told(found: Audit) -> Mapping[str, float]:
    """The numbers of an audit by name, for tables and rows."""
    numbers = {"p_value": found.p_value, "samples": found.samples, "train": found.train, "held_out": found.held_out}
    for space in found.spaces:
        numbers[f"p_value {space.name}"] = space.p_value
        numbers[f"nearer {space.name}"] = space.nearer
    return numbers
