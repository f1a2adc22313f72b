"""The features of one layer: patches -> kernel expansion -> pooling -> principal components, in a stream of chunks."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from triptych.ccnn.kernels import Expansion, Linear, nystrom
from triptych.ccnn.patches import contrast_normalise, extract_patches, whitening
from triptych.ccnn.settings import Layer
from triptych.check import InputError

SAMPLE_PATCHES = 200_000  # rows for the patches' covariance
SAMPLE_POSITIONS = 50_000  # rows for the pooled features' covariance
FEW_ENTRIES = 1 << 23  # features that are float32 where the choice is free: speed is no matter, exact kernels are
TINY = 1e-20  # a variance below it is rounding: constant patches are left as they are
CHUNK_ENTRIES = 4_000_000  # features of a chunk before pooling: 8 MB in bf16


@dataclass(frozen=True, eq=False)
class PatchFeatures:
    """Fitted features of maps (n, c, h, w): rows (n, P, q), z_p = (pool(phi(whiten(patch - mean))) - centre) mix.

    Maps of any dtype are multiplied by ``scale`` first. ``whiten`` None leaves the patches as they are. ``dtype`` is what the products are computed in.
    """

    settings: Layer
    shape: tuple[int, int, int]
    expansion: Expansion
    mean: Tensor | None
    whiten: Tensor | None
    centre: Tensor
    mix: Tensor
    window: int
    stride: int
    dtype: torch.dtype
    scale: float = 1.0

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of a patch: square, but for maps that are lower or narrower than it."""
        size = self.settings.patch or 1
        return min(size, self.shape[1]), min(size, self.shape[2])

    @property
    def places(self) -> tuple[int, int]:
        """Positions before pooling, (H, W)."""
        return self.shape[1] - self.patch[0] + 1, self.shape[2] - self.patch[1] + 1

    @property
    def grid(self) -> tuple[int, int]:
        """Positions after pooling, (P0, P1): windows lie inside."""
        tall, wide = ((side - min(self.window, side)) // self.stride + 1 for side in self.places)
        return tall, wide

    @property
    def positions(self) -> int:
        """P = P0 · P1."""
        return self.grid[0] * self.grid[1]

    @property
    def components(self) -> int:
        """q."""
        return self.mix.shape[1]

    @property
    def chunk(self) -> int:
        """Images that are worked on at once."""
        return max(1, CHUNK_ENTRIES // (math.prod(self.places) * self.expansion.width))

    @cached_property
    def _folded(self) -> tuple[Tensor, Tensor]:
        """The linear end of the expansion folded into mix, (m, q) and an offset (q,)."""
        mix = self.expansion.finish(torch.eye(self.expansion.width, dtype=torch.float64)) @ self.mix.double()
        return mix.to(self.dtype), (self.centre.double() @ self.mix.double()).to(
            torch.promote_types(self.dtype, torch.float32)
        )

    def pooled(self, maps: Tensor) -> Tensor:
        """The pooled pointwise part of the expansion for a chunk of maps (n, c, h, w): (n, P, m) in ``dtype``."""
        raw = self.expansion.raw(self.patches(maps).to(self.dtype))
        planes = raw.view(len(maps), *self.places, raw.shape[1]).permute(0, 3, 1, 2)
        window = (min(self.window, self.places[0]), min(self.window, self.places[1]))
        return (
            avg_pool2d(planes, window, self.stride).permute(0, 2, 3, 1).reshape(len(maps), self.positions, raw.shape[1])
        )

    def normalised(self, maps: Tensor) -> Tensor:
        """Contrast-normalised patches (N, d) of a chunk of maps."""
        exact = torch.float64 if self.dtype == torch.float64 else torch.float32
        z = extract_patches(maps.to(exact) * self.scale, self.patch)
        return z if self.settings.contrast is None else contrast_normalise(z, self.settings.contrast)

    def patches(self, maps: Tensor) -> Tensor:
        """Normalised and whitened patches (N, d), E ‖z‖₂² = 1, of a chunk of maps; a ball kernel's are moved into the ball."""
        z = self.normalised(maps)
        if self.whiten is not None and self.mean is not None:
            z = (z - self.mean.to(z)) @ self.whiten.to(z)
        if self.settings.kernel.ball:
            z = z / torch.linalg.vector_norm(z, dim=1, keepdim=True).clamp_min(1.0)
        return z

    def __call__(self, maps: Tensor) -> Tensor:
        """The features (n, P, q) of maps (n, c, h, w), in float32 (float64 for the linear kernel)."""
        if tuple(maps.shape[1:]) != self.shape:
            raise InputError(
                f"images must have the shape of the training images, {self.shape}, got {tuple(maps.shape[1:])}"
            )
        # one block that is filled: many small results that outlive large temporaries fragment the heap without bound
        exact = torch.promote_types(self.dtype, torch.float32)
        rows = torch.empty(len(maps), self.positions, self.components, dtype=exact, device=maps.device)
        for first in range(0, len(maps), self.chunk):
            part = slice(first, first + self.chunk)
            rows[part] = self._chunk(maps[part])
        return rows

    def _chunk(self, maps: Tensor) -> Tensor:
        mix, offset = self._folded
        raw = self.pooled(maps)
        rows = raw.flatten(0, 1) @ mix.to(raw.device)
        return (rows.to(offset.dtype) - offset.to(raw.device)).view(len(maps), self.positions, self.components)

    def filtered(self, filters: Tensor, window: int, stride: int) -> "PatchFeatures":
        """The same features after filters (q, r), at another pooling: a layer's maps are these."""
        return replace(self, mix=(self.mix @ filters.to(self.mix)).contiguous(), window=window, stride=stride)


def fit_features(
    maps: Tensor,
    settings: Layer,
    rng: torch.Generator,
    *,
    scale: float = 1.0,
    precision: torch.dtype | None = None,
) -> PatchFeatures:
    """Learn whitening, expansion, centre and principal components from training maps (n, c, h, w) times ``scale``.

    Statistics come from these images alone, from a random part of them where there are more than are needed.
    ``precision`` overrides the choice of dtype: the coarsest that the expansion is safe in, but float32 at least where
    there are few features.
    """
    shape = (int(maps.shape[1]), int(maps.shape[2]), int(maps.shape[3]))
    settings = settings.resolved(shape)
    order = torch.randperm(len(maps), generator=rng)
    blank = PatchFeatures(
        settings, shape, settings.kernel.random(1, 1, rng), None, None,
        torch.zeros(1), torch.zeros(1, 1), settings.window or 1, settings.stride or 1, torch.float32, scale,
    )  # fmt: skip
    places = math.prod(blank.places)
    sample = maps[order[: max(1, -(-SAMPLE_PATCHES // places))].sort().values]
    if not isinstance(settings.kernel, Linear):
        mean, second = _moments(blank.normalised(part) for part in sample.split(256))
        matrix = torch.eye(len(mean)).to(second) if settings.ridge is None else whitening(second, settings.ridge)
        power = (matrix @ second @ matrix).trace()
        blank = replace(
            blank, mean=mean.float().cpu(), whiten=(matrix * (power.rsqrt() if power > TINY else 1.0)).float().cpu()
        )
    expansion = _expansion(blank, sample, rng)
    dtype = precision or expansion.dtype
    entries = len(maps) * blank.positions * min(settings.components or expansion.width, expansion.width)
    if expansion.dtype == torch.float64 or (precision is None and dtype == torch.bfloat16 and entries <= FEW_ENTRIES):
        dtype = torch.promote_types(expansion.dtype, torch.float32)
    some = maps[order[: max(1, -(-SAMPLE_POSITIONS // blank.positions))].sort().values]
    return _with_components(replace(blank, expansion=expansion, dtype=dtype), some)


def _expansion(blank: PatchFeatures, sample: Tensor, rng: torch.Generator) -> Expansion:
    """The expansion that the settings name, for the patches of a sample of maps."""
    settings = blank.settings
    dim = blank.shape[0] * blank.patch[0] * blank.patch[1]
    if settings.method == "random":
        return settings.kernel.random(dim, settings.width, rng)
    rows = torch.cat([blank.patches(part) for part in sample[:256].split(64)])
    return nystrom(settings.kernel, rows[torch.randperm(len(rows), generator=rng)[:20_000]], settings.width, rng)


def _with_components(features: PatchFeatures, sample: Tensor) -> PatchFeatures:
    """Centre and mix from the pooled features of a sample: principal components, scaled by eigenvalue^-power."""
    settings, expansion = features.settings, features.expansion
    exact = torch.float64 if features.dtype == torch.float64 else torch.float32
    if not settings.centre and settings.power == 0 and settings.components is None:
        return replace(
            features, centre=torch.zeros(expansion.width, dtype=exact), mix=torch.eye(expansion.width, dtype=exact)
        )
    chunks = (expansion.finish(features.pooled(part).to(exact)).flatten(0, 1) for part in sample.split(features.chunk))
    mean, second = _moments(chunks)
    if not settings.centre:
        second, mean = second + torch.outer(mean, mean), torch.zeros_like(mean)
    values, vectors = torch.linalg.eigh(second)
    keep = min(settings.components or expansion.width, max(1, int((values > 1e-9 * values[-1]).sum())))
    values, vectors = values.flip(0)[:keep].clamp_min(TINY), vectors.flip(1)[:, :keep]
    scale = values.pow(1 - 2 * settings.power).sum().sqrt()
    mix = vectors * (values.pow(-settings.power) / scale)
    return replace(features, centre=mean.to("cpu", exact), mix=mix.to("cpu", exact).contiguous())


def _moments(chunks: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of the rows of a stream, summed in float64; products are made about the first mean."""
    total, first, second, origin = 0, torch.zeros(()), torch.zeros(()), None
    for rows in chunks:
        origin = rows.mean(0) if origin is None else origin
        rows = rows - origin
        first, second = first + rows.sum(0).double(), second + (rows.mT @ rows).double()
        total += len(rows)
    mean = first / total
    covariance = second / total - torch.outer(mean, mean)
    return mean + (0 if origin is None else origin.double()), covariance
