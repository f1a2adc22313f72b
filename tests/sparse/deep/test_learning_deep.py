"""Learning of many layers: planted dictionaries, densities, resuming bit for bit, and the estimator's laws."""

import numpy as np
import pytest
import torch
from scipy.sparse import issparse
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from triptych import MultiLayerSparseCoder
from triptych.check import InputError
from triptych.sparse.deep.dictionary import MultiLayerDictionary
from triptych.sparse.deep.learning import LayerShape, deepest, order
from triptych.sparse.deep.pursue import deepest_codes
from triptych.sparse.dictionary import ConvDictionary

SMALL = "8x3,12x3"


@pytest.fixture(scope="module")
def digits():
    return (load_digits().images / 16).astype(np.float32)


def coder(**change):
    return MultiLayerSparseCoder(
        **{"layers": SMALL, "density": 0.1, "max_iter": 3, "batch_size": 64, "random_state": 0, **change}
    )


@pytest.fixture(scope="module")
def fitted(digits):
    return coder().fit(digits[:300])


def test_the_objective_falls_and_atoms_are_unit_and_as_sparse_as_asked_for(fitted):
    assert fitted.n_iter_ == 3
    assert fitted.objective_[-1] < 0.7 * fitted.objective_[0]
    for D in fitted.dictionary_.layers:
        torch.testing.assert_close(D.norms, torch.ones_like(D.norms))
    assert fitted.dictionary_.density()[0] == 1.0
    kept = (fitted.dictionary_.layers[1].atoms != 0).flatten(1).sum(1)
    assert kept.tolist() == [int(0.1 * 72)] * 12


def test_a_sparse_dictionary_costs_little_beside_a_dense_one(digits):
    sparse, dense = (coder(density=d, max_iter=10).fit(digits[:600]) for d in (0.15, 1.0))
    assert -sparse.score(digits[600:700]) < 1.6 * -dense.score(digits[600:700])


def test_codes_are_certified_and_synthesise_each_other(fitted, digits):
    X = digits[300:320]
    codes = fitted.codes(X)
    torch.testing.assert_close(fitted.dictionary_.down(2, codes[1], codes[0].shape[2:]), codes[0])
    rows = fitted.transform(X)
    assert issparse(rows)
    np.testing.assert_allclose(rows.toarray(), codes[1].flatten(1).numpy())
    back = fitted.inverse_transform(rows)
    assert back.shape == X.shape
    np.testing.assert_allclose(back, fitted.dictionary_.synthesise(codes[1]).numpy()[:, 0], atol=1e-5)
    assert fitted.score(X) == pytest.approx(
        -float(np.mean(((back - X) ** 2).sum((1, 2)) / 2 + fitted.reg_ * rows.toarray().sum(1))), rel=1e-4
    )


def test_codes_by_the_matrix_and_by_the_layers_are_the_same(fitted, digits, monkeypatch):
    X = torch.from_numpy(digits[300:310])[:, None]
    one = deepest_codes(fitted.dictionary_, X, fitted.reg_, True, 1e-6)
    quick = deepest(fitted.dictionary_, X, fitted.reg_, True, 400)
    monkeypatch.setattr("triptych.sparse.deep.coding.MATRIX", 0)
    other = deepest_codes(fitted.dictionary_, X, fitted.reg_, True, 1e-6)
    slow = deepest(fitted.dictionary_, X, fitted.reg_, True, 400)
    torch.testing.assert_close(one.objective, other.objective, rtol=1e-5, atol=0)
    assert quick[1] == pytest.approx(float(one.objective.mean()), rel=1e-4)
    assert slow[1] == pytest.approx(quick[1], rel=1e-4)


def test_the_same_seed_gives_the_same_atoms(digits, fitted):
    again = coder().fit(digits[:300])
    assert all(torch.equal(a.atoms, b.atoms) for a, b in zip(again.dictionary_.layers, fitted.dictionary_.layers))
    other = coder(random_state=1).fit(digits[:300])
    assert not torch.equal(other.dictionary_.layers[0].atoms, fitted.dictionary_.layers[0].atoms)


class Stopped(Exception):
    """What interrupts a fit."""


@pytest.mark.parametrize("stop", [1, 2])
def test_an_interrupted_fit_goes_on_bit_for_bit(digits, fitted, stop, tmp_path):
    def interrupting(visit, objective):
        if visit == stop:
            raise Stopped

    half = coder(verbose=interrupting)
    with pytest.raises(Stopped):
        half.fit(digits[:300])
    loaded = MultiLayerSparseCoder.load(half.save(tmp_path / "half"))
    assert loaded.n_iter_ == stop
    loaded.set_params(warm_start=True, random_state=0).fit(digits[:300])
    assert all(torch.equal(a.atoms, b.atoms) for a, b in zip(loaded.dictionary_.layers, fitted.dictionary_.layers))
    assert loaded.objective_ == fitted.objective_


@pytest.mark.parametrize("where", ["learnt", "revived"])
@pytest.mark.parametrize("call", [2, 3])
def test_an_interruption_anywhere_goes_on_bit_for_bit(digits, fitted, where, call, monkeypatch):
    """Also in the middle of a step or of a revival, after it has begun to change things."""
    import triptych.sparse.deep.estimator as module

    real, calls = getattr(module, where), []

    def interrupted(state, signals, plan):
        calls.append(real(state, signals, plan))
        if len(calls) == call:
            raise Stopped
        return calls[-1]

    half = coder()
    with monkeypatch.context() as patched:
        patched.setattr(module, where, interrupted)
        if where == "revived":  # there are as many visits that revive as calls
            half.set_params(max_iter=3)
        try:
            half.fit(digits[:300])
        except Stopped:
            half.set_params(warm_start=True).fit(digits[:300])
    assert all(torch.equal(a.atoms, b.atoms) for a, b in zip(half.dictionary_.layers, fitted.dictionary_.layers))
    assert half.objective_ == fitted.objective_


def test_going_on_with_other_signals_is_refused(digits):
    one = coder(max_iter=1).fit(digits[:50]).set_params(warm_start=True)
    for other in (digits[:49], digits[50:100]):
        with pytest.raises(InputError, match="warm_start needs the signals that fit had, 50 of them"):
            one.fit(other)


def test_parameters_of_numpy_are_saved(digits, tmp_path):
    one = coder(max_iter=np.int64(1), density=np.float32(0.25), signal_shape=(np.int64(1), 8, 8)).fit(digits[:30])
    assert MultiLayerSparseCoder.load(one.save(tmp_path / "m")).max_iter == 1


def test_saved_models_come_back(fitted, digits, tmp_path):
    for resumable in (True, False):
        other = MultiLayerSparseCoder.load(fitted.save(tmp_path / str(resumable), resumable))
        np.testing.assert_array_equal(other.transform(digits[:5]).toarray(), fitted.transform(digits[:5]).toarray())
        assert other.get_params()["layers"] == SMALL
    full, small = (sum(path.stat().st_size for path in (tmp_path / str(r)).iterdir()) for r in (True, False))
    assert small < full
    one = MultiLayerSparseCoder.load(tmp_path / "False").set_params(warm_start=True)
    with pytest.raises(InputError, match="saved without what fit goes on from"):
        one.fit(digits[:300])


def test_layers_with_densities_of_their_own(digits, tmp_path):
    layers = (LayerShape(6, 3), LayerShape(8, 3, 1, 0.5))
    one = MultiLayerSparseCoder(layers, density=0.1, max_iter=1, random_state=0).fit(digits[:100])
    assert one._shapes()[1].density == 0.5
    again = MultiLayerSparseCoder.load(one.save(tmp_path / "m"))
    assert again.layers == layers


def test_lambda_is_a_fraction_of_the_signals_norm(digits):
    X = digits[:100]
    norm = float(np.linalg.norm(X.reshape(100, -1), axis=1).mean())
    assert coder(max_iter=1, reg=0.1).fit(X).reg_ == pytest.approx(0.1 * norm, rel=1e-5)
    assert coder(max_iter=1, reg=0.1, reg_scale="absolute").fit(X).reg_ == 0.1


def test_signed_codes(digits):
    one = coder(nonnegative=False, max_iter=2).fit(digits[:200])
    codes = one.codes(digits[:20])[1]
    assert float(codes.min()) < 0 < float(codes.max())


def test_the_order_of_signals_visits_each_once():
    seen = torch.cat([order(10, 4, 3, step) for step in range(3)])
    assert sorted(seen.tolist()) == list(range(10))
    assert not torch.equal(order(10, 4, 3, 0), order(10, 4, 3, 3))
    assert torch.equal(order(10, 4, 3, 1), order(10, 4, 3, 1))


def test_codes_that_are_not_certified_are_told_of(fitted, digits):
    strict = coder(code_tol=1e-15, max_iter=1).fit(digits[:64])
    with pytest.warns(ConvergenceWarning, match="are not certified to code_tol"):
        strict.transform(digits[:2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": "8y3"}, "layers must be like"),
        ({"layers": ()}, "layers must be a text"),
        ({"layers": "8x3,12x3d1..2"}, "layers must be like"),
        ({"layers": "8x3,12x9"}, "layer 2: signals must be at least"),
        ({"density": 0.0}, "density"),
        ({"reg": -1.0}, "reg"),
        ({"reg_scale": "lambda_max"}, "reg_scale must be one of"),
        ({"max_iter": 0}, "max_iter"),
        ({"batch_size": 0}, "batch_size"),
        ({"rate": 0.0}, "rate"),
        ({"verbose": -1}, "verbose"),
    ],
)
def test_wrong_parameters_are_refused(digits, change, message):
    with pytest.raises(InputError, match=message):
        coder(**change).fit(digits[:20])


def test_wrong_data_are_refused(fitted, digits, tmp_path):
    with pytest.raises(InputError, match="nothing to learn from"):
        coder().fit(np.zeros((10, 8, 8), np.float32))
    with pytest.raises(InputError, match="signals must have the shape"):
        fitted.transform(digits[:3].transpose(0, 2, 1)[:, :, :4].repeat(2, 2).reshape(3, 4, 16))
    with pytest.raises(InputError, match="X must be an array"):
        fitted.inverse_transform(np.zeros((2, 3)))
    with pytest.raises(InputError):
        MultiLayerSparseCoder.load(tmp_path)


def test_a_planted_sparse_dictionary_is_approached():
    """Signals of a known model of two layers: what is learned codes them nearly as well as the truth."""
    rng = np.random.default_rng(0)
    D1 = ConvDictionary(torch.from_numpy(rng.standard_normal((4, 1, 5)).astype(np.float32))).normalise()
    atoms = rng.standard_normal((5, 4, 4)) * (rng.random((5, 4, 4)) < 0.3)
    truth = MultiLayerDictionary((D1, ConvDictionary(torch.from_numpy(atoms.astype(np.float32))).normalise()))
    g = torch.from_numpy((rng.random((600, 5, 8)) * (rng.random((600, 5, 8)) < 0.08)).astype(np.float32))
    X = truth.synthesise(g)
    one = MultiLayerSparseCoder(
        "4x5,5x4", density=0.35, max_iter=60, batch_size=50, random_state=0, signal_shape=(1, 15)
    ).fit(X.numpy()[:500])
    true = float(deepest_codes(truth, X[500:], one.reg_, True, 1e-3).objective.mean())
    assert -one.score(X.numpy()[500:]) < 1.5 * true


ESTIMATOR = MultiLayerSparseCoder("3x1,3x1", density=1.0, code_tol=1e-9, max_iter=2, random_state=0)


@parametrize_with_checks([ESTIMATOR])
def test_scikit_learns_checks_hold(estimator, check):
    check(estimator)
