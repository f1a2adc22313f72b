"""A recipe as plain JSON and back, and settings of a file or of flags laid over it, every value checked by its field's type."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from triptych.check import InputError, nearest, shown, wrong
from triptych.gan.game import Objective
from triptych.gan.networks.bottleneck import Bottleneck
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.deep import Deep
from triptych.gan.networks.mlp import MLP
from triptych.gan.networks.resnet import ResNet
from triptych.gan.networks.target import Architecture
from triptych.gan.objectives import OBJECTIVES
from triptych.gan.recipe import Recipe

ARCHITECTURES = (MLP, DCGAN, ResNet, Bottleneck, Deep)
KINDS: dict[Any, tuple[type, ...]] = {Objective: tuple(OBJECTIVES), Architecture: ARCHITECTURES}
PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
T = TypeVar("T")


def to_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe as nested plain JSON; objectives and architectures say their ``kind``, the name of their class.

    Raises InputError where it holds an objective or architecture that is not of this package.
    """
    return _written(recipe, "recipe")


def from_json(value: Any, where: str = "config.json") -> Recipe:
    """The recipe that ``to_json`` wrote. Raises InputError for an unknown key, a wrong type or a number out of range."""
    return read(Recipe, value, where)


def override(settings: T, changes: Any, where: str) -> T:
    """A recipe (or any dataclass of settings) with nested changes laid over it: {"critic": {"width": 32}, "batch": 16}.

    An objective or architecture of another ``kind`` begins from that one's own defaults. Raises InputError, which begins
    with ``where``, the file or the flags that the changes come from.
    """
    return _changed(settings, changes, f"{where}:", "")


def read(kind: type[T], value: Any, where: str) -> T:
    """A dataclass from a mapping of its fields; those that are left away keep their defaults. Raises InputError."""
    return _made(kind, value, f"{where}:", "")


def _written(value: Any, path: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_written(one, f"{path}[{i}]") for i, one in enumerate(value)]
    kind = type(value)
    if not is_dataclass(value) or not kind.__module__.startswith("triptych."):
        raise wrong(path, "one of this package's own, which a file can name", kind.__name__)
    inner = {field.name: _written(getattr(value, field.name), f"{path}.{field.name}") for field in fields(value)}
    return {"kind": kind.__name__, **inner} if _family(kind) else inner


def _family(kind: type) -> tuple[type, ...]:
    """The classes that stand beside a class to choose from; none where there is no choice."""
    return next((family for family in KINDS.values() if kind in family), ())


def _value(hint: Any, value: Any, where: str, path: str) -> Any:
    """A value for a field whose annotation is ``hint``."""
    choices = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        if value is None and NoneType in choices:
            return None
        (hint,) = (one for one in choices if one is not NoneType)
        return _value(hint, value, where, path)
    if get_origin(hint) is tuple:
        return _row(choices, value, where, path)
    if hint in KINDS:
        return _chosen(KINDS[hint], value, where, path)
    if is_dataclass(hint) and isinstance(hint, type):
        return _made(hint, value, where, path)
    plain: Any = hint
    expected = PLAIN[plain]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, plain) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{where} {path} must be {expected}, got {shown(value)}")
    return value


def _row(hints: tuple[Any, ...], value: Any, where: str, path: str) -> tuple[Any, ...]:
    """A tuple from a list."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(f"{where} {path} must be a list, got {shown(value)}")
    if hints[-1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(value) != len(hints):
        raise InputError(f"{where} {path} must be a list of {len(hints)}, got {shown(value)}")
    return tuple(_value(hint, one, where, f"{path}[{i}]") for i, (hint, one) in enumerate(zip(hints, value)))


def _chosen(family: tuple[type, ...], value: Any, where: str, path: str) -> Any:
    """An object of the class that ``kind`` names, from its other fields."""
    value = _table(value, where, path)
    return _made(_kind(family, value.get("kind"), where, path), _without_kind(value), where, path)


def _kind(family: tuple[type, ...], name: Any, where: str, path: str) -> type:
    known = {one.__name__: one for one in family}
    if not isinstance(name, str) or name not in known:
        raise InputError(
            f"{where} {_inner(path, 'kind')} must be one of {', '.join(known)}, got {shown(name)}{nearest(name, known)}"
        )
    return known[name]


def _made(kind: type[T], value: Any, where: str, path: str) -> T:
    """A dataclass from a table of its fields."""
    value, hints = _table(value, where, path), _hints(kind)
    _refuse_unknown(value, hints, where, path)
    given = {name: _value(hints[name], one, where, _inner(path, name)) for name, one in value.items()}
    try:
        return kind(**given)
    except InputError as error:
        raise _placed(error, where, path) from None
    except TypeError:
        lacking = next(name for name in _required(kind) if name not in given)
        raise InputError(f"{where} {_inner(path, lacking)} is missing; add it") from None


def _changed(current: T, value: Any, where: str, path: str) -> T:
    """A dataclass with some fields changed."""
    value, hints = _table(value, where, path), _hints(type(current))
    _refuse_unknown(value, hints, where, path)
    given = {}
    for name, one in value.items():
        inner, old = _inner(path, name), getattr(current, name)
        family = _family(type(old))
        if family:
            one = _table(one, where, inner)
            same = one.get("kind", type(old).__name__) == type(old).__name__
            one = _without_kind(one) if same else one
            given[name] = _changed(old, one, where, inner) if same else _chosen(family, one, where, inner)
        elif is_dataclass(old):
            given[name] = _changed(old, one, where, inner)
        else:
            given[name] = _value(hints[name], one, where, inner)
    try:
        return replace(current, **given)  # pyright: ignore[reportArgumentType, reportType]
    except InputError as error:
        raise _placed(error, where, path) from None


def _table(value: Any, where: str, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} {path or 'the whole'} must be a table of settings, got {shown(value)}")
    return value


def _without_kind(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in value.items() if name != "kind"}


def _refuse_unknown(value: Mapping[str, Any], known: Mapping[str, Any], where: str, path: str) -> None:
    for name in value:
        if name not in known:
            # A word that is near to none gets the list, which is what would have helped.
            hint = nearest(name, known) or f"; the settings here are {', '.join(known)}"
            raise InputError(f"{where} {_inner(path, name)} is no setting{hint}")


def _placed(error: InputError, where: str, path: str) -> InputError:
    """The same sentence with the place before it."""
    return InputError(f"{where} {path}: {error}" if path else f"{where} {error}")


def _inner(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@cache
def _hints(kind: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _required(kind: type) -> list[str]:
    """The fields of a dataclass that have no default."""
    return [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
