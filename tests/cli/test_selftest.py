"""gan selftest: the table, its exit status, an objective of the user's own, and wrong use."""

import json

import numpy as np
import pytest

from triptych.check import Case
from triptych.cli import main
from triptych.gan import truths

OWN = '''
from dataclasses import dataclass

import torch

from triptych.gan.game import GameLoss
from triptych.gan.objectives import Hinge, Regularised


class Softer(Hinge):
    """A hinge at 2."""

    def critic_loss(self, critic, real, fake, draw):
        d_real, d_fake = critic(real).value, critic(fake).value
        return GameLoss(torch.relu(2 - d_real).mean() + torch.relu(2 + d_fake).mean())


class Bursting(Softer):
    """Grows faster than any rate can follow."""

    def critic_loss(self, critic, real, fake, draw):
        return GameLoss(super().critic_loss(critic, real, fake, draw).total - 0.2 * critic(fake).value.abs().pow(3).mean())


class Leaving(Softer):
    def __init__(self):
        raise SystemExit(3)


class Summed(Hinge):
    def generator_loss(self, critic, fake, real):
        return GameLoss(-critic(fake).value.sum())


class Loud(Hinge):
    def critic_loss(self, critic, real, fake, draw):
        raise RuntimeError("sizes\\n differ")


class Wanting(Hinge):
    def __init__(self, weight):
        self.weight = weight


pulled = Regularised(Softer(), r1=0.6)
number = 3
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's in the working folder, under a name of its own."""
    (tmp_path / f"own_{tmp_path.name}.py").write_text(OWN)
    (tmp_path / f"torn_{tmp_path.name}.py").write_text("1 +")
    (tmp_path / f"exit_{tmp_path.name}.py").write_text("import sys\n\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    return f"own_{tmp_path.name}".removesuffix(".py")


def two_cases(measured):
    def group():
        yield Case("one", 1.0, 1.0, 0.0, "it is exact")
        yield Case("other", 2.0, measured, 0.1, "a tenth")

    return (group,)


@pytest.fixture
def few(monkeypatch):
    """The suite is two cases, of which the second measures what is asked for."""
    return lambda measured: monkeypatch.setattr(truths, "SUITE", two_cases(measured))


def test_the_table_has_theory_measured_tolerance_and_why(few, capsys):
    few(2.05)
    assert main(["gan", "selftest"]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["case", "theory", "measured", "tolerance", "why", "verdict"]
    assert lines[1] == ["one", "1", "1", "0", "1", "holds"]
    assert lines[2] == ["other", "2", "2.05", "0.1", "2", "holds"]
    assert ["2", "a", "tenth"] in lines
    assert "8 cases, 0 outside their tolerance" in out  # with the six of metrics
    assert "cases: 3 of 3" in err


@pytest.mark.parametrize("measured", [2.2, float("nan"), float("inf")])
def test_a_case_that_fails_is_status_1_and_one_sentence(measured, few, capsys):
    few(measured)
    assert main(["gan", "selftest", "--json"]) == 1
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said["failed"] == 1
    assert [case["holds"] for case in said["cases"]] == [True, False, *[True] * 6]
    assert said["cases"][1]["measured"] == (2.2 if measured == 2.2 else None)
    assert err.splitlines()[-1] == "triptych: 1 of 8 cases are outside their tolerance: other"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_no_number_that_json_lacks_is_written(number, monkeypatch, capsys):
    monkeypatch.setattr(truths, "SUITE", (lambda: [Case("odd", number, number, number, "it is odd")],))
    assert main(["gan", "selftest", "--json"]) == 1
    case = json.loads(capsys.readouterr().out)["cases"][0]
    assert [case[name] for name in ("theory", "measured", "tolerance", "holds")] == [None, None, None, False]


def test_an_objective_of_ones_own(own, capsys):
    assert main(["gan", "selftest", "--objective", f"{own}:Softer", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["failed"] == 0
    assert len(said["cases"]) == 14
    assert not said["dirac"]["converges"]
    np.testing.assert_allclose(sorted(np.abs(said["dirac"]["eigenvalues"]).tolist()), [[0, 1], [0, 1]], atol=1e-6)


def test_an_object_is_taken_as_it_is(own, capsys):
    assert main(["gan", "selftest", "--objective", f"{own}:pulled"]) == 0
    out = capsys.readouterr().out
    assert "it converges" in out
    assert "14 cases, 0 outside their tolerance" in out


def test_an_objective_that_owes_something_is_status_1(own, capsys):
    assert main(["gan", "selftest", "--objective", f"{own}:Summed"]) == 1
    out, err = capsys.readouterr()
    assert "fails" in out
    assert "the generator's loss of a batch given twice" in err.splitlines()[-1]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_game_that_ends_in_no_number_is_status_1(form, own, capsys):
    assert main(["gan", "selftest", "--objective", f"{own}:Bursting", *form]) == 1
    out, err = capsys.readouterr()
    lost = "ends of 500 steps on the Dirac GAN that are not finite"
    assert err.splitlines()[-1] == f"triptych: 1 of 14 cases are outside their tolerance: {lost}"
    assert json.loads(out)["dirac"]["distance"] is None if form else "500 steps of 0.1 from (1, 1) end nowhere" in out


def test_an_objective_that_raises_is_status_1_and_one_sentence(own, capsys):
    assert main(["gan", "selftest", "--objective", f"{own}:Loud"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    said = err.splitlines()[-1]
    assert said.startswith(f"triptych: the objective {own}:Loud raises RuntimeError: sizes differ ({own}.py, line ")
    assert "Traceback" not in err


WRONG = {
    "no colon": ("OWN", "objective must be MODULE:CLASS"),
    "no class": ("OWN:", "objective must be MODULE:CLASS"),
    "no module": (":Softer", "objective must be MODULE:CLASS"),
    "unknown module": ("nowhere_at_all:Softer", "nowhere_at_all:Softer raises ModuleNotFoundError"),
    "a torn module": ("TORN:Softer", "raises SyntaxError"),
    "a module that exits": ("EXIT:Softer", "raises SystemExit: 0"),
    "a class that exits": ("OWN:Leaving", "raises SystemExit: 3"),
    "unknown class": ("OWN:Softr", "has no Softr (did you mean Softer?)"),
    "a class that wants arguments": ("OWN:Wanting", "objective must be a class that needs no arguments"),
    "a number": ("OWN:number", "objective must be an objective, got 3; it lacks simultaneous"),
    "no objective": ("OWN:dataclass", "objective must be an objective, got <function dataclass"),
    "relative": ("..own:Softer", "objective must be one that can be imported"),
}


@pytest.mark.parametrize(("address", "words"), WRONG.values(), ids=WRONG)
def test_an_objective_that_cannot_be_had_is_status_2(address, words, own, capsys):
    for word in ("OWN", "TORN", "EXIT"):
        address = address.replace(word, own.replace("own", word.lower(), 1))
    assert main(["gan", "selftest", f"--objective={address}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("triptych: ")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("data", ["digits", "nowhere"])
def test_data_that_is_not_mnist_is_status_2(data, capsys):
    assert main(["gan", "selftest", "--data", data]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1


def test_data_beside_an_objective_is_status_2(own, capsys):
    assert main(["gan", "selftest", "--data", "digits", "--objective", f"{own}:Softer"]) == 2
    assert "data must be left away" in capsys.readouterr().err
