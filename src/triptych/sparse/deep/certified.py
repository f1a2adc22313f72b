"""What a small change of a signal cannot do to its code of many layers: other atoms, other labels of a linear classifier on it.

Layers are coded one after another by elastic nets, argmin ½ ‖G_{i-1} - D_i G‖² + λ_i Σ G + ½ ridge_i ‖G‖² over G >= 0. On every
set A of atoms in use that map is linear, (D_A* D_A + ridge)⁻¹ D_A*, of norm at most max_s s / (s² + ridge) <= 1 / (2 sqrt(ridge)); it is
continuous, so that it is Lipschitz with that constant on all signals. A signal that moves by ε moves the code of layer i by at
most ε times the product of the constants up to it.

An elastic net is basis pursuit of (G_{i-1}, 0) in the dictionary (D_i, sqrt(ridge) I), so that `triptych.sparse.certified_radius` and its
bounds hold for each layer, of the code before it; over the product of the constants before they hold for the signal.
A code whose least subgradient is g is within ‖g‖ / ridge of the exact one, and that comes off too.

Differs from Romano, Aberdam, Sulam & Elad, JMIV 2020, whose bounds ask for a small coherence: these hold for any dictionary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt

import torch
from torch import Tensor

from triptych.check import real, wrong
from triptych.sparse.certified import ROUNDING, Certified, certified_radius
from triptych.sparse.coding import Coding
from triptych.sparse.deep.dictionary import MultiLayerDictionary, padded
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.pursue import pursue


def coding_lipschitz(atoms: Tensor, ridge: float) -> float:
    """The largest s / (s² + ridge) over 0 <= s <= ‖D‖ of atoms (k, n): how much farther apart codes are than signals, at most."""
    return _gain(float(torch.linalg.matrix_norm(atoms.double(), 2)) ** 2, real("ridge", ridge, above=0.0))


@dataclass(frozen=True, eq=False)
class StableCodes:
    """Codes of all layers by elastic nets, of b signals, and what is promised of them for every signal near by, in the l2 norm.

    ``codings``: each layer's problem, a basis pursuit of the code found before it with a channel an atom for the ridge; ``codes``
    ``(b, k_i, *code_shape_i)`` float64; ``short`` (b, L): the norms of their least subgradients; ``off`` (b, L): how far they are
    from the exact codes of the signals, at most; ``lipschitz``: of each layer's map, its constant.
    """

    codings: tuple[Coding, ...]
    codes: tuple[Tensor, ...]
    ridge: tuple[float, ...]
    short: Tensor
    off: Tensor
    lipschitz: tuple[float, ...]

    def support(self, radius: float) -> tuple[tuple[Tensor, Tensor], ...]:
        """Of every layer two masks like its code: what is 0, and what is not, in the exact code of every signal within a radius."""
        moved = real("radius", radius, low=0.0)
        before = [self._before(i, moved) for i in range(len(self.codes))]
        return tuple((out > far, kept > far) for far, (out, kept) in zip(before, self._rooms()))

    def support_radius(self) -> Tensor:
        """(b, L): within it every signal's exact code of that layer has the support of the code at hand; 0: nothing is promised."""
        found = []
        for i, (out, kept) in enumerate(self._rooms()):
            room = torch.where(self.codes[i] != 0, kept, out).flatten(1).amin(1)
            found.append((room * (1 - ROUNDING) - self._off(i)) / prod(self.lipschitz[:i]))
        return torch.stack(found, 1).clamp_min(0)

    def certify(self, weights: Tensor, bias: Tensor) -> Certified:
        """The radius within which every signal's exact deepest code has the same label, argmax(weights · code + bias).

        ``weights`` ``(classes, k_L, *code_shape_L)`` or flat (classes, k_L · places), ``bias`` (classes,). The better of two
        bounds: by the atoms that may enter the deepest code, and by the Lipschitz constants alone. Raises InputError for what
        does not fit.
        """
        last = len(self.codes) - 1
        gap = self.short[:, last].square() / (2 * self.ridge[last])
        found = certified_radius(self.codings[last], self.codes[last], gap, weights, bias)
        flat = weights.double().reshape(len(weights), -1)
        scores = self.codes[last].flatten(1) @ flat.T + bias.double()
        apart = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")[found.label]
        lead = scores.gather(1, found.label[:, None]) - scores
        lead = lead.scatter(1, found.label[:, None], torch.inf)  # no rival of itself
        within = (lead / apart.clamp_min(1e-300)).amin(1) * (1 - ROUNDING) - self.off[:, last]
        by_atoms = (found.radius - self._off(last)) / prod(self.lipschitz[:last])
        radius = torch.maximum(by_atoms, within / prod(self.lipschitz)) * (1 - ROUNDING)
        return Certified(found.label, found.margin, radius.clamp_min(0))

    def _off(self, i: int) -> Tensor:
        """How far the input of layer i (from 0) is from the exact one, (b,)."""
        return self.off[:, i - 1] if i else torch.zeros(len(self.off), dtype=torch.float64)

    def _before(self, i: int, radius: float) -> Tensor:
        """How far the exact input of layer i can be from the one at hand, (b, 1, ...), signals moving by a radius."""
        moved = (radius * prod(self.lipschitz[:i]) + self._off(i)) * (1 + ROUNDING)
        return moved.reshape(-1, *(1,) * (self.codes[i].ndim - 1))

    def _rooms(self) -> list[tuple[Tensor, Tensor]]:
        """How far each layer's input must move before a coefficient enters, and before it leaves, both like its code."""
        found = []
        for i, (coding, x) in enumerate(zip(self.codings, self.codes)):
            lead = (-1, *(1,) * (x.ndim - 1))
            norms = coding.dictionary.norms.reshape(1, -1, *(1,) * (x.ndim - 2))
            short = self.short[:, i].reshape(lead)
            enters = _gradient(coding, x) / norms - short / sqrt(self.ridge[i])
            leaves = (x - short / self.ridge[i]) / self.lipschitz[i]
            found.append((torch.where(x == 0, enters, -torch.inf), torch.where(x != 0, leaves, -torch.inf)))
        return found


def stable_codes(
    model: MultiLayerDictionary,
    signals: Tensor,
    lam: float | Sequence[float],
    ridge: float | Sequence[float],
    *,
    tol: float = 1e-9,
    max_steps: int = 2000,
) -> StableCodes:
    """Code signals ``(b, c, *shape)`` by an elastic net a layer, G >= 0, each to a relative gap of ``tol``, in float64.

    ``lam`` > 0 and ``ridge`` > 0, one number or one a layer, in the units of the codes they are for. The larger a ridge, the less a code
    moves with its signal, and the less is 0. Raises InputError for wrong values.
    """
    lams, ridges = _each("lam", lam, len(model)), _each("ridge", ridge, len(model))
    model, x = model.to(torch.float64), signals.double()
    shapes = (tuple(signals.shape[2:]), *model.code_shapes(signals.shape[2:]))
    codings, codes, short, off, gains = [], [], [], [], []
    for i, (D, p) in enumerate(zip(model.layers, model.around)):
        gains.append(_gain(model.lipschitz(i + 1, shapes[i]), ridges[i]))
        coding = _elastic(D, x, lams[i], ridges[i], p)
        x = pursue(coding, tol=tol, max_steps=max_steps).codes.dense(torch.float64)
        gradient = _gradient(coding, x)
        least = torch.where(x > 0, gradient, gradient.clamp_max(0)).flatten(1).norm(dim=1)
        before = off[-1] if off else torch.zeros_like(least)
        codings.append(coding)
        codes.append(x)
        short.append(least)
        off.append(least / ridges[i] + gains[i] * before)
    return StableCodes(
        tuple(codings), tuple(codes), ridges, torch.stack(short, 1), torch.stack(off, 1), tuple(gains)
    )  # fmt: skip


def _gradient(coding: Coding, x: Tensor) -> Tensor:
    """λ - D* (y - D x), like the code: how much too small each atom's correlation with the residual is for it to take part."""
    return coding.lam().reshape(-1, *(1,) * (x.ndim - 1)) - coding.map.adjoint(coding.target - coding.map.forward(x))


def _elastic(D: ConvDictionary, x: Tensor, lam: float, ridge: float, around: int) -> Coding:
    """The elastic net as basis pursuit: a channel an atom in which it has sqrt(ridge) times its coefficient, and the signal is 0."""
    k, c = D.n_atoms, D.channels
    beside = D.atoms.new_zeros(k, k, *D.size)
    beside[(torch.arange(k), torch.arange(k), *(0,) * len(D.size))] = sqrt(ridge)
    wide = ConvDictionary(torch.cat([D.atoms, beside], 1), D.stride, D.boundary)
    x = padded(x, around)
    signals = torch.cat([x, x.new_zeros(len(x), k, *x.shape[2:])], 1)
    mask = None
    if around:  # what a synthesis lays on the border is cut off
        mask = torch.ones(1, c + k, *x.shape[2:], dtype=x.dtype)
        inner = (slice(around, n - around) for n in x.shape[2:])
        mask[:, :c] = 0
        mask[(slice(None), slice(c), *inner)] = 1
    return Coding(wide, signals, lam, "absolute", mask, nonnegative=True)


def _gain(top: float, ridge: float) -> float:
    """The largest s / (s² + ridge) over 0 <= s² <= top."""
    return sqrt(top) / (top + ridge) if top <= ridge else 1 / (2 * sqrt(ridge))


def _each(name: str, value: float | Sequence[float], layers: int) -> tuple[float, ...]:
    """One number above 0 a layer."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * layers
    if len(values) != layers:
        raise wrong(name, f"one number, or {layers} of them, one a layer", value)
    return tuple(real(name, v, above=0.0) for v in values)
