"""How alike the atoms of a convolutional dictionary are, and how sparse codes must be for theory to vouch for them.

All of it looks at normalised atoms, laid in signals so large that none meets another twice: at least twice an atom's size.
"""

from math import inf, prod, sqrt

import torch
from torch import Tensor

from triptych.check import real, whole
from triptych.sparse.dictionary import ConvDictionary


def coherence_per_shift(D: ConvDictionary) -> Tensor:
    """max over atoms i, j of |<d_i, d_j laid t strides further>|, (2 q + 1, ...) in float64 with t from -q to q an axis.

    An atom with itself at t = 0 is left out. Papyan, Sulam & Elad, IEEE TSP 2017, part I: the shifted mutual coherence.
    Raises InputError where an atom is 0.
    """
    return _correlations(D).amax((0, 1))


def mutual_coherence(D: ConvDictionary) -> float:
    """mu(D) = max |<d_i, d_j>| over different columns of D (Donoho & Elad, PNAS 2003). Raises InputError where an atom is 0."""
    return _correlations(D).max().item()


def babel(D: ConvDictionary, count: int | None = None) -> Tensor:
    """mu_1(1 .. count), float64: the largest sum of |<d_i, d_j>| over a column i and so many others j (Tropp, IEEE TIT 2004).

    ``count`` None: as many as meet one column, k prod(2 q + 1) - 1. Raises InputError for more, and where an atom is 0.
    """
    G = _correlations(D).flatten(1)
    others = G.shape[1] - 1
    remedy = "no more columns meet one of the dictionary"
    count = others if count is None else whole("count", count, low=0, high=others, remedy=remedy)
    # A column with itself stands in its row as 0, and correlations are at least 0: it sorts behind all others.
    return G.topk(count, dim=1).values.cumsum(1).amax(0)


def welch_bound(D: ConvDictionary) -> float:
    """mu >= sqrt((k / r - 1) / (k prod(2 q + 1) - 1)), r = c prod(min(n, stride)), for all atoms of that number and size.

    One channel, one axis and stride 1: sqrt((k - 1) / (k (2 n - 1) - 1)), Papyan, Sulam & Elad, IEEE TSP 2017, part I.
    """
    # A circular dictionary of P places has k P unit columns and reaches r P samples: its Gram matrix G has trace k P and rank
    # r P at most, so ‖G‖² >= (k P)² / (r P) by Cauchy-Schwarz on the eigenvalues. Shifts leave the circle as it is, so the
    # columns of one place hold ‖G‖² / P >= k² / r of it: k ones on the diagonal, and k (k prod(2 q + 1) - 1) other
    # correlations that need not be 0. The largest square is at least their mean, (k / r - 1) / (k prod(2 q + 1) - 1).
    k, r = D.n_atoms, D.channels * prod(min(n, D.stride) for n in D.size)
    if k <= r:
        return 0.0
    stripe = k * prod(2 * ((n - 1) // D.stride) + 1 for n in D.size)
    return sqrt((k / r - 1) / (stripe - 1))


def uniqueness_bound(mu: float) -> float:
    """(1 + 1 / mu) / 2: codes with fewer non-zeros in every stripe are the sparsest (Papyan, Sulam & Elad, IEEE TSP 2017)."""
    return _one_and_inverse(mu) / 2


def basis_pursuit_bound(mu: float) -> float:
    """(1 + 1 / mu) / 3: up to so many non-zeros in a stripe, l1 finds no wrong atom (Papyan, Sulam & Elad, IEEE TSP 2017)."""
    return _one_and_inverse(mu) / 3


def _one_and_inverse(mu: float) -> float:
    mu = real("mu", mu, low=0)
    return 1 + 1 / mu if mu else inf


def _correlations(D: ConvDictionary) -> Tensor:
    """|<d_i, d_j laid t strides further>| of normalised atoms, (k, k, 2 q + 1, ...), and 0 for an atom with itself at t = 0."""
    G = D.to(torch.float64).normalise().gram().abs()
    own = torch.arange(D.n_atoms, device=G.device)
    G[(own, own, *(length // 2 for length in G.shape[2:]))] = 0
    return G
