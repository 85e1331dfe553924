"""Flags that commands share. Impure: defines them."""

import glob
import math
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from absl.flags import FlagValues
from jax.sharding import Mesh

from o2o_jax import reading
from o2o_jax.jobs.job import FAST_CLONE_UPDATES
from o2o_jax.online.common import ScheduleName
from o2o_jax.policy import CloneConfig
from o2o_jax.runtime import devices, sinks


class _PathParser(flags.ArgumentParser):
    """Parser of paths: `~` is the home folder, and one path has one text, with or without `./` and a last `/`."""

    syntactic_help = "a path"

    def parse(self, argument: str) -> str:
        try:
            return str(Path(reading.local(argument)).expanduser()) if argument else argument
        except RuntimeError:
            raise ValueError("there is no such user, whose home folder ~ could be: write the whole path") from None


def define_path(values: FlagValues, name: str, default: str | None, text: str, required: bool = False) -> None:
    """Defines a flag that is a path, or what else names data; an id stays as it is.

    Args:
      values: to define it on.
      name: of the flag.
      default: None for none.
      text: its help.
      required: whether it must be passed.
    """
    flags.DEFINE(_PathParser(), name, default, text, flag_values=values, required=required)


class _PathsParser(flags.ListParser):
    """Parser of paths with commas between, or of patterns for them, such as `runs/*`, where no shell has read them.

    A path that is there may have a comma itself, or a star, and others in quotes.
    """

    syntactic_help = "paths with commas between"

    def parse(self, argument: str | list[str]) -> list[str]:
        if isinstance(argument, list):
            return super().parse(argument)
        return [path for part in self._split(argument) for path in _matching(reading.local(part))]

    def _split(self, argument: str) -> list[str]:
        if '"' in argument:
            return super().parse(argument)
        rest, found = argument.split(",") if argument else [], []
        while rest:
            whole = [count for count in range(len(rest), 1, -1) if _is_there(",".join(rest[:count]))]
            count = max(whole, default=1)
            parts = ",".join(rest[:count]).strip().split("+")
            found.append("+".join(str(Path(reading.local(part))) for part in parts if part))
            rest = rest[count:]
        return found


def _matching(text: str) -> list[str]:
    """Returns the paths that match a pattern, in their order; a text that is none, or is there, as it is."""
    if not glob.has_magic(text) or _is_there(text):
        return [text]
    found = sorted(glob.glob(str(Path(text).expanduser())))
    if not found:
        raise ValueError(f"no path matches {text}")
    return found


def _is_there(text: str) -> bool:
    """Returns whether a text names what is on the disk: a path, several joined by a plus, or `<path>:<policy>`."""
    folder, _, policy = text.strip().rpartition(":")
    options = (text.strip(), "" if "," in policy else folder)
    return any(all(part and Path(part).expanduser().exists() for part in text.split("+")) for text in options)


def define_paths(values: FlagValues, name: str, default: list[str] | None, text: str, required: bool = False) -> None:
    """Defines a flag that is several paths, or what else names runs, with commas between.

    The arguments are those of `define_path`.
    """
    flags.DEFINE(
        _PathsParser(), name, default, text, flag_values=values, serializer=flags.CsvListSerializer(","),
        required=required,
    )  # fmt: skip


def define_number(values: FlagValues, name: str, default: float, text: str, lower_bound: float | None = None) -> None:
    """Defines a flag that is a finite number.

    Args:
      values: to define it on.
      name: of the flag.
      default: of it.
      text: its help.
      lower_bound: the least that it may be; None for none.
    """
    flags.DEFINE_float(name, default, text, lower_bound=lower_bound, flag_values=values)
    flags.register_validator(name, math.isfinite, f"--{name} must be a finite number", flag_values=values)


def _define_log_to(values: FlagValues) -> None:
    """Refused on the command line where a package is missing: before a run claims its folder."""
    names = ",".join(sinks.names())
    flags.DEFINE_list(
        "log_to", [], f"where metrics go beside the CSV files, of {names}; several with commas between",
        flag_values=values,
    )  # fmt: skip

    def installed(wanted: Sequence[str]) -> bool:
        try:
            return all(sinks.load(name) for name in wanted)
        except ValueError as error:
            raise flags.ValidationError(str(error)) from None

    flags.register_validator("log_to", installed, flag_values=values)


def _define_config(values: FlagValues) -> None:
    """Defines where `settings` begins, and that it may end with them."""
    define_path(
        values, "config", None, "config.json of a run, or what --print_config printed: settings that --set starts from"
    )
    flags.DEFINE_bool(
        "print_config",
        False,
        "print the settings, as --config takes them, on stderr what they take, and end",
        flag_values=values,
    )


def _define_out(values: FlagValues) -> None:
    """Defines where a run goes, which must be passed unless nothing but its settings is asked for."""
    define_path(values, "out", None, "folder for everything that the run writes; new or empty")

    def is_there(out: str | None) -> bool:
        return out is not None or ("print_config" in values and bool(values["print_config"].value))

    flags.register_validator("out", is_there, "must be passed", flag_values=values)


def _define_first_seed(values: FlagValues) -> None:
    """Defines where the numbers of `seed_list` begin."""
    flags.DEFINE_integer(
        "first_seed", 0, "number of the first seed, which the others follow; a seed draws the same numbers in any run",
        lower_bound=0, upper_bound=10**9, flag_values=values,
    )  # fmt: skip


_COMMON: dict[str, Callable[[FlagValues], Any]] = {
    "seeds": lambda values: flags.DEFINE_integer(
        "seeds",
        1,
        "how many seeds train side by side, from --first_seed on",
        lower_bound=1,
        upper_bound=10**9,
        flag_values=values,
    ),
    "first_seed": _define_first_seed,
    "out": _define_out,
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
    "clip_actions": lambda values: flags.DEFINE_bool(
        "clip_actions", False, "clip the data's actions to their bounds, where they go beyond", flag_values=values
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
    "log_to": _define_log_to,
}


def define_common(values: FlagValues, *names: str) -> None:
    """Defines flags that scripts share: those named of `_COMMON`, else all."""
    for name in names or _COMMON:
        _COMMON[name](values)


def define_schedule(values: FlagValues) -> None:
    """Defines what settings of online algorithms and of cloning start from."""
    flags.DEFINE_enum(
        "schedule", "fast", typing.get_args(ScheduleName), "settings that --set starts from: the published ones "
        "(paper) or the best found that need at most a tenth of their updates (fast)", flag_values=values,
    )  # fmt: skip


def define_clone_updates(values: FlagValues) -> None:
    """Defines how long policies are cloned, by the schedule where it isn't said."""
    flags.DEFINE_integer(
        "clone_updates", None, f"updates of cloning, where it is needed; {FAST_CLONE_UPDATES:,} under fast, else "
        f"{CloneConfig().updates:,}", lower_bound=1, flag_values=values,
    )  # fmt: skip


def define_phase_evaluation(values: FlagValues, default: int, without: str) -> None:
    """Defines how policies are evaluated while phases run; `without` says what 0 means."""
    flags.DEFINE_integer(
        "eval_every", default, f"updates between evaluations before the first environment step; {without}",
        lower_bound=0, flag_values=values,
    )  # fmt: skip
    flags.DEFINE_bool(
        "eval_sampled", False, "evaluate samples of the policy too in those evaluations, beside its modes",
        flag_values=values,
    )  # fmt: skip


def seed_list(args: FlagValues) -> range:
    """Returns the numbers of a run's seeds, by the flags "seeds" and "first_seed" of `define_common`."""
    return range(args.first_seed, args.first_seed + args.seeds)


def setup_devices(num_seeds: int, num_devices: int | None = None) -> Mesh:
    """Chooses devices for the seeds and keeps compiled programs across processes. Call it before any JAX operation.

    Raises:
      ValueError: see `devices.seed_mesh` and `devices.check_options`.
    """
    devices.check_options()
    devices.enable_compilation_cache()
    return devices.seed_mesh(num_seeds, num_devices)
