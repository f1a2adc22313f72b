"""Linear maps: the adjoint law, and that it catches a map whose adjoint is another map's."""

from dataclasses import dataclass

import pytest
import torch

from triptych.check import InputError
from triptych.convex import Linear, Matrix, Sampled, adjoint_error

SEED = torch.Generator().manual_seed(2)
K = torch.randn(3, 6, 4, generator=SEED, dtype=torch.float64)
MAPS = {
    "one map for all": (Matrix(K[:1]), (4,), (6,)),
    "a map each": (Matrix(K), (4,), (6,)),
    "several columns": (Matrix(K), (4, 2), (6, 2)),
    "rows": (Matrix(K).rows(torch.tensor([4, 1])), (4, 2), (2, 2)),
    "columns": (Matrix(K).columns(torch.tensor([3, 0])), (2,), (6,)),
}
every_map = pytest.mark.parametrize("case", MAPS.values(), ids=MAPS)


def points(case, rng, dtype=torch.float64):
    K, x, z = case
    return K, torch.randn(3, *x, generator=rng, dtype=dtype), torch.randn(3, *z, generator=rng, dtype=dtype)


@every_map
def test_the_adjoint_is_the_adjoint(case, rng):
    assert adjoint_error(*points(case, rng)).amax() < 1e-14


@every_map
def test_maps_are_linear(case, rng):
    K, x, _ = points(case, rng)
    torch.testing.assert_close(K.forward(2 * x + x.flip(0)), 2 * K.forward(x) + K.forward(x.flip(0)))


@dataclass
class Wrong:
    """A map with another map's adjoint."""

    right: Linear
    kind: str

    def forward(self, x):
        return self.right.forward(x)

    def adjoint(self, z):
        x = self.right.adjoint(z)
        return {"scaled": 1.001 * x, "flipped": x.flip(1), "minus": -x}[self.kind]


@pytest.mark.parametrize("kind", ["scaled", "flipped", "minus"])
@every_map
def test_a_wrong_adjoint_is_caught(case, kind, rng):
    K, x, z = points(case, rng)
    assert adjoint_error(Wrong(K, kind), x, z).amax() > 1e-5


def test_rows_and_columns_are_those_of_the_tensor(rng):
    x, index = torch.randn(3, 4, generator=rng, dtype=torch.float64), torch.tensor([2, 0])
    A = Matrix(K)
    assert isinstance(A, Sampled)
    assert A.n_rows == 6
    torch.testing.assert_close(A.rows(index).forward(x), A.forward(x)[:, index])
    sparse = torch.zeros_like(x)
    sparse[:, index] = x[:, index]
    torch.testing.assert_close(A.columns(index).forward(x[:, index]), A.forward(sparse))


def test_the_wider_dtype_wins():
    """A certificate in float64 over features in bf16 is made in float64 from the features as stored."""
    stored = K[:1].bfloat16()
    x = torch.linspace(0, 1, 4, dtype=torch.float64)[None]
    exact = (stored[0].double() @ x[0])[None]
    assert torch.equal(Matrix(stored).forward(x), exact)
    assert Matrix(K.float()).forward(x.bfloat16()).dtype == torch.float32


def test_wrong_shapes_are_refused_by_name():
    with pytest.raises(InputError, match="K must be a tensor"):
        Matrix(K[0])
    with pytest.raises(InputError, match=r"x must be a tensor \(b, 4\)"):
        Matrix(K).forward(torch.ones(3, 5))
    with pytest.raises(InputError, match=r"z must be a tensor \(b, 6\)"):
        Matrix(K).adjoint(torch.ones(6))
