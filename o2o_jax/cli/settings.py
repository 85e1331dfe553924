"""Explains every setting of every algorithm: default, unit, where the default comes from.

python -m experiments.settings --algorithm=o2td3
"""

import types
import typing
from collections.abc import Iterable
from typing import Any

import absl.flags
from absl.flags import FlagValues

from o2o_jax import offline, online, registry
from o2o_jax.diagnosis import DiagnosisConfig
from o2o_jax.online.common import OnlineConfig
from o2o_jax.policy import CloneConfig
from o2o_jax.settings import Documented, documented, get

HEAD = """# Settings

Every field of every algorithm's `Config`, as `--set=` takes it, with the default of the schedule `paper` on MuJoCo's
medium data. Other tasks change some of them (`Config.published`), and the schedule `fast` those that a section names.
`--print_config` prints what a command would run with. Sources: sections, tables and equations are those of
arXiv:2412.18855, "authors' code" is github.com/QinwenLuo/OCR-CFT, D-numbers are lines of
[`departures.md`](departures.md), and "this package" means that nobody else has the setting or publishes its value.

*Printed by `python -m experiments.settings` from the definitions; a test says when it is not current.*
"""
TABLE = "| setting | default | unit | | source |\n|---|---|---|---|---|\n"


def define(values: FlagValues) -> None:
    """Flags of this script."""
    absl.flags.DEFINE_string("algorithm", None, "offline or online algorithm; all by default", flag_values=values)


def main(args: FlagValues) -> None:
    """Prints the settings.

    Raises:
      ValueError: no such algorithm.
    """
    print(page(args.algorithm), end="")


def page(algorithm: str | None = None) -> str:
    """Returns the page, or the part of it on the methods of a name.

    Raises:
      ValueError: no such algorithm.
    """
    kinds = {
        title: {name: package.load(name).Config for name in package.names()}
        for title, package in (("Online", online), ("Offline", offline))
    }
    known = sorted({name for of_kind in kinds.values() for name in of_kind})
    if algorithm is not None and algorithm not in known:
        raise ValueError(registry.unknown("algorithm", algorithm, known))
    kinds["Around them"] = {"cloning": CloneConfig, "diagnosis": DiagnosisConfig}
    sections = [HEAD]
    for title, of_kind in kinds.items():
        of_name = {name: kind for name, kind in of_kind.items() if algorithm in (None, name)}
        if of_name:
            sections += [f"## {title}\n", *(_section(name, kind) for name, kind in of_name.items())]
    return "\n".join(sections)


def _section(name: str, kind: type) -> str:
    """A heading, and a table for the fields at the top and for each part."""
    config = kind()
    tables: dict[str, list[Documented]] = {}
    for entry in documented(config):
        tables.setdefault(entry.path.rpartition(".")[0], []).append(entry)
    lines = [f"### {name}\n", f"{_first_line(config)}\n"]
    if issubclass(kind, OnlineConfig):
        lines.append(_schedule(config))
    for part, entries in tables.items():
        if part:
            value = get(config, part)
            lines.append(f"`{part}`: {_first_line(value)}\n" if value is not None else f"`{part}`\n")
        lines.append(TABLE + "".join(map(_row, entries)))
    return "\n".join(lines)


def _schedule(config: OnlineConfig) -> str:
    """A line on what `fast` changes."""
    changed = ", ".join(f"`{path}={_text(value)}`" for path, value in config.fast.items())
    return f"The schedule `fast` sets {changed}.\n"


def _first_line(config: Any) -> str:
    text = (config.__doc__ or "").split("\n\n")[0]
    return " ".join(text.split())


def _row(entry: Documented) -> str:
    choices = " or ".join(f"`{choice}`" for choice in _choices(entry.hint))
    description = entry.description + (f" ({choices})" if choices else "")
    cells = (f"`{entry.path}`", f"`{_text(entry.default)}`", entry.unit, description, entry.source)
    return "".join(f"| {cell.replace('|', '∣')} " for cell in cells) + "|\n"


def _choices(hint: Any) -> Iterable[Any]:
    """The values that a `Literal` type lists."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [choice for option in typing.get_args(hint) for choice in _choices(option)]
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


def _text(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:_}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
