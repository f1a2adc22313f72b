"""What the filters of a layer respond to, as pictures: the best linear approximation of each on white noise."""

import torch
from torch import Tensor

from triptych.ccnn.layer import ConvexLayer

DRAWS = 20_000
SEED = 0


def filter_pictures(layer: ConvexLayer) -> Tensor:
    """Pictures (r, c, h, w) of a layer's r filters: weights whose product with a patch is nearest to the filter's response.

    The response of filter j to one patch p, before pooling, is f_j(p) = <filter_j, mix' (phi(z) - centre)> with
    z = whiten (p - mean). Its weights are least squares over patches p = mean + whiten^-1 g, g white Gaussian with
    E ‖g‖₂² = 1, which have the training patches' mean and, but for the ridge, their covariance up to a factor: so no
    training image is needed. 20,000 draws of a fixed seed; for the linear kernel this is the filter itself. Patches are
    the contrast-normalised ones where the layer normalises. The unit is response per unit of patch; strongest filter first.

    The first-order term of the Hermite expansion of f_j: Stein, Annals of Statistics 1981, lemma 1.
    """
    features = layer.features
    (c, _, _), (h, w) = features.shape, features.patch
    d = c * h * w
    rng = torch.Generator().manual_seed(SEED)
    g = torch.randn(max(DRAWS, 20 * d), d, generator=rng, dtype=torch.float64) / d**0.5
    slopes = _slopes(_centred(g), _centred(_responses(layer, g)))
    if features.whiten is not None:
        slopes = features.whiten.double().cpu() @ slopes
    return slopes.mT.reshape(-1, c, h, w)


def drawable(pictures: Tensor) -> Tensor:
    """Pictures (r, c, h, w) with 1 or 3 channels as they are; of others the mean over their channels, (r, 1, h, w)."""
    return pictures if pictures.shape[1] in (1, 3) else pictures.mean(1, keepdim=True)


def _responses(layer: ConvexLayer, z: Tensor) -> Tensor:
    """Responses (N, r) of the filters to whitened patches z (N, d), without pooling."""
    features, expansion = layer.features, layer.features.expansion
    if features.settings.kernel.ball:
        z = z / torch.linalg.vector_norm(z, dim=1, keepdim=True).clamp_min(1.0)
    mix = features.mix.double().cpu() @ layer.filters.double().cpu()
    return torch.cat([expansion.finish(expansion.raw(part)).double().cpu() @ mix for part in z.split(4096)])


def _slopes(x: Tensor, y: Tensor) -> Tensor:
    """Weights (d, r) of the least-squares regression of centred y (N, r) on centred x (N, d)."""
    return torch.linalg.solve(x.mT @ x, x.mT @ y)


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(0)
