"""The guard's rule, on sequences made by hand."""

import math

import pytest

from triptych.check import InputError
from triptych.gan.guard import Guard


def fed(guard: Guard, *values: float) -> Guard:
    for value in values:
        assert guard.reason({"loss": value}) is None
    return guard


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_lost_at_the_first_step(value):
    assert Guard().reason({"fine": 1.0, "gap": value}) == f"gap is {value}"


@pytest.mark.parametrize("sign", [1, -1])
def test_the_limit_follows_the_median(sign):
    guard = fed(Guard(), *[sign * 3.0] * 30)
    assert guard.limit("loss") == 3e4
    assert fed(guard, sign * 2.9e4).limit("loss") == 3e4
    assert guard.reason({"loss": sign * 3.1e4}) == f"loss is {sign * 3.1e4:.3g}, above 3e+04"


def test_below_one_the_limit_is_the_factor():
    guard = fed(Guard(), *[1e-6] * 30)
    assert guard.limit("loss") == 1e4


def test_a_start_may_be_wild():
    guard = fed(Guard(), *[1e-3] * 5, 5e7, *[1e-3] * 13)
    assert guard.limit("loss") == 1e9  # 19 numbers
    assert fed(guard, 1e-3).limit("loss") == 1e4


def test_a_slow_drift_is_followed_up_to_the_bound():
    guard, value = Guard(), 1.0
    for _ in range(3000):
        value *= 1.01
        if value > 1e9:
            break
        fed(guard, value)
    assert guard.reason({"loss": value}) == "loss is 1e+09, above 1e+09"


def test_an_exploding_critic_is_caught_long_before_it_overflows():
    guard = fed(Guard(), *[2.0] * 50)
    steps = next(n for n in range(1, 100) if guard.reason({"loss": 2.0 * 10.0**n}))
    assert steps == 5


def test_a_lost_step_is_not_remembered():
    guard = fed(Guard(), *[2.0] * 20)
    before = guard.state()
    assert guard.reason({"other": 1.0, "loss": math.nan})
    assert guard.state() == before


def test_parts_are_judged_apart():
    guard = Guard()
    for _ in range(30):
        assert guard.reason({"penalty": 1e-2, "gap": 1e5}) is None
    assert (guard.limit("penalty"), guard.limit("gap"), guard.limit("unheard of")) == (1e4, 1e9, 1e9)


def test_a_guard_that_goes_back_judges_as_it_did():
    guard = fed(Guard(window=25), *[float(n) for n in range(40)])
    saved = guard.state()
    assert len(saved["loss"]) == 25
    assert guard.limit("loss") == 1e4 * 27  # the median of 15 .. 39
    other = Guard(window=25)
    other.restore(saved)
    fed(other, 1e3)
    assert guard.state() == saved  # they share nothing
    guard.restore(saved)
    fed(guard, 1e3)
    assert guard.state() == other.state()


@pytest.mark.parametrize("bad", [{"factor": 1.0}, {"bound": 0.0}, {"window": 5}, {"least": 0}, {"factor": math.nan}])
def test_bad_rules_are_refused(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        Guard(**bad)
