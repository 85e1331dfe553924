"""Settings that check and describe themselves, alone or composed of parts.

A field is written `name: type = setting(default, description, unit=…, source=…)`, a part, settings of its own, as
`name: Kind = part(Kind, field=…)`. The path of a field is "part.field".
"""

import contextlib
import dataclasses
import difflib
import functools
import math
import numbers
import operator
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, Union

from o2o_jax.reading import brief

SettingsT = TypeVar("SettingsT")
NEAREST = 3  # paths that an unknown name is answered with, at most
LARGEST = 2**31 - 1  # whole number that counters and shapes hold
NEAR_ENOUGH = 0.6  # similarity below which a path is no answer


def setting(default: Any, description: str, *, source: str, unit: str = "") -> Any:
    """Returns a field of `Settings` with its default and what readers have to know of it.

    Args:
      default: of the field.
      description: a phrase, without a full stop.
      source: origin of the default: a section of the paper, a number of `docs/departures.md`, another public source, or
        "this package".
      unit: of the value; "" for one without.
    """
    metadata = {"description": description, "unit": unit, "source": source}
    return dataclasses.field(default=default, metadata=metadata)


def part(kind: type[SettingsT], **values: Any) -> Any:
    """Returns a field of `Settings` that holds a `kind`, whose own defaults `values` replace."""
    return dataclasses.field(default_factory=functools.partial(kind, **values))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that refuse, when they are made, what could only fail or mislead later.

    Raises:
      TypeError: there is no such field; the message has the nearest ones.
      ValueError: a field has a value of another type, is NaN or infinite, is a whole number beyond 32 bits, or holds
        none of the choices that its `Literal` type lists. Subclasses add what else they refuse, in `__post_init__`, by
        the checks below: every message begins with the field's name, or its path where several parts are concerned.
    """

    def __new__(cls, *args: Any, **values: Any) -> Any:
        """Refuses unknown names, before `__init__` would do so in Python's words."""
        del args
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values.keys() - known:
            raise TypeError(f"{class_name(cls)} has no setting {name!r}: {_advice(cls, name)}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check_types(self)
        for name, hint in _hints(type(self)).items():
            choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
            value = getattr(self, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value}")
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, numbers.Integral) and abs(int(number)) > LARGEST:
                    raise ValueError(f"{name} must be at most {LARGEST:,}, as a number of 32 bits, got {number:,}")
            if choices and value not in choices:
                raise ValueError(f"{name} must be {' or '.join(map(str, choices))}, got {value!r}")

    def _positive(self, *names: str) -> None:
        for name in names:  # "not greater" rather than "less or equal", so that NaN is refused too
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)}")

    def _not_negative(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

    def _counts(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def _at_most(self, bound: str, *names: str) -> None:
        for name in names:
            if getattr(self, name) > getattr(self, bound):
                raise ValueError(f"{name} must be at most {bound}, {getattr(self, bound)}, got {getattr(self, name)}")

    def _inside(self, low: float, high: float, *names: str) -> None:
        for name in names:
            if not low < getattr(self, name) < high:
                raise ValueError(f"{name} must lie in ({low}, {high}), got {getattr(self, name)}")

    def _share(self, *names: str) -> None:
        for name in names:
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {getattr(self, name)}")

    def _widths(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(f"{name} must list the widths of one or more layers, got {getattr(self, name)}")


def check_types(values: Any) -> None:
    """Refuses a dataclass with a field of another type than it is annotated with.

    Raises:
      ValueError: the line says what to write.
    """
    for name, hint in _hints(type(values)).items():
        if not _fits(getattr(values, name), hint):
            raise ValueError(_misfit(name, getattr(values, name), hint))


class Documented(NamedTuple):
    """A field as readers meet it.

    Attributes:
      path: "part.field".
      default: its value in the settings that were asked.
      hint: its type.
      description: a phrase.
      unit: "" for none.
      source: origin of the default.
    """

    path: str
    default: Any
    hint: Any
    description: str
    unit: str
    source: str


def documented(settings: Any) -> list[Documented]:
    """Returns every field of settings and of their parts, in the order of their definition.

    A field without metadata has an empty description and an empty source.
    """
    found = []
    for field in dataclasses.fields(settings):
        value, hint = getattr(settings, field.name), _hints(type(settings))[field.name]
        kind = _part_kind(hint)
        if kind is not None:
            within = documented(kind() if value is None else value)
            found += [entry._replace(path=f"{field.name}.{entry.path}") for entry in within]
        else:
            texts = (field.metadata.get(name, "") for name in ("description", "unit", "source"))
            found.append(Documented(field.name, value, hint, *texts))
    return found


def paths(settings: Any) -> dict[str, Any]:
    """Returns the paths of all fields that can be set -> their annotated types.

    A part that may be None has a path of its own, of `NoneType`; setting one of its fields makes it.
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value, hint = getattr(settings, field.name), _hints(type(settings))[field.name]
        kind = _part_kind(hint)
        if kind is not None:
            if types.NoneType in typing.get_args(hint):
                found[field.name] = types.NoneType
            found |= {f"{field.name}.{name}": inner for name, inner in paths(value or kind()).items()}
        elif field.init:
            found[field.name] = hint
    return found


def get(settings: Any, path: str) -> Any:
    """Returns the value of a field by its path.

    Raises:
      AttributeError: there is none.
    """
    return operator.attrgetter(path)(settings)


def replaced(settings: SettingsT, values: Mapping[str, Any]) -> SettingsT:
    """Returns settings with values in the place of fields, all at once: `replaced(config, {"align.updates": 3})`.

    Args:
      settings: any dataclass.
      values: by path. A whole part may be replaced as well; where it is None, a path within makes it.

    Raises:
      TypeError: there is no such path, the message has the nearest ones; `values` has no paths; or `settings` are none.
      ValueError: the settings refuse a value.
    """
    if not isinstance(values, Mapping) or not all(isinstance(path, str) for path in values):
        raise TypeError(f'values by path are expected, such as {{"update.batch_size": 128}}, got {brief(repr(values))}')
    if isinstance(settings, type) or not dataclasses.is_dataclass(settings):
        raise TypeError(f"settings are expected, such as td3_bc.Config(), got {brief(repr(settings))}")
    fields = {field.name for field in dataclasses.fields(settings)}
    own = {name: value for name, value in values.items() if "." not in name}
    parts = dict.fromkeys(name.partition(".")[0] for name in values if "." in name)
    for name in own.keys() | parts.keys():
        if name not in fields:
            unknown = next(path for path in values if path.partition(".")[0] == name)
            raise TypeError(f"{class_name(type(settings))} has no setting {unknown!r}: {advice(unknown, settings)}")
    for name in parts:
        within = {path.removeprefix(f"{name}."): values[path] for path in values if path.startswith(f"{name}.")}
        kind = _part_kind(_hints(type(settings))[name])
        if kind is None:
            raise TypeError(f"{class_name(type(settings))} has no parts in {name!r}: {advice(name, settings)}")
        with _of_part(name):
            own[name] = replaced(own.get(name, getattr(settings, name)) or kind(), within)
    return dataclasses.replace(settings, **own)  # type: ignore[type-var]


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested settings, as JSON has them, by path."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": within for inner, within in flat(value).items()}
        else:
            found[name] = value
    return found


def from_dict(kind: type[SettingsT], values: Mapping[str, Any]) -> SettingsT:
    """Returns settings from what `dataclasses.asdict` and JSON made of them, their parts among them.

    Raises:
      TypeError: a field that this version doesn't know.
      ValueError: a value that it refuses.
    """
    kinds = {name: _part_kind(hint) for name, hint in _hints(kind).items()}

    def restore(name: str, value: Any) -> Any:
        within = kinds.get(name)
        if isinstance(value, Mapping) and within is not None:
            with _of_part(name):
                return from_dict(within, value)
        return tuple(value) if isinstance(value, list) else value

    return kind(**{name: restore(name, value) for name, value in values.items()})


def advice(name: str, settings: Any) -> str:
    """Returns the answer to a name that settings don't have: the nearest paths, in a phrase."""
    near = nearest(name, paths(settings))
    return f"did you mean {' or '.join(near)}?" if near else "docs/settings.md lists all of them"


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Returns the few paths that an unknown name may have meant, the likeliest first.

    Those that end in the name's own last part come before all others: a field by its bare name, by the name of its part
    and its own in one, or under a wrong part.
    """
    known, last = list(known), name.rpartition(".")[2]
    joined = name.replace(".", "_")
    exact = [path for path in known if path.replace(".", "_") == joined]
    exact = exact or [path for path in known if path.rpartition(".")[2] == last]
    if not exact and name in {path.partition(".")[0] for path in known}:  # a part itself
        exact = [path for path in known if path.startswith(f"{name}.")]
    if exact:
        return exact[:NEAREST]

    def likeness(path: str) -> float:
        field = path.rpartition(".")[2]
        similar = [difflib.SequenceMatcher(None, *pair).ratio() for pair in ((last, field), (joined, path))]
        ends, inside = joined.endswith(f"_{field}"), joined in path.replace(".", "_")
        return max(*similar, 0.9 if ends else 0.7 if inside else 0.0)

    ranked = sorted(known, key=likeness, reverse=True)
    return [path for path in ranked[:NEAREST] if likeness(path) >= NEAR_ENOUGH]


def _advice(cls: type, name: str) -> str:
    """The answer to an unknown keyword of a class: what to write."""
    try:
        default = cls()
    except (TypeError, ValueError):  # one of its fields has no default
        return "docs/settings.md lists all of them"
    near = nearest(name, paths(default))
    if not near or "." not in near[0]:
        return advice(name, default)
    outer, _, inner = near[0].partition(".")
    kind = _part_kind(_hints(cls)[outer])
    assert kind is not None
    return f"did you mean {' or '.join(near)}? Write {outer}={class_name(kind)}({inner.partition('.')[0]}=…)"


def _evaluate_hints(kind: type) -> Mapping[str, Any]:
    """Types of the fields of a dataclass, without those of its class variables."""
    hints = typing.get_type_hints(kind)
    return types.MappingProxyType({field.name: hints[field.name] for field in dataclasses.fields(kind)})


# Once a class: evaluating annotations takes longer than all checks of values.
_hints: Callable[[type], Mapping[str, Any]] = functools.cache(_evaluate_hints)


def _part_kind(hint: Any) -> type | None:
    """The class of settings that a field of this type holds, perhaps beside None; None where it holds none."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    return next((option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)), None)


def class_name(kind: type) -> str:
    """Returns the name of a class with that of its module or, where that is a `config`, its folder: "o2td3.Config"."""
    *_, folder, module = f".{kind.__module__}".split(".")
    return f"{folder if module == 'config' else module}.{kind.__qualname__}"


def _fits(value: Any, hint: Any) -> bool:
    """Returns whether a value is of an annotated type; of a `Literal` any is."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is Literal or hint is Any:
        return True
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if isinstance(value, tuple) and arguments[1:] == (Ellipsis,) else arguments
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_fits, value, kinds))
    if hint in (int, float):  # numpy's numbers too
        wanted = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, wanted) and not isinstance(value, bool)
    return isinstance(value, hint)


def _misfit(name: str, value: Any, hint: Any) -> str:
    """The line that refuses a value of another type, with what to write."""
    kind = _part_kind(hint)
    if kind is not None:
        inner = ", ".join(f"{field}=…" for field in value) if isinstance(value, Mapping) else "…"
        got = "a dict" if isinstance(value, Mapping) else repr(value)
        return f"{name} must be settings of its own, got {got}: write {name}={class_name(kind)}({inner})"
    if typing.get_origin(hint) is tuple and isinstance(value, int | list):
        return f"{name} must be a tuple, got {value}: write {tuple(value) if isinstance(value, list) else (value,)}"
    return f"{name} must be {_wanted(hint)}, got {value!r}"


def _wanted(hint: Any) -> str:
    """An annotated type in words."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_wanted(option) for option in typing.get_args(hint))
    words = {bool: "True or False", int: "a whole number", float: "a number", str: "a string", types.NoneType: "None"}
    if typing.get_origin(hint) is tuple:
        return f"a tuple of {_wanted(typing.get_args(hint)[0]).removeprefix('a ')}s"
    return words.get(hint, getattr(hint, "__name__", str(hint)))


@contextlib.contextmanager
def _of_part(name: str) -> Iterator[None]:
    """Puts the name of a part before that of the field which a message begins with."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}.{error}") from None
