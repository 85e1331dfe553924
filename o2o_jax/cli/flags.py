"""Command lines: flags that scripts share, `--set`, and errors as one line. Impure.

A script is

    def define(values: FlagValues) -> None:
        flags.define_common(values, "seeds", "out", "set")
        absl.flags.DEFINE_string("algorithm", None, "offline algorithm", flag_values=values)

    def main(args: FlagValues) -> None:
        ...

    if __name__ == "__main__":
        flags.run(main, define, __doc__)
"""

import contextlib
import dataclasses
import json
import re
import sys
import textwrap
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union

import jax
from absl import flags
from absl.flags import FlagValues
from jax.sharding import Mesh

from o2o_jax.data.dataset import Dataset
from o2o_jax.jobs.job import FAST_CLONE_UPDATES
from o2o_jax.online.common import OnlineConfig, ScheduleName
from o2o_jax.policy import CloneConfig
from o2o_jax.runtime import devices, interrupt, log
from o2o_jax.runtime.checkpoint import check_claim, has_checkpoint
from o2o_jax.runtime.output import CHECKPOINTS, Output
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.train import train
from o2o_jax.settings import advice, flat, paths, replaced

ConfigT = TypeVar("ConfigT")


def _define_tensorboard(values: FlagValues) -> None:
    """Refused on the command line where its package is missing: before a run claims its folder."""
    flags.DEFINE_bool("tensorboard", False, "write TensorBoard files beside the CSVs", flag_values=values)

    def installed(wanted: bool) -> bool:
        try:
            return not wanted or bool(log.summary_writer())
        except ValueError as error:
            raise flags.ValidationError(str(error)) from None

    flags.register_validator("tensorboard", installed, flag_values=values)


def _define_config(values: FlagValues) -> None:
    """Defines where `settings` begins, and that it may end with them."""
    flags.DEFINE_string(
        "config", None, "config.json of a run, or what --print_config printed: settings that --set starts from",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_bool(
        "print_config",
        False,
        "print the settings, as --config takes them, on stderr what they take, and end",
        flag_values=values,
    )


def _define_first_seed(values: FlagValues) -> None:
    """Defines where the numbers of `seed_list` begin."""
    flags.DEFINE_integer(
        "first_seed", 0, "number of the first seed, which the others follow; a seed draws the same numbers in any run",
        lower_bound=0, upper_bound=10**9, flag_values=values,
    )  # fmt: skip


_COMMON: dict[str, Callable[[FlagValues], Any]] = {
    "seeds": lambda values: flags.DEFINE_integer(
        "seeds", 1, "how many seeds train side by side", lower_bound=1, flag_values=values
    ),
    "first_seed": _define_first_seed,
    "out": lambda values: flags.DEFINE_string(
        "out", None, "folder for everything that the run writes; new or empty", required=True, flag_values=values
    ),
    "set": lambda values: flags.DEFINE_multi_string(
        "set",
        [],
        "field=value of the algorithm's Config, such as --set=update.discount=0.9 (docs/settings.md); may be repeated",
        flag_values=values,
    ),
    "config": _define_config,
    "devices": lambda values: flags.DEFINE_integer(
        "devices",
        None,
        "devices that share the seeds; as many as possible by default",
        lower_bound=1,
        flag_values=values,
    ),
    "envpool": lambda values: flags.DEFINE_bool(
        "envpool", False, "evaluate in envpool's environments, where it has the task's", flag_values=values
    ),
    "dry_run": lambda values: flags.DEFINE_bool(
        "dry_run",
        False,
        "check everything that can be checked without training, write nothing, and end",
        flag_values=values,
    ),
    "resume": lambda values: flags.DEFINE_bool(
        "resume", False, "continue the run in --out; if there is none, start it", flag_values=values
    ),
    "tensorboard": _define_tensorboard,
}


def define_common(values: FlagValues, *names: str) -> None:
    """Defines flags that scripts share: those named of `_COMMON`, else all."""
    for name in names or _COMMON:
        _COMMON[name](values)


def define_schedule(values: FlagValues) -> None:
    """Defines what settings of online algorithms and of cloning start from: --schedule and --clone_updates."""
    flags.DEFINE_enum(
        "schedule", "fast", typing.get_args(ScheduleName), "settings that --set starts from: the published ones "
        "(paper) or the best found that need at most a tenth of their updates (fast)", flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "clone_updates", None, f"updates of cloning, where it is needed; {FAST_CLONE_UPDATES:,} under fast, else "
        f"{CloneConfig().updates:,}", lower_bound=1, flag_values=values,
    )  # fmt: skip


def run(
    main: Callable[[FlagValues], None],
    define: Callable[[FlagValues], None],
    description: str | None = None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Parses the command line, runs a script and exits.

    Errors that a user can mend, which are ValueError, OSError (with FileNotFoundError and FileExistsError) and a flag
    that does not parse, end as one line `error: …` on stderr; `--debug` shows where they came from.

    Args:
      main: the script; gets the parsed flags as attributes.
      define: defines the script's flags on the values that it is given.
      description: what `--help` prints first, such as `__doc__`.
      argv: the command line without the program's name; None takes that of the process.

    Raises:
      SystemExit: always. Status 0, 1 for an error of `main`, 2 for the command line, 130 for SIGINT
        and for a second signal, 143 for SIGTERM.
    """
    values = FlagValues()
    flags.DEFINE_bool("help", False, "show this help", short_name="h", flag_values=values)
    flags.DEFINE_bool("debug", False, "show the whole traceback of an error", flag_values=values)
    define(values)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"--help", "-h", "-help"} & set(arguments):
        print((description or "").strip(), _help(values), sep="\n\n")
        sys.exit(0)
    try:
        _, *rest = values(["", *arguments])
        if rest:
            raise flags.Error(f"unexpected argument {rest[0]!r}: flags are written --name=value")
    except flags.Error as error:
        _fail(f"{_one_line(error)} (--help lists the flags)", 2)
    try:
        with contextlib.redirect_stdout(sys.stderr if _prints(values) else sys.stdout):
            main(values)
    except _Printed as settings_text:
        print(settings_text)
    except (ValueError, OSError) as error:
        if values.debug:
            traceback.print_exc()
        _fail(_one_line(error), 1)
    except interrupt.Interrupted as stopped:
        with contextlib.suppress(BrokenPipeError):
            print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signum)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    sys.exit(0)


def _prints(values: FlagValues) -> bool:
    """Returns whether --print_config is on: stdout then is for the settings alone."""
    return "print_config" in values and values.print_config


def seed_list(args: FlagValues) -> range:
    """Returns the numbers of a run's seeds, by the flags "seeds" and "first_seed" of `define_common`."""
    return range(args.first_seed, args.first_seed + args.seeds)


def setup_devices(num_seeds: int, num_devices: int | None = None) -> Mesh:
    """Chooses devices for the seeds and keeps compiled programs across processes. Call it before any JAX operation.

    Raises:
      ValueError: see `devices.seed_mesh`.
    """
    devices.enable_compilation_cache()
    return devices.seed_mesh(num_seeds, num_devices)


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
        raise _Printed(json.dumps(content, indent=2))
    return config


class _Printed(Exception):
    """Settings as --print_config asks for them, which end the script."""


def _of_file(path: Path, algorithm: str, schedule: str | None, default: ConfigT) -> ConfigT:
    """Settings from a run's config.json; fields that it lacks keep their defaults, which a note says."""
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"--config={path} is not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise ValueError(f"--config={path} holds no settings: pass a run's config.json")
    if content.get("algorithm") != algorithm:
        raise ValueError(f"--config={path} has settings of {content.get('algorithm')}, not of {algorithm}")
    script = "finetune" if isinstance(default, OnlineConfig) else "offline"  # whose methods may share a name
    if content.get("script", script) != script:
        raise ValueError(
            f"--config={path} is of experiments.{content['script']}, whose {algorithm} has other settings: leave it "
            f"out, or pass the config.json of a run of experiments.{script}"
        )
    if schedule is not None and schedule != content.get("schedule", schedule):
        theirs = content["schedule"]
        raise ValueError(
            f"--config={path} is of the schedule {theirs}: pass --schedule={theirs}, which cloning follows"
        )
    found = flat(content["config"])
    left_out = {name for name, value in found.items() if value is None}  # parts, of whose fields a file says nothing
    missing = {name for name in paths(default).keys() - found.keys() if name.partition(".")[0] not in left_out}
    missing -= {name.partition(".")[0] for name in found}  # parts that it has
    if missing:
        print(f"note: {path} doesn't say {', '.join(sorted(missing))}: as by default")
    try:
        return parse_overrides(default, [f"{name}={_as_text(value)}" for name, value in found.items()])
    except ValueError as error:
        raise ValueError(f"{path} was written by another version, or by hand: {error}") from None


def _as_text(value: Any) -> str:
    """A JSON value as the command line takes it."""
    if isinstance(value, list):
        return ",".join(map(_as_text, value))
    return json.dumps(value).strip('"').replace("null", "none")


def execute(args: FlagValues, plan: Plan) -> None:
    """Runs a plan in the folder --out, or under --dry_run says what it would do. Impure.

    Args:
      args: with the flags of `define_common`.
      plan: whose evaluator is closed at the end.
    """
    for warning in plan.warnings:
        print(f"note: {warning}")
    try:
        if plan.reconstruction is not None and not has_checkpoint(Path(args.out) / CHECKPOINTS):
            plan.reconstruction()  # what doesn't fit is said before a folder is claimed
        if args.dry_run:
            check_claim(args.out, plan.settings, args.resume)
            assert plan.dataset is not None
            print(preview(plan.work, plan.dataset, plan.shapes(), args.seeds, plan.setup.mesh))
        else:
            with Output(args.out, plan, args.resume, args.tensorboard) as output:
                for event in train(plan, output.restore):
                    output.take(event)
    finally:
        if plan.evaluator is not None:
            plan.evaluator.close()


def preview(work: Mapping[str, int], dataset: Dataset, state: Any, num_seeds: int, mesh: Mesh) -> str:
    """Returns what a run would do, for --dry_run: its phases, its data, and the memory that both take.

    Args:
      work: what is counted -> how many.
      dataset: what it trains on.
      state: of one seed, shapes or arrays.
      num_seeds: S.
      mesh: devices that share the seeds.

    Raises:
      ValueError: states, replay and data alone take more memory than there is.
    """
    states = num_seeds * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    rows = sum(column.nbytes for column in vars(dataset.transitions).values())
    on_device = rows + states / mesh.size
    device = mesh.devices.flat[0]
    where = "this machine" if device.platform == "cpu" else f"each {device.device_kind}"
    # the processor's devices have copies of their own, but the machine's memory
    needed = rows + mesh.size * on_device if device.platform == "cpu" else on_device
    limit = devices.memory_limit(device)
    if limit is not None and needed > limit:
        raise ValueError(
            f"states, replay and data of this run take {needed / 1e6:,.0f} MB, but {where} has {limit / 1e6:,.0f}: "
            "lower --seeds or replay.buffer_size, or take less data"
        )
    copies = f"{mesh.size + 1} copies of {rows / 1e6:,.0f} MB of data"  # one here and one on each device
    lines = [
        "all checks passed",
        f"{num_seeds} seeds: " + ", ".join(f"{count:,} {name}" for name, count in work.items() if count),
        f"{dataset.name}: {dataset.size:,} transitions, {len(dataset.episode_ends):,} episodes",
        f"memory beside programs, batches and simulators: {states / 1e6:,.0f} MB of states and replay, {copies}"
        + (f"; {needed / 1e6:,.0f} of the {limit / 1e6:,.0f} MB that {where} has" if limit else ""),
    ]
    return "\n".join(lines)


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


def _help(values: FlagValues) -> str:
    """A paragraph per flag, without those that absl adds to every program."""
    paragraphs = []
    for name in sorted(set(values) - {"flagfile", "undefok", "h"}):
        flag = values[name]
        default = "" if flag.default in (None, []) else f" (default: {flag.default})"
        text = " ".join(flag.help.split()) + default
        paragraphs.append(f"  --{name}\n{textwrap.fill(text, 100, initial_indent=' ' * 6, subsequent_indent=' ' * 6)}")
    return "\n".join(paragraphs)


def _one_line(error: Exception) -> str:
    text = " ".join((str(error) or type(error).__name__).split())
    return re.sub(r"^flag --(\w+)=None: .*", r"--\1=… is missing", text)  # absl's words for a required flag


def _fail(message: str, status: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
