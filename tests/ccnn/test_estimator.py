"""`CCNNClassifier` on the embedded digits: what it accepts, what it tells, what it refuses, and that it repeats itself."""

import math
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from triptych import CCNNClassifier, Images
from triptych.ccnn.kernels import Gaussian, InversePolynomial
from triptych.ccnn.settings import Layer, linear_layer
from triptych.check import InputError

SMALL = Layer(width=30, components=8, radius=10.0, filters=5)
TRAIN, TEST = slice(0, 90), slice(90, 150)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(n_class=3, return_X_y=True)
    return X, y


def small(**parameters):
    return CCNNClassifier(**({"layers": SMALL, "random_state": 0} | parameters))


@pytest.fixture(scope="module")
def fitted(digits):
    return small().fit(digits[0][TRAIN], digits[1][TRAIN])


@pytest.fixture(scope="module")
def two_layers(digits):
    return small(layers=[SMALL, SMALL]).fit(digits[0][TRAIN], digits[1][TRAIN])


# what it learns, and what it says about it


def test_it_learns_digits_that_it_has_not_seen(digits, fitted, two_layers):
    X, y = digits
    assert fitted.score(X[TEST], y[TEST]) > 0.9
    assert two_layers.score(X[TEST], y[TEST]) > 0.9
    assert fitted.score(X[TEST], y[TEST]) == accuracy_score(y[TEST], fitted.predict(X[TEST]))


@pytest.mark.parametrize("layers", [1, 2])
def test_attributes_agree_with_each_other_and_with_the_solution(layers, fitted, two_layers):
    clf = fitted if layers == 1 else two_layers
    for name in ("objective_", "gap_", "lower_bound_", "relative_gap_", "nuclear_norm_", "rank_", "interpolates_"):
        assert getattr(clf, name).shape == (layers,)
    np.testing.assert_allclose(clf.gap_, clf.objective_ - clf.lower_bound_)
    np.testing.assert_allclose(clf.relative_gap_, clf.gap_ / math.log(3))
    assert (clf.relative_gap_ <= clf.tol).all()
    assert (clf.gap_ >= 0).all()
    np.testing.assert_array_equal(clf.interpolates_, clf.gap_ / clf.objective_ > 0.1)
    for layer, solution, norm, rank, filters in zip(
        clf.layers_, clf.solution_, clf.nuclear_norm_, clf.rank_, clf.filters_, strict=True
    ):
        values = np.linalg.svd(solution.x[0].numpy(), compute_uv=False)
        assert solution is layer.solution
        assert norm == pytest.approx(values.sum())
        assert norm <= 10 * (1 + 1e-9)
        assert rank == (values > 1e-6 * values[0]).sum()
        assert filters.shape == (min(5, rank), 8)
    assert clf.n_iter_ == max(int(s.steps) for s in clf.solution_)
    assert clf.image_shape_ == (1, 8, 8)
    assert clf.scale_ == 16


def test_the_objective_is_the_training_images_log_loss(digits, fitted):
    """The certificate speaks about the very function that `predict_proba` computes."""
    X, y = digits
    assert log_loss(y[TRAIN], fitted.predict_proba(X[TRAIN])) == pytest.approx(fitted.objective_[0], rel=1e-4)


def test_probabilities_are_the_softmax_of_the_decision_function(digits, fitted):
    X = digits[0][TEST]
    logits, p = fitted.decision_function(X), fitted.predict_proba(X)
    assert logits.shape == p.shape == (60, 3)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-12)
    odds = np.exp(logits)
    np.testing.assert_allclose(p, odds / odds.sum(1, keepdims=True), rtol=1e-9)
    np.testing.assert_array_equal(fitted.predict(X), fitted.classes_[p.argmax(1)])


def test_two_classes_have_one_decision_value(digits):
    """Its sigmoid is the probability of the second class, its sign the prediction."""
    X, y = digits
    two = y < 2
    clf = small().fit(X[two][:60], y[two][:60])
    decision, p = clf.decision_function(X[two]), clf.predict_proba(X[two])
    assert decision.shape == (two.sum(),)
    np.testing.assert_allclose(1 / (1 + np.exp(-decision)), p[:, 1], rtol=1e-9)
    np.testing.assert_array_equal(clf.predict(X[two]), (decision > 0).astype(int))


def test_maps_are_images_for_images_and_rows_for_rows(digits):
    X, y = digits
    clf = small().fit(X[TRAIN].reshape(-1, 8, 8), y[TRAIN])
    maps, r = clf.transform(X[TEST].reshape(-1, 8, 8)), clf.filters_[0].shape[0]
    assert maps.shape == (60, r, 5, 5)
    assert maps.dtype == np.float32
    rows = small().fit(X[TRAIN], y[TRAIN]).transform(X[TEST])
    np.testing.assert_array_equal(rows, maps.reshape(60, -1))
    training = clf.transform(X[TRAIN].reshape(-1, 8, 8))
    assert float(np.sqrt((training.astype(np.float64) ** 2).mean())) == pytest.approx(1, rel=1e-2)


def test_a_second_layer_reads_the_maps_of_the_first(digits, two_layers):
    """The layers by hand: the first one's maps, at root mean square 1, are what the second was trained on."""
    X = torch.from_numpy(digits[0][TEST]).float().view(-1, 1, 8, 8)
    first, second = two_layers.layers_
    maps = first.transform(X)
    assert second.features.shape == tuple(maps.shape[1:])
    assert second.features.scale == first.map_scale
    np.testing.assert_array_equal(two_layers.decision_function(digits[0][TEST]), second.logits(maps).double().numpy())


# labels and images of every type

LABELS = {
    "words": np.array(["zero", "one", "two"]),
    "objects": np.array(["zero", "one", "two"], dtype=object),
    "bytes of integers": np.array([3, 7, 250], dtype=np.uint8),
    "negative": np.array([-5, 0, 5]),
    "real": np.array([0.0, 1.0, 2.0]),
}


@pytest.mark.parametrize("names", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("listed", [False, True])
def test_labels_of_every_type_come_back_as_they_were(names, listed, digits, fitted):
    """Whatever their order: words are numbered alphabetically, and that is another numbering of the same problem."""
    X, y = digits
    labels = names[y]
    clf = small().fit(X[TRAIN], labels[TRAIN].tolist() if listed else labels[TRAIN])
    np.testing.assert_array_equal(clf.classes_, np.unique(names))
    found = clf.predict(X[TEST])
    assert found.dtype.kind == np.array(names.tolist()).dtype.kind if listed else found.dtype == names.dtype
    assert (found == names[fitted.predict(X[TEST])]).mean() > 0.98
    assert clf.score(X[TEST], labels[TEST]) > 0.9


@pytest.mark.parametrize("kind", [bool, torch.tensor, torch.BoolTensor], ids=["bool", "torch int", "torch bool"])
def test_truth_values_and_tensors_are_labels(kind, digits):
    X, y = digits
    two = y < 2
    truth = y[two] == 1
    labels = (
        torch.tensor(truth.astype(int)) if kind is torch.tensor else torch.tensor(truth) if kind is not bool else truth
    )
    clf = small().fit(X[two][:60], labels[:60])
    expected = small().fit(X[two][:60], y[two][:60])
    np.testing.assert_array_equal(clf.decision_function(X[two]), expected.decision_function(X[two]))
    assert clf.predict(X[two]).dtype == (np.int64 if kind is torch.tensor else np.bool_)


FORMS = {
    "rows": lambda X: X,
    "grey": lambda X: X.reshape(-1, 8, 8),
    "channels": lambda X: X.reshape(-1, 1, 8, 8),
    "torch rows": lambda X: torch.from_numpy(X),
    "torch channels": lambda X: torch.from_numpy(X).reshape(-1, 1, 8, 8),
    "torch with a gradient": lambda X: torch.from_numpy(X).requires_grad_(),
    "float32": lambda X: X.astype(np.float32),
    "int64": lambda X: X.astype(np.int64),
    "int8": lambda X: X.astype(np.int8),
    "float16": lambda X: torch.from_numpy(X).half(),
    "bfloat16": lambda X: torch.from_numpy(X).bfloat16(),
    "fortran order": np.asfortranarray,
    "every second column": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "read only": lambda X: np.frombuffer(X.tobytes()).reshape(X.shape),
    "lists": lambda X: X.tolist(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_the_same_images_is_the_same_to_the_bit(form, digits, fitted):
    X, y = digits
    clf = small().fit(form(X[TRAIN]), y[TRAIN])
    np.testing.assert_array_equal(clf.decision_function(form(X[TEST])), fitted.decision_function(X[TEST]))
    assert clf.image_shape_ == (1, 8, 8)


@pytest.mark.parametrize("one", ["rows", "grey", "channels"])
@pytest.mark.parametrize("other", ["rows", "grey", "channels"])
def test_images_may_come_in_another_form_than_those_of_training(one, other, digits, fitted):
    X, y = digits
    clf = small().fit(FORMS[one](X[TRAIN]), y[TRAIN])
    np.testing.assert_array_equal(clf.decision_function(FORMS[other](X[TEST])), fitted.decision_function(X[TEST]))


def test_colour_rows_are_channels_first(digits):
    X, y = digits
    colour = np.stack([X, X / 2, 16 - X], 1).reshape(-1, 3 * 64)
    clf = small().fit(colour[TRAIN], y[TRAIN])
    assert clf.image_shape_ == (3, 8, 8)
    other = small().fit(colour[TRAIN].reshape(-1, 3, 8, 8), y[TRAIN])
    np.testing.assert_array_equal(
        clf.decision_function(colour[TEST]), other.decision_function(colour[TEST].reshape(-1, 3, 8, 8))
    )


@pytest.mark.parametrize("shape", [(4, 16), (1, 4, 16), (4, 4, 4), [2, 32], (np.int64(4), np.int64(16))])
def test_image_shape_says_what_a_row_is(shape, digits):
    X, y = digits
    clf = small(image_shape=shape).fit(X[TRAIN], y[TRAIN])
    full = tuple(shape) if len(shape) == 3 else (1, *shape)
    assert clf.image_shape_ == full
    expected = small().fit(X[TRAIN].reshape(-1, *full), y[TRAIN]).decision_function(X[TEST].reshape(-1, *full))
    np.testing.assert_array_equal(clf.decision_function(X[TEST]), expected)


def test_rows_that_are_no_image_are_read_as_signals_with_a_warning(digits):
    X, y = digits
    with pytest.warns(UserWarning, match=r"rows of 60 numbers .* signals of shape \(1, 1, 60\); give image_shape"):
        clf = small().fit(X[TRAIN, :60], y[TRAIN])
    assert clf.image_shape_ == (1, 1, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.predict(X[TEST, :60])
        asked = small(image_shape=(1, 60)).fit(X[TRAIN, :60], y[TRAIN])
    np.testing.assert_array_equal(asked.decision_function(X[TEST, :60]), clf.decision_function(X[TEST, :60]))


def test_bytes_are_divided_by_255_and_floats_by_their_maximum(digits):
    X, y = digits
    pixels = np.round(X * (255 / 16)).astype(np.uint8)
    assert pixels[TRAIN].max() == 255
    whole = small(precision="float64").fit(pixels[TRAIN], y[TRAIN])
    real = small(precision="float64").fit(pixels[TRAIN] / 255, y[TRAIN])
    raw = small(precision="float64").fit(pixels[TRAIN].astype(float), y[TRAIN])
    assert (whole.scale_, real.scale_, raw.scale_) == (255, 1, 255)
    expected = whole.decision_function(pixels[TEST])
    np.testing.assert_allclose(real.decision_function(pixels[TEST] / 255), expected, atol=2e-3)
    np.testing.assert_allclose(raw.decision_function(pixels[TEST].astype(float)), expected, atol=2e-3)
    dark = small().fit(np.minimum(pixels[TRAIN], 100), y[TRAIN])
    assert dark.scale_ == 255  # whatever the brightest pixel is


@pytest.mark.parametrize("factor", [-1.0, 1e-30, 1e30])
def test_the_unit_of_the_pixels_does_not_matter(factor, digits, fitted):
    """Not even one whose squares leave float32; the scale is a magnitude, so that a sign stays."""
    X, y = digits
    clf = small().fit(X[TRAIN] * factor, y[TRAIN])
    assert clf.scale_ == pytest.approx(16 * abs(factor))
    found = clf.decision_function(X[TEST] * factor)
    assert np.isfinite(found).all()
    if factor > 0:
        assert (clf.predict(X[TEST] * factor) == fitted.predict(X[TEST])).mean() > 0.98


def test_the_scale_of_int8_survives_minus_128(digits):
    X, y = digits
    assert small().fit((X[TRAIN] * 16 - 128).clip(-128, 100).astype(np.int8), y[TRAIN]).scale_ == 128


def test_images_of_the_data_layer_are_accepted(digits):
    X, y = digits
    pixels = torch.from_numpy(np.round(X * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
    images = Images(pixels, torch.from_numpy(y), ("0", "1", "2"))
    clf, expected = small().fit(images, y), small().fit(pixels.numpy(), y)
    np.testing.assert_array_equal(clf.decision_function(images), expected.decision_function(pixels.numpy()))


def test_the_training_images_are_left_alone(digits):
    X, y = digits[0][TRAIN].copy(), digits[1][TRAIN].copy()
    small().fit(X, y).predict(X)
    np.testing.assert_array_equal(X, digits[0][TRAIN])
    np.testing.assert_array_equal(y, digits[1][TRAIN])


@pytest.mark.parametrize("factor", [1e-300, 1e-38, 1e38, 1e300])
def test_units_that_float32_does_not_hold_are_refused(factor, digits, fitted):
    X, y = digits
    with pytest.raises(InputError, match=r"X must be .*scale") as error:
        small().fit(X[TRAIN] * factor, y[TRAIN])
    assert one_sentence(error)
    if factor > 1:
        with pytest.raises(InputError, match=r"X must be .*scale"):
            fitted.predict(X[TEST] * factor)


@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("layers", [SMALL, [SMALL, SMALL]], ids=["one", "two"])
def test_images_without_any_content_are_all_given_the_same_certified_odds(layers, value):
    """Centred features of such images are 0, and so are the logits: the loss is log 2, and nothing does better."""
    X, y = np.full((20, 64), value), np.arange(20) % 2
    clf = small(layers=layers).fit(X, y)
    np.testing.assert_allclose(clf.predict_proba(X[:2]), 0.5, atol=1e-3)
    np.testing.assert_allclose(clf.objective_, math.log(2), atol=1e-3)
    assert (clf.relative_gap_ <= 1e-3).all()


def test_test_images_leak_into_nothing(digits, fitted):
    """An image's maps and decision are the same alone and in any company; the fitted model does not move."""
    X = digits[0][TEST]
    strange = np.concatenate([X[:4], 1e3 * X[4:]])
    np.testing.assert_allclose(fitted.decision_function(strange)[:4], fitted.decision_function(X[:4]), atol=1e-4)
    np.testing.assert_allclose(fitted.transform(strange)[:4], fitted.transform(X)[:4], rtol=0.02, atol=0.02)
    assert fitted.scale_ == 16


# parameters


def test_radius_overrides_that_of_every_layer(digits):
    X, y = digits
    clf = small(layers=[SMALL, replace(SMALL, radius=3.0)], radius=0.5).fit(X[TRAIN], y[TRAIN])
    np.testing.assert_allclose(clf.nuclear_norm_, 0.5, rtol=1e-3)


def test_a_number_of_layers_means_the_default_settings_of_so_many(digits):
    """One is Layer(); of several the settings are the package's, and the same as when they are handed over."""
    X, y = digits
    one, two = (CCNNClassifier(n, random_state=0, tol=0.01).fit(X[TRAIN], y[TRAIN]) for n in (1, 2))
    assert [layer.settings for layer in one.layers_] == [Layer().resolved((1, 8, 8))]
    assert len(two.layers_) == 2
    given = CCNNClassifier([layer.settings for layer in two.layers_], random_state=0, tol=0.01).fit(X[TRAIN], y[TRAIN])
    np.testing.assert_array_equal(given.decision_function(X[TEST]), two.decision_function(X[TEST]))


@pytest.mark.parametrize("precision", ["bfloat16", "float32", "float64"])
def test_precisions_agree_to_their_digits(precision, digits):
    X, y = digits
    clf = small(precision=precision, tol=1e-5, radius=3.0).fit(X[TRAIN], y[TRAIN])
    exact = small(precision="float64", tol=1e-6, radius=3.0).fit(X[TRAIN], y[TRAIN])
    assert str(clf.layers_[0].features.dtype) == f"torch.{precision}"
    bound = {"bfloat16": 5e-3, "float32": 2e-5, "float64": 2e-5}[precision]  # 1e-5 · log 3, and what rounding adds
    assert clf.objective_[0] == pytest.approx(exact.objective_[0], abs=bound)
    assert (clf.predict(X[TEST]) == exact.predict(X[TEST])).mean() > 0.98


@pytest.mark.parametrize("limit", [0, 1e-5])
def test_features_that_are_made_again_at_every_step_are_the_same(limit, digits):
    """No room at all, or for 6 images of 90: equal features, the same answer to the solver's tolerance."""
    X, y = digits
    settings = {"precision": "float64", "tol": 1e-5, "radius": 3.0}
    free, tight = (small(memory_limit=m, **settings).fit(X[TRAIN], y[TRAIN]) for m in (4.0, limit))
    assert tight.objective_[0] == pytest.approx(free.objective_[0], abs=2e-5)
    np.testing.assert_allclose(tight.predict_proba(X[TEST]), free.predict_proba(X[TEST]), atol=0.02)
    one, two = (m.layers_[0].features(torch.from_numpy(X[TEST]).float().view(-1, 1, 8, 8)) for m in (free, tight))
    assert torch.equal(one, two)


def test_a_fit_that_stops_early_warns_and_says_the_gap(digits):
    X, y = digits
    with pytest.warns(ConvergenceWarning) as caught:
        clf = small(max_iter=3, tol=1e-6).fit(X[TRAIN], y[TRAIN])
    text = str(caught[0].message)
    assert f"certified gap of {clf.relative_gap_[0]:.2e}" in text
    assert "layer 1 stopped after 3 steps" in text
    assert "above tol=1e-06" in text
    assert caught[0].filename == __file__
    assert clf.n_iter_ == 3
    assert clf.relative_gap_[0] > 1e-6
    assert not clf.solution_[0].converged


def test_a_line_a_certificate_on_standard_error(digits, capsys):
    X, y = digits
    clf = small(layers=[SMALL, SMALL], verbose=1).fit(X[TRAIN], y[TRAIN])
    out = capsys.readouterr()
    assert out.out == ""
    lines = out.err.splitlines()
    assert len(lines) == sum(len(s.history) for s in clf.solution_)
    last = re.fullmatch(r"layer 2, step (\d+): objective ([\d.]+), gap ([\d.]+) \(([\d.]+) % of log 3\)", lines[-1])
    assert last is not None
    assert int(last[1]) == int(clf.solution_[1].steps)
    assert float(last[2]) == pytest.approx(clf.objective_[1], abs=1e-6)
    assert float(last[4]) == pytest.approx(100 * clf.relative_gap_[1], abs=1e-3)


def test_a_function_hears_of_every_certificate(digits):
    X, y = digits
    heard = []
    clf = small(verbose=lambda layer, step, found: heard.append((layer, step, float(found.objective))))
    clf.fit(X[TRAIN], y[TRAIN])
    assert heard == [(1, check.step, float(check.objective)) for check in clf.solution_[0].history]


# the same again


def test_a_seed_repeats_a_model_to_the_byte(digits, tmp_path):
    """Whatever torch's and NumPy's own generators did before."""
    X, y = digits
    files = []
    for run in (1, 2):
        torch.manual_seed(run)
        np.random.seed(run)  # noqa: NPY002
        folder = small(layers=[SMALL, SMALL]).fit(X[TRAIN], y[TRAIN]).save(tmp_path / str(run))
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert files[0].keys() == files[1].keys()
    for name in files[0]:
        assert files[0][name] == files[1][name], name


def test_another_seed_is_another_model(digits, fitted):
    X, y = digits
    other = small(random_state=1).fit(X[TRAIN], y[TRAIN])
    assert not np.array_equal(other.decision_function(X[TEST]), fitted.decision_function(X[TEST]))
    unseeded = [small(random_state=None).fit(X[TRAIN], y[TRAIN]).decision_function(X[TEST]) for _ in range(2)]
    assert not np.array_equal(*unseeded)


def test_a_generator_is_a_seed_that_moves_on(digits):
    X, y = digits
    generator = np.random.RandomState(3)
    one, two = (small(random_state=generator).fit(X[TRAIN], y[TRAIN]).decision_function(X[TEST]) for _ in range(2))
    again = small(random_state=np.random.RandomState(3)).fit(X[TRAIN], y[TRAIN]).decision_function(X[TEST])
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, two)


def test_a_second_fit_forgets_the_first(digits, fitted):
    X, y = digits
    clf = small().fit(X[60:100].reshape(-1, 4, 16), y[60:100] > 0)
    clf.fit(X[TRAIN], y[TRAIN])
    np.testing.assert_array_equal(clf.decision_function(X[TEST]), fitted.decision_function(X[TEST]))


# in scikit-learn's company


def test_grid_search_in_two_processes(digits):
    X, y = digits
    grid = {"radius": [0.01, 3.0]}
    two, one = (
        GridSearchCV(small(), grid, cv=3, scoring="neg_log_loss", n_jobs=jobs, error_score="raise").fit(
            X[TRAIN], y[TRAIN]
        )
        for jobs in (2, 1)
    )
    assert two.best_params_ == {"radius": 3.0}
    assert two.score(X[TEST], y[TEST]) > -0.3
    np.testing.assert_allclose(two.cv_results_["mean_test_score"], one.cv_results_["mean_test_score"], atol=0.01)


def test_pipelines_hold_it_at_the_end_and_in_the_middle(digits):
    X, y = digits
    end = make_pipeline(MinMaxScaler(), small()).fit(X[TRAIN], y[TRAIN])
    middle = make_pipeline(small(), LogisticRegression()).fit(X[TRAIN], y[TRAIN])
    assert min(end.score(X[TEST], y[TEST]), middle.score(X[TEST], y[TEST])) > 0.9


def test_parameters_are_stored_as_they_are_and_cloned(digits, fitted):
    layers, X = [SMALL, SMALL], digits[0]
    clf = CCNNClassifier(layers, radius=3, device="cpu")
    assert clf.get_params()["layers"] is layers
    assert clf.set_params(tol=0.5).tol == 0.5
    assert clone(clf).get_params()["radius"] == 3
    with pytest.raises(NotFittedError):
        clone(fitted).predict(X)


# what is refused: settings, parameters, images, labels

SETTINGS = {
    "patch 0": {"patch": 0},
    "half a patch": {"patch": 2.5},
    "a patch in words": {"patch": "5"},
    "no width": {"width": 0},
    "truth as width": {"width": True},
    "no filters": {"filters": 0},
    "window 0": {"window": 0},
    "stride -1": {"stride": -1},
    "map_window 0": {"map_window": 0},
    "no components": {"components": 0},
    "power 2": {"power": 2.0},
    "negative power": {"power": -0.1},
    "contrast 0": {"contrast": 0.0},
    "ridge 0": {"ridge": 0.0},
    "ridge nan": {"ridge": float("nan")},
    "radius 0": {"radius": 0.0},
    "infinite radius": {"radius": math.inf},
    "method": {"method": "nystroem"},
    "a kernel by name": {"kernel": "gaussian"},
}


def one_sentence(error):
    """One line, that starts with a name and has no second full stop."""
    text = str(error.value)
    assert "\n" not in text
    assert not re.search(r"[.!?]\s+[A-Z]", text)
    assert not text.endswith(".")
    return True


@pytest.mark.parametrize("wrong", SETTINGS.values(), ids=SETTINGS)
def test_wrong_settings_are_refused_when_they_are_made(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=rf"^{name} must be .*, got ") as error:
        Layer(**wrong)
    assert one_sentence(error)


PARAMETERS = {
    "no layers": ({"layers": 0}, "layers must be a whole number from 1 to 8, got 0"),
    "nine layers": ({"layers": 9}, "layers must be a whole number from 1 to 8, got 9"),
    "layers in words": ({"layers": "two"}, "layers must be .* got 'two'"),
    "an empty list of layers": ({"layers": []}, r"layers must be .* got \[\]"),
    "layers of two kinds": ({"layers": [SMALL, 1]}, "layers must be"),
    "truth as layers": ({"layers": True}, "layers must be .* got True"),
    "radius 0": ({"radius": 0}, "radius must be a finite number above 0, got 0"),
    "radius nan": ({"radius": math.nan}, "radius must be a finite number above 0, got nan"),
    "tol 0": ({"tol": 0.0}, "tol must be a finite number above 0, got 0.0"),
    "tol in words": ({"tol": "low"}, "tol must be a finite number above 0, got 'low'"),
    "no steps": ({"max_iter": 0}, "max_iter must be a whole number of at least 1, got 0"),
    "half a step": ({"max_iter": 1.5}, "max_iter must be a whole number of at least 1, got 1.5"),
    "negative memory": ({"memory_limit": -1}, "memory_limit must be a finite number of at least 0.* got -1"),
    "more memory than numbers": ({"memory_limit": 1e300}, "memory_limit must be"),
    "precision": ({"precision": "float16"}, "precision must be one of auto, .*, got 'float16'"),
    "no such device": ({"device": "abacus"}, "device must be a torch device .* got 'abacus'"),
    "a device that holds nothing": ({"device": "meta"}, "device must be a torch device"),
    "a device by nothing": ({"device": None}, "device must be a torch device"),
    "verbose in words": ({"verbose": "loud"}, "verbose must be"),
    "image_shape of another size": ({"image_shape": (8, 9)}, r"image_shape must be .* 64 entries .* got \(8, 9\)"),
    "image_shape of four": ({"image_shape": (1, 1, 8, 8)}, "image_shape must be"),
    "image_shape in words": ({"image_shape": "8x8"}, "image_shape must be .* got '8x8'"),
    "image_shape in halves": ({"image_shape": (8.0, 8.0)}, "image_shape must be"),
    "image_shape by truth": ({"image_shape": (True, 64)}, "image_shape must be"),
    "image_shape 0": ({"image_shape": (0, 8, 8)}, "image_shape must be"),
    "window beyond the positions": (
        {"layers": replace(SMALL, window=7)},
        "window must be at most 6, the number of patch",
    ),
    "map_window beyond": ({"layers": replace(SMALL, map_window=9)}, "map_window must be at most 6"),
    "a seed in words": ({"random_state": "lucky"}, "'lucky' cannot be used to seed"),
    "a seed below 0": ({"random_state": -1}, "Seed must be between"),
}


@pytest.mark.parametrize(("wrong", "text"), PARAMETERS.values(), ids=PARAMETERS)
def test_wrong_parameters_are_refused_by_fit(wrong, text, digits):
    """And not before: a constructor only stores."""
    X, y = digits
    clf = small(**wrong)
    with pytest.raises(ValueError, match=text) as error:
        clf.fit(X[TRAIN], y[TRAIN])
    if "random_state" not in wrong:
        assert isinstance(error.value, InputError)
        assert one_sentence(error)


IMAGES = {
    "one axis": (lambda X: X[:, 0], "Expected 2D array"),
    "five axes": (lambda X: X.reshape(-1, 1, 1, 8, 8), r"X must be an array .* got .*\(90, 1, 1, 8, 8\)"),
    "not a number": (lambda X: np.where(X == 16, np.nan, X), "contains NaN"),
    "infinite": (lambda X: np.where(X == 16, np.inf, X), "contains infinity"),
    "complex": (lambda X: X * 1j, "Complex data not supported"),
    "words": (lambda X: X.astype(str), "numeric"),
    "no images": (lambda X: X[:0], r"0 sample\(s\)"),
    "no pixels": (lambda X: X[:, :0], r"0 feature\(s\)"),
    "one image less": (lambda X: X[1:], "inconsistent numbers of samples"),
}


@pytest.mark.parametrize(("form", "text"), IMAGES.values(), ids=IMAGES)
def test_wrong_images_are_refused(form, text, digits):
    X, y = digits
    with pytest.raises(ValueError, match=text):
        small().fit(form(X[TRAIN]), y[TRAIN])


@pytest.mark.parametrize("form", ["not a number", "infinite", "complex", "words", "no images", "one axis"])
def test_wrong_images_are_refused_at_prediction_too(form, digits, fitted):
    with pytest.raises(ValueError, match=IMAGES[form][1]):
        fitted.predict(IMAGES[form][0](digits[0][TRAIN]))


LABELS_REFUSED = {
    "one class": (lambda y: 0 * y, "y must hold at least two classes, got one class, 0"),
    "none": (lambda y: None, "requires y to be passed"),
    "real numbers": (lambda y: y + 0.5 * np.arange(len(y)) / 7, "Unknown label type: continuous"),
    "a matrix": (lambda y: np.eye(3)[y], "y should be a 1d array"),
    "not a number": (lambda y: np.where(y == 2, np.nan, y), "NaN"),
    "one label less": (lambda y: y[1:], "inconsistent numbers of samples"),
}


@pytest.mark.parametrize(("form", "text"), LABELS_REFUSED.values(), ids=LABELS_REFUSED)
def test_wrong_labels_are_refused(form, text, digits):
    X, y = digits
    with pytest.raises(ValueError, match=text):
        small().fit(X[TRAIN], form(y[TRAIN]))


@pytest.mark.parametrize("shape", [(5, 63), (5, 7, 8), (5, 1, 9, 9), (5, 3, 8, 8), (5, 1, 1, 8, 8)])
def test_images_of_another_shape_than_those_of_training_are_refused(shape, fitted):
    with pytest.raises(ValueError, match=r"images must have the shape of the training images|expecting 64|X must be"):
        fitted.predict(np.zeros(shape))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "transform"])
def test_nothing_is_predicted_before_fit(method, digits):
    with pytest.raises(NotFittedError):
        getattr(small(), method)(digits[0])


def test_nothing_is_saved_before_fit(tmp_path):
    with pytest.raises(NotFittedError):
        small().save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "layer",
    [
        replace(SMALL, kernel=InversePolynomial(), width=60),
        replace(SMALL, method="nystrom"),
        replace(SMALL, kernel=Gaussian(0.2), contrast=None, ridge=None, centre=False),
        replace(SMALL, components=None, power=0.0),
        linear_layer(3, 10.0, 4, window=2, stride=2),
    ],
    ids=["monomials", "nystrom", "plain", "all components", "linear"],
)
def test_every_kind_of_layer_learns_and_is_certified(layer, digits):
    X, y = digits
    clf = small(layers=layer).fit(X[TRAIN], y[TRAIN])
    assert clf.relative_gap_[0] <= 1e-3
    assert clf.score(X[TEST], y[TEST]) > 0.85
