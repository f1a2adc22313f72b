"""What the filters of a layer respond to, as pictures: the best linear approximation of each."""

import torch
from torch import Tensor

from triptych.ccnn.features import PatchFeatures
from triptych.ccnn.layer import ConvexLayer

DRAWS = 20_000
SEED = 0


def filter_pictures(layer: ConvexLayer) -> Tensor:
    """Pictures (r, c, h, w) of a layer's r filters: weights whose product with a patch is nearest to the filter's response.

    The response of filter j to one patch p, before pooling, is f_j(p) = <filter_j, mix' (phi(z) - centre)> with
    z = whiten (p - mean), p contrast-normalised where the layer does so. The weights are those of a ridge regression,
    w_j = (S + ridge I)^-1 E[f_j(p) (p - mean)], over Gaussian patches p with the mean and the covariance S of the training
    patches, which the whitening knows: no training image is needed. 20,000 draws of a fixed seed; ``ridge`` is the
    whitening's own, without which weights on pixels that hardly vary drown the rest. Where a layer does not whiten, the
    draws are white and there is no ridge; for the linear kernel the picture is then the filter itself. Unit: response per
    unit of patch; strongest filter first.

    Hoerl & Kennard, Technometrics 1970.
    """
    features = layer.features
    (c, _, _), (h, w) = features.shape, features.patch
    covariance, ridge = patch_covariance(features)
    values, vectors = torch.linalg.eigh(covariance)
    rng = torch.Generator().manual_seed(SEED)
    white = torch.randn(max(DRAWS, 20 * len(values)), len(values), generator=rng, dtype=torch.float64)
    p = _centred(white @ (vectors * values.clamp_min(0).sqrt()).mT)
    f = _centred(_responses(layer, p))
    penalty = ridge * len(p) * torch.eye(len(values), dtype=torch.float64)
    return torch.linalg.solve(p.mT @ p + penalty, p.mT @ f).mT.reshape(-1, c, h, w)


def patch_covariance(features: PatchFeatures) -> tuple[Tensor, float]:
    """The covariance S (d, d) of the training patches, float64, and the ridge of their whitening.

    From whiten = (S + ridge I)^(-1/2) / sqrt(t), t = trace(S (S + ridge I)^-1), which is d / (1 + ridge ‖whiten‖_F²).
    Without whitening: a multiple of I, of the patches' variance where that was divided by (else of trace 1), and 0.
    """
    ridge, d = features.settings.ridge, features.shape[0] * features.patch[0] * features.patch[1]
    identity = torch.eye(d, dtype=torch.float64)
    if features.whiten is None:
        return identity / d, 0.0
    whiten = features.whiten.double().cpu()
    if ridge is None:
        return identity / whiten.square().sum(), 0.0
    t = d / (1 + ridge * whiten.square().sum())
    return torch.linalg.inv(t * whiten @ whiten) - ridge * identity, ridge


def drawable(pictures: Tensor) -> Tensor:
    """Pictures (r, c, h, w) with 1 or 3 channels as they are; of others the mean over their channels, (r, 1, h, w)."""
    return pictures if pictures.shape[1] in (1, 3) else pictures.mean(1, keepdim=True)


def _responses(layer: ConvexLayer, p: Tensor) -> Tensor:
    """Responses (N, r) of the filters to centred patches p (N, d), without pooling, up to a constant a filter."""
    features, expansion = layer.features, layer.features.expansion
    z = p if features.whiten is None else p @ features.whiten.to(p)
    if features.settings.kernel.ball:
        z = z / torch.linalg.vector_norm(z, dim=1, keepdim=True).clamp_min(1.0)
    mix = features.mix.double().cpu() @ layer.filters.double().cpu()
    return torch.cat([expansion.finish(expansion.raw(part)).double().cpu() @ mix for part in z.split(4096)])


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(0)
