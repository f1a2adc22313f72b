"""The working set against FISTA over all coefficients, and its sparse Gram matrix against the dense one."""

import numpy as np
import pytest
import torch

from triptych.check import InputError
from triptych.convex import fista, solve
from triptych.sparse.coding import Coding
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.pursuits.neighbours import Stripes, spots
from triptych.sparse.pursuits.working_set import WorkingSet, solver, working_set

F64 = torch.float64
LAYOUTS = [
    ((5,), (60,), 1, 2),
    ((5,), (61,), 2, 1),
    ((3, 4), (20, 22), 1, 2),
    ((4, 4), (20, 22), 2, 1),
    ((4, 4), (21, 22), 3, 3),
    ((1, 3), (7, 20), 1, 1),
]
every_layout = pytest.mark.parametrize(("size", "shape", "stride", "channels"), LAYOUTS)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def made(size, shape, stride, channels, b=3):
    D = ConvDictionary(torch.randn(4, channels, *size, dtype=F64, generator=rng()), stride).normalise()
    return D, torch.randn(b, channels, *shape, dtype=F64, generator=rng(1))


@every_layout
@pytest.mark.parametrize("nonnegative", [False, True])
def test_the_optimum_is_the_one_over_all_coefficients(size, shape, stride, channels, nonnegative):
    """Three problems with weights of their own, certified by the referee, against FISTA's certified optimum."""
    D, signals = made(size, shape, stride, channels)
    weights = 0.5 + torch.rand(3, 4, *D.code_shape(shape), dtype=F64, generator=rng(2))
    reg = torch.tensor([0.05, 0.1, 0.3], dtype=F64)
    coding = Coding(D, signals, reg, weights=weights, nonnegative=nonnegative)
    mine = solve(coding.problem(), solver(coding), coding.start(), tol=1e-9, max_steps=2000)
    peer = solve(coding.problem(), fista, coding.start(), tol=1e-9, max_steps=20_000)
    assert mine.converged
    assert peer.converged
    torch.testing.assert_close(mine.objective, peer.objective, rtol=0, atol=2e-9)


@every_layout
def test_the_sparse_gram_is_the_dense_one(size, shape, stride, channels):
    D, _ = made(size, shape, stride, channels)
    places = D.code_shape(shape)
    both = (1, *places) if len(places) == 1 else places
    flat = (1, *shape) if len(shape) == 1 else shape
    n = int(np.prod(places))
    chosen = np.sort(np.random.default_rng(0).choice(4 * n, n, replace=False))
    place, atom = np.divmod(chosen, 4)
    columns = D.matrix(shape)[:, torch.from_numpy(atom * n + place)]
    stripes = Stripes(D, both)
    np.testing.assert_allclose(stripes.gram(chosen).toarray(), (columns.T @ columns).numpy(), atol=1e-13)
    where, atoms = spots(stripes, chosen, flat)
    written = torch.zeros(len(columns), n, dtype=F64).scatter_(0, where.T, atoms.T)
    torch.testing.assert_close(written, columns)


def test_a_signal_without_anything_to_code_has_the_code_zero():
    D, signals = made((5,), (60,), 1, 1)
    coding = Coding(D, torch.stack([signals[0], 0 * signals[1]]), 0.2)
    x = next(working_set(coding)).x
    assert x[0].any()
    assert not x[1].any()
    high = Coding(D, signals, 1.0)
    assert not next(working_set(high)).x.any()


def test_problems_that_are_solved_stop_and_the_others_go_on():
    D, signals = made((5,), (60,), 1, 1)
    coding = Coding(D, signals, 0.1)
    both, alone = working_set(coding), working_set(coding.take(torch.tensor([False, True, True])))
    for _ in range(3):
        next(both)
        next(alone)
    left, expected = both.send(torch.tensor([False, True, True])).x, next(alone).x
    assert len(left) == 2
    torch.testing.assert_close(left, expected, rtol=1e-12, atol=1e-12)


def test_single_precision_reaches_a_relative_gap_of_1e_4():
    D, signals = made((4, 4), (40, 42), 1, 1, b=1)
    coding = Coding(D.to(torch.float32), signals.float(), 0.1)
    size = float(coding.target.square().sum())
    solution = solve(coding.problem(), solver(coding), coding.start(), tol=1e-5 * size, max_steps=200)
    assert solution.converged
    assert float(solution.gap) <= 1e-4 * float(solution.objective)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WorkingSet(cell=0), "cell must be"),
        (lambda: WorkingSet(steps=0), "steps must be"),
        (lambda: WorkingSet(share=0.0), "share must be"),
        (
            lambda: working_set(Coding(ConvDictionary(torch.ones(2, 1, 3), 1, "circular"), torch.ones(1, 1, 9))),
            "use fista",
        ),
        (
            lambda: working_set(
                Coding(ConvDictionary(torch.ones(2, 1, 3)), torch.ones(1, 1, 9), mask=torch.ones(1, 1, 9))
            ),
            "use fista",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_with_a_sentence(make, says):
    with pytest.raises(InputError, match=says):
        make()
