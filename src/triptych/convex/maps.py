"""Linear maps held as dense tensors, and the test that a map's adjoint is its adjoint."""

from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import wrong
from triptych.convex.problem import Linear, inner, take


@dataclass(frozen=True, eq=False)
class Matrix:
    """z = K x for K (b or 1, n, d): x is (b, d) or (b, d, k), z is (b, n) or (b, n, k), in the wider of the two dtypes.

    Raises InputError where K does not have three axes.
    """

    K: Tensor

    def __post_init__(self) -> None:
        if self.K.ndim != 3:
            raise wrong("K", "a tensor (b, n, d), or (1, n, d) for all problems", tuple(self.K.shape))

    @property
    def n_rows(self) -> int:
        """n, the number of rows."""
        return self.K.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """K x."""
        return _product(self.K, x, "x")

    def adjoint(self, z: Tensor) -> Tensor:
        """K' z."""
        return _product(self.K.mT, z, "z")

    def rows(self, index: Tensor) -> "Matrix":
        """The map onto z[:, index]."""
        return Matrix(self.K[:, index])

    def columns(self, index: Tensor) -> "Matrix":
        """The map of x[:, index]."""
        return Matrix(self.K[:, :, index])

    def take(self, mask: Tensor) -> "Matrix":
        """Some of the problems."""
        return Matrix(take(self.K, mask))


def adjoint_error(K: Linear, x: Tensor, z: Tensor) -> Tensor:
    """|<K x, z> - <x, K* z>| / (‖K x‖ ‖z‖), (b,): rounding where ``adjoint`` is the adjoint, about 1 where it is not.

    x (b, ...) and z (b, ...) should be random. Claerbout, Earth Soundings Analysis 1992, chapter 5 (the dot-product test).
    """
    Kx = K.forward(x)
    scale = (inner(Kx, Kx) * inner(z, z)).sqrt()
    return (inner(Kx, z) - inner(x, K.adjoint(z))).abs() / scale.clamp_min(torch.finfo(scale.dtype).tiny)


def _product(K: Tensor, x: Tensor, name: str) -> Tensor:
    """K x with the second axis of x summed over, in the wider dtype."""
    if x.ndim not in (2, 3) or x.shape[1] != K.shape[2]:
        raise wrong(name, f"a tensor (b, {K.shape[2]}) or (b, {K.shape[2]}, k)", tuple(x.shape))
    dtype = torch.promote_types(K.dtype, x.dtype)
    K, x = K.to(dtype), x.to(dtype)
    return (K @ x.unsqueeze(-1)).squeeze(-1) if x.ndim == 2 else K @ x
