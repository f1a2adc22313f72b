"""Saved models: what is saved is loaded to the bit, and nothing else is loaded; a save that fails leaves what was there."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from triptych import CCNNClassifier, store
from triptych.ccnn.kernels import Gaussian, InversePolynomial
from triptych.ccnn.settings import Layer, linear_layer
from triptych.check import InputError

SMALL = Layer(width=30, components=8, radius=10.0, filters=5)
LAYERS = {
    "random": SMALL,
    "nystrom": replace(SMALL, method="nystrom", kernel=Gaussian(0.3)),
    "monomials": replace(SMALL, kernel=InversePolynomial()),
    "plain": replace(SMALL, contrast=None, ridge=None, components=None, centre=False, power=0.0),
    "linear": linear_layer(3, 10.0, 4, window=2, stride=2),
    "two": [SMALL, replace(SMALL, patch=2, map_window=1)],
}
X, Y = load_digits(n_class=3, return_X_y=True)


def fitted(layers=SMALL, labels=Y, **parameters):
    return CCNNClassifier(layers, random_state=0, **parameters).fit(X[:90], labels[:90])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return fitted().save(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of a saved model, to damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edit(folder, change):
    head = json.loads((folder / store.HEAD).read_text())
    change(head)
    (folder / store.HEAD).write_text(json.dumps(head))


def refused(folder, match):
    """Loading raises InputError with one sentence on one line that names the folder."""
    with pytest.raises(InputError, match=match) as error:
        CCNNClassifier.load(folder)
    assert "\n" not in str(error.value)
    assert "model" in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_a_model_comes_back_to_the_bit(layers, tmp_path):
    clf = fitted(layers, tol=2e-3, max_iter=500, precision="auto", image_shape=(8, 8))
    back = CCNNClassifier.load(clf.save(tmp_path / "model"))
    for method in ("decision_function", "predict", "predict_proba", "transform"):
        np.testing.assert_array_equal(getattr(back, method)(X), getattr(clf, method)(X))
    names = {name for name in vars(clf) if name.endswith("_")}
    assert names == {name for name in vars(back) if name.endswith("_")}
    for name in names - {"layers_", "solution_", "filters_"}:
        np.testing.assert_array_equal(getattr(back, name), getattr(clf, name), err_msg=name)
    for one, two in zip(clf.filters_, back.filters_, strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(clf.layers_, back.layers_, strict=True):
        assert one.settings == two.settings
        assert one.map_scale == two.map_scale
        assert one.features.dtype == two.features.dtype
        assert torch.equal(one.A, two.A)
    for one, two in zip(clf.solution_, back.solution_, strict=True):
        assert one.status == two.status
        assert torch.equal(one.x, two.x)
        assert [(c.step, float(c.objective), float(c.lower_bound)) for c in one.history] == [
            (c.step, float(c.objective), float(c.lower_bound)) for c in two.history
        ]
    for name in ("tol", "max_iter", "precision", "image_shape", "memory_limit", "radius"):
        assert getattr(back, name) == getattr(clf, name)


def test_a_loaded_model_can_be_saved_and_fitted_again(tmp_path, saved):
    back = CCNNClassifier.load(saved)
    again = back.save(tmp_path / "again")
    for name in (store.HEAD, store.TENSORS):
        assert (again / name).read_bytes() == (saved / name).read_bytes()
    back.set_params(random_state=0).fit(X[:90], Y[:90])
    np.testing.assert_array_equal(back.decision_function(X), fitted().decision_function(X))


@pytest.mark.parametrize(
    "names",
    [
        np.array(["Null", "eins", "zwei – ä"]),
        np.array(["a", "b", "c"], dtype=object),
        np.array([-1, 0, 2**40]),
        np.array([0.0, -1e15, 2.0]),
        np.array([1, 2, 3], dtype=np.float32),
        np.array([1, 2, 255], dtype=np.uint8),
    ],
    ids=["words", "objects", "integers", "real", "float32", "bytes"],
)
def test_labels_of_every_type_come_back(names, tmp_path):
    clf = fitted(labels=names[Y])
    back = CCNNClassifier.load(clf.save(tmp_path / "model"))
    assert back.classes_.dtype == clf.classes_.dtype
    np.testing.assert_array_equal(back.classes_, clf.classes_)
    np.testing.assert_array_equal(back.predict(X[:20]), clf.predict(X[:20]))
    assert [type(c) for c in back.classes_.tolist()] == [type(c) for c in clf.classes_.tolist()]


def test_truth_values_come_back(tmp_path):
    clf = CCNNClassifier(SMALL, random_state=0).fit(X[:60], Y[:60] > 0)
    back = CCNNClassifier.load(clf.save(tmp_path / "model"))
    assert back.predict(X[:5]).dtype == np.bool_
    np.testing.assert_array_equal(back.classes_, [False, True])


def test_labels_that_json_cannot_hold_are_refused_and_nothing_is_written(tmp_path):
    names = np.array(["2024-01-01", "2024-01-02", "2024-01-03"], dtype="datetime64[D]")
    clf = fitted()
    clf.classes_ = names
    with pytest.raises(
        InputError, match=r"labels must be numbers, strings or booleans to be saved, got datetime64\[D\]"
    ):
        clf.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("layer", "parameters"),
    [
        (SMALL, {"max_iter": np.int64(500)}),
        (SMALL, {"radius": np.float32(10)}),
        (SMALL, {"image_shape": (np.int64(8), np.int64(8))}),
        (replace(SMALL, width=np.int64(30)), {}),
        (replace(SMALL, radius=np.float32(10)), {}),
    ],
    ids=["max_iter", "radius", "image_shape", "width", "the layer's radius"],
)
def test_numpy_numbers_are_saved_as_numbers(layer, parameters, tmp_path):
    """Grid searches over NumPy ranges hand them over."""
    clf = fitted(layer, **parameters)
    back = CCNNClassifier.load(clf.save(tmp_path / "model"))
    np.testing.assert_array_equal(back.decision_function(X), clf.decision_function(X))


def test_a_fit_that_did_not_converge_says_so_after_loading(tmp_path):
    with pytest.warns(ConvergenceWarning):
        clf = fitted(max_iter=2, tol=1e-8)
    back = CCNNClassifier.load(clf.save(tmp_path / "model"))
    assert not back.solution_[0].converged
    assert back.n_iter_ == 2


def test_a_model_is_data_and_no_program(saved):
    """Two files, safetensors and JSON, and neither holds a pickle (whose opcodes a zip of torch.save would carry)."""
    assert sorted(path.name for path in saved.iterdir()) == [store.TENSORS, store.HEAD]
    json.loads((saved / store.HEAD).read_text(encoding="utf-8"))
    raw = (saved / store.TENSORS).read_bytes()
    assert json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["0.A"]["dtype"] == "F64"
    assert raw[:2] != b"PK"


# damage


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_cut_tensors_are_refused(keep, folder):
    path = folder / store.TENSORS
    path.write_bytes(path.read_bytes()[:keep])
    refused(folder, "tensors.safetensors is damaged: .* bytes, .* were written")


def test_a_flipped_bit_is_refused(folder):
    path = folder / store.TENSORS
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 1
    path.write_bytes(raw)
    refused(folder, "checksum is not the one that was written")


def test_missing_parts_are_refused(folder):
    (folder / store.TENSORS).unlink()
    refused(folder, "its file tensors.safetensors is missing")
    (folder / store.HEAD).unlink()
    refused(folder, "holds no triptych.json")
    refused(folder / "none", "there is no such folder")
    refused(folder.with_name("model.txt"), "there is no such folder")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "other"}', "\ufffe", "[" * 100_000])
def test_a_head_that_is_something_else_is_refused(text, folder):
    (folder / store.HEAD).write_text(text, encoding="utf-8")
    refused(folder, "must be")


def test_another_kind_is_refused(folder):
    edit(folder, lambda head: head.update(kind="dictionary"))
    refused(folder, "must hold 'ccnn', but it holds 'dictionary'")


def test_a_newer_version_is_refused(folder):
    edit(folder, lambda head: head.update(version=store.VERSION + 1))
    refused(folder, "saved by a newer triptych .* update triptych")


def paths(value, prefix=()):
    """Every place in a tree of dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*prefix, key)
        yield from paths(inner, (*prefix, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def test_every_missing_field_is_refused(folder):
    """Each key of the head's meta in turn, but for those that have defaults."""
    original = json.loads((folder / store.HEAD).read_text())
    places = [
        place
        for place in paths(original["meta"])
        if isinstance(place[-1], str) and not {"settings", "parameters"} & set(place[:-1])
    ]
    assert len(places) > 15
    loaded = []
    for place in places:
        head = copy.deepcopy(original)
        del at(head["meta"], place[:-1])[place[-1]]
        (folder / store.HEAD).write_text(json.dumps(head))
        try:
            refused(folder, "is no model of this version|is damaged")
        except pytest.fail.Exception:
            loaded.append(".".join(map(str, place)))
    assert not loaded


@pytest.mark.parametrize("value", [None, "x", -7, 0, 2.5, [], {}, 1e9], ids=repr)
def test_an_edited_field_never_ends_in_a_traceback(value, folder):
    """Each value of the head's meta in turn is set to something else: the model is refused by one sentence, or works."""
    original = json.loads((folder / store.HEAD).read_text())
    broken = {}
    for place in paths(original["meta"]):
        head = copy.deepcopy(original)
        at(head["meta"], place[:-1])[place[-1]] = value
        (folder / store.HEAD).write_text(json.dumps(head))
        try:
            model = CCNNClassifier.load(folder)
            assert model.predict(X[:3]).shape == (3,)
            model.transform(X[:3])
        except Exception as error:
            if not isinstance(error, InputError) or "\n" in str(error):
                broken[place] = f"{type(error).__name__}: {error}"[:90]
    assert not broken


@pytest.mark.parametrize("names", [[0, 1], [0, 1, 2, 3], []], ids=len)
def test_a_model_of_other_classes_than_its_own_is_refused(names, folder):
    edit(folder, lambda head: head["meta"].update(classes=names))
    refused(folder, "is no model of this version")


NAMES = ("0.A", "0.mix", "0.centre", "0.expansion.weight", "0.mean", "0.whiten")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["missing", "narrow", "short", "not finite"])
def test_tensors_of_another_model_are_refused(name, damage, folder):
    """The checksum is right, so that what was written was wrong: they do not fit together, or hold no numbers."""
    tensors = load_file(folder / store.TENSORS)
    changed = {
        "narrow": tensors[name][..., :-1].contiguous(),
        "short": tensors[name][:-1].contiguous(),
        "not finite": torch.full_like(tensors[name], torch.nan),
    }
    del tensors[name]
    if damage in changed:
        tensors[name] = changed[damage]
    path = folder / store.TENSORS
    save_file(tensors, path)
    edit(folder, lambda head: head.update(bytes=path.stat().st_size, sha256=store.sha256(path)))
    refused(folder, "is no model of this version")


# writing over what is there


def test_an_unrelated_folder_is_not_written_over(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"must be a new or empty folder .* files of another origin; choose another"):
        fitted().save(tmp_path / "model")
    store.save(tmp_path / "other", {}, {}, kind="dictionary")
    with pytest.raises(InputError, match="holds 'dictionary'; choose another"):
        fitted().save(tmp_path / "other")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="it is a file; choose another name"):
        fitted().save(tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model", "other"]
    assert (tmp_path / "model" / "thesis.txt").read_text() == "mine"


def test_a_model_replaces_a_model(folder):
    clf = fitted(replace(SMALL, radius=1.0))
    clf.save(folder)
    np.testing.assert_array_equal(CCNNClassifier.load(folder).decision_function(X), clf.decision_function(X))


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_a_save_that_is_killed_leaves_the_old_model(fails_at, folder, monkeypatch):
    """At the first, second, ... rename: of a part of the new folder, of the old folder, of the new one."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    clf, calls = fitted(replace(SMALL, radius=1.0)), []

    def failing(method):
        def rename(self, target):
            calls.append(target)
            if len(calls) == fails_at:
                raise KeyboardInterrupt
            return method(self, target)

        return rename

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", failing(Path.rename))
        patched.setattr(Path, "replace", failing(Path.replace))
        with pytest.raises(KeyboardInterrupt):
            clf.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    CCNNClassifier.load(folder)
