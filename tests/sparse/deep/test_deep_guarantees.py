"""Guarantees of many layers: their numbers by hand, and that a projection, a forward pass and layered pursuits keep to them."""

from math import inf, sqrt

import numpy as np
import pytest
import torch

from triptych.check import InputError
from triptych.papers.papyan2017._deep import drawn, made, noisy
from triptych.sparse import ConvDictionary
from triptych.sparse.coherence import mutual_coherence
from triptych.sparse.deep.dictionary import MultiLayerDictionary
from triptych.sparse.deep.guarantees import deep_guarantees
from triptych.sparse.deep.projection import Fit, project
from triptych.sparse.norms import l0_patch, l0_stripe

F64 = torch.float64


@pytest.fixture(scope="module")
def case():
    """A model, codes with two non-zeros in a stripe of the deepest, and a noisy signal."""
    model, rng = made(3), np.random.default_rng(5)
    x, *codes = drawn(model, 2, 20, rng)
    y, local, norm = noisy(x, 0.01, model.layers[0].size, rng)
    return model, codes, y, local, norm


def test_the_numbers_are_those_of_the_formulas(case):
    model, codes, _, local, norm = case
    one = deep_guarantees(model, codes, local, norm)[0]
    mus = [mutual_coherence(D) for D in model.layers]
    ks = [int(l0_stripe(D, code)) for D, code in zip(model.layers, codes)]
    ps = [int(l0_patch(codes[0], model.layers[1].size)), int((codes[1] != 0).sum())]
    sizes = [(float(c[c != 0].abs().min()), float(c.abs().max())) for c in codes]
    error, pursuit, product = local, local, 1.0
    for layer, mu, k, p, (least, most) in zip(one.layers, mus, ks, ps, sizes):
        assert (layer.stripe, layer.patch) == (k, p)
        assert layer.interval == (
            pytest.approx(k * mu * most + error),
            pytest.approx(least - (k - 1) * mu * most - error),
        )
        assert layer.interval[0] < layer.threshold < layer.interval[1]
        error = sqrt(p) * (error + mu * (k - 1) * most + layer.threshold)
        assert layer.threshold_error == pytest.approx(error)
        assert layer.xi == pytest.approx(4 * pursuit)
        pursuit = 7.5 * pursuit * sqrt(p)
        assert layer.pursuit_error == pytest.approx(pursuit)
        product *= 1 - (2 * k - 1) * mu
        assert layer.stability == pytest.approx(2 * norm / sqrt(product))
    assert one.unique
    assert one.thresholding
    assert one.basis_pursuit
    hard = deep_guarantees(model, codes, local, norm, kind="hard")[0]
    k, mu, most = ks[0], mus[0], sizes[0][1]
    assert hard.layers[0].threshold_error == pytest.approx(sqrt(ps[0]) * (local + mu * (k - 1) * most))


def test_the_projections_bound_is_that_of_the_effective_dictionary(case):
    model, codes, _, local, norm = case
    one = deep_guarantees(model, codes, local, norm)[0]
    D = model.effective()
    k, mu = int(l0_stripe(D, codes[1])), mutual_coherence(D)
    assert one.layers[1].projection == pytest.approx(2 * norm / sqrt(1 - (2 * k - 1) * mu) / float(D.norms.min()))


def test_verdicts_say_what_holds_and_what_does_not(case):
    model, codes, _, local, norm = case
    good = deep_guarantees(model, codes, local, norm)[0].verdict()
    for words in (
        "No other codes as sparse",
        "finds exactly these atoms",
        "finds no wrong atom",
        "Projection onto the model errs",
    ):
        assert words in good
    still = deep_guarantees(model, codes)[0].verdict()
    assert "weights that fall to 0 finds the codes" in still
    full = torch.ones_like(codes[1])
    layers = model.cascade(full)
    bad = deep_guarantees(model, layers[1:], local, norm)[0]
    assert not bad.unique
    assert bad.layers[1].stability == inf
    for words in (
        "layer 2 is too full",
        "Recovery by the forward pass: not promised",
        "Stability of the projection: not promised",
    ):
        assert words in bad.verdict()


def test_too_much_noise_leaves_no_threshold(case):
    model, codes, _, _, _ = case
    one = deep_guarantees(model, codes, 0.5)[0]
    assert one.layers[0].interval is None
    assert one.layers[1].interval is None
    assert one.layers[1].threshold_error == inf
    assert not one.thresholding


def test_codes_of_zero_are_found_by_any_threshold_above_the_noise():
    model = made(1)
    codes = model.cascade(torch.zeros(1, 4, 20, dtype=F64))[1:]
    one = deep_guarantees(model, codes, 0.1)[0]
    assert [layer.interval for layer in one.layers] == [(0.1, inf), (0.0, inf)]
    assert one.layers[0].threshold_error == 0


def test_the_projection_of_a_signal_of_the_model_is_its_codes(case):
    model, codes, _, _, _ = case
    stripes = [int(l0_stripe(D, code)) for D, code in zip(model.layers, codes)]
    found = project(model, model.synthesise(codes[1]), stripes)
    assert found.solved
    for code, true in zip(found.codes, codes):
        torch.testing.assert_close(code, true, rtol=0, atol=1e-10)


def test_a_projection_ends_before_a_layer_is_too_full(case):
    model, codes, y, _, norm = case
    stripes = [int(l0_stripe(D, code)) for D, code in zip(model.layers, codes)]
    assert project(model, y, stripes, norm).solved
    for bounds, layer in (([stripes[0], 1], 2), ([2, stripes[1]], 1)):
        found = project(model, y, bounds, norm)
        assert found.ending == (Fit.FULL,)
        assert found.full == (layer,)
        assert float(found.residual[0]) > norm
        for D, code, bound in zip(model.layers, found.codes, bounds):
            assert int(l0_stripe(D, code)) <= bound
        torch.testing.assert_close(model.cascade(found.codes[1], y.shape[2:])[1], found.codes[0])
        left = (y - model.synthesise(found.codes[1], y.shape[2:])).norm()
        torch.testing.assert_close(left, found.residual[0], rtol=1e-8, atol=0)


def test_wrong_calls_are_refused(case):
    model, codes, y, _, _ = case
    with pytest.raises(InputError, match="codes must be 2 tensors"):
        deep_guarantees(model, codes[:1])
    with pytest.raises(InputError, match="guarantees need atoms of norm 1"):
        deep_guarantees(MultiLayerDictionary((model.layers[0], ConvDictionary(2 * model.layers[1].atoms, 4))), codes)
    padded = MultiLayerDictionary(model.layers, (1, 0))
    with pytest.raises(InputError, match="whole atoms"):
        deep_guarantees(padded, codes)
    with pytest.raises(InputError, match="whole atoms"):
        project(padded, y, (1, 1))
    with pytest.raises(InputError, match="stripes must be 2 whole numbers"):
        project(model, y, (1,))
    with pytest.raises(InputError, match="local_noise"):
        deep_guarantees(model, codes, -1.0)
