"""Settings of a command line: those of a schedule or of --config, with --set's fields replaced."""

import contextlib
import dataclasses
import json
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from absl.flags import FlagValues

from o2o_jax.online.common import OnlineConfig
from o2o_jax.reading import brief, read_json
from o2o_jax.registry import listed
from o2o_jax.settings import advice, flat, paths, replaced

ConfigT = TypeVar("ConfigT")


def settings(
    args: FlagValues,
    algorithm: str,
    default: ConfigT,
    estimate: Callable[[ConfigT], Sequence[str]] = lambda config: [],
) -> ConfigT:
    """Returns the settings that a command runs with: `default` or those of --config, with --set's fields replaced.

    Under --print_config they are printed, with what the run would take on stderr, and the process ends with status 0.

    Args:
      args: with the flags "config" and "set" of `define_common`.
      algorithm: whose settings they are.
      default: of its own for the task.
      estimate: of settings, what a run with them would take, a line each.

    Raises:
      ValueError: the file is of another algorithm, has fields that this one lacks, or something in either doesn't fit.
      FileNotFoundError: there is no such file.
    """
    if args.config:
        schedule = args.schedule if "schedule" in args else None
        default = _of_file(Path(args.config), algorithm, schedule, default)
    config = parse_overrides(default, args.set)
    if args.print_config:
        for line in estimate(config):
            print(line)
        schedule = {"schedule": args.schedule} if "schedule" in args else {}
        content = {"algorithm": algorithm, **schedule, "config": dataclasses.asdict(config)}  # type: ignore[call-overload]
        raise Printed(json.dumps(content, indent=2))
    return config


class Printed(Exception):
    """Settings as --print_config asks for them, which end the script."""


def _of_file(path: Path, algorithm: str, schedule: str | None, default: ConfigT) -> ConfigT:
    """Settings from a run's config.json; fields that it lacks keep their defaults, which a note says."""
    path = path / "config.json" if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"--config={path} does not exist: pass a run's folder or its config.json")
    content = read_json(path, "pass a run's config.json as --config")
    if not isinstance(content.get("config"), dict):
        raise ValueError(f"--config={path} holds no settings: pass a run's config.json")
    if content.get("algorithm") != algorithm:
        raise ValueError(f"--config={path} has settings of {brief(content.get('algorithm'))}, not of {algorithm}")
    script = "finetune" if isinstance(default, OnlineConfig) else "offline"  # whose methods may share a name
    if content.get("script", script) != script:
        raise ValueError(
            f"--config={path} is of experiments.{brief(content['script'])}, whose {algorithm} has other settings: "
            f"leave it out, or pass the config.json of a run of experiments.{script}"
        )
    if schedule is not None and schedule != content.get("schedule", schedule):
        theirs = brief(content["schedule"])
        raise ValueError(
            f"--config={path} is of the schedule {theirs}: pass --schedule={theirs}, which cloning follows"
        )
    found = flat(content["config"])
    left_out = {name for name, value in found.items() if value is None}  # parts, of whose fields a file says nothing
    missing = {name for name in paths(default).keys() - found.keys() if name.partition(".")[0] not in left_out}
    missing -= {name.partition(".")[0] for name in found}  # parts that it has
    if missing:
        print(f"note: {path} doesn't say {listed(sorted(missing))}: as by default")
    try:
        return parse_overrides(default, [f"{name}={_as_text(value)}" for name, value in found.items()])
    except ValueError as error:
        raise ValueError(f"{path} was written by another version, or by hand: {brief(error)}") from None


def _as_text(value: Any) -> str:
    """A JSON value as the command line takes it."""
    if isinstance(value, list):
        return ",".join(map(_as_text, value))
    return json.dumps(value).strip('"').replace("null", "none")


def parse_overrides(config: ConfigT, overrides: Sequence[str]) -> ConfigT:
    """Replaces fields of a dataclass by text such as "alpha=0.5"; the last of a repeated field counts.

    Types come from the annotations: bool (true, false), int (1000, 1_000, 1e3), float, str, Literal, tuples of these
    ("256,256"), and `X | None` ("none"). A field of a part is "update.alpha"; "constraint=none" leaves a part out.

    Args:
      config: an instance of a dataclass.
      overrides: "field=value" each.

    Raises:
      ValueError: no such field, a value of another type, or what the dataclass's own checks refuse.
    """
    hints = paths(config)
    values: dict[str, Any] = {}
    for override in overrides:
        name, separator, text = (part.strip() for part in override.partition("="))
        if not separator:
            raise ValueError(f"--set={override} must read --set=field=value")
        if name not in hints:
            raise ValueError(f"unknown field {name!r} in --set={override}: {advice(name, config)}")
        try:
            values[name] = _parse(text, hints[name])
        except ValueError:
            raise ValueError(f"--set={override}: {name} takes {_type_name(hints[name])}, not {text!r}") from None
    return replaced(config, values)


def _parse(text: str, hint: Any) -> Any:
    """Text to a value of an annotated type; ValueError where it is none."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        for option in arguments:
            with contextlib.suppress(ValueError):
                return _parse(text, option)
    elif origin is Literal:
        for choice in arguments:
            if text == str(choice):
                return choice
    elif origin is tuple:
        parts = [part.strip() for part in text.strip("()").split(",") if part.strip()]
        kinds = [arguments[0]] * len(parts) if arguments[1:] == (Ellipsis,) else arguments
        return tuple(_parse(part, kind) for part, kind in zip(parts, kinds, strict=True))
    elif hint in _PARSERS:
        return _PARSERS[hint](text)
    raise ValueError(text)


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = float(text)  # 1e5
        if not number.is_integer():
            raise
        return int(number)


def _parse_none(text: str) -> None:
    if text.lower() != "none":
        raise ValueError(text)


_PARSERS: dict[type, Callable[[str], Any]] = {
    bool: _parse_bool,
    int: _parse_int,
    float: float,
    str: str,
    types.NoneType: _parse_none,
}


def _type_name(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(option) for option in arguments)
    if origin is Literal:
        return " or ".join(str(choice) for choice in arguments)
    if origin is tuple:
        if arguments[1:] == (Ellipsis,):
            return f"a comma-separated list of {_type_name(arguments[0])}"
        return ",".join(_type_name(argument) for argument in arguments)
    return {bool: "true or false", int: "int", float: "float", str: "str", types.NoneType: "none"}.get(hint, str(hint))
