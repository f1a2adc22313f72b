"""The working set against FISTA over all coefficients, its columns against the dense dictionary, its certificate against float64."""

import numpy as np
import pytest
import torch

from triptych.check import InputError
from triptych.convex import Iterate
from triptych.convex import certify as certify_densely
from triptych.sparse.coding import Coding
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.pursue import pursue
from triptych.sparse.pursuits import working_set as module
from triptych.sparse.pursuits.placed import Placed
from triptych.sparse.pursuits.working_set import WorkingSet, certify, working_set

F64 = torch.float64
LAYOUTS = [
    ((5,), (60,), 1, 2, "valid"),
    ((5,), (61,), 2, 1, "valid"),
    ((3, 4), (20, 22), 1, 2, "valid"),
    ((4, 4), (20, 22), 2, 1, "valid"),
    ((4, 4), (21, 22), 3, 3, "valid"),
    ((1, 3), (7, 20), 1, 1, "valid"),
    ((5,), (60,), 1, 1, "circular"),
    ((5,), (6,), 2, 2, "circular"),
    ((3, 4), (20, 22), 1, 2, "circular"),
    ((4, 4), (6, 18), 3, 1, "circular"),
]
every_layout = pytest.mark.parametrize(("size", "shape", "stride", "channels", "boundary"), LAYOUTS)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def made(size, shape, stride, channels, boundary="valid", b=3):
    D = ConvDictionary(torch.randn(4, channels, *size, dtype=F64, generator=rng()), stride, boundary).normalise()
    return D, torch.randn(b, channels, *shape, dtype=F64, generator=rng(1))


@every_layout
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_optimum_is_the_one_over_all_coefficients(size, shape, stride, channels, boundary, nonnegative, masked):
    """Three problems with weights of their own, certified by the referee, against FISTA's certified optimum."""
    D, signals = made(size, shape, stride, channels, boundary)
    weights = 0.5 + torch.rand(3, 4, *D.code_shape(shape), dtype=F64, generator=rng(2))
    mask = torch.rand(3, 1, *shape, dtype=F64, generator=rng(3)).round(decimals=1) if masked else None
    coding = Coding(
        D, signals, torch.tensor([0.05, 0.1, 0.3], dtype=F64), mask=mask, weights=weights, nonnegative=nonnegative
    )
    mine = pursue(coding, "working_set", tol=1e-10, max_steps=2000)
    peer = pursue(coding, "fista", tol=1e-10, max_steps=20_000)
    assert mine.converged
    assert peer.converged
    torch.testing.assert_close(mine.solution.objective, peer.solution.objective, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(coding.objective(mine.codes.dense()), mine.solution.objective, rtol=1e-12, atol=1e-12)


@every_layout
def test_columns_are_those_of_the_dense_dictionary(size, shape, stride, channels, boundary):
    D, _ = made(size, shape, stride, channels, boundary)
    places = D.code_shape(shape)
    line = len(places) == 1
    n = int(np.prod(places))
    chosen = np.sort(np.random.default_rng(0).choice(4 * n, n, replace=False))
    place, atom = np.divmod(chosen, 4)
    expected = D.matrix(shape)[:, torch.from_numpy(atom * n + place)].numpy()
    placed = Placed(D, (1, *shape) if line else shape, (1, *places) if line else places)
    np.testing.assert_allclose(placed.columns(chosen).toarray(), expected, rtol=0, atol=0)
    mask, scale = np.random.default_rng(1).random(len(expected)), np.random.default_rng(2).random(n)
    scaled = placed.columns(chosen, mask, scale).toarray()
    np.testing.assert_allclose(scaled, mask[:, None] * expected * scale, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("case", ["plain", "weights", "mask", "nonnegative", "line"])
def test_the_certificate_is_true_and_at_least_as_tight_as_the_dense_one(dtype, case):
    """Against the referee's own, which looks at all coefficients in float64."""
    D, signals = made((5,), (300,), 1, 1) if case == "line" else made((4, 4), (30, 31), 1, 2)
    weights = 0.5 + torch.rand(1, 4, *D.code_shape(signals.shape[2:]), dtype=F64, generator=rng(2))
    mask = (torch.rand(signals.shape, dtype=F64, generator=rng(3)) > 0.5).to(F64)
    D, signals = D.to(dtype), signals.to(dtype)
    coding = Coding(
        D,
        signals,
        0.1,
        weights=weights.to(dtype) if case == "weights" else None,
        mask=mask.to(dtype) if case == "mask" else None,
        nonnegative=case == "nonnegative",
    )
    least = pursue(coding, "fista", tol=1e-9, max_steps=20_000).solution.objective
    for step, found in zip(range(13), working_set(coding)):
        mine = certify(coding.problem(), found)
        dense = certify_densely(coding.problem(), Iterate(mine.x.dense(F64)))
        torch.testing.assert_close(mine.objective, dense.objective, rtol=1e-7, atol=0)
        assert bool((mine.lower_bound <= least * (1 + 1e-9)).all()), step
        assert bool((mine.lower_bound >= dense.lower_bound - 1e-5 * dense.objective).all()), step


@every_layout
def test_a_bound_eased_near_wrong_atoms_is_true_and_not_below_the_scaled_one(
    size, shape, stride, channels, boundary, monkeypatch
):
    """Every round's bound against the optimum and against that of the residual scaled by its one largest correlation."""
    D, signals = made(size, shape, stride, channels, boundary)
    coding = Coding(D, signals, 0.1)
    least = pursue(coding, "fista", tol=1e-10, max_steps=20_000).solution.objective
    better = 0
    for _, found in zip(range(8), working_set(coding)):
        bounds = {}
        for every in (1, 10**9):
            monkeypatch.setattr(module, "EASED", every)
            bounds[every] = certify(coding.problem(), found).lower_bound
        assert bool((bounds[1] <= least * (1 + 1e-9)).all())
        assert bool((bounds[1] >= bounds[10**9]).all())
        better += int((bounds[1] > bounds[10**9]).sum())
    if max(shape) > 2 * max(size):
        assert better


@pytest.mark.parametrize("few", [0, 1000])
def test_rounding_is_allowed_for_in_the_bound(few, monkeypatch):
    """The number that bounds all correlations of a look bounds those of float64, whether or not they are made again."""
    monkeypatch.setattr(module, "FEW", few)
    for seed in range(20):
        D = ConvDictionary(torch.randn(4, 1, 6, 6, generator=rng(seed))).normalise()
        coding = Coding(D, torch.randn(1, 1, 40, 40, generator=rng(seed + 100)), 0.1)
        stream = working_set(coding)
        for _ in range(3):
            one = next(stream).problems[0]
            exact = D.to(F64).analyse(one.residual[None]).abs().max()
            assert one._looked().bound >= float(exact) * (1 - 1e-14)
            assert one._looked().bound <= float(exact) * (1 + 1e-4)


def test_a_signal_without_anything_to_code_has_the_code_zero():
    D, signals = made((5,), (60,), 1, 1)
    coding = Coding(D, torch.stack([signals[0], 0 * signals[1]]), 0.2)
    first, second = next(working_set(coding)).x.nonzeros.tolist()
    assert first
    assert not second
    high = Coding(D, signals, 1.0)
    assert not next(working_set(high)).x.nonzeros.any()


def test_problems_that_are_solved_stop_and_the_others_go_on():
    D, signals = made((5,), (60,), 1, 1)
    coding = Coding(D, signals, 0.1)
    both, alone = working_set(coding), working_set(coding.take(torch.tensor([False, True, True])))
    for _ in range(3):
        next(both)
        next(alone)
    left, expected = both.send(torch.tensor([False, True, True])).x, next(alone).x
    assert len(left) == 2
    torch.testing.assert_close(left.dense(), expected.dense(), rtol=1e-12, atol=1e-12)


def test_single_precision_reaches_a_relative_gap_of_1e_5():
    D, signals = made((4, 4), (40, 42), 1, 1, b=1)
    coding = Coding(D.to(torch.float32), signals.float(), 0.1)
    found = pursue(coding, tol=1e-5, max_steps=200)
    assert found.converged
    assert float(found.gap) <= 1e-5 * float(found.solution.objective)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WorkingSet(cell=0), "cell must be"),
        (lambda: WorkingSet(sweeps=0), "sweeps must be"),
        (lambda: working_set(Coding(ConvDictionary(torch.ones(2, 1, 3)), torch.ones(1, 1, 9), reg=0.0)), "use fista"),
        (
            lambda: pursue(Coding(ConvDictionary(torch.ones(2, 1, 3)), torch.ones(1, 1, 9)), "fist"),
            "did you mean fista",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_with_a_sentence(make, says):
    with pytest.raises(InputError, match=says):
        make()
