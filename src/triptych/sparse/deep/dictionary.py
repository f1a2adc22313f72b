"""A multi-layer dictionary: X = D_1 G_1, G_1 = D_2 G_2, ..., each G_i the code of the one before it.

Signals are ``(b, c, *shape)``, codes of layer i ``(b, k_i, *code_shape_i)``. Papyan, Romano & Elad, JMLR 2017.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from triptych.check import InputError, whole, wrong
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.layer import lipschitz_bound

SPECTRA = 1 << 22  # numbers of spectra that are looked at for a norm; above it a bound for all shapes serves
DENSE = 2048  # codes of so many coefficients have their map as a matrix


@dataclass(frozen=True, eq=False)
class MultiLayerDictionary:
    """Dictionaries D_1 ... D_L, the atoms of each made of codes of the one before: its channels are that one's atoms.

    Parameters
    ----------
    layers : the ConvDictionary of every layer, from the signal inwards; all on the same number of axes, with one boundary.
    padding : of every layer, zeros that its analysis puts around its input on every axis, as a convolution does; what its
        synthesis lays there is cut off. None: no zeros, so that all atoms lie whole within their signal.

    Raises InputError for layers that do not follow each other.
    """

    layers: tuple[ConvDictionary, ...]
    padding: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        layers = tuple(self.layers)
        object.__setattr__(self, "layers", layers)
        if not layers or not all(isinstance(D, ConvDictionary) for D in layers):
            raise wrong("layers", "a tuple of at least one ConvDictionary", self.layers)
        for i, (D, below) in enumerate(zip(layers[1:], layers), 2):
            if D.channels != below.n_atoms or len(D.size) != len(below.size) or D.boundary != below.boundary:
                raise InputError(
                    f"layer {i} must have {below.n_atoms} channels on {len(below.size)} axes, {below.boundary}, for the atoms "
                    f"of layer {i - 1}, got {D.channels} on {len(D.size)}, {D.boundary}"
                )
        around = (0,) * len(layers) if self.padding is None else self.padding
        if not isinstance(around, list | tuple) or len(around) != len(layers):
            raise wrong("padding", f"{len(layers)} whole numbers, one a layer", self.padding)
        for p in around:
            whole("padding", p, low=0)
        if any(around) and layers[0].boundary == "circular":
            raise InputError("padding is for boundary='valid'; circular signals have no border")
        object.__setattr__(self, "padding", tuple(around))

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def around(self) -> tuple[int, ...]:
        """The padding of every layer."""
        return self.padding or (0,) * len(self.layers)

    @property
    def channels(self) -> int:
        """c, of the signals."""
        return self.layers[0].channels

    @property
    def n_atoms(self) -> tuple[int, ...]:
        """k_1, ..., k_L."""
        return tuple(D.n_atoms for D in self.layers)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "MultiLayerDictionary":
        """The same in another dtype or on another device."""
        return replace(self, layers=tuple(D.to(dtype, device) for D in self.layers))

    def normalise(self) -> "MultiLayerDictionary":
        """The dictionaries of unit atoms. Raises InputError where an atom is 0."""
        return replace(self, layers=tuple(D.normalise() for D in self.layers))

    def code_shapes(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """The shapes in space of the codes of all layers, for signals of a shape. Raises InputError where an atom is too large."""
        found = [tuple(shape)]
        for i, (D, p) in enumerate(zip(self.layers, self.around), 1):
            try:
                found.append(D.code_shape([n + 2 * p for n in found[-1]]))
            except InputError as error:
                raise InputError(f"layer {i}: {error}") from None
        return tuple(found[1:])

    def signal_shape(self, code_shape: Sequence[int]) -> tuple[int, ...]:
        """The smallest shape in space of signals whose deepest codes have shape ``code_shape``."""
        shape = tuple(code_shape)
        for D, p in zip(reversed(self.layers), reversed(self.around)):
            shape = tuple(n - 2 * p for n in D.signal_shape(shape))
        return shape

    def up(self, i: int, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """D_i* x + bias, the analysis of layer i (from 1) of the code x of layer i - 1 (0: the signal)."""
        return self.layers[i - 1].analyse(padded(x, self.around[i - 1]), bias)

    def down(self, i: int, codes: Tensor, shape: Sequence[int]) -> Tensor:
        """D_i codes, the code of layer i - 1 of a shape in space (0: the signal)."""
        p = self.around[i - 1]
        full = self.layers[i - 1].synthesise(codes, [n + 2 * p for n in shape])
        return full[..., *(slice(p, n - p) for n in full.shape[2:])] if p else full

    def cascade(self, codes: Tensor, shape: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """(X, G_1, ..., G_L) of deepest codes G_L ``(b, k_L, *code_shape)``: G_{i-1} = D_i G_i, X = D_1 G_1.

        ``shape`` None: the smallest that has such codes. Raises InputError where the shapes do not fit.
        """
        self.layers[-1].expect("codes", codes, self.layers[-1].n_atoms)
        shape = self.signal_shape(codes.shape[2:]) if shape is None else tuple(shape)
        shapes = (shape, *self.code_shapes(shape))
        if shapes[-1] != tuple(codes.shape[2:]):
            raise wrong("codes", f"of the shape {shapes[-1]} in space", tuple(codes.shape))
        found = [codes]
        for i in range(len(self), 0, -1):
            found.append(self.down(i, found[-1], shapes[i - 1]))
        return tuple(reversed(found))

    def synthesise(self, codes: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """X = D_1 ... D_L codes, ``(b, c, *shape)``."""
        return self.cascade(codes, shape)[0]

    def analyse(self, signals: Tensor) -> Tensor:
        """(D_1 ... D_L)* signals, ``(b, k_L, *code_shape_L)``."""
        for i in range(1, len(self) + 1):
            signals = self.up(i, signals)
        return signals

    def effective(self, i: int | None = None) -> ConvDictionary:
        """D^(i) = D_1 ... D_i as one convolutional dictionary on signals; None: of all layers. Its atoms are not unit.

        Size n^(i) = n^(i-1) + (n_i - 1) stride^(i-1), stride the product of all. With padding these are the whole atoms; those
        that reach over a border are cut there, layer by layer.
        """
        i = whole("i", len(self) if i is None else i, high=len(self))
        D = self.layers[0]
        for E in self.layers[1:i]:
            whole_atoms = replace(D, boundary="valid").synthesise(E.atoms)
            D = ConvDictionary(whole_atoms, D.stride * E.stride, D.boundary)
        return D

    def lipschitz(self, i: int, shape: Sequence[int]) -> float:
        """The largest eigenvalue of D_i* D_i on codes of layer i - 1 of a shape: exact for small ones, else an upper bound."""
        D, p = self.layers[i - 1], self.around[i - 1]
        places = D.code_shape([n + 2 * p for n in shape])
        if D.n_atoms * prod(places) <= DENSE:
            return float(torch.linalg.matrix_norm(self._matrix(i, shape), 2)) ** 2
        if D.atoms[:, :, 0].numel() * prod(shape) > SPECTRA:
            return float(lipschitz_bound(D))
        return D.lipschitz([n + 2 * p for n in shape])

    def _matrix(self, i: int, shape: Sequence[int]) -> Tensor:
        """D_i as a dense matrix (k_{i-1} · places, k_i · places), float64."""
        D, p = self.layers[i - 1].to(torch.float64), self.around[i - 1]
        places = D.code_shape([n + 2 * p for n in shape])
        eye = torch.eye(D.n_atoms * prod(places), dtype=torch.float64, device=D.atoms.device)
        return replace(self, layers=tuple(E.to(torch.float64) for E in self.layers)).down(
            i, eye.reshape(-1, D.n_atoms, *places), shape
        ).flatten(1).T  # fmt: skip

    def density(self) -> tuple[float, ...]:
        """The share of atoms' entries that are not 0, layer by layer."""
        return tuple(float((D.atoms != 0).double().mean()) for D in self.layers)


def padded(x: Tensor, p: int) -> Tensor:
    """x ``(b, c, *shape)`` with p zeros on either side of every axis."""
    return F.pad(x, (p, p) * (x.ndim - 2)) if p else x
