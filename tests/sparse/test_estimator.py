"""`ConvolutionalDictionaryLearning`: what it accepts, what it tells, what it refuses, that it goes on where it stopped."""

import json
import warnings

import numpy as np
import pytest
import torch
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import SparseCoder
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from triptych import ConvolutionalDictionaryLearning
from triptych.check import InputError
from triptych.sparse import ConvDictionary

pytestmark = pytest.mark.filterwarnings("ignore:fit stopped after:sklearn.exceptions.ConvergenceWarning")


def small(**parameters):
    return ConvolutionalDictionaryLearning(**({"n_atoms": 6, "size": 4, "max_iter": 4, "random_state": 0} | parameters))


@pytest.fixture(scope="module")
def X():
    return load_digits().images[:60]


@pytest.fixture(scope="module")
def fitted(X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return small().fit(X)


def objective(y, x, D, lam):
    return ((y - D @ x) ** 2).sum() / 2 + lam * np.abs(x).sum()


def test_codes_are_those_of_scikit_learn_on_the_dense_matrix(X, fitted):
    """The same objective as its lasso by coordinate descent, code by code, within the gap that is asked for."""
    fitted = clone(fitted).set_params(code_tol=1e-6).fit(X)
    D = fitted.dictionary_.matrix((8, 8)).numpy()
    rows = X[:8].reshape(8, -1)
    coder = SparseCoder(D.T, transform_algorithm="lasso_cd", transform_alpha=fitted.reg_, transform_max_iter=10_000)
    theirs = coder.transform(rows)
    ours = fitted.transform(X[:8])
    assert issparse(ours)
    assert ours.shape == theirs.shape == (8, 6 * 25)
    for y, x, z in zip(rows, ours.toarray(), theirs):
        assert objective(y, x, D, fitted.reg_) <= objective(y, z, D, fitted.reg_) * (1 + 1e-6)
    np.testing.assert_allclose(ours.toarray(), theirs, atol=0.05)


def test_attributes_agree_with_each_other(X, fitted):
    assert fitted.components_.shape == (6, 1, 4, 4)
    np.testing.assert_allclose(np.linalg.norm(fitted.components_.reshape(6, -1), axis=1), 1, rtol=1e-6)
    assert fitted.n_iter_ == len(fitted.objective_) == 4
    assert (np.diff(fitted.objective_) < 0).all()
    assert fitted.signal_shape_ == (1, 8, 8)
    assert not fitted.converged_
    # re-solved codes are no worse than those of the last visit, and the score speaks of them
    assert -fitted.score(X) * 60 <= fitted.objective_[-1]
    x = fitted.transform(X[:5])
    D = fitted.dictionary_.matrix((8, 8)).numpy()
    each = [objective(y.ravel(), z, D, fitted.reg_) for y, z in zip(X[:5], x.toarray())]
    assert fitted.score(X[:5]) == pytest.approx(-np.mean(each))


def test_reg_is_a_fraction_of_the_level_at_which_all_codes_are_0(X):
    atoms = torch.from_numpy(X[:6, None, 2:6, 2:6].copy())
    learner = small(initial=atoms, reg=0.2, max_iter=1).fit(X)
    D = ConvDictionary(atoms).normalise().matrix((8, 8)).numpy()
    assert learner.reg_ == pytest.approx(0.2 * np.abs(X.reshape(60, -1) @ D).max())
    assert small(initial=atoms, reg=3.0, reg_scale="absolute", max_iter=1).fit(X).reg_ == 3.0


def test_pictures_come_back_from_their_codes(X, fitted):
    back = fitted.inverse_transform(fitted.transform(X))
    assert back.shape == X.shape
    explained = 1 - ((X - back) ** 2).sum() / (X**2).sum()
    assert explained > 0.85
    np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(X).toarray()), back)


def test_it_ends_by_itself_and_says_so(X):
    learner = small(tol=0.05, max_iter=50).fit(X)
    assert learner.converged_
    assert learner.n_iter_ < 50
    a, b = learner.objective_[-2:]
    assert a - b <= 0.05 * b
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        small(tol=0.0, max_iter=2).fit(X)


def test_interrupted_saved_and_gone_on_is_the_same_to_the_bit(X, fitted, tmp_path):
    first = small(max_iter=2).fit(X)
    first.save(tmp_path / "m")
    again = ConvolutionalDictionaryLearning.load(tmp_path / "m").set_params(warm_start=True, max_iter=4).fit(X)
    np.testing.assert_array_equal(again.components_, fitted.components_)
    assert again.objective_ == fitted.objective_
    np.testing.assert_array_equal(again.transform(X).toarray(), fitted.transform(X).toarray())


def test_the_same_learner_is_the_same_bytes(X, fitted, tmp_path):
    for name in "ab":
        small().fit(X).save(tmp_path / name)
    for file in ("triptych.json", "tensors.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_without_its_codes_a_model_is_small_and_only_codes(X, fitted, tmp_path):
    fitted.save(tmp_path / "m", resumable=False)
    assert (tmp_path / "m" / "tensors.safetensors").stat().st_size < 1200
    loaded = ConvolutionalDictionaryLearning.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.transform(X).toarray(), fitted.transform(X).toarray())
    assert loaded.get_params() == {**fitted.get_params(), "random_state": None}
    with pytest.raises(InputError, match="saved without"):
        loaded.set_params(warm_start=True).fit(X)
    assert loaded.partial_fit(X[:5]).n_iter_ == 5


def test_parts_one_after_another_are_learned_from(X):
    learner = small()
    for part in np.split(X, 6):
        learner.partial_fit(part)
    assert learner.n_iter_ == 6
    first = small().partial_fit(X[:10])
    assert learner.score(X) > first.score(X)


def test_unknown_samples_do_not_count(X):
    """Not even where they are NaN; and what is learned explains them."""
    rng = np.random.default_rng(0)
    mask = (rng.random(X.shape) < 0.7).astype(float)
    holes = np.where(mask > 0, X, np.nan)
    learner = small().fit(holes, mask=mask)
    other = small().fit(np.where(mask > 0, X, 1e6), mask=mask)
    np.testing.assert_array_equal(learner.components_, other.components_)
    back = learner.inverse_transform(learner.transform(holes, mask=mask))
    hidden = mask == 0
    assert ((X - back)[hidden] ** 2).sum() < 0.5 * (X[hidden] ** 2).sum()
    one = small().fit(np.where(mask[0] > 0, X, np.nan), mask=mask[0])  # the same for all
    assert np.isfinite(one.components_).all()


def test_rows_are_lines_unless_said_otherwise(X):
    rows = X.reshape(60, 64)
    line = small(max_iter=1).fit(rows)
    assert line.components_.shape == (6, 1, 4)
    assert line.inverse_transform(line.transform(rows)).shape == (60, 64)
    picture = small(max_iter=1, signal_shape=(1, 8, 8)).fit(rows)
    np.testing.assert_array_equal(picture.components_, small(max_iter=1).fit(X).components_)
    two = small(max_iter=1, signal_shape=(2, 32)).fit(rows)
    assert two.components_.shape == (6, 2, 4)


def test_forms_of_the_same_pictures_are_the_same(X, fitted):
    for form in (X[:, None], torch.from_numpy(X), X.astype(np.int64), X.tolist(), np.asfortranarray(X)):
        np.testing.assert_array_equal(small().fit(form).components_, fitted.components_)
    assert small(max_iter=1).fit(X.astype(np.float32)).components_.dtype == np.float32
    assert small(max_iter=1).fit(X.astype(np.uint8)).components_.dtype == np.float64


def test_it_is_a_step_of_a_pipeline():
    X, y = load_digits(n_class=3, return_X_y=True)
    model = make_pipeline(small(signal_shape=(1, 8, 8), max_iter=2), LinearSVC(random_state=0))
    assert model.fit(X[:100], y[:100]).score(X[100:200], y[100:200]) > 0.85


def test_verbose_tells_every_visit(X, capsys):
    told = []
    learner = small(verbose=lambda visit, value: told.append((visit, value))).fit(X)
    assert told == list(enumerate(learner.objective_, 1))
    small(verbose=1, max_iter=2).fit(X)
    assert capsys.readouterr().err.count("visit") == 2


BAD = {
    "not a number": (lambda X: np.where(X > 0, X, np.nan), {}, "NaN"),
    "all zero": (lambda X: X * 0, {}, "not 0"),
    "no picture": (lambda X: X[:, :, :0], {}, "at least one"),
    "five axes": (lambda X: X[None, None], {}, "signals"),
    "atoms larger than the picture": (lambda X: X, {"size": 9}, "at least as large as the atoms"),
    "sizes of another count": (lambda X: X, {"size": (3, 3, 3)}, "one an axis"),
    "size 0": (lambda X: X, {"size": 0}, "size must be a whole number"),
    "no atom": (lambda X: X, {"n_atoms": 0}, "n_atoms"),
    "negative reg": (lambda X: X, {"reg": -0.1}, "reg must be a finite number above 0"),
    "unknown scale": (lambda X: X, {"reg_scale": "lambda"}, "reg_scale must be one of"),
    "unknown boundary": (lambda X: X, {"boundary": "same"}, "boundary must be one of"),
    "stride 0": (lambda X: X, {"stride": 0}, "stride"),
    "no visit": (lambda X: X, {"max_iter": 0}, "max_iter"),
    "no batch": (lambda X: X, {"batch_size": 0}, "batch"),
    "negative tolerance": (lambda X: X, {"tol": -1.0}, "tol"),
    "a shape that does not fit": (lambda X: X, {"signal_shape": (3, 8, 8)}, "signal_shape must be"),
    "a shape of one number": (lambda X: X, {"signal_shape": (64,)}, "signal_shape must be"),
    "initial atoms of another shape": (lambda X: X, {"initial": np.ones((6, 1, 3, 3))}, "initial must be"),
    "initial atoms that are 0": (lambda X: X, {"initial": np.zeros((6, 1, 4, 4))}, "different from 0"),
    "a loud verbose": (lambda X: X, {"verbose": -1}, "verbose"),
}


@pytest.mark.parametrize(("form", "parameters", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_said_in_one_sentence(form, parameters, message, X):
    with pytest.raises(ValueError, match=message):
        small(**parameters).fit(form(X))


def test_what_does_not_fit_what_was_learned(X, fitted):
    with pytest.raises(InputError, match="shape of the training signals"):
        fitted.transform(np.ones((2, 4, 16)))
    with pytest.raises(ValueError, match="64 features"):
        fitted.transform(np.ones((2, 63)))
    with pytest.raises(InputError, match="of codes"):
        fitted.inverse_transform(np.ones((2, 64)))
    with pytest.raises(InputError, match="signals that fit had"):
        clone(fitted).fit(X).set_params(warm_start=True).fit(X[:10])
    with pytest.raises(InputError, match="mask must be of the shape of X"):
        small().fit(X, mask=np.ones((60, 7, 8)))
    with pytest.raises(InputError, match="at least one sample"):
        small().fit(X, mask=np.zeros_like(X))
    with pytest.raises(InputError, match="code_tol"):
        clone(fitted).fit(X).set_params(code_tol=0.0).transform(X)
    for call in (small().transform, small().score, small().inverse_transform, small().save):
        with pytest.raises(NotFittedError):
            call(X if call != small().save else "nowhere")


DAMAGES = {
    "another version's parameters": lambda meta: meta["meta"]["parameters"].update(unknown=1),
    "a missing fact": lambda meta: meta["meta"].pop("reg"),
    "a shape that atoms do not fit": lambda meta: meta["meta"].update(signal_shape=[3, 8, 8]),
    "a negative weight": lambda meta: meta["meta"].update(reg=-1.0),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_models_are_refused(damage, fitted, tmp_path):
    fitted.save(tmp_path / "m")
    head = tmp_path / "m" / "triptych.json"
    facts = json.loads(head.read_text())
    damage(facts)
    head.write_text(json.dumps(facts))
    with pytest.raises(InputError, match="no dictionary of this version"):
        ConvolutionalDictionaryLearning.load(tmp_path / "m")


def test_cut_files_and_other_folders_are_refused(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    path = tmp_path / "m" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="damaged"):
        ConvolutionalDictionaryLearning.load(tmp_path / "m")
    with pytest.raises(InputError, match="no such folder"):
        ConvolutionalDictionaryLearning.load(tmp_path / "none")
