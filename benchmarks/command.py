"""Flags that benchmarks share."""

from collections.abc import Callable
from typing import Any

from absl import flags
from absl.flags import FlagValues

from benchmarks import workloads
from o2o_jax.cli.flags import define_common

OUT = "runs/benchmarks"

_COMMON: dict[str, Callable[[FlagValues], Any]] = {
    "shape": lambda values: flags.DEFINE_enum(
        "shape",
        "hopper",
        list(workloads.SHAPES),
        "whose sizes of observations and actions the data has",
        flag_values=values,
    ),
    "rows": lambda values: flags.DEFINE_integer(
        "rows", workloads.ROWS, "transitions of the synthetic dataset", lower_bound=1, flag_values=values
    ),
    "chunk": lambda values: flags.DEFINE_integer(
        "chunk",
        20,
        "updates per compiled call; of O2PPO's fine-tuning always one rollout",
        lower_bound=1,
        flag_values=values,
    ),
    "seconds": lambda values: flags.DEFINE_float(
        "seconds", 2.0, "how long each item is measured in a round", lower_bound=0.0, flag_values=values
    ),
    "repeats": lambda values: flags.DEFINE_integer(
        "repeats", 7, "rounds, in each of which every item has its turn", lower_bound=1, flag_values=values
    ),
    "gemm_size": lambda values: flags.DEFINE_integer(
        "gemm_size",
        2_048,
        "rows and columns of the product that shows what the machine can do",
        lower_bound=1,
        flag_values=values,
    ),
}


def define(values: FlagValues, *names: str) -> None:
    """Defines --out, and of shape, rows, chunk, seconds, repeats and gemm_size those named."""
    flags.DEFINE_string("out", OUT, "folder for the JSON file", flag_values=values)
    for name in names:
        _COMMON[name](values)


def define_workloads(values: FlagValues, default: str) -> None:
    """Defines --algorithms, a list of workloads, and --set."""
    flags.DEFINE_list(
        "algorithms",
        default,
        f"which updates, all of an algorithm by its name alone: {', '.join(workloads.NAMES)}",
        flag_values=values,
    )
    define_common(values, "set")


def chosen(args: FlagValues) -> list[workloads.Workload]:
    """The workloads that --algorithms, --set, --shape and --rows ask for.

    Raises:
      ValueError: no such workload or setting.
    """
    names = workloads.matching(args.algorithms)
    configs = workloads.all_settings([name.partition("/")[0] for name in names], args.set)
    spec = workloads.SHAPES[args.shape]
    return [workloads.make(name, configs[name.partition("/")[0]], spec, args.rows) for name in names]


def settings(args: FlagValues, *names: str) -> dict[str, Any]:
    """The named flags, for the record."""
    return {name: getattr(args, name) for name in names}


def integers(texts: list[str], flag: str) -> list[int]:
    """The numbers of a list flag, each at least 1.

    Raises:
      ValueError: something else.
    """
    try:
        numbers = [int(text) for text in texts]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ValueError(f"--{flag} takes a list of positive integers, such as 1,2,4, not {','.join(texts)!r}")
    return numbers
