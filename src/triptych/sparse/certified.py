"""What noise cannot do to a code: atoms that stay out of it, and labels that a linear classifier on it keeps.

Nothing here asks for a small coherence: all is computed from one signal's code. With r(y) = y - D x(y) the residual of the
exact code of y, r is the projection of y onto the convex set of dual points, {θ: ⟨dⱼ, θ⟩ <= λⱼ}, and so neither r(y) nor D x(y)
moves farther than y does. A code whose duality gap is δ has a residual within ρ = sqrt(2 δ) of the exact one, because the
least squares are strongly convex in D x. For ‖v‖₂ <= ε therefore

    ⟨dⱼ, r(y + v)⟩  <=  ⟨dⱼ, r⟩ + (ε + ρ) ‖dⱼ‖,

and atoms for which that is below λⱼ are in neither exact code. The others, with those of the code at hand, are a set I(ε + ρ). If
their columns are independent, x' - x = (D_I* D_I)⁻¹ D_I* (D x' - D x) for the exact code x' of y + v, so for any weights a

    |⟨a, x' - x⟩|  <=  (ε + ρ) · sqrt(a_I* (D_I* D_I)⁻¹ a_I).

The projection argument is that of Mairal, Bach & Ponce, IEEE TPAMI 2012 (appendix); support stability under coherence: Romano et
al., JMIV 2020, and Sulam, Muthukumar & Arora, NeurIPS 2020.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from math import inf, prod

import numpy as np
import torch
from scipy.linalg import get_lapack_funcs, solve_triangular
from torch import Tensor

from triptych.check import InputError, real, wrong
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.pursuits.placed import Placed

ROUNDING = 1e-9  # relative: more than float64 can lose here
INDEPENDENT = 1e-10  # squared distance of a column to those before it, relative, below which it counts as dependent


@dataclass(frozen=True, eq=False)
class Certified:
    """Labels (b,), the least lead of their score over another (b,), and radii (b,).

    Every signal within the radius, in the l2 norm, has an exact code with the same label; 0 where nothing is promised.
    """

    label: Tensor
    margin: Tensor
    radius: Tensor


def certified_radius(coding: Coding, codes: Codes | Tensor, gap: Tensor, weights: Tensor, bias: Tensor) -> Certified:
    """The l2 radius within which label = argmax(weights · code + bias) is that of every signal's exact code.

    Parameters
    ----------
    coding : b coding problems, all with λ > 0; the perturbation is of their signals, λ stays.
    codes : their codes ``(b, k, *code_shape)``, sparse or dense, as a pursuit found them.
    gap : (b,) their duality gaps.
    weights : ``(classes, k, *code_shape)``, or flat (classes, k · places).
    bias : (classes,).

    All in float64. The larger ε, the larger the set I of atoms that may take part; they are taken in by the ε at which they
    enter, and one Cholesky factor of their Gram matrix in that order holds the bounds of all sets. Raises InputError for
    what does not fit.
    """
    flat = _weights(coding, weights, bias)
    grams = _Grams(coding)
    label, margin, radius = [], [], []
    for i, (x, distance, ahead) in enumerate(_entering(coding, codes, gap)):
        scores = flat @ x + bias.double().numpy()
        first = int(scores.argmax())
        others = np.delete(np.arange(len(scores)), first)
        lead = scores[first] - scores[others]
        label.append(first)
        margin.append(float(lead.min()))
        reach = _reach(grams, i, flat[first] - flat[others], lead, x, distance)
        radius.append(max(0.0, reach * (1 - ROUNDING) - ahead))
    return Certified(torch.tensor(label), _doubles(margin), _doubles(radius))


def may_enter(coding: Coding, codes: Codes | Tensor, gap: Tensor, radius: float) -> list[Tensor]:
    """Places in the flat code, b int64 tensors: no atom elsewhere is in the exact code of any signal within an l2 radius."""
    radius = real("radius", radius, low=0.0)
    found = []
    for x, distance, ahead in _entering(coding, codes, gap):
        t = (radius + ahead) * (1 + ROUNDING)
        found.append(torch.from_numpy(np.flatnonzero((distance <= t) | (x != 0))))
    return found


def _entering(
    coding: Coding, codes: Codes | Tensor, gap: Tensor
) -> Generator[tuple[np.ndarray, np.ndarray, float], None, None]:
    """Of every problem its code x, flat; how far the residual must move for each atom to enter; and ρ."""
    b, shape = len(coding.signals), (coding.dictionary.n_atoms, *coding.code_shape)
    dense = codes.dense(torch.float64) if isinstance(codes, Codes) else codes.double()
    if tuple(dense.shape) != (b, *shape):
        raise wrong("codes", f"of shape {(b, *shape)}", tuple(dense.shape))
    if gap.shape != (b,) or not bool((gap >= 0).all()):
        raise wrong("gap", f"({b},) numbers of at least 0, the duality gaps of the codes", gap)
    lam = coding.lam().double()
    if not bool((lam > 0).all()):
        raise InputError("certificates need reg above 0; without a penalty every atom may enter")
    for i in range(b):
        one = torch.zeros(b, dtype=torch.bool)
        one[i] = True
        double = replace(coding.take(one), dictionary=coding.dictionary.to(torch.float64))
        c = double.map.adjoint(double.residual(dense[i : i + 1]))[0]
        level = lam[i] if double.weights is None else lam[i] * double.weights[0].double().expand_as(c)
        norms = double.dictionary.norms.reshape(-1, *(1,) * len(coding.shape))
        distance = (level - (c if coding.nonnegative else c.abs())) / norms.clamp_min(1e-300)
        rho = float(2 * gap[i].double()) ** 0.5
        yield dense[i].flatten().numpy(), distance.flatten().numpy(), rho


def _reach(grams: "_Grams", i: int, a: np.ndarray, lead: np.ndarray, x: np.ndarray, distance: np.ndarray) -> float:
    """The largest t with lead > u · sqrt(a_I* (D_I* D_I)⁻¹ a_I) for all rivals, I = I(u) and u < t."""
    enters = np.where(x != 0, -inf, distance)
    order = np.argsort(enters, kind="stable")
    ordered = enters[order]
    start = int((ordered <= 0).sum())
    meets = _meets(grams, i, order[:start], a, lead)
    if len(meets) <= start:  # the columns of the code at hand depend on each other
        return 0.0
    # Only atoms that enter before the bound of those that are in already can lower it.
    meets = _meets(grams, i, order[: int((ordered <= meets[start]).sum())], a, lead)
    for m in range(start, len(meets)):
        until = ordered[m] if m < len(ordered) else inf
        if meets[m] <= until:
            return float(max(meets[m], ordered[m - 1], 0.0) if m > start else meets[m])
    return float(until)  # the next column depends on those before it


def _meets(grams: "_Grams", i: int, order: np.ndarray, a: np.ndarray, lead: np.ndarray) -> np.ndarray:
    """Of the first 0, 1, ... atoms, where t times their bound meets the lead of some rival; up to the first dependent one."""
    L = _factor(grams.of(i, order))
    y = (
        solve_triangular(L, a[:, order[: len(L)]].T, lower=True, check_finite=False)
        if len(L)
        else np.zeros((0, len(a)))
    )
    bound = np.sqrt(np.concatenate([np.zeros((1, len(a))), np.cumsum(y * y, 0)]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bound > 0, lead / bound, np.where(lead > 0, inf, 0.0)).min(1, initial=inf)


def _factor(G: np.ndarray) -> np.ndarray:
    """The Cholesky factor of the longest leading block of G whose columns are independent."""
    if not len(G):
        return G
    (potrf,) = get_lapack_funcs(("potrf",), (G,))
    L, failed = potrf(G, lower=1)
    if failed:
        return _factor(G[: failed - 1, : failed - 1])
    bad = np.flatnonzero(np.diag(L) ** 2 < INDEPENDENT * np.diag(G))
    return L[: bad[0], : bad[0]] if len(bad) else L


class _Grams:
    """⟨dᵢ, dⱼ⟩ of placed atoms of every problem: read off the dictionary's, or where a mask is from the masked columns."""

    def __init__(self, coding: Coding) -> None:
        self.D, self.coding = coding.dictionary.to(torch.float64), coding
        self.places = coding.code_shape
        twice = self.D.boundary == "circular" and any(2 * n - 1 > N for n, N in zip(self.D.size, coding.shape))
        self.gram = None if twice or coding.mask is not None else self.D.gram().numpy()

    def of(self, i: int, order: np.ndarray) -> np.ndarray:
        """D_I* D_I of some placed atoms of problem i in an order, dense."""
        atom, place = np.divmod(order, prod(self.places))
        if self.gram is None:
            return self._masked(i, atom, place)
        at, near = [], np.ones((len(order), len(order)), bool)
        for p, n, reach in zip(np.unravel_index(place, self.places), self.places, self.gram.shape[2:]):
            shift = p[None, :] - p[:, None]
            if self.D.boundary == "circular":
                shift = (shift + n // 2) % n - n // 2
            near &= np.abs(shift) <= reach // 2
            at.append(np.clip(shift + reach // 2, 0, reach - 1))
        return np.where(near, self.gram[(atom[:, None], atom[None, :], *at)], 0.0)

    def _masked(self, i: int, atom: np.ndarray, place: np.ndarray) -> np.ndarray:
        line = len(self.coding.shape) == 1
        shape, places = ((1, *self.coding.shape), (1, *self.places)) if line else (self.coding.shape, self.places)
        mask = None
        if self.coding.mask is not None:
            mask = self.coding.mask.double().expand_as(self.coding.signals)[i].numpy().ravel()
        placed = Placed(self.D, shape, places)  # pyright: ignore[reportArgumentType]
        K = placed.columns(place * self.D.n_atoms + atom, mask)
        return np.asarray((K.T @ K).todense())


def _weights(coding: Coding, weights: Tensor, bias: Tensor) -> np.ndarray:
    """The classifier's weights, (classes, k · places) float64."""
    size = coding.dictionary.n_atoms * prod(coding.code_shape)
    flat = weights.double().flatten(1) if weights.ndim > 1 else weights
    if flat.ndim != 2 or flat.shape[1] != size or not len(flat) or bias.shape != (len(flat),):
        raise wrong("weights and bias", f"(classes, {size}) and (classes,)", (tuple(weights.shape), tuple(bias.shape)))
    if not bool(flat.isfinite().all()) or not bool(bias.isfinite().all()):
        raise InputError("weights and bias must be finite, got NaN or infinity")
    return flat.numpy()


def _doubles(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
