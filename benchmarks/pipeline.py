"""The whole road on a short schedule, and where its time goes.

    python -m benchmarks.pipeline --offline=td3_bc --online=o2td3 --env=mujoco/hopper-medium --seeds=4

Stages: loading the dataset, offline training, cloning where the policy's head doesn't fit, re-evaluation, alignment,
fine-tuning, evaluation. Without --dataset the data is synthetic, written to an npz file and read back. XLA's compile
time is taken out of each stage and shown beside it; what was compiled in an earlier run comes from the cache.
"""

import functools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import absl.flags
import jax
import numpy as np
from absl.flags import FlagValues
from jax.sharding import Mesh

from benchmarks import command, reports, workloads
from experiments import finetune, flags
from o2o_jax import envs, offline, online
from o2o_jax.data import sources
from o2o_jax.data.dataset import Dataset
from o2o_jax.interfaces import Phase, Task
from o2o_jax.policy import CloneConfig, Handoff, hand_over, with_head
from o2o_jax.runtime import loop, phases, seeds
from o2o_jax.runtime.evaluate import make_evaluator
from o2o_jax.runtime.log import MetricLog
from o2o_jax.runtime.run import Run, begin_finetuning, start_run
from o2o_jax.runtime.setup import Setup
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

    def time(self, stage: str, run: Callable[[], Any], steps: int = 0) -> Any:
        """Runs a stage to its end; what it compiles doesn't count as its seconds.

        Args:
          stage: its name; one that ran before is added to.
          run: () -> result.
          steps: updates or environment steps of all seeds, for the rate.

        Returns:
          The result.
        """
        compiled, started = self._compiled, time.perf_counter()
        result = jax.block_until_ready(run())
        compiled = self._compiled - compiled
        self.add(stage, time.perf_counter() - started - compiled, compiled, steps)
        return result

    def add(self, stage: str, seconds: float, compiled: float = 0.0, steps: int = 0) -> None:
        """Adds to a stage: seconds without compilation, seconds of compilation, steps."""
        if stage not in (row["stage"] for row in self.rows):
            self.rows.append({"stage": stage, "seconds": 0.0, "compile_seconds": 0.0, "steps": 0})
        row = self.row(stage)
        row["seconds"] += seconds
        row["compile_seconds"] += compiled
        row["steps"] += steps

    def row(self, stage: str) -> dict[str, Any]:
        """Returns what a stage has taken so far."""
        return next(row for row in self.rows if row["stage"] == stage)

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
    with tempfile.TemporaryDirectory() as folder, MetricLog(folder) as log:
        path = args.dataset or _save(workloads.synthetic(task.spec, args.rows), Path(folder) / "synthetic.npz")
        family = envs.family(task.name)
        dataset = stages.time("dataset load", lambda: family.load_dataset(task, str(path)))
        handoff = stages.time(
            "offline",
            lambda: _train_offline(args.offline, configs, args.offline_updates, dataset, seed_list, mesh, log),
            args.seeds * args.offline_updates,
        )
        module = online.load(args.online)
        config = flags.parse_overrides(configs[args.online], _schedule(args, configs[args.online]))
        algorithm = module.make(config, task.spec)
        assert algorithm.requires is not None
        head = algorithm.requires.head
        if head is not None and not algorithm.requires.takes(handoff.policy.head):
            clone_config = CloneConfig(hidden=config.networks.hidden, updates=args.clone_updates)
            clone = seeds.over_seeds(
                lambda handoff, data, key: with_head(handoff, head, data, key, clone_config),
                mesh,
                shared=(1,),
            )
            handoff = stages.time(
                "clone",
                lambda: clone(handoff, dataset.rollout(), seeds.keys(seed_list, "clone")),
                args.seeds * args.clone_updates,
            )
        setup = Setup(algorithm, config, task, seed_list, mesh)
        run, done = start_run(setup, handoff.replace(state=None)), 0
        for phase in algorithm.phases:
            run = stages.time(
                phase.name,
                functools.partial(reconstruct, setup, phase, run, dataset, log, done),
                args.seeds * phase.updates,
            )
            done += phase.updates
        _fine_tune(stages, setup, task, run, dataset, log)
    rows = stages.finished()
    print(reports.table(rows, COLUMNS))
    report.write(
        args.out,
        rows=rows,
        dataset=Path(args.dataset).name if args.dataset else "synthetic",
        transitions=dataset.size,
        resident_megabytes=reports.resident_megabytes(),
    )


def reconstruct(setup: Setup, phase: Phase, run: Run, dataset: Dataset, log: MetricLog, done: int) -> Run:
    """A phase of all seeds, as experiments.finetune runs it, after `done` updates of those before. Impure."""
    keys = seeds.keys(setup.seeds, phase.name)
    phase = phase._replace(stop=None)  # all updates are measured, and no episode is held out
    agent = phases.run_phase(phase, run.agent, dataset.rollout(), keys, setup.mesh, log, first_step=done)
    return run.replace(agent=agent)


def _train_offline(
    name: str,
    configs: dict[str, Any],
    updates: int,
    dataset: Dataset,
    seed_list: Sequence[int],
    mesh: Mesh,
    log: MetricLog,
) -> Handoff:
    config = flags.parse_overrides(configs[name], [f"updates={updates}"])
    algorithm = offline.load(name).make(config, dataset.spec)
    chosen = algorithm.select(dataset)
    init_keys, update_keys = jax.vmap(jax.random.split, out_axes=1)(seeds.keys(seed_list, "offline"))
    state = phases.start_states(algorithm.init, mesh, init_keys, chosen.normalizer(), shared=(1,))
    (training,) = algorithm.phases
    state = phases.run_phase(training, state, chosen.rollout(), update_keys, mesh, log)
    return seeds.over_seeds(functools.partial(hand_over, algorithm), mesh)(state)


def _fine_tune(stages: Stages, setup: Setup, task: Task, run: Run, dataset: Dataset, log: MetricLog) -> None:
    """Fine-tunes; what the evaluations take goes to a stage of their own."""
    config, num_seeds = setup.config, len(setup.seeds)
    family = envs.family(task.name)
    evaluator = make_evaluator(family, task, setup.seeds, config.evaluation.episodes)
    stages.add("evaluation", 0.0)

    def timed_evaluation(*arguments: Any, **which: Any) -> tuple[np.ndarray, np.ndarray]:
        returns, lengths = stages.time("evaluation", lambda: evaluator(*arguments, **which))
        stages.add("evaluation", 0.0, steps=int(lengths.sum()))
        return returns, lengths

    run = begin_finetuning(setup, run, np.zeros(num_seeds, bool), np.full(num_seeds, -np.inf))
    stages.time(
        "finetune",
        lambda: loop.fine_tune(
            setup,
            run,
            finetune.replay_data(setup, dataset),
            family.make_vector_env(task, num_seeds),
            timed_evaluation,
            log,
        ),
        num_seeds * config.env_steps,
    )
    evaluation = stages.row("evaluation")
    stages.add("finetune", -evaluation["seconds"], -evaluation["compile_seconds"])
    evaluator.close()


def _schedule(args: FlagValues, config: Any) -> list[str]:
    """The flags' schedule as overrides of those fields that the algorithm has; every environment step is updated on."""
    schedule = {
        "reevaluate.updates": args.reevaluate_updates,
        "align.updates": args.align_updates,
        "env_steps": args.env_steps,
        "evaluation.every_env_steps": args.eval_every,
        "interaction.warmup_env_steps": 0,
    }
    return [f"{path}={value}" for path, value in schedule.items() if path in paths(config)]


def _save(dataset: Dataset, path: Path) -> Path:
    rollout = dataset.rollout()
    columns = (rollout.observation, rollout.action, rollout.reward, rollout.terminated, rollout.truncated)
    arrays: dict[str, Any] = dict(zip(sources.NPZ_KEYS, columns, strict=True))
    np.savez(path, **arrays, next_observations=rollout.next_observation)
    return path


if __name__ == "__main__":
    flags.run(main, define, __doc__)
