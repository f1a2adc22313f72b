"""Recipes as JSON and back, and settings laid over them: laws over every recipe, objective, architecture and field."""

import json
from dataclasses import dataclass, fields, replace

import pytest

from triptych.check import InputError
from triptych.gan import settings
from triptych.gan.catalogue import CATALOGUE, NAMES
from triptych.gan.game import GameLoss
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.mlp import MLP
from triptych.gan.objectives import OBJECTIVES, Auxiliary, Hinge, Regularised, WassersteinGP
from triptych.gan.recipe import Recipe
from triptych.gan.recipes import RECIPES

SHAPES = ((1, 28, 28), (3, 32, 32), (3, 64, 96))
PRESETS = {
    f"{name} {shape} {classes}": make(shape, classes)
    for name, make in RECIPES.items()
    for shape in SHAPES
    for classes in (0, 10)
}


CLASSIFIED = {"classes": 10, "labels": "auxiliary"}


def objective(kind):
    """An objective with the least that it needs."""
    inner = [WassersteinGP(weight=3.0)] if any(f.name == "objective" for f in fields(kind)) else []
    return kind(*inner, **({"r1": 2.0} if kind is Regularised else {}))


def recipe(**changes):
    return replace(RECIPES["wgan-gp"]((1, 28, 28)), **changes)


def leaves(value, path=()):
    """Every path to a value that is no table, but for the names of classes."""
    for key, one in value.items():
        if isinstance(one, dict):
            yield from leaves(one, (*path, key))
        elif key != "kind" or "optimiser" in path[-1]:
            yield (*path, key), one


def nested(path, value):
    for key in reversed(path):
        value = {key: value}
    return value


@pytest.mark.parametrize("one", PRESETS.values(), ids=PRESETS)
def test_every_recipe_comes_back_from_json(one):
    assert settings.from_json(json.loads(json.dumps(settings.to_json(one)))) == one


@pytest.mark.parametrize("kind", [*OBJECTIVES, *settings.ARCHITECTURES], ids=lambda kind: kind.__name__)
def test_every_objective_and_architecture_comes_back_under_its_name(kind):
    told = CLASSIFIED if kind is Auxiliary else {}
    one = recipe(objective=objective(kind), **told) if kind in OBJECTIVES else recipe(generator=kind(), critic=kind())
    written = json.loads(json.dumps(settings.to_json(one)))
    assert written["objective" if kind in OBJECTIVES else "critic"]["kind"] == kind.__name__
    assert settings.from_json(written) == one


def test_numbers_that_are_not_the_defaults_come_back():
    game = Auxiliary(WassersteinGP(7.5, 2), 0.5, 0.25)
    one = recipe(objective=game, critic=MLP(critic_widths=(3, 4, 5)), batch=3, **CLASSIFIED)
    one = one.changed(steps=17, half_life=2.5)
    assert settings.from_json(json.loads(json.dumps(settings.to_json(one)))) == one


WRITTEN = settings.to_json(recipe(critic=MLP()))
LEAVES = dict(leaves(WRITTEN))


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_every_setting_can_be_laid_over(path):
    """Its own value changes nothing, another one changes it alone, and a wrong one is refused by its dotted name."""
    base, own = recipe(critic=MLP()), LEAVES[path]
    assert settings.override(base, nested(path, own), "f.toml") == base
    wrong = {bool: 1, int: 1.5, float: "1", str: 3, list: "32"}.get(type(own), {"a": 1})
    with pytest.raises(InputError) as error:
        settings.override(base, nested(path, wrong), "f.toml")
    assert str(error.value).startswith(f"f.toml: {'.'.join(path)} must be ")
    with pytest.raises(InputError) as error:
        settings.override(base, nested((*path[:-1], f"{path[-1]}x"), own), "f.toml")
    assert str(error.value).startswith(f"f.toml: {'.'.join(path)}x is no setting (did you mean ")
    if isinstance(own, float) and path[-1] not in ("beta1", "beta2", "alpha", "momentum", "momentum_end", "factor"):
        for value in (0.5, 1):  # a whole number is a number
            if path[-1].startswith("dropout") and value == 1:
                continue
            after = dict(leaves(settings.to_json(settings.override(base, nested(path, value), "f.toml"))))
            assert after == {**LEAVES, path: value}
            assert type(after[path]) is float


@pytest.mark.parametrize("path", [path for path, value in LEAVES.items() if type(value) in (int, float)], ids=".".join)
def test_true_is_no_number(path):
    with pytest.raises(InputError, match=r"must be a (whole )?number, got True"):
        settings.override(recipe(critic=MLP()), nested(path, True), "f.toml")


def test_another_kind_begins_from_its_own_defaults_and_the_same_kind_keeps_the_rest():
    base = recipe(objective=WassersteinGP(weight=3.0, steps=2), critic=DCGAN(width=9, kernel=4))
    assert settings.override(base, {"objective": {"steps": 4}}, "f").objective == WassersteinGP(3.0, 4)
    same = {"objective": {"kind": "WassersteinGP", "steps": 4}}
    assert settings.override(base, same, "f").objective == WassersteinGP(3.0, 4)
    assert settings.override(base, {"objective": {"kind": "Hinge", "steps": 4}}, "f").objective == Hinge(4)
    assert settings.override(base, {"critic": {"width": 5}}, "f").critic == DCGAN(width=5, kernel=4)
    assert settings.override(base, {"critic": {"kind": "MLP"}}, "f").critic == MLP()
    wrapped = {"objective": {"kind": "Auxiliary", "objective": {"kind": "WassersteinGP", "weight": 5}}, **CLASSIFIED}
    after = settings.override(base, wrapped, "f")
    assert after.objective == Auxiliary(WassersteinGP(5.0))
    again = settings.override(after, {"objective": {"objective": {"weight": 2}}}, "f")
    assert again.objective == Auxiliary(WassersteinGP(2.0))


def test_what_may_be_nothing_may_be_set_and_taken_back():
    base = recipe(critic=DCGAN())
    two = settings.override(base, {"critic": {"doublings": 2}}, "f")
    assert two.critic == DCGAN(doublings=2)
    assert settings.override(two, {"critic": {"doublings": None}}, "f") == base


REFUSED = {
    "a number out of range": (
        {"rules": {"critic_optimiser": {"lr": -1}}},
        "f.toml: rules.critic_optimiser: lr must be a finite number above 0 and at most 1e+38, got -1.0",
    ),
    "a number out of range at the top": ({"batch": 0}, "f.toml: batch must be a whole number of at least 1, got 0"),
    "an unknown kind": ({"objective": {"kind": "Hnge"}}, "(did you mean Hinge?)"),
    "an unknown kind lists the known": ({"critic": {"kind": 3}}, "f.toml: critic.kind must be one of MLP, DCGAN, "),
    "another kind without what it needs": (
        {"objective": {"kind": "Regularised"}},
        "f.toml: objective.objective is missing; add it",
    ),
    "a key that is near to none": ({"zzz": 1}, "f.toml: zzz is no setting; the settings here are name, follows, "),
    "a key of another kind": (
        {"critic": {"critic_widths": [3]}},
        "f.toml: critic.critic_widths is no setting; the settings here are width, kernel, ",
    ),
    "a value for a table": ({"rules": 3}, "f.toml: rules must be a table of settings, got 3"),
    "a value for an objective": ({"objective": "Hinge"}, "f.toml: objective must be a table of settings, got 'Hinge'"),
    "a wrong entry of a list": ({"shape": [1, "x", 8]}, "f.toml: shape[1] must be a whole number, got 'x'"),
    "no table at all": ([], "f.toml: the whole must be a table of settings, got []"),
}


@pytest.mark.parametrize(("changes", "part"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_in_one_sentence(changes, part):
    with pytest.raises(InputError) as error:
        settings.override(recipe(), changes, "f.toml")
    assert part in str(error.value)


def test_a_recipe_that_lacks_something_is_refused():
    written = settings.to_json(recipe())
    del written["objective"]
    with pytest.raises(InputError, match=r"config.json: objective is missing; add it"):
        settings.from_json(written)
    del written["generator"]["width"]  # a field with a default, as one that came later
    written["objective"] = {"kind": "Hinge"}
    assert settings.from_json(written).generator.width == 64


@dataclass(frozen=True)
class Mine:
    """An objective of a user."""

    simultaneous: bool = False

    def critic_loss(self, *_):
        return GameLoss(None)


def test_what_a_file_cannot_name_is_not_written():
    with pytest.raises(InputError, match=r"recipe.objective must be one of this package's own, .* got 'Mine'"):
        settings.to_json(recipe(objective=Mine()))


def test_the_catalogue_is_that_of_the_recipes():
    assert list(NAMES) == list(RECIPES)
    for entry in CATALOGUE:
        one = RECIPES[entry.name]((3, 32, 32))
        assert isinstance(one, Recipe)
        assert one.name == entry.name
