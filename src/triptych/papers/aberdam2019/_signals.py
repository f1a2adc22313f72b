"""Signals of two dense random layers whose middle code has some zeros: settings of the authors' repository."""

import numpy as np
import torch
from torch import Tensor

from triptych.sparse import ConvDictionary
from triptych.sparse.deep.dictionary import MultiLayerDictionary

N, M1, M2 = 50, 100, 50  # samples, coefficients of the middle and of the deepest code
SIGMA = 0.1  # deviation of the noise


def model_of(seed: int) -> MultiLayerDictionary:
    """Gaussian D_1 with columns, and D_2 with rows, of norm about 1: dense matrices as atoms of the size of their signals."""
    rng = np.random.default_rng([7, seed])
    D1 = rng.standard_normal((N, M1)) / np.sqrt(N)
    D2 = rng.standard_normal((M1, M2)) / np.sqrt(M2)
    first = ConvDictionary(torch.from_numpy(D1.T[:, None].copy()), N)
    return MultiLayerDictionary((first, ConvDictionary(torch.from_numpy(D2.T[:, :, None].copy()))))


def drawn(
    model: MultiLayerDictionary, zeros: int, nonzeros: int, decibels: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, float]:
    """A noisy signal, its codes G_1 with ``zeros`` zeros and g with ``nonzeros`` non-zeros, and the expected norm of the noise.

    g is random in the kernel of the rows of D_2 where G_1 is to be 0. ``decibels``: the norm of the signal is sqrt(N) SIGMA times
    10 ** (decibels / 10), as the repository has it.
    """
    D2 = model._matrix(2, (1,)).numpy()
    where, support = rng.choice(M1, zeros, replace=False), rng.choice(M2, nonzeros, replace=False)
    kernel = np.linalg.svd(D2[np.ix_(where, support)])[2][zeros:]
    g = np.zeros(M2)
    g[support] = rng.standard_normal(len(kernel)) @ kernel
    code = torch.from_numpy(g).reshape(1, M2, 1)
    scale = 10 ** (decibels / 10) * np.sqrt(N) * SIGMA / float(model.synthesise(code).norm())
    code = scale * code
    signal, middle, _ = model.cascade(code)
    noise = torch.from_numpy(SIGMA * rng.standard_normal((1, 1, N)))
    return signal + noise, middle, code, SIGMA * float(np.sqrt(N))
