"""Experiments: a table or figure of a paper as cells, a function that measures one, and one that draws what was measured."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from triptych.bench.row import Context, Metrics, Row, Scale, Source
from triptych.check import InputError, choice, nearest, whole, wrong

if TYPE_CHECKING:
    from triptych.bench.sections import Section

__all__ = ["CellFailed", "Context", "Experiment", "Row", "Scale", "Source", "address", "cell_fields", "select"]

Measure = Callable[[Any, Context], tuple[Metrics, Mapping[str, Any]]]


class CellFailed(RuntimeError):
    """The process of a cell ended without a result; ``text`` is its traceback, or empty where it was ended from outside."""

    def __init__(self, message: str, text: str = ""):
        super().__init__(message)
        self.text = text


def no_numbers(cell: Any) -> Metrics | None:
    """The published numbers of a cell where the paper gives none."""
    del cell


@dataclass(frozen=True)
class Experiment:
    """A table or figure of a paper. Raises InputError where ``measure`` is no function at the top of a module.

    ``cells(scale)`` lists frozen dataclasses of str, int, float, bool or None; ``measure(cell, context)`` returns numbers
    and artefacts (dicts of tensors, or values that JSON can hold); ``render(rows)`` draws saved rows of one scale and data.
    ``version`` is raised whenever measure changes what it means, so that older rows are not taken for fresh ones.
    ``data`` names the set that the paper has, None where measure makes its own points or images and reads no other.
    """

    name: str
    paper: str
    shows: str
    version: int
    cells: Callable[[Scale], Sequence[Any]]
    measure: Measure
    render: Callable[[Sequence[Row]], "Sequence[Section]"]
    published: Callable[[Any], Metrics | None] = no_numbers
    data: str | None = "digits"

    def __post_init__(self) -> None:
        whole("version", self.version)
        if not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", self.name):
            raise wrong("name", "lower-case words joined by dots", self.name)
        address("measure", self.measure)


def cell_fields(cell: Any) -> dict[str, Any]:
    """Give a cell as a flat JSON object. Raises InputError where it is no dataclass of plain values."""
    if not is_dataclass(cell) or isinstance(cell, type):
        raise wrong("cell", "a dataclass", cell)
    values = asdict(cell)
    for name, value in values.items():
        if not isinstance(value, str | int | float | None):
            raise wrong(f"cell.{name}", "a str, int, float, bool or None", value)
    return values


def select(experiment: Experiment, scale: Scale, where: Iterable[str] = ()) -> list[Any]:
    """List the cells with ``field=value`` for every field named; values of one field are alternatives.

    Raises InputError for an unknown field or value, with the known ones.
    """
    cells = list(experiment.cells(scale))
    wanted: dict[str, set[str]] = {}
    for condition in where:
        name, equals, value = condition.partition("=")
        if not equals:
            raise wrong("where", "field=value", condition)
        known = [field.name for field in fields(cells[0])] if cells else []
        choice(f"where: the field of {experiment.name}", name, known)
        values = sorted({str(getattr(cell, name)) for cell in cells})
        if value not in values:
            raise InputError(f"where: {name} must be one of {', '.join(values)}, got {value!r}{nearest(value, values)}")
        wanted.setdefault(name, set()).add(value)
    chosen = [cell for cell in cells if all(str(getattr(cell, name)) in values for name, values in wanted.items())]
    if not chosen:
        raise InputError(f"where: no cell of {experiment.name} at scale {scale.value} has {' and '.join(where)}")
    return chosen


def address(name: str, thing: Any) -> list[str]:
    """Name a function or class so that another process can import it."""
    module, path = getattr(thing, "__module__", ""), getattr(thing, "__qualname__", "<none>")
    if not module or module == "__main__" or not path.isidentifier():
        raise wrong(name, "at the top of a module that can be imported", thing)
    return [module, path]
