"""Holistic pursuit: its constrained pursuits against cvxpy, and that the zeros of the middle layer help."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from triptych.check import InputError
from triptych.papers.aberdam2019._signals import drawn, model_of
from triptych.sparse.deep.dictionary import MultiLayerDictionary
from triptych.sparse.deep.holistic import _Constrained, holistic

F64 = torch.float64


@pytest.mark.parametrize("zeros", [0, 4])
def test_constrained_basis_pursuit_is_cvxpys(zeros):
    rng = np.random.default_rng(0)
    D, y, phi = rng.standard_normal((20, 12)), rng.standard_normal(20), rng.standard_normal((zeros, 12))
    g = cp.Variable(12)
    constraints = [phi @ g == 0] if zeros else []
    cp.Problem(cp.Minimize(0.5 * cp.sum_squares(y - D @ g) + 2.0 * cp.norm1(g)), constraints).solve(solver=cp.CLARABEL)
    found = _Constrained(torch.from_numpy(D), torch.from_numpy(y), torch.from_numpy(phi)).solve(2.0)
    np.testing.assert_allclose(found.numpy(), g.value, atol=1e-5)


def test_zeros_found_are_zeros_and_the_residual_is_the_noise():
    model, rng = model_of(1), np.random.default_rng(1)
    y, _, _, noise = drawn(model, 5, 6, 25.0, rng)
    found = holistic(model, y, 5, noise)
    assert found.zeros.shape == (1, 5)
    assert float(found.codes[0].flatten()[found.zeros[0]].abs().max()) < 1e-5 * float(found.codes[0].abs().max())
    assert 0 < int((found.codes[1] != 0).sum()) < 50
    assert int((found.codes[0] == 0).sum()) >= 5
    left = float((y - model.synthesise(found.codes[1], y.shape[2:])).norm())
    assert left == pytest.approx(noise, rel=0.03)


def test_the_zeros_of_the_middle_layer_help():
    model, rng = model_of(2), np.random.default_rng(2)
    with_zeros, without = [], []
    for _ in range(6):
        y, _, g2, noise = drawn(model, 9, 10, 25.0, rng)
        for count, errors in ((9, with_zeros), (0, without)):
            g = holistic(model, y, count, noise).codes[1]
            errors.append(float((g - g2).square().sum() / g2.square().sum()))
    assert np.mean(with_zeros) < 0.7 * np.mean(without)


def test_wrong_models_are_refused():
    model = model_of(0)
    y = torch.zeros(1, 1, 50, dtype=F64)
    with pytest.raises(InputError, match="two layers"):
        holistic(MultiLayerDictionary(model.layers[:1]), y, 1, 0.1)
    with pytest.raises(InputError, match="zeros"):
        holistic(model, y, 50, 0.1)
