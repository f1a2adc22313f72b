"""Argument checks, and the wording of every error: one sentence that says what is wrong, what was expected, what to do."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any, TypeVar

E = TypeVar("E", bound=Enum)


class InputError(ValueError):
    """Something the user gave is wrong; the message is one sentence and the command line exits with status 2."""


class NotConverged(RuntimeError):
    """The computation stopped before the tolerance that was asked for; the command line exits with status 1."""


@dataclass(frozen=True)
class Case:
    """A number that theory knows: what it says, what was measured, how far apart they may be, and why no farther."""

    name: str
    theory: float
    measured: float
    tolerance: float
    why: str

    @property
    def holds(self) -> bool:
        """|measured - theory| <= tolerance; never where one of them is no number."""
        return abs(self.measured - self.theory) <= self.tolerance


def shown(value: Any, limit: int = 80) -> str:
    """The value as it stands in an error message: its repr, cut in the middle where it is long."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 2 :]}"


def wrong(name: str, expected: str, value: Any, remedy: str = "") -> InputError:
    """The standard error: ``{name} must be {expected}, got {value!r}`` and, where there is one, the remedy."""
    return InputError(f"{name} must be {expected}, got {shown(value)}{'; ' + remedy if remedy else ''}")


def whole(name: str, value: Any, *, low: int = 1, high: int | None = None, remedy: str = "") -> int:
    """A whole number in [low, high]. Raises InputError."""
    expected = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise wrong(name, expected, value, remedy)
    number = value.__index__()
    if number < low or (high is not None and number > high):
        raise wrong(name, expected, value, remedy)
    return number


def real(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float | None = None,
    remedy: str = "",
) -> float:
    """A finite number in [low, high], above ``above`` where that is given. Raises InputError."""
    expected = "a finite number"
    if above is not None:
        expected += f" above {above:g}"
    elif low > -math.inf:
        expected += f" of at least {low:g}"
    if high < math.inf:
        expected += f" and at most {high:g}"
    if isinstance(value, bool | str | bytes):
        raise wrong(name, expected, value, remedy)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise wrong(name, expected, value, remedy) from None
    if not math.isfinite(number) or number < low or number > high or (above is not None and number <= above):
        raise wrong(name, expected, value, remedy)
    return number


def choice(name: str, value: Any, known: Iterable[str]) -> str:
    """One of the known names; an unknown one is refused with their list and the nearest. Raises InputError."""
    names = list(known)
    if value in names:
        return value
    raise InputError(f"{name} must be one of {', '.join(names)}, got {shown(value)}{nearest(value, names)}")


def nearest(value: Any, names: Iterable[str]) -> str:
    """`` (did you mean X?)`` where a known name is close to the given one, else nothing."""
    close = get_close_matches(str(value), list(names), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
