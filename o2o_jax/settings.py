"""Settings that check themselves."""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

SettingsT = TypeVar("SettingsT", bound="Settings")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that refuse, when they are made, what could only fail or mislead later.

    Raises:
      ValueError: a field is NaN or infinite, or holds none of the choices that its `Literal` type lists. Subclasses add
        what else they refuse, in `__post_init__`, by the checks below: every message names the field, what it must be,
        and what it got.
    """

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
            value = getattr(self, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value}")
            if choices and getattr(self, name) not in choices:
                raise ValueError(f"{name} must be {' or '.join(map(str, choices))}, got {getattr(self, name)!r}")

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

    def _inside(self, low: float, high: float, *names: str) -> None:
        for name in names:
            if not low < getattr(self, name) < high:
                raise ValueError(f"{name} must lie in ({low}, {high}), got {getattr(self, name)}")

    def _widths(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(f"{name} must list the widths of one or more layers, got {getattr(self, name)}")


def from_dict(kind: type[SettingsT], values: Mapping[str, Any]) -> SettingsT:
    """Returns settings from what `dataclasses.asdict` and JSON made of them, parts that are settings too among them.

    Raises:
      TypeError: a field that this version doesn't know.
      ValueError: a value that it refuses.
    """
    hints = typing.get_type_hints(kind)

    def restore(name: str, value: Any) -> Any:
        if isinstance(value, Mapping) and name in hints:
            return from_dict(hints[name], value)
        return tuple(value) if isinstance(value, list) else value

    return kind(**{name: restore(name, value) for name, value in values.items()})
