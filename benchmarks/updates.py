"""Updates per second of algorithms by their phases, beside what the processor could do.

    python -m benchmarks.updates --algorithms=o2sac,td3_bc --shape=hopper --out=runs/benchmarks

Updates run in chunks, each one compiled call, on a synthetic dataset that lies on the device. All programs are compiled
first; then they and a large float32 product have their turns in rounds. The table shows medians over rounds.
"""

from typing import Any

import absl.flags
import numpy as np
from absl.flags import FlagValues

from benchmarks import command, measuring, reports, workloads
from o2o_jax.cli import program
from o2o_jax.runtime import devices

COLUMNS = {
    "update": ("name", ""),
    "updates/s": ("updates_per_second", ",.1f"),
    "spread %": ("spread_percent", ".1f"),
    "MFLOP needed": ("needed_mflop", ",.1f"),
    "executed": ("executed_mflop", ",.1f"),
    "GFLOP/s": ("gflop_per_second", ".2f"),
    "% of peak": ("percent_of_peak", ".1f"),
    "compile cold s": ("compile_cold_seconds", ".2f"),
    "cached s": ("compile_cached_seconds", ".2f"),
}


def define(values: FlagValues) -> None:
    """Flags of this script."""
    command.define(values, "shape", "rows", "chunk", "seconds", "repeats", "gemm_size")
    command.define_workloads(values, ",".join(workloads.NAMES))
    absl.flags.DEFINE_bool(
        "time_compilation", True, "compile everything twice, with and without the cache", flag_values=values
    )


def main(args: FlagValues) -> None:
    """Measures, prints, writes. Impure."""
    names = ("shape", "rows", "chunk", "seconds", "repeats", "gemm_size", "set")
    report = reports.Report("updates", command.settings(args, *names))
    mesh = devices.seed_mesh(1, 1)
    running, counts = {}, {}
    for workload in command.chosen(args):
        running[workload.name] = measuring.Running(workload, 1, mesh, args.chunk, args.time_compilation)
        counts[workload.name] = workload.count
    samples = measuring.interleave(running | measuring.gemm_calls(args.gemm_size), args.seconds, args.repeats)
    peak = measuring.gemm_peak(samples, args.gemm_size)
    rows = [
        row(samples[name] / call.updates, counts[name], peak["peak"])
        | {"name": name, "compile_cold_seconds": call.cold, "compile_cached_seconds": call.cached}
        for name, call in running.items()
    ]
    resident = reports.resident_megabytes()
    print(reports.table(rows, COLUMNS))
    print(
        f"float32 product, {args.gemm_size} wide: numpy {peak[measuring.GEMM_NUMPY]:.1f} GFLOP/s, "
        f"XLA {peak[measuring.GEMM_XLA]:.1f} GFLOP/s; resident memory {resident:,.0f} MB"
    )
    report.write(args.out, rows=rows, gemm=peak, resident_megabytes=resident)


def row(seconds: np.ndarray, count: Any, peak: float, num_seeds: int = 1) -> dict[str, Any]:
    """A line of the table.

    Args:
      seconds: [repeats] per update of all seeds.
      count: `operations.Count` of an update of one seed.
      peak: GFLOP/s.
      num_seeds: S.
    """
    per_second, spread = measuring.median_and_spread(1.0 / seconds)
    gflop_per_second = 1e-9 * count.needed * num_seeds * per_second
    return {
        "updates_per_second": per_second,
        "spread_percent": spread,
        "needed_mflop": 1e-6 * count.needed,
        "executed_mflop": 1e-6 * count.executed,
        "beyond_mflop": {what: 1e-6 * operations for what, operations in count.beyond.items()},
        "gflop_per_second": gflop_per_second,
        "percent_of_peak": 100.0 * gflop_per_second / peak,
        "updates_per_second_samples": (1.0 / seconds).tolist(),
    }


if __name__ == "__main__":
    program.run(main, define, __doc__)
