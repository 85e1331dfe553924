"""Updates on an accelerator over seeds: rate, memory, compile time; by precision of products and form of layers.

    python -m benchmarks.gpu --out=benchmarks/results/gpu

One command of less than ten minutes, on one device: what isn't measured after --budget seconds is left out, and said.
All phases are measured with JAX's own precision first; then, of --varied with --varied_seeds, products in float32,
TF32 and bfloat16, and `ops/layers.py` against the same layers as JAX differentiates them, in rounds.

Where JAX finds no accelerator it says so, and measures the processor in a shortened form, which shows that the command
works and nothing else.
"""

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import absl.flags
import jax
import jax.numpy as jnp
import numpy as np
from absl.flags import FlagValues

from benchmarks import command, measuring, reports
from benchmarks.workloads import Workload
from o2o_jax.cli import program
from o2o_jax.networks import mlp
from o2o_jax.runtime import devices
from o2o_jax.types import Array

SEEDS, FEW_SEEDS = "1,4,16,64,256", "1,2"  # on an accelerator and without one
ALGORITHMS = "o2sac,o2td3,o2ppo,td3_bc,iql,cql"
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")  # of factors; products are summed in float32
Forms = Mapping[str, Callable[[], contextlib.AbstractContextManager]]
PLAIN, DEFAULT = "plain layers", "default"
COLUMNS = {
    "update": ("name", ""),
    "seeds": ("seeds", "d"),
    "form": ("form", ""),
    "updates/s": ("updates_per_second", ",.1f"),
    "seeds · updates/s": ("seed_updates_per_second", ",.1f"),
    "spread %": ("spread_percent", ".1f"),
    "GFLOP/s": ("gflop_per_second", ",.1f"),
    "MB": ("program_megabytes", ",.0f"),
    "compile cold s": ("compile_cold_seconds", ".2f"),
    "cached s": ("compile_cached_seconds", ".2f"),
    "failed": ("failure", ""),
}


def define(values: FlagValues) -> None:
    """Flags of this script."""
    command.define(values, "shape", "rows", "chunk", "seconds", "repeats")
    for name, default in (("out", f"{command.OUT}/gpu"), ("seconds", 0.2), ("repeats", 5)):
        values.set_default(name, default)
    command.define_workloads(values, ALGORITHMS)
    absl.flags.DEFINE_list(
        "seeds", None, f"numbers of seeds; by default {SEEDS}, without an accelerator {FEW_SEEDS}", flag_values=values
    )
    absl.flags.DEFINE_list(
        "varied", "o2sac/finetune,o2td3/finetune", "updates whose precision and layers are varied", flag_values=values
    )
    absl.flags.DEFINE_integer(
        "varied_seeds", None, "seeds of these; by default the most but one", lower_bound=1, flag_values=values
    )
    absl.flags.DEFINE_float(
        "budget", 480.0, "seconds after which nothing more is begun", lower_bound=0.0, flag_values=values
    )
    absl.flags.DEFINE_bool("plot", True, "draw a figure beside the JSON file, with matplotlib", flag_values=values)


def main(args: FlagValues) -> None:
    """Measures, prints, writes, draws. Impure."""
    deadline = time.monotonic() + args.budget
    report = reports.Report("gpu", command.settings(args, "shape", "rows", "chunk", "seconds", "repeats", "set"))
    device = jax.devices()[0]
    if device.platform == "cpu":
        print("note: JAX finds no accelerator: these are numbers of the processor, in a shortened form",
              file=sys.stderr)  # fmt: skip
    counts = command.integers(args.seeds or (FEW_SEEDS if device.platform == "cpu" else SEEDS).split(","), "seeds")
    chosen = {workload.name: workload for workload in command.chosen(args)}
    varied = [chosen[name] for name in args.varied if name in chosen]
    many = args.varied_seeds or sorted(counts)[max(0, len(counts) - 2)]
    # the fewest and the most seeds first: where time runs out, what lies between them is missing
    order = sorted(counts, key=lambda count: (count not in (min(counts), max(counts)), count))
    tasks: list[tuple[Forms, Workload, int]] = [
        ({DEFAULT: contextlib.nullcontext}, workload, count) for count in order for workload in chosen.values()
    ]
    place = 2 * len(chosen)
    tasks[place:place] = [(forms(), workload, many) for workload in varied]
    rows, left_out = [], []
    for kinds, workload, count in tasks:
        if time.monotonic() > deadline:
            left_out.append(f"{workload.name} × {count}{', varied' if len(kinds) > 1 else ''}")
            continue
        rows += measured(kinds, workload, count, args)
    print(reports.table(rows, COLUMNS))
    if left_out:
        print(f"not measured within --budget={args.budget:g} seconds: {'; '.join(left_out)}")
    report.write(args.out, rows=rows, left_out=left_out, accelerator=device.platform != "cpu",
                 device_bytes=devices.memory_available(device))  # fmt: skip
    if args.plot:
        draw(rows, Path(args.out) / "gpu.png")


def forms() -> Forms:
    """Ways to compute the same updates, each a context in which programs are made."""
    precisions = {name: functools.partial(jax.default_matmul_precision, name) for name in PRECISIONS}
    return {DEFAULT: contextlib.nullcontext, **precisions, PLAIN: plain_layers}


@contextlib.contextmanager
def plain_layers() -> Iterator[None]:
    """Within it, networks are made of layers that JAX differentiates itself, in place of those of `ops/layers.py`."""
    plain: dict[str, Any] = {"product": jnp.matmul, "add_bias": _add_bias, "layer_norm": _layer_norm}
    with mock.patch.multiple(mlp, **plain):
        yield


def _add_bias(x: Array, bias: Array) -> Array:
    return x + jnp.broadcast_to(bias, x.shape)


def _layer_norm(x: Array, offset: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    """`layers.layer_norm` as flax writes it."""
    y = _add_bias(x, offset)
    normal = (y - y.mean(axis=-1, keepdims=True)) * jax.lax.rsqrt(y.var(axis=-1, keepdims=True) + epsilon)
    return _add_bias(normal * jnp.broadcast_to(scale, x.shape), bias)


def measured(kinds: Forms, workload: Workload, num_seeds: int, args: FlagValues) -> list[dict[str, Any]]:
    """Returns a row per form; of one that doesn't fit into memory, that it doesn't. Impure."""
    mesh, running, rows = devices.seed_mesh(num_seeds, 1), {}, []
    try:
        for form, context in kinds.items():
            with context():
                running[form] = measuring.Running(workload, num_seeds, mesh, args.chunk, time_compilation=True)
        samples = measuring.interleave(running, args.seconds, args.repeats)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return [{"name": workload.name, "seeds": num_seeds, "form": form, "failure": "out of memory"}]
    for form, call in running.items():
        per_second, spread = measuring.median_and_spread(call.updates / samples[form])
        rows.append({
            "name": workload.name,
            "seeds": num_seeds,
            "form": form,
            "updates_per_second": per_second,
            "seed_updates_per_second": num_seeds * per_second,
            "spread_percent": spread,
            "gflop_per_second": 1e-9 * workload.count.needed * num_seeds * per_second,
            "program_megabytes": 1e-6 * call.program_bytes,
            "compile_cold_seconds": call.cold,
            "compile_cached_seconds": call.cached,
            "updates_per_second_samples": (call.updates / samples[form]).tolist(),
            "failure": None,
        })  # fmt: skip
    return rows


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes a figure: throughput over seeds, and of each varied update its forms against the default; impure.

    Args:
      rows: of `measured`.
      path: of the figure.

    Raises:
      ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("the figure needs matplotlib: pip install 'o2o_jax[plot]', or pass --noplot") from None
    figure = Figure(figsize=(11.0, 4.5), layout="constrained")
    throughput, against = figure.subplots(1, 2)
    there = [row for row in rows if row["failure"] is None]
    for name in dict.fromkeys(row["name"] for row in there):
        curve = {row["seeds"]: row["seed_updates_per_second"] for row in there
                 if (row["name"], row["form"]) == (name, DEFAULT)}  # fmt: skip
        throughput.plot(sorted(curve), [curve[count] for count in sorted(curve)], "o-", label=name)
    throughput.set_xscale("log", base=2)
    throughput.set_yscale("log")
    throughput.set_xlabel("seeds")
    throughput.set_ylabel("seeds · updates per second")
    throughput.legend(fontsize="x-small")
    kinds = list(forms())
    for name in dict.fromkeys(row["name"] for row in there if row["form"] != DEFAULT):
        place = max(i for i, row in enumerate(there) if row["name"] == name and row["form"] == PLAIN) - len(kinds) + 1
        rates = np.array([row["updates_per_second"] for row in there[place : place + len(kinds)]])
        against.plot(kinds, rates / rates[0], "o-", label=f"{name}, {there[place]['seeds']} seeds")
    against.set_ylim(bottom=0.0)
    against.set_ylabel("updates per second, over the default's")
    if against.lines:
        against.legend(fontsize="small")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    program.run(main, define, __doc__)
