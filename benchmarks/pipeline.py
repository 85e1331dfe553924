"""The whole road on a short schedule, and where its time goes.

    python -m benchmarks.pipeline --offline=td3_bc --online=o2td3 --env=mujoco/hopper-medium --seeds=4

Stages: loading the dataset, offline training, cloning where the policy's head doesn't fit, re-evaluation, alignment,
fine-tuning, evaluation. Without --dataset the data is synthetic, written to an npz file and read back. XLA's compile
time is taken out of each stage and shown beside it; what was compiled in an earlier run comes from the cache.
"""

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import absl.flags
import jax
import numpy as np
from absl.flags import FlagValues
from jax.sharding import Mesh

from benchmarks import command, reports, workloads
from o2o_jax import envs, offline, online
from o2o_jax.cli import flags, overrides, program
from o2o_jax.data import sources
from o2o_jax.data.dataset import Dataset
from o2o_jax.interfaces import Task
from o2o_jax.policy import CloneConfig, Handoff, hand_over
from o2o_jax.runtime import seeds
from o2o_jax.runtime.evaluate import make_evaluator
from o2o_jax.runtime.events import Event, Events
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.setup import Setup
from o2o_jax.runtime.train import train
from o2o_jax.settings import paths

COLUMNS = {
    "stage": ("stage", ""),
    "seconds": ("seconds", ",.2f"),
    "compile s": ("compile_seconds", ",.2f"),
    "steps": ("steps", ",d"),
    "steps/s": ("steps_per_second", ",.1f"),
    "% of total": ("percent", ".1f"),
}
COMPILED = "/jax/core/compile/backend_compile_duration"


def define(values: FlagValues) -> None:
    """Flags of this script."""
    command.define(values)
    flags.define_common(values, "seeds", "devices", "set")
    absl.flags.DEFINE_enum("offline", "td3_bc", offline.names(), "offline algorithm", flag_values=values)
    absl.flags.DEFINE_enum("online", "o2td3", ["o2td3", "o2sac", "o2ppo"], "online algorithm", flag_values=values)
    absl.flags.DEFINE_string("env", "mujoco/hopper-medium", "task to go online in", flag_values=values)
    absl.flags.DEFINE_string("dataset", None, "what to load in place of synthetic data", flag_values=values)
    for name, default, what in (
        ("rows", workloads.ROWS, "transitions of the synthetic dataset"),
        ("offline_updates", 2_000, "updates of offline training"),
        ("clone_updates", 1_000, "updates of cloning, where it is needed"),
        ("reevaluate_updates", 2_000, "updates of re-evaluation"),
        ("align_updates", 1_000, "updates of alignment"),
        ("env_steps", 1_000, "environment steps per seed online"),
        ("eval_every", 500, "environment steps between evaluations"),
    ):
        absl.flags.DEFINE_integer(name, default, what, lower_bound=1, flag_values=values)


class Stages:
    """Seconds of every stage, and how much of them XLA compiled. Impure: listens to JAX."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._compiled = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        if event == COMPILED:
            self._compiled += duration_secs

    def time(self, stage: str, run: Callable[[], Any]) -> Any:
        """Runs a stage to its end; returns its result."""
        return self.follow(_single(stage, run))

    def follow(self, events: Events[Any]) -> Any:
        """Runs events to their end; what they lead to.

        The time up to an event is its phase's, but for what was compiled, which doesn't count as its seconds.
        """
        while True:
            compiled, started = self._compiled, time.perf_counter()
            try:
                event = next(events)
            except StopIteration as end:
                return end.value
            jax.block_until_ready(event.run)
            compiled = self._compiled - compiled
            self.add(event.phase, time.perf_counter() - started - compiled, compiled)

    def add(self, stage: str, seconds: float = 0.0, compiled: float = 0.0, steps: int = 0) -> None:
        """Adds to a stage: seconds without compilation, seconds of compilation, updates or environment steps."""
        if stage not in (row["stage"] for row in self.rows):
            self.rows.append({"stage": stage, "seconds": 0.0, "compile_seconds": 0.0, "steps": 0})
        row = next(row for row in self.rows if row["stage"] == stage)
        row["seconds"] += seconds
        row["compile_seconds"] += compiled
        row["steps"] += steps

    def finished(self) -> list[dict[str, Any]]:
        """The rows with rates and shares, and their sum."""
        total = {
            "stage": "total",
            **{key: sum(row[key] for row in self.rows) for key in ("seconds", "compile_seconds")},
        }
        everything = total["seconds"] + total["compile_seconds"]
        for row in (*self.rows, total):
            row["percent"] = 100.0 * (row["seconds"] + row["compile_seconds"]) / everything
            if row.get("steps"):
                row["steps_per_second"] = row["steps"] / row["seconds"]
            else:
                row.pop("steps", None)
        return [*self.rows, total]


def main(args: FlagValues) -> None:
    """Runs every stage, prints, writes. Impure."""
    names = ("seeds", "devices", "set", "offline", "online", "env", "rows", "eval_every", "env_steps")
    lengths = ("offline_updates", "clone_updates", "reevaluate_updates", "align_updates")
    report = reports.Report("pipeline", command.settings(args, *names, *lengths))
    mesh = flags.setup_devices(args.seeds, args.devices)
    task = envs.get_task(args.env)
    configs = workloads.all_settings([args.offline, args.online], args.set)
    stages, seed_list = Stages(), range(args.seeds)
    family = envs.family(task.name)
    with tempfile.TemporaryDirectory() as folder:
        path = args.dataset or _save(workloads.synthetic(task.spec, args.rows), Path(folder) / "synthetic.npz")
        dataset = stages.time("dataset load", lambda: family.load_dataset(task, str(path)))
    config = overrides.parse_overrides(configs[args.offline], [f"updates={args.offline_updates}"])
    algorithm = offline.load(args.offline).make(config, dataset.spec)
    plan = Plan(Setup(algorithm, config, dataset.spec, seed_list, mesh), algorithm.select(dataset))
    run = stages.follow(train(plan))
    stages.add("offline", steps=args.seeds * args.offline_updates)
    handoff = jax.device_get(seeds.over_seeds(functools.partial(hand_over, algorithm), mesh)(run.agent))
    plan = _online_plan(args, configs[args.online], task, seed_list, mesh, dataset, handoff)
    run = stages.follow(train(plan))
    work = {"clone": plan.clone.updates if plan.clone else 0}
    work |= {phase.name: phase.updates for phase in plan.setup.algorithm.phases} | {"finetune": args.env_steps}
    for stage, steps in work.items():
        if steps:
            stages.add(stage, steps=args.seeds * steps)
    stages.add("evaluation", steps=int(np.sum(run.evaluation_steps)))
    plan.evaluator.close()
    rows = stages.finished()
    print(reports.table(rows, COLUMNS))
    report.write(
        args.out,
        rows=rows,
        dataset=Path(args.dataset).name if args.dataset else "synthetic",
        transitions=dataset.size,
        resident_megabytes=reports.resident_megabytes(),
    )


def _online_plan(
    args: FlagValues,
    config: Any,
    task: Task,
    seed_list: range,
    mesh: Mesh,
    dataset: Dataset,
    handoff: Handoff,
) -> Plan:
    """Returns the plan of everything after offline training. Impure: makes environments."""
    config = overrides.parse_overrides(config, _lengths(args, config))
    setup = Setup(online.load(args.online).make(config, task.spec), config, task, seed_list, mesh)
    fits = setup.requires.takes(handoff.policy.head)
    family = envs.family(task.name)
    return Plan(
        setup,
        dataset,
        handoff,
        clone=None if fits else CloneConfig(hidden=config.networks.hidden, updates=args.clone_updates),
        envs=family.make_vector_env(task, args.seeds),
        evaluator=make_evaluator(family, task, seed_list, config.evaluation.episodes),
    )


def _single(stage: str, run: Callable[[], Any]) -> Events[Any]:
    """Leads to the result of a function, by one event at its end."""
    result = run()
    yield Event(stage, 0)
    return result


def _lengths(args: FlagValues, config: Any) -> list[str]:
    """The flags' lengths as overrides of those fields that the algorithm has; every environment step is updated on."""
    lengths = {
        "reevaluate.updates": args.reevaluate_updates,
        "align.updates": args.align_updates,
        "env_steps": args.env_steps,
        "evaluation.every_env_steps": args.eval_every,
        "interaction.warmup_env_steps": 0,
        "early_stopping.mode": "updates",  # all of them are measured
    }
    return [f"{path}={value}" for path, value in lengths.items() if path in paths(config)]


def _save(dataset: Dataset, path: Path) -> Path:
    rollout = dataset.rollout()
    columns = (rollout.observation, rollout.action, rollout.reward, rollout.terminated, rollout.truncated)
    arrays: dict[str, Any] = dict(zip(sources.NPZ_KEYS, columns, strict=True))
    np.savez(path, **arrays, next_observations=rollout.next_observation)
    return path


if __name__ == "__main__":
    program.run(main, define, __doc__)
