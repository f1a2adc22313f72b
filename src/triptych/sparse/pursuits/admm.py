"""Alternating directions in the Fourier domain, atom by atom: what is held of a dense code is one array."""

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import InputError, real, whole
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.pursuits.referee import Lazy, stream

BLOCK = 1 << 18  # numbers of a code that are transformed together: they stay in the processor's own memory


@dataclass(frozen=True)
class ADMM:
    """``rho`` is the first penalty (None: 50 λ + 1/2 times the signal's largest magnitude), ``relax`` the over-relaxation in [1, 2);
    every ``every`` steps the penalty follows the ratio of the residuals. Raises InputError for wrong values.
    """

    rho: float | None = None
    relax: float = 1.8
    every: int = 10

    def __post_init__(self) -> None:
        if self.rho is not None:
            real("rho", self.rho, above=0.0)
        real("relax", self.relax, low=1.0, high=1.99)
        whole("every", self.every)


DEFAULT = ADMM()


def admm(coding: Coding, settings: ADMM = DEFAULT, start: Codes | None = None) -> Generator[Lazy, Tensor | None, None]:
    """Codes step by step; a step solves the least squares exactly in the Fourier domain, one c x c system a frequency.

    A valid dictionary is a circular one whose codes are 0 at the places where atoms would wrap, and one with a stride has
    codes that are 0 between its places; the shrinkage sees to both. Raises InputError where there is a mask. Bristow, Eriksson &
    Lucey, CVPR 2013; Wohlberg, IEEE TIP 2016; penalty by residuals: Wohlberg, arXiv 1704.06209.
    """
    if coding.mask is not None:
        raise InputError("admm knows no mask, which its Fourier domain cannot see; use fista, slices or working_set")
    return stream(coding, lambda i: _Walk(coding, i, settings, start))


class _Walk:
    """Problem i: s = x + u, of which the shrunk x is the code and the rest u the scaled multiplier, ``(k, *signal shape)``."""

    def __init__(self, coding: Coding, i: int, settings: ADMM, start: Codes | None) -> None:
        D, self.signal = coding.dictionary.to(coding.signals.dtype), coding.signals[i]
        self.shape, self.axes, self.settings = coding.shape, D.axes, settings
        self.places = tuple(slice(0, m * D.stride, D.stride) for m in coding.code_shape)
        self.nonnegative, self.lam = coding.nonnegative, float(coding.lam()[i])
        self.weights = None
        if coding.weights is not None:
            weights = coding.weights.to(self.signal).expand(len(coding.signals), *coding.weights.shape[1:])[i]
            self.weights = weights.expand(D.n_atoms, *coding.code_shape)
        # analyse is a correlation, so D in the Fourier domain is the atoms' own transform
        self.spectra = torch.fft.rfftn(D.atoms, s=self.shape, dim=self.axes)  # (k, c, *f)
        self.target = torch.fft.rfftn(self.signal, dim=tuple(axis - 1 for axis in self.axes))  # (c, *f)
        self.gram = torch.einsum(
            "kc...,kd...->...cd", self.spectra, self.spectra.conj()
        )  # D D*, frequency by frequency
        size = float(self.signal.abs().max()) or 1.0
        self.rho = settings.rho or 50 * self.lam + size / 2
        self.per = max(1, BLOCK // self.signal[0].numel())
        self.steps = 0
        self.s = self.signal.new_zeros(D.n_atoms, *self.shape)
        rest = self.target
        if start is not None:
            x = start.dense(self.s.dtype)[i]
            self.s[(slice(None), *self.places)] = x
            rest = self.target - self._synthesis(self.s)
        for block in self._blocks():  # at the optimum, rho u are the correlations with the residual
            u = self._space(self.spectra[block].conj(), rest) / self.rho
            kept = self.s[block].clone()
            level = self._level(block)
            self.s[block] = kept + (u.clamp(max=level) if self.nonnegative else u.clamp(-level, level))

    def _blocks(self) -> list[slice]:
        return [slice(k, min(k + self.per, len(self.s))) for k in range(0, len(self.s), self.per)]

    def _level(self, block: slice) -> Tensor:
        """λ weights / rho, infinite where the dictionary has no place, for some atoms."""
        level = self.signal.new_full((1, *self.shape), torch.inf)
        if self.weights is None:
            level[(slice(None), *self.places)] = self.lam / self.rho
            return level
        level = level.expand(block.stop - block.start, *self.shape).clone()
        level[(slice(None), *self.places)] = self.weights[block] * (self.lam / self.rho)
        return level

    def _parts(self, block: slice) -> tuple[Tensor, Tensor]:
        """Code and multiplier of some atoms."""
        s, level = self.s[block], self._level(block)
        x = (s - level).clamp_min(0) if self.nonnegative else s - s.clamp(-level, level)
        return x, s - x

    def _synthesis(self, x: Tensor) -> Tensor:
        """D x, transformed, (c, *f)."""
        total = torch.zeros_like(self.target)
        for block in self._blocks():
            hat = torch.fft.rfftn(x[block], dim=tuple(axis - 1 for axis in self.axes))
            total += torch.einsum("kc...,k...->c...", self.spectra[block], hat)
        return total

    def _space(self, spectra: Tensor, hat: Tensor) -> Tensor:
        """The correlation of some atoms with what is given transformed, in space."""
        product = torch.einsum("kc...,c...->k...", spectra, hat)
        return torch.fft.irfftn(product, s=self.shape, dim=tuple(axis - 1 for axis in self.axes))

    def step(self) -> None:
        """v = x - u; x' = v + D* (rho + D D*)⁻¹ (y - D v), relaxed; s = x' + u; the penalty now and then."""
        if self.steps and self.steps % self.settings.every == 0:
            self._balance()
        total = torch.zeros_like(self.target)
        for block in self._blocks():
            x, u = self._parts(block)
            hat = torch.fft.rfftn(x - u, dim=tuple(axis - 1 for axis in self.axes))
            total += torch.einsum("kc...,k...->c...", self.spectra[block], hat)
        rest = self._solved(self.target - total)
        primal = dual = size_x = size_u = 0.0
        for block in self._blocks():
            x, u = self._parts(block)
            new = (x - u) + self._space(self.spectra[block].conj(), rest)
            relaxed = self.settings.relax * new + (1 - self.settings.relax) * x
            self.s[block] = relaxed + u
            if (self.steps + 1) % self.settings.every == 0:
                after, multiplier = self._parts(block)
                primal += float((new - after).square().sum())
                dual += float((after - x).square().sum())
                size_x += max(float(new.square().sum()), float(after.square().sum()))
                size_u += float(multiplier.square().sum())
        self.ratio = (primal * size_u / (dual * size_x)) ** 0.5 if dual * size_x > 0 and primal * size_u > 0 else 1.0
        self.steps += 1

    def _solved(self, hat: Tensor) -> Tensor:
        """(rho + D D*)⁻¹ of what is given, frequency by frequency."""
        if len(hat) == 1:
            return hat / (self.gram[..., 0, 0].real + self.rho)
        eye = torch.eye(len(hat), dtype=self.gram.dtype)
        return torch.linalg.solve(self.gram + self.rho * eye, hat.movedim(0, -1)[..., None])[..., 0].movedim(-1, 0)

    def _balance(self) -> None:
        """Multiply the penalty by the root of the residuals' ratio; the multipliers keep their value."""
        factor = min(10.0, max(0.1, self.ratio**0.5))
        if 1 / 1.2 < factor < 1.2:
            return
        for block in self._blocks():
            x, u = self._parts(block)
            self.s[block] = x + u / factor
        self.rho *= factor

    def code(self) -> tuple[Tensor, Tensor]:
        """Places in the flat ``(k, *code_shape)``, and values (m,)."""
        index, value, offset = [], [], 0
        for block in self._blocks():
            x = self._parts(block)[0][(slice(None), *self.places)].flatten()
            at = x.nonzero().squeeze(1)
            index.append(at + offset)
            value.append(x[at])
            offset += len(x)
        return torch.cat(index), torch.cat(value)
