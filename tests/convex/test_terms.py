"""Laws of convex terms, over the list of all of them."""

import pytest
import torch

from triptych.check import InputError
from triptych.convex import L1, Ball, L2Ball, NonNegativeL1, NuclearBall, SquaredL2, WeightedL1, inner, per_problem

WEIGHTS = torch.tensor([0.3, 1.0, 2.0, 0.7], dtype=torch.float64).expand(1, 6, 4)
PAIR = torch.tensor([0.4, 1.3], dtype=torch.float64)

# each with its bound active, then slack, for two standard normal matrices 6 x 4 (‖·‖_* about 14, ‖·‖₂ about 5)
TERMS = [
    L1(0.6), L1(1e-3), L1(PAIR), L1(9.0), NonNegativeL1(0.3), NonNegativeL1(PAIR), NonNegativeL1(9.0),
    WeightedL1(0.6, WEIGHTS), WeightedL1(PAIR, WEIGHTS), WeightedL1(0.3, WEIGHTS, nonnegative=True), WeightedL1(9.0, WEIGHTS),
    SquaredL2(0.8), SquaredL2(PAIR), L2Ball(1.5), L2Ball(50.0), L2Ball(PAIR),
    NuclearBall(3.0), NuclearBall(100.0), NuclearBall(PAIR),
]  # fmt: skip
BALLS = [term for term in TERMS if isinstance(term, Ball)]


def name(term):
    level = next(iter(vars(term).values()))
    return f"{type(term).__name__}-{level.tolist() if isinstance(level, torch.Tensor) else level}"


every_term = pytest.mark.parametrize("term", TERMS, ids=name)


@pytest.fixture
def v(rng):
    return torch.randn(2, 6, 4, generator=rng, dtype=torch.float64)


@every_term
@pytest.mark.parametrize("step", [0.7, torch.tensor([0.2, 1.1])], ids=["number", "tensor"])
def test_prox_is_a_subgradient_step(term, v, step):
    """u = (v - prox(v)) / step is a subgradient at prox(v): Fenchel-Young holds with equality."""
    x = term.prox(v, step)
    u = (v - x) / per_problem(step, v)
    u = u * per_problem(term.shrink(u), u)
    torch.testing.assert_close(term.value(x) + term.conjugate(u), inner(u, x), rtol=1e-6, atol=1e-6)


@every_term
def test_fenchel_young_holds_for_any_pair(term, v, rng):
    x = term.prox(v, 0.5)
    for _ in range(20):
        u = 3 * torch.randn(2, 6, 4, generator=rng, dtype=torch.float64)
        assert (term.value(x) + term.conjugate(u) >= inner(u, x) - 1e-9).all()


@every_term
def test_a_step_of_zero_projects_onto_the_domain(term, v):
    x = term.prox(v, 0.0)
    assert term.value(x).isfinite().all()
    torch.testing.assert_close(term.prox(x, 0.0), x, rtol=1e-12, atol=1e-12)
    if isinstance(term, L1 | SquaredL2):
        assert torch.equal(x, v)


@every_term
def test_prox_beats_its_neighbours(term, v, rng):
    """No feasible point near prox(v) has a lower value of term(x) + ‖x - v‖² / (2 step)."""
    x = term.prox(v, 0.7)

    def merit(x):
        return term.value(x) + inner(x - v, x - v) / 1.4

    for scale in (1.0, 1e-1, 1e-2):
        near = term.prox(x + scale * torch.randn(2, 6, 4, generator=rng, dtype=torch.float64), 0.0)
        assert (merit(near) >= merit(x) - 1e-9).all()


@every_term
def test_the_shrunk_point_is_in_the_domain_and_no_smaller_than_it_must_be(term, rng):
    for scale in (1e-3, 1.0, 1e3):
        u = scale * torch.randn(2, 6, 4, generator=rng, dtype=torch.float64)
        c = term.shrink(u)
        assert ((c > 0) & (c <= 1)).all()
        assert term.conjugate(u * per_problem(c, u)).isfinite().all()
        grown = u * per_problem(c * (1 + 1e-6), u)
        assert ((c == 1) | term.conjugate(grown).isinf()).all()


@pytest.mark.parametrize("term", BALLS, ids=name)
def test_vertex_is_the_argmax_over_the_ball(term, v, rng):
    vertex = term.vertex(v)
    assert (term.value(vertex) == 0).all()
    torch.testing.assert_close(inner(v, vertex), term.conjugate(v))
    for _ in range(20):
        x = term.prox(100 * torch.randn(2, 6, 4, generator=rng, dtype=torch.float64), 0.0)
        assert (inner(v, x) <= inner(v, vertex) + 1e-9).all()


@pytest.mark.parametrize("term", BALLS, ids=name)
def test_points_outside_a_ball_have_infinite_value(term, v):
    boundary = term.vertex(v)
    assert (term.value(boundary * (1 + 1e-10)) == 0).all()
    assert (term.value(boundary * (1 + 1e-8)) == torch.inf).all()


def test_negative_entries_have_infinite_value():
    x = torch.tensor([[1.0, 0.0], [1.0, -1e-6]], dtype=torch.float64)
    assert NonNegativeL1(2.0).value(x).tolist() == [2.0, torch.inf]


def test_known_values():
    x = torch.tensor([[[3.0, 0.0], [0.0, -4.0]]], dtype=torch.float64)
    assert L1(2.0).value(x).item() == 14
    assert SquaredL2(2.0).value(x).item() == 25
    assert L1(1.0).prox(x, 3.5).tolist() == [[[0, 0], [0, -0.5]]]
    assert NonNegativeL1(1.0).prox(x, 2.0).tolist() == [[[1, 0], [0, 0]]]
    torch.testing.assert_close(L2Ball(2.5).prox(x, 1.0), x / 2)
    torch.testing.assert_close(NuclearBall(5.0).prox(x, 1.0), torch.tensor([[[2.0, 0], [0, -3]]], dtype=x.dtype))
    torch.testing.assert_close(NuclearBall(2.0).conjugate(x), torch.tensor([8.0], dtype=x.dtype))


@every_term
def test_zero_is_a_point_like_any_other(term):
    zero = torch.zeros(2, 6, 4, dtype=torch.float64)
    assert torch.equal(term.prox(zero, 0.7), zero)
    assert (term.shrink(zero) == 1).all()
    assert (term.value(zero) == 0).all()
    assert (term.conjugate(zero) == 0).all()


@every_term
def test_two_problems_are_their_problems_one_by_one(term, v):
    for i in range(2):
        mask = torch.arange(2) == i
        one = term.take(mask)
        torch.testing.assert_close(one.prox(v[mask], 0.7), term.prox(v, 0.7)[mask])
        torch.testing.assert_close(one.value(one.prox(v[mask], 0.7)), term.value(term.prox(v, 0.7))[mask])
        torch.testing.assert_close(one.shrink(v[mask]), term.shrink(v)[mask])


@every_term
def test_float32_stays_float32(term, v):
    v = v.float()
    x = term.prox(v, torch.tensor(0.5, dtype=torch.float64))
    assert x.dtype == torch.float32
    assert term.value(x).dtype == term.conjugate(v).dtype == term.shrink(v).dtype == torch.float32
    assert term.value(x).isfinite().all()


@pytest.mark.parametrize("kind", [L1, NonNegativeL1, SquaredL2, L2Ball, NuclearBall])
@pytest.mark.parametrize("level", [-1.0, float("nan"), "a", torch.tensor([1.0, -1.0]), torch.ones(2, 2)], ids=str)
def test_a_wrong_level_is_refused_by_name(kind, level):
    with pytest.raises(InputError, match=r"(weight|radius) must be a finite number"):
        kind(level)


@pytest.mark.parametrize("kind", [SquaredL2, L2Ball, NuclearBall])
@pytest.mark.parametrize("level", [0.0, torch.zeros(2)], ids=str)
def test_a_level_of_zero_is_refused_where_it_has_no_meaning(kind, level):
    with pytest.raises(InputError, match="above 0"):
        kind(level)
