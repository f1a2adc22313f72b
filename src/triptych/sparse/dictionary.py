"""A convolutional dictionary: a few small atoms, laid at every position of a signal of one or two dimensions.

Signals are ``(b, c, *shape)``, codes ``(b, k, *code_shape)``, atoms ``(k, c, *size)``; b counts signals, c channels, k atoms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from triptych.check import InputError, choice, whole, wrong

BOUNDARIES = ("valid", "circular")
_CONV = {1: F.conv1d, 2: F.conv2d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d}
FEW = 4  # channels of signals up to which a product and the sum of its overlapping patches is faster than conv_transpose2d


@dataclass(frozen=True, eq=False)
class ConvDictionary:
    """Atoms ``(k, c, *size)`` that are laid at every ``stride``-th position: D codes = sum_k atom_k * codes_k.

    Parameters
    ----------
    atoms : floating-point tensor ``(k, c, n)`` or ``(k, c, n1, n2)``: k atoms of c channels.
    stride : positions between two places of an atom, on every axis.
    boundary : "valid": every atom lies whole within the signal; "circular": the signal's ends meet.

    Neither operation flips anything: ``analyse`` is torch's ``conv`` with the atoms as weights, ``synthesise`` its
    adjoint, ``conv_transpose``. Raises InputError for wrong values.
    """

    atoms: Tensor
    stride: int = 1
    boundary: str = "valid"

    def __post_init__(self) -> None:
        atoms = self.atoms
        if (
            not isinstance(atoms, Tensor)
            or not atoms.is_floating_point()
            or atoms.ndim not in (3, 4)
            or not atoms.numel()
        ):
            found = f"{atoms.dtype} {tuple(atoms.shape)}" if isinstance(atoms, Tensor) else atoms
            raise wrong("atoms", "a floating-point tensor (k, c, n) or (k, c, n1, n2)", found)
        if not _captured(atoms) and not bool(atoms.isfinite().all()):
            raise InputError("atoms must be finite, got NaN or infinity; look at what they were made from")
        whole("stride", self.stride)
        choice("boundary", self.boundary, BOUNDARIES)

    @property
    def n_atoms(self) -> int:
        """k."""
        return self.atoms.shape[0]

    @property
    def channels(self) -> int:
        """c."""
        return self.atoms.shape[1]

    @property
    def size(self) -> tuple[int, ...]:
        """The extent of an atom on every axis, in samples."""
        return tuple(self.atoms.shape[2:])

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of signals and codes that are space: (2,) or (2, 3)."""
        return tuple(range(2, self.atoms.ndim))

    @property
    def norms(self) -> Tensor:
        """‖atom‖₂, (k,)."""
        return torch.linalg.vector_norm(self.atoms.flatten(1), dim=1)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "ConvDictionary":
        """The same dictionary in another dtype or on another device."""
        return replace(self, atoms=self.atoms.to(dtype=dtype, device=device))

    def normalise(self) -> "ConvDictionary":
        """The dictionary of atoms / ‖atom‖₂. Raises InputError where an atom is 0."""
        norms = self.norms
        if bool((norms == 0).any()):
            raise InputError(
                f"atoms must be different from 0 to be normalised, atom {int(norms.argmin())} is 0; leave it out"
            )
        return replace(self, atoms=self.atoms / norms.reshape(-1, *(1,) * (self.atoms.ndim - 1)))

    def code_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape in space of the codes of signals whose shape in space is ``shape``.

        valid: floor((N - n) / stride) + 1; circular: N / stride. Raises InputError where atoms are larger than the signal, or
        the stride does not divide a circular one.
        """
        shape = tuple(shape)
        if len(shape) != len(self.size):
            raise wrong("shape", "one whole number an axis of the atoms", shape)
        for N, n in zip(shape, self.size):
            if n > N:
                raise InputError(
                    f"signals must be at least as large as the atoms ({_by(self.size)}), got {_by(shape)}; take larger "
                    "signals or smaller atoms"
                )
            if self.boundary == "circular" and N % self.stride:
                raise InputError(
                    f"circular signals must be a multiple of the stride, {self.stride}, on every axis, got {_by(shape)}; "
                    'crop them, or use boundary="valid"'
                )
        if self.boundary == "circular":
            return tuple(N // self.stride for N in shape)
        return tuple((N - n) // self.stride + 1 for N, n in zip(shape, self.size))

    def signal_shape(self, code_shape: Sequence[int]) -> tuple[int, ...]:
        """The smallest shape in space of signals whose codes have shape ``code_shape``."""
        if self.boundary == "circular":
            return tuple(M * self.stride for M in code_shape)
        return tuple((M - 1) * self.stride + n for M, n in zip(code_shape, self.size))

    def synthesise(self, codes: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """D codes, ``(b, c, *shape)``, for codes ``(b, k, *code_shape)``; samples that no atom reaches are 0.

        ``shape`` None: the smallest that has such codes. Raises InputError where the shapes do not fit.
        """
        self.expect("codes", codes, self.n_atoms)
        shape = self.signal_shape(codes.shape[2:]) if shape is None else tuple(shape)
        if self.code_shape(shape) != tuple(codes.shape[2:]):
            raise wrong("codes", f"(b, {self.n_atoms}, {_by(self.code_shape(shape), ', ')})", tuple(codes.shape))
        atoms = self.atoms.to(codes)
        if self._alone(shape):
            return (codes.flatten(1) @ atoms.flatten(1)).reshape(len(codes), self.channels, *shape)
        full = self._laid(codes, atoms)
        if self.boundary == "valid":
            margin = [N - n for N, n in zip(shape, full.shape[2:])]
            return F.pad(full, [x for m in reversed(margin) for x in (0, m)]) if any(margin) else full
        return _wrapped(full, shape)

    def analyse(self, signals: Tensor, bias: Tensor | None = None) -> Tensor:
        """D* signals, ``(b, k, *code_shape)``, for signals ``(b, c, *shape)``: the inner products with every atom at every place.

        ``bias`` (k,) is added, as torch's convolutions add theirs: to the last bit.
        """
        self.expect("signals", signals, self.channels)
        self.code_shape(signals.shape[2:])
        if bias is None and self._alone(signals.shape[2:]):
            codes = signals.flatten(1) @ self.atoms.to(signals).flatten(1).T
            return codes.reshape(*codes.shape, *(1,) * len(self.size))
        if self.boundary == "circular":
            signals = _extended(signals, self.size)
        bias = None if bias is None else bias.to(signals)
        return _CONV[len(self.size)](signals, self.atoms.to(signals), bias, stride=self.stride)

    def _laid(self, codes: Tensor, atoms: Tensor) -> Tensor:
        """Atoms times codes summed where they lie, from the first sample of the first atom to the last of the last."""
        if len(self.size) == 1 or codes.is_cuda or codes.dtype != torch.float32 or self.channels > FEW:
            return _TRANSPOSED[len(self.size)](codes, atoms, stride=self.stride)
        patches = atoms.flatten(1).T @ codes.flatten(2)
        reach = tuple((M - 1) * self.stride + n for M, n in zip(codes.shape[2:], self.size))
        return F.fold(patches, reach, self.size, stride=self.stride)

    def _alone(self, shape: Sequence[int]) -> bool:
        """Whether signals of a shape hold every atom once: a product of matrices is then faster than a convolution."""
        return self.boundary == "valid" and tuple(shape) == self.size

    def on(self, shape: Sequence[int]) -> "Synthesis":
        """The linear map codes -> signals for signals of one shape in space."""
        return Synthesis(self, tuple(shape))

    def gram(self) -> Tensor:
        """<atom_i, atom_j laid t strides further>, (k, k, 2 q + 1, ...) with t from -q to q, q = (n - 1) // stride an axis.

        Exact within the signal, and on circular ones of at least twice an atom's size.
        """
        q = [(n - 1) // self.stride for n in self.size]
        padded = F.pad(self.atoms, [x for r in reversed(q) for x in (r * self.stride,) * 2])
        return _CONV[len(q)](padded, self.atoms, stride=self.stride)

    def lipschitz(self, shape: Sequence[int]) -> float:
        """The largest eigenvalue of D* D on signals of a shape: exact for circular ones, an upper bound for valid ones.

        Circular: the largest over the code's frequencies of the spectral norm of the aliased spectra, squared. A valid
        dictionary's columns are among those of a circular one on the next multiple of the stride.
        """
        self.code_shape(shape)
        period = [-(-N // self.stride) * self.stride for N in shape]
        spectra = torch.fft.fftn(self.atoms.double(), s=period, dim=self.axes)
        B = aliased(spectra, self.stride)  # (frequencies, aliases * c, k)
        per = max(1, (1 << 22) // (B.shape[1] * B.shape[2]))
        top = max(float(torch.linalg.matrix_norm(part, 2).square().max()) for part in B.split(per))
        return top / self.stride ** len(period)

    def matrix(self, shape: Sequence[int]) -> Tensor:
        """D as a dense matrix (c * samples, k * places): for small signals, and the oracle of the tests."""
        places = self.code_shape(shape)
        columns = self.n_atoms * prod(places)
        eye = torch.eye(columns, dtype=self.atoms.dtype, device=self.atoms.device)
        return self.synthesise(eye.reshape(columns, self.n_atoms, *places), shape).flatten(1).T

    def expect(self, name: str, x: Tensor, second: int) -> None:
        """Refuse what is not ``(b, second, *space)`` and floating-point."""
        if not isinstance(x, Tensor) or x.ndim != self.atoms.ndim or x.shape[1] != second or not x.is_floating_point():
            space = "n1, n2" if len(self.size) == 2 else "n"
            found = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else x
            raise wrong(name, f"a floating-point tensor (b, {second}, {space})", found)


@dataclass(frozen=True, eq=False)
class Synthesis:
    """The map codes ``(b, k, *code_shape)`` -> signals ``(b, c, *shape)`` of a dictionary, for signals of one shape in space."""

    dictionary: ConvDictionary
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        self.dictionary.code_shape(self.shape)

    @property
    def code_shape(self) -> tuple[int, ...]:
        """The shape in space of the codes."""
        return self.dictionary.code_shape(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """D x."""
        return self.dictionary.synthesise(x, self.shape)

    def adjoint(self, z: Tensor) -> Tensor:
        """D* z."""
        return self.dictionary.analyse(z)


def _captured(x: Tensor) -> bool:
    """Whether a CUDA graph is being captured, in which nothing can be looked at."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def _extended(signals: Tensor, size: Sequence[int]) -> Tensor:
    """Circular signals with their first n - 1 samples once more at the end of every axis."""
    for axis, n in enumerate(size, 2):
        signals = torch.cat([signals, signals.narrow(axis, 0, n - 1)], axis)
    return signals


def _wrapped(full: Tensor, shape: Sequence[int]) -> Tensor:
    """What lies beyond the end of an axis added to its beginning: the adjoint of `_extended`."""
    for axis, N in enumerate(shape, 2):
        if (over := full.shape[axis] - N) < 0:
            missing = full.new_zeros(*full.shape[:axis], -over, *full.shape[axis + 1 :])
            full = torch.cat([full, missing], axis)
        elif over > 0:
            head, rest, tail = full.split([over, N - over, over], axis)
            full = torch.cat([head + tail, rest], axis)
    return full


def aliased(spectra: Tensor, stride: int) -> Tensor:
    """Spectra ``(k, c, *period)`` of atoms as (code frequencies, aliases * c, k): what falls on one frequency of the code together."""
    k, c, *period = spectra.shape
    axes = [x for N in period for x in (stride, N // stride)]
    n = len(period)
    split = spectra.reshape(k, c, *axes)  # k, c, alias, frequency, alias, frequency
    order = [*(3 + 2 * i for i in range(n)), *(2 + 2 * i for i in range(n)), 1, 0]
    return split.permute(order).reshape(prod(N // stride for N in period), stride**n * c, k)


def _by(shape: Sequence[int], sign: str = " x ") -> str:
    """A shape in words: 8 x 8."""
    return sign.join(str(n) for n in shape)
