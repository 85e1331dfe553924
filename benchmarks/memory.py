"""Resident memory with a large dataset and more and more seeds, which all share it.

    python -m benchmarks.memory --rows=1_000_000 --seeds=1,2,4,8

Every number of seeds gets a process of its own, in which re-evaluation, alignment and a few steps of fine-tuning run on
that many seeds, with replay buffers of the published size. The environment is a stand-in: a simulator's memory is its
own. "copies" is how often the dataset lies on the devices at the end, counted over all live arrays.
"""

import concurrent.futures
import functools
import multiprocessing
from typing import Any

import absl.flags
import jax
import numpy as np
from absl.flags import FlagValues

from benchmarks import command, reports, workloads
from o2o_jax import online
from o2o_jax.cli import flags, overrides, program
from o2o_jax.interfaces import Task
from o2o_jax.runtime import devices
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.setup import Setup
from o2o_jax.runtime.train import train
from o2o_jax.types import Spec

COLUMNS = {
    "seeds": ("seeds", "d"),
    "devices": ("devices", "d"),
    "resident MB": ("resident_megabytes", ",.0f"),
    "peak MB": ("peak_megabytes", ",.0f"),
    "at start MB": ("start_megabytes", ",.0f"),
    "dataset MB": ("dataset_megabytes", ",.1f"),
    "copies": ("copies", ".2f"),
    "arrays on devices MB": ("device_megabytes", ",.1f"),
}
STEPS = 4  # updates of each phase, and environment steps: the memory is all there after the first


def define(values: FlagValues) -> None:
    """Flags of this script."""
    command.define(values, "shape", "rows")
    values.set_default("rows", 1_000_000)
    flags.define_common(values, "devices", "set")
    values.set_default("devices", 1)
    absl.flags.DEFINE_enum("algorithm", "o2sac", ["o2sac", "o2td3"], "online algorithm", flag_values=values)
    absl.flags.DEFINE_list("seeds", "1,2,4,8", "numbers of seeds", flag_values=values)


def main(args: FlagValues) -> None:
    """Measures, prints, writes. Impure: starts processes."""
    names = ("shape", "rows", "devices", "set", "algorithm", "seeds")
    report = reports.Report("memory", command.settings(args, *names))
    config = workloads.all_settings([args.algorithm], args.set)[args.algorithm]
    arguments = (args.algorithm, config, workloads.SHAPES[args.shape], args.rows, args.devices)
    rows = []
    for num_seeds in command.integers(args.seeds, "seeds"):
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
            rows.append(pool.submit(measure, *arguments, num_seeds).result())
    print(reports.table(rows, COLUMNS))
    report.write(args.out, rows=rows)


def measure(
    algorithm_name: str, config: Any, spec: Spec, rows: int, num_devices: int, num_seeds: int
) -> dict[str, Any]:
    """Runs the phases in this process and says what they took, a line of the table; to be called in a fresh one."""
    mesh = devices.seed_mesh(num_seeds, num_devices)
    start = reports.resident_megabytes()
    capacity = min(config.replay.buffer_size, config.env_steps)
    short = [f"reevaluate.updates={STEPS}", f"align.updates={STEPS}", "interaction.warmup_env_steps=0"]
    config = overrides.parse_overrides(config, [*short, f"evaluation.every_env_steps={STEPS}"])
    dataset = workloads.synthetic(spec, rows)
    plan = Plan(
        Setup(
            online.load(algorithm_name).make(config, spec),
            config,
            Task("benchmark/still", "", spec, workloads.EPISODE),
            range(num_seeds),
            mesh,
        ),
        dataset,
        envs=StillEnvironments(num_seeds, spec),
        evaluator=functools.partial(no_evaluation, num_seeds),
    )
    events = train(plan)  # stays under way, with all that it has on the devices
    run = next(event.run for event in events if event.phase == "evaluation" and event.run is not None)
    assert run.buffer.storage.reward.shape == (num_seeds, capacity)
    dataset_bytes = sum(column.nbytes for column in jax.tree.leaves(dataset.transitions))
    live = [array for array in jax.live_arrays() if array.shape]
    on_devices = sum(shard.data.nbytes for array in live for shard in array.addressable_shards)
    of_dataset = sum(s.data.nbytes for array in live if array.shape[0] == rows for s in array.addressable_shards)
    return {
        "seeds": num_seeds,
        "devices": num_devices,
        "resident_megabytes": reports.resident_megabytes(),
        "peak_megabytes": reports.peak_resident_megabytes(),
        "start_megabytes": start,
        "dataset_megabytes": 1e-6 * dataset_bytes,
        "copies": of_dataset / dataset_bytes,
        "device_megabytes": 1e-6 * on_devices,
    }


class StillEnvironments:
    """A vector environment in which nothing happens and no episode ends: observations are zeros, rewards too."""

    def __init__(self, num_envs: int, spec: Spec) -> None:
        self._observation = np.zeros((num_envs, spec.observation_dim), np.float32)
        self._reward, self._flags = np.zeros(num_envs), np.zeros(num_envs, bool)

    def reset(self, seed: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Observations [N, O] and no info."""
        del seed
        return self._observation, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Observations [N, O], rewards [N], terminated [N], truncated [N] and no info."""
        del action
        return self._observation, self._reward, self._flags, self._flags, {}


def no_evaluation(num_seeds: int, *policy: Any, **rounds: Any) -> tuple[np.ndarray, np.ndarray]:
    """In place of an `Evaluator`: returns [S, 1] and lengths [S, 1] of 0 without playing an episode."""
    del policy, rounds
    return np.zeros((num_seeds, 1)), np.zeros((num_seeds, 1), np.int64)


if __name__ == "__main__":
    program.run(main, define, __doc__)
