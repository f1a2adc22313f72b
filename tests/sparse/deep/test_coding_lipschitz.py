"""How much farther apart codes are than signals: never more than said, and nearly so much somewhere."""

import pytest
import torch

from triptych.check import InputError
from triptych.sparse.deep.certified import coding_lipschitz


def code(D, y, lam, ridge):
    """The elastic net with x >= 0 by many accelerated steps."""
    G = D @ D.T + ridge * torch.eye(len(D), dtype=D.dtype)
    L, b = float(torch.linalg.eigvalsh(G)[-1]), y @ D.T - lam
    x, v, t = torch.zeros_like(b), torch.zeros_like(b), 1.0
    for _ in range(2000):
        new = (v + (b - v @ G) / L).clamp_min(0)
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2
        v = new + ((t - 1) / following) * (new - x)
        x, t = new, following
    return x


@pytest.mark.parametrize("ridge", [0.1, 1.0, 30.0])
def test_no_pair_of_signals_has_codes_farther_apart(ridge):
    rng = torch.Generator().manual_seed(0)
    D = torch.randn(8, 6, generator=rng, dtype=torch.float64)
    bound = coding_lipschitz(D, ridge)
    y = 3 * torch.randn(400, 6, generator=rng, dtype=torch.float64)
    other = y + torch.randn(400, 6, generator=rng, dtype=torch.float64) * 10.0 ** -torch.randint(
        4, (400, 1), generator=rng
    )
    ratio = (code(D, y, 0.2, ridge) - code(D, other, 0.2, ridge)).norm(dim=1) / (y - other).norm(dim=1)
    assert float(ratio.max()) <= bound * (1 + 1e-6)
    assert float(ratio.max()) > 0.2 * bound


def test_the_bound_is_met_by_one_atom():
    for s in (0.5, 1.0, 2.0):
        D = torch.tensor([[s]], dtype=torch.float64)
        a, b = (code(D, torch.tensor([[v]], dtype=torch.float64), 0.0, 1.0) for v in (1.0, 2.0))
        slope = float(b - a)
        assert slope == pytest.approx(s / (s * s + 1))
        assert slope <= coding_lipschitz(D, 1.0) == pytest.approx(slope if s <= 1 else 0.5)
    with pytest.raises(InputError, match="ridge"):
        coding_lipschitz(torch.ones(1, 1), 0.0)
