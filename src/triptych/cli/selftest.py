"""gan selftest: numbers that theory knows beside what the code gives, for this package's objectives or for one's own."""

import importlib
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.check import Case, InputError, NotConverged, nearest, wrong
from triptych.cli.console import Console, Json, console

if TYPE_CHECKING:
    from triptych.gan.game import Objective
    from triptych.gan.truths.own import DiracReport

Group = Callable[[], Iterable[Case]]
MNIST_IMAGES = 51_000  # of the training split: 10,000 samples, 50,000 to find centroids of, 1,000 to choose a width on


def selftest(*, objective: str | None = None, data: str | None = None, json: Json = False) -> None:
    """Compare what the code gives with what theory knows, case by case; exit status 1 where one is too far off.

    Parameters
    ----------
    objective
        An objective of your own, MODULE:CLASS, in a module of this folder or an installed one: only what any
        objective owes is checked, and how it moves on the Dirac GAN is told.
    data
        MNIST, as a folder of its four files or the word mnist: adds its Parzen log-likelihood, half a minute more.
    """
    from triptych.gan.truths import SUITE
    from triptych.gan.truths.own import dirac_report, ended, owed
    from triptych.metrics.truths import parzen_cases, score_cases

    voice = console(json)
    if objective is not None and data is not None:
        raise InputError("data must be left away beside an objective, whose cases need none")
    report: DiracReport | None = None
    if objective is not None:
        own = load_objective(objective)
        with _told(objective):
            cases = _collected(voice, [lambda: owed(own)])
            report = dirac_report(own)
            cases.append(ended(report))
    else:
        extra = [] if data is None else [_mnist(data)]
        cases = _collected(voice, [*SUITE, parzen_cases, score_cases, *extra])
    _show(voice, cases, report)
    failed = [case for case in cases if not case.holds]
    if failed:
        names = "; ".join(case.name for case in failed[:3])
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise NotConverged(f"{len(failed)} of {len(cases)} cases are outside their tolerance: {names}{more}")


def load_objective(address: str) -> "Objective":
    """The objective that MODULE:NAME names: an object, or a class that is called without arguments. Raises InputError."""
    from triptych.gan.composed import check_objective

    module, colon, name = address.partition(":")
    if not (module and colon and name):
        raise wrong("objective", "MODULE:CLASS, such as mygan:MyObjective", address)
    found = _imported(address, module)
    if not hasattr(found, name):
        hint = nearest(name, [word for word in vars(found) if not word.startswith("_")])
        raise InputError(f"objective must be in its module, but {module} has no {name}{hint}")
    value: Any = getattr(found, name)
    if isinstance(value, type):
        try:
            value = value()
        except (Exception, SystemExit) as error:
            raise InputError(
                f"objective must be a class that needs no arguments, but {address} raises {_words(error)}; "
                "name an object that you have made of it"
            ) from None
    check_objective("objective", value)
    return value


def _imported(address: str, module: str) -> Any:
    """A module of the working folder or an installed one."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever the module does when it is read
        raise InputError(f"objective must be one that can be imported, but {address} raises {_words(error)}") from None
    finally:
        sys.path.remove(folder)


class _told:
    """Turn whatever an objective of the user's raises into a sentence that says where."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        """Raise NotConverged in its place."""
        if isinstance(error, Exception | SystemExit):
            place = traceback.extract_tb(trace)[-1]
            where = f"{Path(place.filename).name}, line {place.lineno}"
            raise NotConverged(f"the objective {self.address} raises {_words(error)} ({where})") from None


def _mnist(data: str) -> Group:
    """MNIST's cases. Raises InputError where the data is not MNIST."""
    from triptych.data import load
    from triptych.metrics.truths import mnist_cases

    train, test = (load(data, split=split) for split in ("train", "test"))
    for split, images, least in (("train", train, MNIST_IMAGES), ("test", test, 2)):
        if images.shape[1:] != (1, 28, 28) or len(images) < least:
            raise wrong(
                "data", f"MNIST, with at least {least:,} images of 1 x 28 x 28 in its split {split}", f"{images}"
            )
    return lambda: mnist_cases(train, test)


def _collected(voice: Console, groups: Sequence[Group]) -> list[Case]:
    """The cases of all groups."""
    cases: list[Case] = []
    with voice.progress("cases", total=len(groups)) as bar:
        for group in groups:
            cases.extend(group())
            bar.advance()
    return cases


def _show(voice: Console, cases: Sequence[Case], report: "DiracReport | None") -> None:
    """The table, why each tolerance is what it is, and a last line."""
    reasons = {why: place for place, why in enumerate(dict.fromkeys(case.why for case in cases), 1)}
    voice.table(
        ["case", "theory", "measured", "tolerance", "why", "verdict"],
        [
            [
                case.name,
                f"{case.theory:.6g}",
                f"{case.measured:.6g}",
                f"{case.tolerance:.2g}",
                reasons[case.why],
                "holds" if case.holds else "fails",
            ]
            for case in cases
        ],
    )
    voice.say("\nwhy these tolerances")
    for line in _numbered(reasons):
        voice.say(line)
    failed = sum(not case.holds for case in cases)
    last = f"\n{len(cases)} cases, {failed} outside their tolerance"
    data: dict[str, Any] = {"cases": [_plain(case) for case in cases], "failed": failed}
    if report is not None:
        last = f"\n{report.in_words()}{last}"
        values = report.eigenvalues
        data["dirac"] = {
            "eigenvalues": None if values is None else [[value.real, value.imag] for value in values],
            "converges": report.converges,
            "distance": _finite(report.distance),
        }
    voice.finish(data, last)


def _plain(case: Case) -> dict[str, Any]:
    """A case as JSON."""
    numbers = {name: _finite(getattr(case, name)) for name in ("theory", "measured", "tolerance")}
    return {**vars(case), **numbers, "holds": case.holds}


def _finite(number: float) -> float | None:
    """A number as JSON, which has neither NaN nor infinity."""
    return number if math.isfinite(number) else None


def _numbered(reasons: dict[str, int]) -> Iterator[str]:
    for why, place in reasons.items():
        yield f"{place:3d}  {why}"


def _words(error: BaseException) -> str:
    """An exception on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
