"""Singular values of matrices (b, p, q), and the projection onto the nuclear ball, by Gram matrices in float64.

The smaller Gram matrix is cheap to factor but loses half the digits of small singular values: a value below 1e-8 of the
largest cannot be told from 0. Where that matters, the rows that belong to small values are factored once more by
themselves, relative to their own size. Errors are then about 1e-12 of the largest value. A projection does not
expand, so that its error is at most the perturbation of its input.
"""

import torch
from torch import Tensor

SMALL = 1e-4
"""Values below SMALL · the largest are factored by themselves; the error is about eps / SMALL."""
SHALLOW = 1e-5
"""A projection that takes less than SHALLOW · the largest value from each is made with the finer factorisation."""


def singular_values(x: Tensor) -> Tensor:
    """The singular values of x (b, p, q), (b, min(p, q)), descending, in float64."""
    sigma = torch.stack([_fine(matrix)[1] for matrix in _wide(x.double())])
    return sigma.sort(dim=1, descending=True).values


def nuclear_norm(x: Tensor) -> Tensor:
    """‖x‖_*, the sum of the singular values of x (b, p, q), (b,), in the dtype of x."""
    return singular_values(x).sum(1).to(x.dtype)


def spectral_norm(x: Tensor) -> Tensor:
    """‖x‖_op, the largest singular value of x (b, p, q), (b,), in the dtype of x."""
    wide = _wide(x.double())
    return torch.linalg.eigvalsh(_gram(wide))[:, -1].clamp_min(0).sqrt().to(x.dtype)


def top_pair(x: Tensor) -> tuple[Tensor, Tensor]:
    """The first singular vectors a (b, p) and b (b, q) of x (b, p, q), in its dtype; b is 0 where x is 0."""
    wide = _wide(x.double())
    a = torch.linalg.eigh(_gram(wide)).eigenvectors[:, :, -1]
    b = (a.unsqueeze(1) @ wide).squeeze(1)
    b = b / torch.linalg.vector_norm(b, dim=1, keepdim=True).clamp_min(torch.finfo(b.dtype).tiny)
    a, b = a.to(x.dtype), b.to(x.dtype)
    return (a, b) if x.shape[1] <= x.shape[2] else (b, a)


def l1_threshold(sigma: Tensor, radius: Tensor) -> Tensor:
    """The least tau >= 0 with Σ max(sigma - tau, 0) <= radius, for sigma (b, k) >= 0 and radius (b,) > 0.

    Duchi, Shalev-Shwartz, Singer & Chandra, ICML 2008, Figure 1.
    """
    s = sigma.sort(dim=1, descending=True).values
    count = torch.arange(1, s.shape[1] + 1, dtype=s.dtype, device=s.device)
    tau = (s.cumsum(1) - radius.unsqueeze(1)) / count
    kept = (s > tau).sum(1, keepdim=True).clamp_min(1)
    return tau.gather(1, kept - 1).squeeze(1).clamp_min(0)


def project_nuclear(v: Tensor, radius: float | Tensor) -> Tensor:
    """The nearest matrices to v (b, p, q) with ‖x‖_* <= radius, a number or (b,); in the dtype of v, from float64.

    Singular values are reduced by the threshold that brings their sum to the radius. Matrices inside come back
    unchanged. Error at most 1e-9 of ‖v‖. Raises ArithmeticError where v is not finite.

    Cai, Candès & Shen, SIAM J. Optim. 2010; Duchi et al., ICML 2008.
    """
    wide = _wide(v.double())
    R = torch.as_tensor(radius, dtype=wide.dtype, device=v.device).reshape(-1).expand(len(v))
    left, sigma = _coarse(wide)
    p, top = sigma.shape[1], sigma.amax(1)
    blur = p * (p * torch.finfo(sigma.dtype).eps) ** 0.5 * top  # what the Gram matrix may hide of the sum
    inside = (sigma.sum(1) + blur <= R).tolist()
    if all(inside):
        return v
    tau, x = l1_threshold(sigma, R), v.clone()
    for i in (i for i in range(len(v)) if not inside[i]):
        deep = bool(tau[i] >= SHALLOW * top[i])
        projected = _deep(wide[i], left[i], sigma[i], tau[i]) if deep else _shallow(wide[i], R[i])
        if projected is not None:
            x[i] = projected if v.shape[1] <= v.shape[2] else projected.mT
    return x


def _deep(wide: Tensor, left: Tensor, sigma: Tensor, tau: Tensor) -> Tensor:
    """left' diag(max(1 - tau / sigma, 0)) left @ matrix (p, q), multiplied in the cheapest order."""
    kept = sigma > tau
    return torch.linalg.multi_dot((left[kept].mT * (1 - tau / sigma[kept]), left[kept], wide))


def _shallow(wide: Tensor, radius: Tensor) -> Tensor | None:
    """The projection of a matrix (p, q) close to the ball, by its finer factorisation; None where it is inside."""
    left, sigma, rows = _fine(wide)
    tau = l1_threshold(sigma.unsqueeze(0), radius.unsqueeze(0)).squeeze(0)
    kept = sigma > tau
    return None if tau == 0 else (left[kept].mT * (1 - tau / sigma[kept])) @ rows[kept]


def _fine(wide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Left vectors (p, p), values (p,) and rows (p, q) of a matrix (p, q), p <= q: matrix = left' @ rows."""
    left = _coarse(wide.unsqueeze(0))[0].squeeze(0)
    rows = left @ wide
    sigma = torch.linalg.vector_norm(rows, dim=1)
    small = sigma < SMALL * sigma.amax()
    if bool(small.any()):
        turn = _coarse(rows[small].unsqueeze(0))[0].squeeze(0)
        left[small] = turn @ left[small]
        rows[small] = turn @ rows[small]
        sigma = torch.linalg.vector_norm(rows, dim=1)
    return left, sigma, rows


def _coarse(wide: Tensor) -> tuple[Tensor, Tensor]:
    """Left vectors as rows (b, p, p) and values (b, p) of matrices (b, p, q), by their Gram matrices."""
    squares, vectors = torch.linalg.eigh(_gram(wide))
    return vectors.mT.contiguous(), squares.clamp_min(0).sqrt()


def _gram(wide: Tensor) -> Tensor:
    """x x' of x (b, p, q). Raises ArithmeticError where x is not finite."""
    gram = wide @ wide.mT
    if not bool(gram.isfinite().all()):
        raise ArithmeticError(
            "a matrix has entries that are not finite or overflow; scale the data, or take smaller steps"
        )
    return gram


def _wide(x: Tensor) -> Tensor:
    """x (b, p, q), transposed where p > q."""
    return x if x.shape[1] <= x.shape[2] else x.mT
