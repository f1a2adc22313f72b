"""Near duplicates in a set: the same picture stored again, moved a little, darker, or compressed anew.

Radford, Metz & Chintala, ICLR 2016, section 4.1.1: a denoising, dropout-regularised ReLU autoencoder of 3072-128-3072
on centre crops of 32 x 32; its code, thresholded, is a semantic hash of 128 bits, and images whose codes meet are
duplicates, of which fewer than 1 in 100 were false, by eye. Differs: crops lose their mean and contrast, and the noise
moves them by up to a pixel, so that brightness and shifts change few bits; a bit is whether its unit is above its
median over the set, so that each is on for at most half of the images; the hash only proposes pairs, which are then
compared pixel by pixel; and the share of false ones is estimated from the set itself.

What decides is the correlation of two crops, band-passed, at their best shift. How high it gets between unrelated
pictures is learned from images and the mirror images of others, which are as unlike as unrelated ones and seldom
duplicates. Where images have a handedness (digits, letters), all that is raised by how much more alike fifth neighbours
are than mirrored ones. Where more than a tenth of the images have a mirrored copy too, few duplicates are found.
"""

import hashlib
import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.check import InputError, real, whole
from triptych.images import Images

SIDE, SHIFT, UNITS = 32, 2, 128  # pixels of a crop; pixels that it may be moved by; units of the code
FINE, COARSE = 0.7, 2.7  # pixels: details between these widths are compared
BATCH, RATE, STEPS = 128, 1e-3, 500
NOISE, DROPPED, DROPPED_UNITS = 0.1, 0.2, 0.5  # of a standard deviation; shares of inputs and of units
LEAST = 0.5  # a lower correlation is never that of duplicates, however few images there are to learn it from
SOME, PARTNERS, NEIGHBOUR = 256, 2048, 5  # images and others that the law of unrelated ones is learned from
CANDIDATES, FALSE_SHARE = 50, 0.01
CHUNK = 256  # images at a time: against 100,000 others 0.13 GB


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Which of n images are near duplicates of which.

    ``pairs`` (m, 2) int64, the lower index first, in order; ``distances`` (m,), 1 - correlation, and 0 for the same
    bytes, which are paired with the first of their kind alone; ``groups`` the images that pairs join, each in order;
    ``keep`` (n,) bool, all but the later ones of each group. ``radius``, in bits of 128, and ``distance`` are the
    largest that were allowed.
    """

    pairs: Tensor
    distances: Tensor
    groups: tuple[tuple[int, ...], ...]
    keep: Tensor
    radius: int
    distance: float


@dataclass(frozen=True)
class Law:
    """How alike unrelated images of a set are, z = atanh of the correlation.

    An image in ten has an unrelated neighbour above ``level``, and ten times fewer for every ``decade`` above it.
    """

    level: float
    decade: float

    def share(self, correlations: Tensor) -> Tensor:
        """The share of images that have an unrelated neighbour above each correlation."""
        power = (self.level - _fisher(correlations.double())) / max(self.decade, 1e-9) - 1
        return (10**power).clamp_max(1)

    def correlation(self, share: float) -> float:
        """The correlation above which that share of the images has an unrelated neighbour."""
        return math.tanh(self.level - self.decade * (1 + math.log10(share)))


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs whose codes are near: ``pairs`` (m, 2) int64 and their ``correlations`` (m,), from LEAST on.

    They are of images that are the first of their bytes; ``first`` (n,) is each image's.
    """

    first: Tensor
    pairs: Tensor
    correlations: Tensor
    radius: int
    law: Law

    def least(self, false_share: float) -> float:
        """The lowest correlation above which no more than that share of the flagged images is expected to be unrelated.

        Where there are no duplicates, anything is flagged about that seldom. Benjamini & Hochberg, J. R. Stat. Soc. B
        1995. Raises InputError.
        """
        real("false_share", false_share, above=0, high=1)
        nearest = torch.full((len(self.first),), -1.0)
        for column in self.pairs.T:
            nearest.scatter_reduce_(0, column, self.correlations, "amax")
        nearest = nearest[nearest >= LEAST].sort(descending=True).values
        images, flagged = len(self.first.unique()), torch.arange(1, len(nearest) + 1)
        allowed = flagged[images * self.law.share(nearest) <= false_share * flagged]
        most = int(allowed[-1]) if len(allowed) else 2
        least = max(LEAST, self.law.correlation(min(1, false_share * most / images)))
        return min(least, float(nearest[most - 1])) if len(allowed) else least

    def duplicates(self, false_share: float = FALSE_SHARE) -> Duplicates:
        """Those that are near duplicates, as ``deduplicate`` gives them. Raises InputError."""
        least, n = self.least(false_share), len(self.first)
        chosen = self.correlations >= least
        again = (self.first != torch.arange(n)).nonzero()[:, 0]
        copies = torch.stack([self.first[again], again], 1)
        pairs = torch.cat([copies, self.pairs[chosen]])
        distances = torch.cat([torch.zeros(len(copies)), (1 - self.correlations[chosen]).clamp_min(0)])
        order = (pairs[:, 0] * n + pairs[:, 1]).argsort()
        groups = components(n, pairs)
        keep = torch.ones(n, dtype=torch.bool)
        keep[torch.tensor([i for group in groups for i in group[1:]], dtype=torch.int64)] = False
        return Duplicates(pairs[order], distances[order], groups, keep, self.radius, 1 - least)


@dataclass(frozen=True, eq=False)
class Code:
    """The encoder: weight (128, d) and bias (128,), and the value of each ReLU above which its bit is set, (128,)."""

    weight: Tensor
    bias: Tensor
    above: Tensor

    def values(self, crops: Tensor) -> Tensor:
        """The code of windows (n, c, 36, 36) before it is thresholded: (n, 128)."""
        return torch.cat(
            [F.linear(_inputs(_middle(part)), self.weight, self.bias).relu() for part in crops.split(4096)]
        )

    def bits(self, crops: Tensor) -> Tensor:
        """The hash, bool (n, 128)."""
        return self.values(crops) > self.above


def deduplicate(
    images: Images,
    *,
    seed: int = 0,
    steps: int = STEPS,
    false_share: float = FALSE_SHARE,
    candidates: int = CANDIDATES,
    chunk: int = CHUNK,
) -> Duplicates:
    """The images among (n, 1 or 3, h, w) that are alike in the middle square, moved by up to 1/18 of its side.

    ``steps`` of Adam train the hash; its radius is the largest that lets through ``candidates`` unrelated others an
    image. Of the images flagged no more than about ``false_share`` are unrelated. The same seed gives the same bits.
    All pairs of codes are compared, ``chunk`` images at a time: 100,000 in colour take 2 GB beside their own bytes.
    Raises InputError.
    """
    real("false_share", false_share, above=0, high=1)
    return search(images, seed=seed, steps=steps, candidates=candidates, chunk=chunk).duplicates(false_share)


def search(
    images: Images, *, seed: int = 0, steps: int = STEPS, candidates: int = CANDIDATES, chunk: int = CHUNK
) -> Candidates:
    """Pairs that may be near duplicates, their correlations, and the law of unrelated ones. Raises InputError."""
    for name, value in {"steps": steps, "candidates": candidates, "chunk": chunk}.items():
        whole(name, value)
    whole("seed", seed, low=0)
    if images.shape[1] not in (1, 3):
        raise InputError(f"images must have 1 or 3 channels, got {images.shape[1]}; make them grey or RGB")
    first = _first_of_their_bytes(images.pixels)
    distinct = first.unique()
    if len(distinct) < 2:
        return Candidates(first, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0), 0, Law(0.0, 0.0))
    crops = windows(images.pixels, distinct)
    code = learn(crops, seed=seed, steps=steps)
    rng = torch.Generator().manual_seed(seed)
    some, partners = (torch.randperm(len(crops), generator=rng)[:most] for most in (SOME, PARTNERS))
    radius = _radius(code, crops, some, partners, candidates)
    fine = details(crops)
    pairs, correlations = _alike(fine, code.bits(crops), radius, chunk)
    return Candidates(first, distinct[pairs], correlations, radius, _law(fine, some, partners))


def windows(pixels: Tensor, chosen: Tensor | None = None) -> Tensor:
    """The middle square of chosen images (n, c, h, w), antialiased to a crop and its margin: uint8 (n, c, 36, 36)."""
    side = SIDE + 2 * SHIFT
    chosen = torch.arange(len(pixels)) if chosen is None else chosen
    c, h, w = pixels.shape[1:]
    short = min(h, w)
    top, left = (h - short) // 2, (w - short) // 2
    found = torch.empty((len(chosen), c, side, side), dtype=torch.uint8)
    for rows in torch.arange(len(chosen)).split(max(1, 2**22 // (c * short * short))):
        square = pixels[chosen[rows], :, top : top + short, left : left + short].float()
        small = F.interpolate(square, size=(side, side), mode="bilinear", antialias=True)
        found[rows] = small.round().clamp(0, 255).byte()
    return found


def learn(crops: Tensor, *, seed: int = 0, steps: int = STEPS) -> Code:
    """Train the autoencoder on windows (n, c, 36, 36), and set every unit's threshold at its median over them."""
    d = crops.shape[1] * SIDE**2
    centre = _centre(crops)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, decoder = nn.Linear(d, UNITS), nn.Linear(UNITS, d)
        optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=RATE)
        for _ in range(steps):
            given, target = _noisy(crops[torch.randint(len(crops), (BATCH,))], centre)
            hidden = F.dropout(encoder(given).relu(), DROPPED_UNITS)
            loss = F.mse_loss(decoder(hidden), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    weight = encoder.weight.detach()
    code = Code(weight, encoder.bias.detach() - weight @ centre, torch.zeros(UNITS))
    return replace(code, above=code.values(crops).median(0).values)


def details(crops: Tensor) -> Tensor:
    """Windows less what is finer or coarser than what is compared, of mean square 1: float16 (n, c, 36, 36)."""
    narrow, wide = (_blur(crops.shape[2], sigma) for sigma in (FINE, COARSE))
    found = torch.empty(crops.shape, dtype=torch.float16)
    for part, place in zip(crops.split(1024), found.split(1024)):
        x = part.float() / 255
        band = narrow @ x @ narrow.T - wide @ x @ wide.T
        place.copy_(band / band.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-4))
    return found


def correlate(a: Tensor, b: Tensor) -> Tensor:
    """The correlations (n, m) of details a (n, c, 36, 36), moved by up to 2 pixels, with b (m, c, 36, 36), at best."""
    fixed, moves = _unit(_middle(b.float()).flatten(1)).T, (2 * SHIFT + 1) ** 2
    parts = []
    for part in a.float().split(32):
        moved = part.unfold(2, SIDE, 1).unfold(3, SIDE, 1).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
        parts.append((_unit(moved) @ fixed).view(len(part), moves, len(b)).amax(1))
    return torch.cat(parts)


def components(n: int, pairs: Tensor) -> tuple[tuple[int, ...], ...]:
    """The connected components of n points joined by pairs (m, 2), in order; points that nothing joins are left out."""
    root = list(range(n))

    def top(i: int) -> int:
        while root[i] != i:
            root[i] = i = root[root[i]]
        return i

    for i, j in pairs.tolist():
        low, high = sorted((top(i), top(j)))
        root[high] = low
    groups: dict[int, list[int]] = {}
    for i in pairs.unique().tolist():
        groups.setdefault(top(i), []).append(i)
    return tuple(tuple(group) for _, group in sorted(groups.items()))


def _first_of_their_bytes(pixels: Tensor) -> Tensor:
    """The index of the first image that has the same bytes, (n,)."""
    seen: dict[bytes, int] = {}
    keys = (hashlib.sha256(one.contiguous().numpy().data).digest() for one in pixels)
    return torch.tensor([seen.setdefault(key, i) for i, key in enumerate(keys)])


def _middle(crops: Tensor, down: int = 0, right: int = 0) -> Tensor:
    """The crops (n, c, 32, 32) in windows, moved by a few pixels."""
    top, left = SHIFT + down, SHIFT + right
    return crops[..., top : top + SIDE, left : left + SIDE]


def _inputs(crops: Tensor) -> Tensor:
    """Crops as rows (n, d) of mean 0 and standard deviation 1, those with hardly any contrast of less."""
    rows = crops.flatten(1).float() / 255
    rows = rows - rows.mean(1, keepdim=True)
    return rows / rows.std(1, keepdim=True).clamp_min(0.02)


def _centre(crops: Tensor) -> Tensor:
    """The mean input (d,) over windows and their mirror images; else, of faces, it would be all that is learned."""
    total = torch.stack([_inputs(_middle(part)).sum(0) for part in crops.split(4096)]).sum(0)
    mean = (total / len(crops)).view(-1, SIDE, SIDE)
    return ((mean + mean.flip(2)) / 2).flatten()


def _noisy(crops: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """What the autoencoder is given of a batch of windows, and what it is to give back; half of them are mirrored."""
    crops = torch.where(torch.rand(len(crops), 1, 1, 1) < 0.5, crops, crops.flip(3))
    down, right = torch.randint(-1, 2, (2,)).tolist()
    given = _inputs(_middle(crops, down, right)) - centre
    return F.dropout(given + NOISE * torch.randn_like(given), DROPPED), _inputs(_middle(crops)) - centre


def _blur(side: int, sigma: float) -> Tensor:
    """The matrix (side, side) of a Gaussian of that many pixels; the border goes on beyond itself."""
    steps = torch.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1)
    weights = torch.exp(-steps.square() / (2 * sigma**2))
    places = (torch.arange(side)[:, None] + steps).clamp(0, side - 1)
    return torch.zeros(side, side).scatter_add_(1, places, (weights / weights.sum()).expand(side, -1))


def _unit(rows: Tensor) -> Tensor:
    """Rows of mean 0 and length 1; those with hardly any detail stay short, and correlate with nothing."""
    rows = rows - rows.mean(1, keepdim=True)
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(0.1 * rows.shape[1] ** 0.5)


def _fisher(correlations: Tensor) -> Tensor:
    """Fisher's transform, which makes correlations nearly normal: Biometrika 1915."""
    return correlations.clamp(-1 + 1e-7, 1 - 1e-7).atanh()


def _law(fine: Tensor, some: Tensor, partners: Tensor) -> Law:
    """The law of the nearest unrelated neighbour in the set, from some images and mirrored partners.

    An exponential tail through the median and the ninth decile, which a tenth of odd images does not move.
    """
    a, itself = fine[some], some[:, None] == partners
    both = [torch.maximum(correlate(a, b), correlate(b, a).T) for b in (fine[partners], fine[partners].flip(3))]
    true, mirrored = (_fisher(table).masked_fill(itself, -torch.inf) for table in both)
    k = min(NEIGHBOUR, len(partners) - 1)
    handedness = true.topk(k, 1).values[:, -1] - mirrored.topk(k, 1).values[:, -1]
    middle, level = mirrored.amax(1).quantile(torch.tensor([0.5, 0.9])).tolist()
    decade = (level - middle) / math.log10(5)
    level += max(0.0, float(handedness.median()))
    return Law(level + decade * math.log10(len(fine) / len(partners)), decade)


def _radius(code: Code, crops: Tensor, some: Tensor, partners: Tensor, candidates: int) -> int:
    """The largest Hamming distance within which an image has at most so many unrelated others, on average."""
    bits, mirrored = code.bits(crops[some]), code.bits(crops[partners].flip(3))
    distances = (UNITS - _signs(bits) @ _signs(mirrored).T) / 2
    counts = distances[some[:, None] != partners].long().bincount(minlength=UNITS + 1)
    within = counts.cumsum(0) * (len(crops) - 1) <= candidates * counts.sum()
    return max(0, int(within.sum()) - 1)


def _signs(bits: Tensor) -> Tensor:
    return bits.float() * 2 - 1


def _alike(fine: Tensor, bits: Tensor, radius: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Pairs (m, 2) within the radius and their correlations (m,), the larger of those with either of the two moved."""
    signs, n = _signs(bits), len(bits)
    keys, found = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0)]
    for rows in torch.arange(n).split(chunk):
        near = signs[rows] @ signs.T >= UNITS - 2 * radius
        near[torch.arange(len(rows)), rows] = False
        for i, row in zip(rows.tolist(), near):
            for others in row.nonzero()[:, 0].split(1024):
                alike = correlate(fine[i : i + 1], fine[others])[0]
                others, alike = others[alike >= LEAST], alike[alike >= LEAST]
                keys.append(others.clamp_max(i) * n + others.clamp_min(i))
                found.append(alike)
    pairs, inverse = torch.cat(keys).unique(return_inverse=True)
    best = torch.full((len(pairs),), -1.0).scatter_reduce_(0, inverse, torch.cat(found), "amax")
    return torch.stack([pairs // n, pairs % n], 1), best
