"""Alternating directions in the Fourier domain, atom by atom: what is held of a dense code is one array."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from triptych.check import InputError, real, whole
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.pursuits.referee import Code, Lazy, begun, dense, stream, weights_of

BLOCK = 1 << 18  # numbers of a code that are transformed together: they stay in the processor's own memory


@dataclass(frozen=True)
class ADMM:
    """``rho`` is the first penalty (None: 50 λ + half the signal's largest magnitude), ``relax`` the over-relaxation in [1, 2);
    a step is so many ``iterations``, after which the penalty follows the ratio of the residuals.

    Raises InputError for wrong values.
    """

    rho: float | None = None
    relax: float = 1.8
    iterations: int = 10

    def __post_init__(self) -> None:
        if self.rho is not None:
            real("rho", self.rho, above=0.0)
        real("relax", self.relax, low=1.0, high=1.99)
        whole("iterations", self.iterations)


DEFAULT = ADMM()


def admm(coding: Coding, settings: ADMM = DEFAULT, start: Codes | None = None) -> Generator[Lazy, Tensor | None, None]:
    """Codes step by step; an iteration solves the least squares exactly in the Fourier domain, one c x c system a frequency.

    A valid dictionary is a circular one whose codes are 0 at the places where atoms would wrap, and one with a stride has
    codes that are 0 between its places; the shrinkage sees to both. ``start`` None: the code 0. Raises InputError where there
    is a mask. Bristow, Eriksson & Lucey, CVPR 2013; Wohlberg, IEEE TIP 2016; penalty by residuals: Wohlberg, arXiv 1704.06209.
    """
    if coding.mask is not None:
        raise InputError("admm knows no mask, which its Fourier domain cannot see; use fista, slices or working_set")
    return stream(coding, lambda i: Alternating(coding, i, settings, begun(coding, start, i)))


class Alternating:
    """Problem i: s = x + u, of which the shrunk x is the code and the rest u the scaled multiplier, ``(k, *signal shape)``."""

    def __init__(self, coding: Coding, i: int, settings: ADMM, start: Code | None) -> None:
        D, self.signal = coding.dictionary.to(coding.signals.dtype), coding.signals[i]
        self.shape, self.settings, self.nonnegative = coding.shape, settings, coding.nonnegative
        self.axes = tuple(axis - 1 for axis in D.axes)
        self.places = tuple(slice(0, m * D.stride, D.stride) for m in coding.code_shape)
        self.everywhere = coding.code_shape == coding.shape
        self.lam, self.weights = float(coding.lam()[i]), weights_of(coding, i)
        # analyse is a correlation, so D in the Fourier domain is the atoms' own transform
        self.spectra = torch.fft.rfftn(D.atoms, s=self.shape, dim=D.axes)  # (k, c, *f)
        self.target = torch.fft.rfftn(self.signal, dim=self.axes)  # (c, *f)
        self.gram = torch.einsum("kc...,kd...->...cd", self.spectra, self.spectra.conj())  # D D*, a frequency each
        self.rest, self.theta = self.target, None
        size = float(self.signal.abs().max()) or 1.0
        self.rho = settings.rho or 50 * self.lam + size / 2
        per = max(1, BLOCK // self.signal[0].numel())
        self.blocks = [slice(k, min(k + per, D.n_atoms)) for k in range(0, D.n_atoms, per)]
        self.s = self.signal.new_zeros(D.n_atoms, *self.shape)
        rest = self.target
        if start is not None:
            self.s[(slice(None), *self.places)] = dense(coding, start)
            rest = self.target - sum(self._laid(self.s[block], block) for block in self.blocks)
        for block in self.blocks:  # at the optimum, rho u are the correlations with the residual
            u, level = self._seen(rest, block) / self.rho, self._level(block)
            self.s[block] += u.clamp(max=level) if self.nonnegative else u - _shrunk(u, level)

    def _level(self, block: slice) -> Any:
        """λ weights / rho of some atoms, a number or a tensor; infinite where the dictionary has no place."""
        level = self.lam / self.rho
        if self.weights is not None:
            level = self.weights[block] * level
        if self.everywhere:
            return level
        full = self.signal.new_full((len(level) if isinstance(level, Tensor) else 1, *self.shape), torch.inf)
        full[(slice(None), *self.places)] = level
        return full

    def _parts(self, block: slice) -> tuple[Tensor, Tensor]:
        """Code and multiplier of some atoms."""
        s, level = self.s[block], self._level(block)
        x = (s - level).clamp_min_(0) if self.nonnegative else _shrunk(s, level)
        return x, s - x

    def _laid(self, x: Tensor, block: slice) -> Tensor:
        """D x of some atoms, transformed, (c, *f)."""
        return torch.einsum("kc...,k...->c...", self.spectra[block], torch.fft.rfftn(x, dim=self.axes))

    def _seen(self, hat: Tensor, block: slice) -> Tensor:
        """The correlation of some atoms with what is given transformed, in space."""
        product = torch.einsum("kc...,c...->k...", self.spectra[block].conj(), hat)
        return torch.fft.irfftn(product, s=self.shape, dim=self.axes)

    def step(self) -> None:
        """Some iterations; then the penalty."""
        for _ in range(self.settings.iterations - 1):
            self._iterate()
        ratio = self._iterate(measured=True)
        # rho times the solve is y - D x' for the exact x'; where codes are dense its correlations are nearer to their bounds
        self.theta = self.rho * torch.fft.irfftn(self.rest, s=self.shape, dim=self.axes)
        self._balance(ratio)

    def dual(self) -> Tensor | None:
        """What the last least squares left of the signal."""
        return self.theta

    def _iterate(self, measured: bool = False) -> float:
        """v = x - u; x' = v + D* (rho + D D*)⁻¹ (y - D v), relaxed; s = x' + u. The ratio of the residuals, if ``measured``."""
        rest = self.target.clone()
        for block in self.blocks:
            x, u = self._parts(block)
            rest -= self._laid(x.sub_(u), block)
        rest = self.rest = self._solved(rest)
        relax, sizes = self.settings.relax, torch.zeros(5, dtype=torch.float64)
        for block in self.blocks:
            x, u = self._parts(block)
            new = self._seen(rest, block).add_(x).sub_(u)
            self.s[block] = new.mul(relax).add_(x, alpha=1 - relax).add_(u)
            if measured:
                after, multiplier = self._parts(block)
                parts = (new - after, after - x, new, after, multiplier)
                sizes += torch.stack([torch.linalg.vector_norm(part).double().square() for part in parts])
        primal, dual, first, second, u = sizes.tolist()
        above, below = primal * u, dual * max(first, second)
        return (above / below) ** 0.5 if above > 0 and below > 0 else 1.0

    def _solved(self, hat: Tensor) -> Tensor:
        """(rho + D D*)⁻¹ of what is given, frequency by frequency."""
        if len(hat) == 1:
            return hat / (self.gram[..., 0, 0].real + self.rho)
        eye = torch.eye(len(hat), dtype=self.gram.dtype)
        return torch.linalg.solve(self.gram + self.rho * eye, hat.movedim(0, -1)[..., None])[..., 0].movedim(-1, 0)

    def _balance(self, ratio: float) -> None:
        """Multiply the penalty by the root of the residuals' ratio; the multipliers keep their value."""
        factor = min(10.0, max(0.1, ratio**0.5))
        if 1 / 1.2 < factor < 1.2:
            return
        for block in self.blocks:
            x, u = self._parts(block)
            self.s[block] = x + u / factor
        self.rho *= factor

    def code(self) -> Code:
        """The code as it is."""
        index, value, offset = [], [], 0
        for block in self.blocks:
            x = self._parts(block)[0][(slice(None), *self.places)].flatten()
            at = x.nonzero().squeeze(1)
            index.append(at + offset)
            value.append(x[at])
            offset += len(x)
        return torch.cat(index), torch.cat(value)


def _shrunk(v: Tensor, level: Any) -> Tensor:
    """Soft thresholding in two passes."""
    return v - v.clamp(-level, level)
