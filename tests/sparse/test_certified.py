"""Certificates of codes: exact on problems worked by hand, never broken by random or worst-case noise."""

from math import inf, sqrt

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from triptych.check import InputError
from triptych.sparse import Codes, Coding, ConvDictionary, certified_radius, may_enter, pursue

F64 = torch.float64


def lasso(K, y, lam, positive=False, weights=None):
    """The exact code on the dense matrix, by scikit-learn."""
    w = np.ones(K.shape[1]) if weights is None else weights
    solver = Lasso(lam / len(y), fit_intercept=False, tol=1e-14, max_iter=200_000, positive=positive)
    return solver.fit(K / w, y).coef_ / w


def identity(n=3):
    """Atoms that are the unit vectors: a code is the signal, shrunk."""
    return ConvDictionary(torch.eye(n, dtype=F64)[:, None], n)


def test_by_hand_on_unit_vectors():
    """y = (3, .2, -2), λ = 1: code (2, 0, -1). Scores: x_1 and x_2, so the rival's atom is not in the code.

    It enters when |r_2| = .2 reaches 1, that is at .8. Before, the lead 2 falls by at most ε along the first axis; from .8 on by
    at most ε sqrt(2): 2 / sqrt(2) = 1.414. The label changes at no less: y = (3 - t, .2 + u) needs 2 - t = u - .8, so by
    Pythagoras at 2.8 / sqrt(2) = 1.98.
    """
    coding = Coding(identity(), torch.tensor([[[3.0, 0.2, -2.0]]], dtype=F64), 1.0, "absolute")
    code = torch.tensor([2.0, 0.0, -1.0], dtype=F64).reshape(1, 3, 1)
    weights = torch.eye(3, dtype=F64)[:2]
    found = certified_radius(coding, code, torch.zeros(1), weights, torch.zeros(2))
    assert found.label.tolist() == [0]
    assert found.margin.tolist() == [2.0]
    assert found.radius.tolist() == [pytest.approx(sqrt(2))]
    # with a higher bar for the rival, the bound is met before its atom enters
    found = certified_radius(coding, code, torch.zeros(1), weights, torch.tensor([0.0, 1.5]))
    assert found.radius.tolist() == [pytest.approx(0.5)]
    # and where the bound of one atom is above, and of two below, the entry itself is the radius
    found = certified_radius(coding, code, torch.zeros(1), weights, torch.tensor([0.0, 1.1]))
    assert found.radius.tolist() == [pytest.approx(0.8)]


def test_by_hand_with_a_gap_a_mask_weights_and_no_negative_codes():
    signal = torch.tensor([[[3.0, 0.2, -2.0]]], dtype=F64)
    code = torch.tensor([2.0, 0.0, -1.0], dtype=F64).reshape(1, 3, 1)
    zero, gap = torch.zeros(1), torch.tensor([0.02])
    coding = Coding(identity(), signal, 1.0, "absolute")
    assert [s.tolist() for s in may_enter(coding, code, zero, 0.79)] == [[0, 2]]
    assert [s.tolist() for s in may_enter(coding, code, zero, 0.81)] == [[0, 1, 2]]
    assert [s.tolist() for s in may_enter(coding, code, gap, 0.61)] == [[0, 1, 2]]  # ρ = .2
    assert [s.tolist() for s in may_enter(coding, code, gap, 0.59)] == [[0, 2]]
    bias = torch.tensor([0.0, 1.5])
    assert certified_radius(coding, code, gap, torch.eye(3)[:2], bias).radius.tolist() == [pytest.approx(0.3)]
    heavy = Coding(identity(), signal, 1.0, "absolute", weights=torch.tensor([1.0, 4.0, 1.0]).reshape(1, 3, 1))
    assert [s.tolist() for s in may_enter(heavy, code, zero, 3.79)] == [[0, 2]]
    positive = Coding(identity(), signal, 1.0, "absolute", nonnegative=True)
    clipped = code.clamp_min(0)
    assert [s.tolist() for s in may_enter(positive, clipped, zero, 2.9)] == [[0, 1]]  # the third has -2: 3 away
    hidden = Coding(identity(), signal, 1.0, "absolute", torch.tensor([[[1.0, 1.0, 0.0]]]))
    blind = torch.tensor([2.0, 0.0, 0.0], dtype=F64).reshape(1, 3, 1)
    assert [s.tolist() for s in may_enter(hidden, blind, zero, 0.9)] == [[0, 1]]


CASES = {
    "line": ({}, (16,), (5,), 1, "valid", 1),
    "not negative": ({"nonnegative": True}, (16,), (5,), 1, "valid", 2),
    "circle with a stride": ({}, (18,), (6,), 2, "circular", 1),
    "picture": ({}, (7, 8), (3, 4), 1, "valid", 1),
    "weighted": ({"weights": True}, (16,), (5,), 1, "valid", 1),
    "masked": ({"mask": True}, (20,), (5,), 1, "valid", 1),
}


def made(case, seed, tol):
    options, shape, size, stride, boundary, c = case
    rng = torch.Generator().manual_seed(seed)
    D = ConvDictionary(torch.randn(3, c, *size, generator=rng, dtype=F64), stride, boundary)
    signal = torch.randn(1, c, *shape, generator=rng, dtype=F64)
    places = D.code_shape(shape)
    more = dict(options)
    if "weights" in more:
        more["weights"] = 0.5 + torch.rand(1, 3, *places, generator=rng, dtype=F64)
    if "mask" in more:
        more["mask"] = (torch.rand(1, c, *shape, generator=rng) < 0.8).double()
    coding = Coding(D, signal, 0.3, **more)
    found = pursue(coding, "working_set", tol=tol, max_steps=500)
    classifier = torch.randn(3, 3, *places, generator=rng, dtype=F64), 0.1 * torch.randn(3, generator=rng, dtype=F64)
    return coding, found, classifier, rng


def exact(coding, v):
    """The code of a signal moved by v, on the dense matrix."""
    K = coding.dictionary.matrix(coding.shape).numpy()
    y = (coding.signals + v).flatten().numpy()
    if coding.mask is not None:
        m = coding.mask.flatten().numpy()
        K, y = K * m[:, None], y * m
    weights = None if coding.weights is None else coding.weights.flatten().numpy()
    return lasso(K, y, float(coding.lam()), coding.nonnegative, weights)


@pytest.mark.parametrize("tol", [1e-12, 1e-2])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_no_noise_within_the_radius_changes_a_label_or_lets_another_atom_in(case, tol):
    """Random noise on the sphere, and noise along the direction in which the lead falls fastest, also from rough codes."""
    tried = 0
    for seed in range(12):
        coding, found, (weights, bias), rng = made(case, seed, tol)
        sure = certified_radius(coding, found.codes, found.gap, weights, bias)
        radius = float(sure.radius)
        flat = weights.flatten(1).numpy()
        if not 0 < radius < inf:
            continue
        allowed = may_enter(coding, found.codes, found.gap, radius)[0].tolist()
        K = coding.dictionary.matrix(coding.shape)
        x = exact(coding, torch.zeros_like(coding.signals))
        support = np.flatnonzero(x)
        pull = torch.linalg.pinv(K[:, support].T) @ (weights[int(sure.label)] - weights).flatten(1).T[support]
        noise = [torch.randn(K.shape[0], generator=rng, dtype=F64) for _ in range(6)] + [
            -p for p in pull.T if p.norm() > 0
        ]
        for v in noise:
            v = (v / v.norm() * radius * 0.999).reshape(coding.signals.shape)
            moved = exact(coding, v)
            assert int((flat @ moved + bias.numpy()).argmax()) == int(sure.label)
            assert set(np.flatnonzero(np.abs(moved) > 1e-9)) <= set(allowed)
            tried += 1
    assert tried >= 20


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_radius_is_that_of_the_definition(case):
    """Found again by trying every t on a grid, with pseudo-inverses of dense columns."""
    for seed in range(4):
        coding, found, (weights, bias), _ = made(case, seed, 1e-12)
        sure = certified_radius(coding, found.codes, found.gap, weights, bias)
        K = coding.dictionary.matrix(coding.shape)
        if coding.mask is not None:
            K = K * coding.mask.flatten()[:, None]
        x = found.codes.dense().flatten()
        lead = (weights.flatten(1)[int(sure.label)] - weights.flatten(1)) @ x + bias[int(sure.label)] - bias
        others = [v for v in range(3) if v != int(sure.label)]
        rho = float((2 * found.gap) ** 0.5)
        last = 0.0
        for t in np.linspace(1e-3, 3, 600):
            inside = may_enter(coding, found.codes, found.gap, max(t - rho, 0.0))[0]
            columns = K[:, inside]
            if torch.linalg.matrix_rank(columns) < len(inside):
                break
            inverse = torch.linalg.inv(columns.T @ columns)
            a = (weights.flatten(1)[int(sure.label)] - weights.flatten(1))[:, inside]
            bound = t * (a @ inverse * a).sum(1).clamp_min(0).sqrt()
            if not all(lead[v] > bound[v] for v in others):
                break
            last = t
        assert float(sure.radius) == pytest.approx(max(0.0, last - rho), abs=0.0055)


def test_columns_that_depend_on_each_other_promise_nothing():
    """Two atoms that are the same: from where the second may enter, the code is not unique."""
    same = ConvDictionary(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=F64)[:, None], 2)
    coding = Coding(same, torch.tensor([[[3.0, 0.0]]], dtype=F64), 1.0, "absolute")
    code = torch.tensor([2.0, 0.0, 0.0], dtype=F64).reshape(1, 3, 1)
    found = certified_radius(coding, code, torch.zeros(1), torch.eye(3)[:2], torch.zeros(2))
    assert found.radius.tolist() == [0.0]


def test_batches_are_problems_of_their_own():
    coding, found, (weights, bias), _ = made(CASES["line"], 0, 1e-10)
    second = replaced = Coding(coding.dictionary, 2 * coding.signals, 0.3)
    both = Coding(coding.dictionary, torch.cat([coding.signals, second.signals]), 0.3)
    found = pursue(both, "working_set", tol=1e-10, max_steps=500)
    together = certified_radius(both, found.codes, found.gap, weights, bias)
    for i, one in enumerate((coding, replaced)):
        alone = pursue(one, "working_set", tol=1e-10, max_steps=500)
        sure = certified_radius(one, alone.codes, alone.gap, weights, bias)
        assert float(sure.radius) == pytest.approx(float(together.radius[i]), rel=1e-3)


BAD = {
    "codes of another shape": ({"codes": torch.zeros(1, 3, 9)}, "codes must be of shape"),
    "no gap": ({"gap": torch.zeros(2)}, "gap must be"),
    "a negative gap": ({"gap": -torch.ones(1)}, "gap must be"),
    "weights of another size": ({"weights": torch.zeros(2, 30)}, "weights and bias must be"),
    "a bias of another size": ({"bias": torch.zeros(3)}, "weights and bias must be"),
    "weights that are no numbers": ({"weights": torch.full((2, 36), torch.nan)}, "weights and bias must be finite"),
}


@pytest.mark.parametrize(("wrong", "message"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused(wrong, message):
    coding, found, _, _ = made(CASES["line"], 0, 1e-2)
    given = {"codes": found.codes, "gap": found.gap, "weights": torch.zeros(2, 36), "bias": torch.zeros(2)} | wrong
    with pytest.raises(InputError, match=message):
        certified_radius(coding, **given)


def test_without_a_penalty_nothing_is_certified():
    D = identity()
    coding = Coding(D, torch.ones(1, 1, 3, dtype=F64), 0.0)
    with pytest.raises(InputError, match="above 0"):
        may_enter(coding, Codes.of(torch.zeros(1, 3, 1, dtype=F64)), torch.zeros(1), 0.1)
