"""Random models of two layers with small coherence, and signals inside the conditions of their theorems.

The first layer are the filters of a modified discrete cosine transform with a sine window, an orthonormal basis of long signals
(Princen & Bradley, IEEE TASSP 1986), each a little off; the second are atoms of a few entries of one size, any two of which, laid
anywhere, share one entry at most.
"""

from math import pi, sqrt

import numpy as np
import torch
from torch import Tensor

from triptych.papers.papyan2017._trials import planted
from triptych.sparse import ConvDictionary
from triptych.sparse.deep.dictionary import MultiLayerDictionary

F64 = torch.float64
BANDS, OFF = 8, 2e-3  # filters of the first layer, and how far off the basis they are, relative
ATOMS, SIZE, STRIDE, ENTRIES = 4, 24, 4, 10  # of the second


def cosines(off: float, seed: int) -> ConvDictionary:
    """BANDS unit filters of twice as many samples, at stride BANDS."""
    n, k = torch.arange(2 * BANDS, dtype=F64), torch.arange(BANDS, dtype=F64)[:, None]
    window = torch.sin(pi * (n + 0.5) / (2 * BANDS))
    filters = sqrt(2 / BANDS) * window * torch.cos(pi / BANDS * (n + 0.5 + BANDS / 2) * (k + 0.5))
    rng = torch.Generator().manual_seed(seed)
    filters = filters + off * torch.randn(filters.shape, generator=rng, dtype=F64) / sqrt(2 * BANDS)
    return ConvDictionary(filters[:, None], BANDS).normalise()


def disjoint(seed: int) -> ConvDictionary:
    """ATOMS atoms of BANDS channels and SIZE samples at stride STRIDE with ENTRIES entries of ± 1 / sqrt(ENTRIES)."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < ATOMS:
        where = rng.choice(BANDS * SIZE, ENTRIES, replace=False)
        atom = np.zeros((BANDS, SIZE))
        atom.flat[where] = rng.choice([-1, 1], ENTRIES) / sqrt(ENTRIES)
        if all(_apart(atom, other) for other in [*found, atom]):
            found.append(atom)
    return ConvDictionary(torch.from_numpy(np.stack(found)), STRIDE)


def _apart(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two atoms share at most one entry wherever they are laid, themselves at the same place aside."""
    for shift in range(-SIZE + STRIDE, SIZE, STRIDE):
        if a is b and not shift:
            continue
        left = a[:, max(0, shift) : SIZE + min(0, shift)] != 0
        right = b[:, max(0, -shift) : SIZE - max(0, shift)] != 0
        if (left & right).sum() > 1:
            return False
    return True


def made(seed: int) -> MultiLayerDictionary:
    """Two layers."""
    return MultiLayerDictionary((cosines(OFF, seed), disjoint(seed)))


def drawn(model: MultiLayerDictionary, stripe: int, places: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """(X, G_1, G_2) with a stripe norm of G_2, magnitudes of it from 1 to 1.1."""
    code = planted(model.layers[1], (places,), stripe, rng)
    code = code.sign() * torch.where(code != 0, 1 + (code.abs() - 1) / 10, 0.0)
    return model.cascade(code)


def noisy(signal: Tensor, local: float, size: tuple[int, ...], rng: np.random.Generator) -> tuple[Tensor, float, float]:
    """The signal with noise of which the worst patch has the norm ``local``; that norm, rounded up, and the noise's own."""
    from triptych.sparse.norms import l2_patch

    e = torch.from_numpy(rng.standard_normal(signal.shape))
    e *= local / float(l2_patch(e, size))
    y = signal + e
    e = y - signal
    return y, float(l2_patch(e, size)) * (1 + 1e-12), float(e.norm()) * (1 + 1e-12)
