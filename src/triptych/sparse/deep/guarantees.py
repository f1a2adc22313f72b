"""What the theorems of many layers promise for a model, its codes and a level of noise, computed and in words.

Papyan, Romano & Elad, JMLR 2017 (deep coding problem, layered thresholding, layered basis pursuit); Sulam, Papyan, Romano &
Elad, IEEE TSP 2018 (projection). All of them speak of atoms of norm 1.

Notation, of layer i: k_i the stripe norm of the code G_i, p_i its patch norm (non-zeros below one atom of the next layer), g- and
g+ the smallest and largest magnitude of its non-zeros, mu_i the coherence of D_i, e_0 the noise in a patch, E the noise in all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, prod, sqrt

import torch
from torch import Tensor

from triptych.check import InputError, choice, real, wrong
from triptych.sparse.coherence import basis_pursuit_bound, mutual_coherence, uniqueness_bound
from triptych.sparse.deep.dictionary import MultiLayerDictionary
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.norms import l0_patch, l0_stripe

UNIT = 1e-5  # how far the norm of an atom may be from 1
MADE = 1e-4  # how far G_{i-1} may be from D_i G_i, relative
INSIDE = 1e-3  # how far inside its interval a threshold is taken, so that rounding does not matter
KINDS = ("soft", "hard", "nonnegative")
NAMED = {"soft": "soft", "hard": "hard", "nonnegative": "non-negative"}
FEW = "not promised, which does not say that it fails"


@dataclass(frozen=True)
class LayerGuarantees:
    """The quantities of the theorems for one layer of one code.

    Attributes
    ----------
    coherence : mu, of the layer's own dictionary.
    effective : mu of D^(i), the dictionary from the signal to this layer.
    stripe, patch : k and p.
    smallest, largest : g- and g+; infinity and 0 for the code 0.
    threshold_error, pursuit_error : e_i, bounds on ‖G^_i - G_i‖_{2,∞} in every patch for layered thresholding and layered basis
        pursuit, infinity where nothing is promised; those of the layer before are ``threshold_noise`` and ``pursuit_noise``.
    interval : between these thresholds, layered thresholding finds exactly the right atoms; None: between none.
    threshold : the one that the error is computed with.
    stability : a bound on ‖G^_i - G_i‖₂ for every solution of the deep coding problem with as sparse stripes.
    projection : the same for the codes of D^(i) with no more non-zeros in any of its stripes that fit the signal within the noise.
    effective_stripe : the stripe norm of G_i as a code of D^(i).
    """

    coherence: float
    effective: float
    stripe: int
    patch: int
    smallest: float
    largest: float
    threshold_noise: float
    pursuit_noise: float
    interval: tuple[float, float] | None
    threshold: float
    threshold_error: float
    pursuit_error: float
    stability: float
    projection: float
    effective_stripe: int

    @property
    def uniqueness_bound(self) -> float:
        """Codes of this layer with fewer non-zeros in every stripe are the sparsest of the layer before."""
        return uniqueness_bound(self.coherence)

    @property
    def basis_pursuit_bound(self) -> float:
        """With at most so many, basis pursuit finds no wrong atom of this layer."""
        return basis_pursuit_bound(self.coherence)

    @property
    def unique(self) -> bool:
        """Whether no other code of the layer before has as sparse stripes."""
        return self.stripe < self.uniqueness_bound

    @property
    def xi(self) -> float:
        """The λ that the theorem on layered basis pursuit is about: four times the noise of the layer before."""
        return 4 * self.pursuit_noise


@dataclass(frozen=True)
class DeepGuarantees:
    """The guarantees of all layers of one signal, and what holds of all of them together."""

    layers: tuple[LayerGuarantees, ...]
    local_noise: float
    noise: float
    kind: str

    @property
    def unique(self) -> bool:
        """Whether these are the only codes so sparse. Papyan, Romano & Elad 2017: uniqueness of the deep coding problem."""
        return all(layer.unique for layer in self.layers)

    @property
    def thresholding(self) -> bool:
        """Whether layered thresholding at ``threshold`` finds exactly the right atoms of all layers."""
        return all(layer.interval is not None for layer in self.layers)

    @property
    def basis_pursuit(self) -> bool:
        """Whether layered basis pursuit with λ_i = ``xi`` finds no wrong atom in any layer."""
        return all(layer.pursuit_error < inf for layer in self.layers)

    def verdict(self) -> str:
        """A line a promise, for all layers, and one a layer with its numbers: what holds, or why nothing can be said."""
        lines = []
        for i, layer in enumerate(self.layers, 1):
            stripe = f"{layer.stripe} non-zeros in its fullest stripe (fewer than {layer.uniqueness_bound:.2f} for uniqueness)"
            lines.append(f"Layer {i}: coherence {layer.coherence:.3f}, {stripe}, {layer.patch} in a patch.")
        deep = self.layers[-1]
        if self.unique:
            error = f"; with the noise the deepest errs by at most {deep.stability:.3g}" if self.noise else ""
            lines.append(f"No other codes as sparse have this signal{error}.")
        else:
            lines.append(f"Uniqueness of the codes: {FEW}; {_where(one.unique for one in self.layers)} is too full.")
        if self.thresholding:
            at = ", ".join(f"{layer.threshold:.3g}" for layer in self.layers)
            lines.append(
                f"The forward pass with {NAMED[self.kind]} thresholds {at} finds exactly these atoms, and errs by at most "
                f"{deep.threshold_error:.3g} in a patch of the deepest code."
            )
        else:
            where = _where(one.interval is not None for one in self.layers)
            lines.append(f"Recovery by the forward pass: {FEW}; no threshold of {where} tells right from wrong atoms.")
        if self.basis_pursuit:
            bound = f", and errs by less than {deep.pursuit_error:.3g} in a patch of the deepest code"
            at = ", ".join(f"{layer.xi:.3g}" for layer in self.layers)
            how = (
                f"weights {at} finds no wrong atom{bound}"
                if self.local_noise
                else "weights that fall to 0 finds the codes"
            )
            lines.append(f"Layered basis pursuit, with signs, with {how}.")
        else:
            where = _where(one.pursuit_error < inf for one in self.layers)
            lines.append(f"Recovery by layered basis pursuit: {FEW}; {where} is too full.")
        if deep.projection < inf:
            lines.append(
                f"No code with as few non-zeros in every stripe of the effective dictionary fits as well and is farther than "
                f"{deep.projection:.3g} from the deepest: so much a projection errs at most."
            )
        else:
            lines.append(f"Stability of the projection: {FEW}; the effective coherence is {deep.effective:.3f}.")
        return "\n".join(lines)


def deep_guarantees(
    model: MultiLayerDictionary,
    codes: Sequence[Tensor],
    local_noise: float | None = None,
    noise: float | None = None,
    *,
    kind: str = "soft",
    patch: Sequence[int] | None = None,
) -> tuple[DeepGuarantees, ...]:
    """The guarantees of the codes (G_1, ..., G_L), each ``(b, k_i, *code_shape_i)`` with G_{i-1} = D_i G_i, of b signals.

    ``local_noise`` bounds ‖e‖₂ in every patch of a first atom's size, ``noise`` in the whole signal. Where one is None it is what
    follows from the other; none of both: no noise. ``kind`` of the thresholds: "soft", "hard" or "nonnegative", of which nothing is
    promised where a code is below 0. ``patch``: the size of a patch of the deepest code, which no next layer fixes; None: all of
    it. Raises InputError for codes that do not fit, for padding, where an atom is not of norm 1, and for circular signals in which
    an atom meets another on both sides.
    """
    choice("kind", kind, KINDS)
    shape = _fitting(model, codes)
    if local_noise is None:
        local_noise = 0.0 if noise is None else real("noise", noise, low=0.0)
    local_noise = real("local_noise", local_noise, low=0.0)
    cover = prod(-(-N // n) for N, n in zip(shape, model.layers[0].size))
    noise = local_noise * sqrt(cover) if noise is None else real("noise", noise, low=local_noise)
    double = model.to(torch.float64).normalise()
    mus = [mutual_coherence(D) for D in double.layers]
    effective = [double.effective(i) for i in range(1, len(model) + 1)]
    facts = [_Facts.of(double, i, codes[i], effective[i], patch) for i in range(len(model))]
    whole = [mutual_coherence(D) if _apart(D, shape) else 1.0 for D in effective]  # 1: nothing is promised
    return tuple(
        DeepGuarantees(tuple(_layers(facts, mus, whole, j, local_noise, noise, kind)), local_noise, noise, kind)
        for j in range(len(codes[0]))
    )


def _fitting(model: MultiLayerDictionary, codes: Sequence[Tensor]) -> tuple[int, ...]:
    """The signals' shape in space. Raises InputError where model or codes are not what the theorems speak of."""
    if len(codes) != len(model):
        raise wrong("codes", f"{len(model)} tensors, one a layer", len(codes))
    if any(model.around):
        raise InputError("guarantees need whole atoms, got a model with padding; make it without")
    if any(bool((D.norms - 1).abs().max() > UNIT) for D in model.layers):
        raise InputError("guarantees need atoms of norm 1, got others; use model.normalise(), and its codes")
    for D, code in zip(model.layers, codes):
        D.expect("codes", code, D.n_atoms)
    if len({len(code) for code in codes}) != 1:
        raise wrong("codes", "of one number of signals", tuple(len(code) for code in codes))
    shape = model.layers[0].signal_shape(codes[0].shape[2:])
    for i, (D, code) in enumerate(zip(model.layers, codes), 1):
        below = shape if i == 1 else tuple(codes[i - 2].shape[2:])
        if D.code_shape(below) != tuple(code.shape[2:]):
            raise wrong("codes", f"of the shape {D.code_shape(below)} in space in layer {i}", tuple(code.shape[2:]))
        if not _apart(D, below):
            raise InputError(
                f"circular signals must be at least twice an atom's size less 1 on every axis, in layer {i} they are "
                f"{' x '.join(map(str, below))}; the coherence of smaller ones is not that of the dictionary"
            )
        if i > 1:
            made = model.down(i, code.double(), below)
            off = (made - codes[i - 2].double()).flatten(1).norm(dim=1)
            if bool((off > MADE * codes[i - 2].double().flatten(1).norm(dim=1)).any()):
                raise InputError(
                    f"codes must make each other, but D_{i} G_{i} is not G_{i - 1}; use model.cascade of the deepest"
                )
    return shape


def _apart(D: ConvDictionary, shape: Sequence[int]) -> bool:
    """Whether no atom meets another on both sides."""
    return D.boundary == "valid" or all(2 * n - 1 <= N for N, n in zip(shape, D.size))


@dataclass(frozen=True, eq=False)
class _Facts:
    """What is counted of one layer's codes, signal by signal; and the least norm of an atom of D^(i)."""

    stripe: list[int]
    patch: list[int]
    smallest: list[float]
    largest: list[float]
    negative: list[bool]
    effective_stripe: list[int]
    scale: float

    @classmethod
    def of(
        cls, model: MultiLayerDictionary, i: int, code: Tensor, D: ConvDictionary, patch: Sequence[int] | None
    ) -> "_Facts":
        own = model.layers[i]
        size = patch if i + 1 == len(model) else model.layers[i + 1].size
        flat = code.double().abs().flatten(1)
        least = torch.where(flat > 0, flat, inf).amin(1)
        return cls(
            l0_stripe(own, code).tolist(),
            l0_patch(code, size, boundary=own.boundary).tolist(),
            least.tolist(),
            flat.amax(1).tolist(),
            (code < 0).flatten(1).any(1).tolist(),
            l0_stripe(D, code).tolist(),
            float(D.norms.min()),
        )


def _layers(
    facts: list[_Facts], mus: list[float], whole: list[float], j: int, local: float, noise: float, kind: str
) -> list[LayerGuarantees]:
    """The layers of signal j, each with the error of the one before as its noise."""
    found, threshold_noise, pursuit_noise, product = [], local, local, 1.0
    for fact, mu, mu_effective in zip(facts, mus, whole):
        k, p, least, most = fact.stripe[j], fact.patch[j], fact.smallest[j], fact.largest[j]
        k_eff = fact.effective_stripe[j]
        interval, threshold, after = _thresholded(k, p, least, most, mu, threshold_noise, kind)
        if kind == "nonnegative" and fact.negative[j]:
            interval, threshold, after = None, inf, inf
        within = k <= basis_pursuit_bound(mu) if pursuit_noise else k < uniqueness_bound(mu)
        pursued = 7.5 * pursuit_noise * sqrt(p) if within and pursuit_noise < inf else inf
        room = 1 - (2 * k - 1) * mu
        product = product * room if room > 0 and product > 0 else 0.0
        room_eff = 1 - (2 * k_eff - 1) * mu_effective
        found.append(
            LayerGuarantees(
                coherence=mu,
                effective=mu_effective,
                stripe=k,
                patch=p,
                smallest=least,
                largest=most,
                threshold_noise=threshold_noise,
                pursuit_noise=pursuit_noise,
                interval=interval,
                threshold=threshold,
                threshold_error=after,
                pursuit_error=pursued,
                stability=2 * noise / sqrt(product) if product > 0 else inf,
                projection=2 * noise / (sqrt(room_eff) * fact.scale) if room_eff > 0 and fact.scale > 0 else inf,
                effective_stripe=k_eff,
            )
        )
        threshold_noise, pursuit_noise = after, pursued
    return found


def _thresholded(
    k: int, p: int, least: float, most: float, mu: float, noise: float, kind: str
) -> tuple[tuple[float, float] | None, float, float]:
    """The interval of thresholds, the one taken (as small as allowed, and a little more), and the error e_i.

    Correlations off the support are at most k mu g+ + e, on it at least g- - (k - 1) mu g+ - e; e_i = sqrt(p) times what a
    coefficient is off by, e + mu (k - 1) g+, with soft thresholds the threshold more.
    """
    if noise == inf:
        return None, inf, inf
    if not k:
        return (noise, inf), noise * (1 + INSIDE), 0.0
    low, high = k * mu * most + noise, least - (k - 1) * mu * most - noise
    if not low < high:
        return None, inf, inf
    threshold = low + INSIDE * (high - low)
    off = noise + mu * (k - 1) * most + (0.0 if kind == "hard" else threshold)
    return (low, high), threshold, sqrt(p) * off


def _where(holds: Iterable[bool]) -> str:
    """The first layer of which something does not hold, in words."""
    return f"layer {next(i for i, good in enumerate(holds, 1) if not good)}"
