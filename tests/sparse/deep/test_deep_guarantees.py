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
from triptych.sparse.deep.forward import layered_thresholding
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
        "so much a projection errs at most",
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


def test_a_projection_may_be_farther_from_codes_that_are_fuller_in_the_effective_dictionary():
    """What is promised is of stripes of D^(i): a model whose own stripes are as few, and whose effective ones are not."""
    D1 = ConvDictionary(torch.tensor([[[0.995, 0.1]], [[0.1, 0.995]]], dtype=F64)).normalise()
    atom = torch.zeros(1, 2, 3, dtype=F64)
    atom[0, 0, 0] = atom[0, 1, 2] = 0.5**0.5
    model = MultiLayerDictionary((D1, ConvDictionary(atom, 3)))
    code = torch.zeros(1, 1, 20, dtype=F64)
    code[0, 0, 10] = 1
    x, *codes = model.cascade(code)
    one = deep_guarantees(model, codes, noise=0.05)[0]
    M = model.effective().matrix(x.shape[2:])
    bound, rng = one.layers[1].projection, np.random.default_rng(0)
    for _ in range(200):
        rival = torch.zeros(20, dtype=F64)
        for place in rng.permutation(20).tolist():
            rival[place] = rng.standard_normal()
            if int(l0_stripe(model.effective(), rival.reshape(1, 1, 20))) > one.layers[1].effective_stripe:
                rival[place] = 0
        delta = rival * 0.01 + code.flatten() * float(rng.standard_normal()) * 0.05
        delta[10] = delta[10] if rng.random() < 0.5 else 0.0
        if (
            int(l0_stripe(model.effective(), (code.flatten() + delta).reshape(1, 1, 20)))
            > one.layers[1].effective_stripe
        ):
            continue
        delta = delta * (2 * one.noise / float((M @ delta).norm()))
        assert float(delta.norm()) <= bound * (1 + 1e-9)
    assert "stripe of the effective dictionary" in one.verdict()


def test_circles_that_are_too_small_are_refused_and_effective_ones_promise_nothing():
    D1 = ConvDictionary(torch.full((1, 1, 2), 0.5**0.5, dtype=F64), 1, "circular")
    D2 = ConvDictionary(torch.ones(1, 1, 1, dtype=F64), 1, "circular")
    model = MultiLayerDictionary((D1, D2))
    codes = model.cascade(torch.tensor([[[1.0, 0.0]]], dtype=F64))[1:]
    with pytest.raises(InputError, match="circular signals must be at least twice an atom's size"):
        deep_guarantees(model, codes)
    rng = torch.Generator().manual_seed(0)
    layers, c = [], 1
    for k, n in ((3, 3), (2, 4)):
        layers.append(ConvDictionary(torch.randn(k, c, n, dtype=F64, generator=rng), 1, "circular").normalise())
        c = k
    deep = MultiLayerDictionary(tuple(layers))
    assert deep.effective().size == (6,)
    code = torch.zeros(1, 2, 8, dtype=F64)
    code[0, 0, 0] = 1
    one = deep_guarantees(deep, deep.cascade(code, (8,))[1:])[0]
    assert one.layers[1].projection == inf  # an effective atom of 6 meets another on both sides of a circle of 8


def test_non_negative_thresholds_promise_nothing_of_codes_below_zero(case):
    model, codes, _, local, norm = case
    assert deep_guarantees(model, codes, local, norm)[0].thresholding
    one = deep_guarantees(model, codes, local, norm, kind="nonnegative")[0]
    assert not one.thresholding  # G_1 has entries of both signs
    assert one.basis_pursuit


def test_thresholds_leave_room_for_rounding():
    """In float32, with one non-zero and no noise, the least threshold is met exactly by wrong atoms."""
    rng = torch.Generator().manual_seed(0)
    for seed in range(40):
        D1 = ConvDictionary(torch.randn(3, 1, 6, generator=torch.Generator().manual_seed(seed))).normalise()
        model = MultiLayerDictionary((D1,))
        code = torch.zeros(1, 3, 15)
        code[0, int(torch.randint(3, (1,), generator=rng)), 7] = 1
        one = deep_guarantees(model, (code,))[0]
        if one.thresholding:
            found = layered_thresholding(model, model.synthesise(code), [one.layers[0].threshold], "soft")[0]
            assert bool(((found != 0) == (code != 0)).all())


def test_noise_in_all_bounds_noise_in_a_patch(case):
    model, codes, _, _, norm = case
    one = deep_guarantees(model, codes, noise=norm)[0]
    assert one.local_noise == norm
    assert one.layers[0].threshold_noise == norm


def test_codes_that_do_not_make_each_other_are_refused(case):
    model, codes, _, _, _ = case
    for wrong_codes, message in (
        ((codes[0], torch.zeros_like(codes[1])), "codes must make each other"),
        ((codes[0], codes[1][..., :5]), "in layer 2"),
        ((codes[0], codes[1].repeat(2, 1, 1)), "one number of signals"),
        ((codes[0], codes[1][:, :2]), "codes must be"),
    ):
        with pytest.raises(InputError, match=message):
            deep_guarantees(model, wrong_codes)
