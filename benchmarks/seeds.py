"""Throughput over the number of seeds, on one device and on several.

    python -m benchmarks.seeds --algorithms=o2sac/finetune --seeds=1,2,4,8,16 --devices=1,2

On a machine without accelerators the processor is split into as many devices as the most that are asked for. Every
combination of seeds and devices whose numbers divide has its turn in rounds, and so has a large float32 product. The
growth is the time per update against that of the fewest seeds, per seed: 1 is linear, less is a gain.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import absl.flags
from absl.flags import FlagValues

from benchmarks import command, measuring, reports
from benchmarks.updates import row
from o2o_jax.cli import program
from o2o_jax.runtime import devices

COLUMNS = {
    "update": ("name", ""),
    "seeds": ("seeds", "d"),
    "devices": ("devices", "d"),
    "updates/s": ("updates_per_second", ",.1f"),
    "seeds · updates/s": ("seed_updates_per_second", ",.1f"),
    "spread %": ("spread_percent", ".1f"),
    "ms": ("milliseconds", ",.2f"),
    "growth": ("growth", ".2f"),
    "GFLOP/s": ("gflop_per_second", ".2f"),
    "% of peak": ("percent_of_peak", ".1f"),
}


def define(values: FlagValues) -> None:
    """Flags of this script."""
    command.define(values, "shape", "rows", "chunk", "seconds", "repeats", "gemm_size")
    command.define_workloads(values, "o2sac/finetune")
    absl.flags.DEFINE_list("seeds", "1,2,4,8,16", "numbers of seeds", flag_values=values)
    absl.flags.DEFINE_list(
        "devices", None, "numbers of devices that share them; 1 and, where there are as many, 2 by default",
        flag_values=values,
    )  # fmt: skip
    absl.flags.DEFINE_bool("plot", True, "draw a figure beside the JSON file, with matplotlib", flag_values=values)


def main(args: FlagValues) -> None:
    """Measures, prints, writes, draws. Impure."""
    seed_counts = command.integers(args.seeds, "seeds")
    device_counts = command.integers(args.devices, "devices") if args.devices else _one_and_two()
    names = ("shape", "rows", "chunk", "seconds", "repeats", "gemm_size", "set", "seeds", "devices")
    report = reports.Report("seeds", command.settings(args, *names))
    devices.seed_mesh(max(device_counts), max(device_counts))  # makes them, before any is used
    combinations = [(s, d) for d in device_counts for s in seed_counts if s % d == 0]
    if not combinations:
        raise ValueError(f"none of {seed_counts} seeds can be shared evenly by any of {device_counts} devices")
    running, counts = {}, {}
    for workload in command.chosen(args):
        for num_seeds, num_devices in combinations:
            mesh = devices.seed_mesh(num_seeds, num_devices)
            running[workload.name, num_seeds, num_devices] = measuring.Running(workload, num_seeds, mesh, args.chunk)
        counts[workload.name] = workload.count
    samples = measuring.interleave(running | measuring.gemm_calls(args.gemm_size), args.seconds, args.repeats)
    peak = measuring.gemm_peak(samples, args.gemm_size)
    rows = []
    for (name, num_seeds, num_devices), call in running.items():
        values = row(samples[name, num_seeds, num_devices] / call.updates, counts[name], peak["peak"], num_seeds)
        values |= {"name": name, "seeds": num_seeds, "devices": num_devices}
        values["milliseconds"] = 1e3 / values["updates_per_second"]
        values["seed_updates_per_second"] = num_seeds * values["updates_per_second"]
        rows.append(values)
    _add_growth(rows)
    resident = reports.resident_megabytes()
    print(reports.table(rows, COLUMNS))
    print(f"resident memory, with the states of all these lines: {resident:,.0f} MB")
    report.write(args.out, rows=rows, gemm=peak, resident_megabytes=resident)
    if args.plot:
        draw(rows, Path(args.out) / "seeds.png")


def _one_and_two() -> list[int]:
    """Numbers of devices: 1, and 2 where they are there."""
    try:
        devices.seed_mesh(2, 2)
    except ValueError:
        return [1]
    return [1, 2]


def _add_growth(rows: Sequence[dict[str, Any]]) -> None:
    """Adds to every row its time per update and seed against that of the fewest seeds on as many devices."""
    for values in rows:
        alike = [other for other in rows if (other["name"], other["devices"]) == (values["name"], values["devices"])]
        fewest = min(alike, key=lambda other: other["seeds"])
        values["growth"] = fewest["seed_updates_per_second"] / values["seed_updates_per_second"]


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes a figure of throughput over seeds, a curve for every update and number of devices; impure.

    Raises:
      ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("the figure needs matplotlib: pip install 'o2o_jax[plot]', or pass --noplot") from None
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axis = figure.subplots()
    for name, num_devices in dict.fromkeys((values["name"], values["devices"]) for values in rows):
        curve = [values for values in rows if (values["name"], values["devices"]) == (name, num_devices)]
        label = f"{name}, {num_devices} device{'s' if num_devices > 1 else ''}"
        x, y = [v["seeds"] for v in curve], [v["seed_updates_per_second"] for v in curve]
        axis.plot(x, y, "o-", label=label)
    axis.set_xscale("log", base=2)
    axis.set_ylim(bottom=0.0)
    axis.set_xlabel("seeds")
    axis.set_ylabel("seeds · updates per second")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    program.run(main, define, __doc__)
