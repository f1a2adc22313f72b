"""The layer of linear activations, exactly: from filters to the matrix A and back, and the radius that holds them.

f_k(x) = Σ_j Σ_p alpha_{k,j,p} <w_j, z_p(x)> = tr(Z(x) A_k), with A_k = Σ_j w_j alpha_{k,j}' and Z(x) of rows z_p(x).
"""

import math

import torch
from torch import Tensor

from triptych.check import wrong


def from_filters(w: Tensor, alpha: Tensor) -> Tensor:
    """A (d, P · K) of filters w (r, d) and output weights alpha (K, r, P). Zhang, Liang & Wainwright, ICML 2017, eq. (5).

    Raises InputError where the two disagree about r.
    """
    if w.ndim != 2 or alpha.ndim != 3 or alpha.shape[1] != len(w):
        raise wrong("alpha", f"(K, {len(w)}, P), weights of each of the {len(w)} filters", tuple(alpha.shape))
    return torch.einsum("jd,kjp->dpk", w, alpha).reshape(w.shape[1], -1)


def to_filters(A: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Filters w (r, d) and alpha (K, r, P) with `from_filters` (w, alpha) = A (d, P · K), r its rank; balanced norms."""
    if A.ndim != 2 or A.shape[1] % classes:
        raise wrong("A", f"a matrix (d, P · {classes})", tuple(A.shape))
    left, values, right = torch.linalg.svd(A, full_matrices=False)
    rank = max(1, int((values > values[0] * max(A.shape) * torch.finfo(A.dtype).eps).sum()))
    root = values[:rank].sqrt()
    w = (left[:, :rank] * root).mT
    alpha = (root[:, None] * right[:rank]).view(rank, -1, classes).permute(2, 0, 1)
    return w, alpha


def radius_bound(w: Tensor, alpha: Tensor) -> float:
    """R = B1 B2 r sqrt(K) >= ‖A‖_*, B1 = max ‖w_j‖₂, B2 = max ‖alpha_{k,j}‖₂. Zhang, Liang & Wainwright, eq. (7)."""
    b1 = float(torch.linalg.vector_norm(w, dim=1).max())
    b2 = float(torch.linalg.vector_norm(alpha, dim=2).max())
    return b1 * b2 * len(w) * math.sqrt(len(alpha))
