"""Trains offline policies, all seeds side by side, and evaluates them.

    python -m experiments.offline --algorithm=td3_bc --env=mujoco/hopper-medium --seeds=5 --out=runs/td3_bc

The output folder gets `offline.csv`, `evaluation.csv` (both by updates) and the checkpoint that experiments.finetune
takes as --policy=runs/td3_bc. Resume a stopped run with --resume.

Data of one's own is an npz file, and a registered environment a task:

    python -m experiments.offline --algorithm=td3_bc --env=gym/Pendulum-v1 --dataset=arrays.npz --out=runs/td3_bc

Without --env it is the environment that the dataset says it was recorded in. Where it doesn't say, training continues
without an environment, and without evaluation.
"""

from pathlib import Path
from typing import Any

import absl.flags
import numpy as np
from absl.flags import FlagValues
from jax.sharding import Mesh

from o2o_jax import envs, offline
from o2o_jax.cli import estimates, flags, overrides, program
from o2o_jax.data import sources
from o2o_jax.interfaces import Task
from o2o_jax.jobs.job import OfflineJob
from o2o_jax.runtime import log
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.setup import Setup
from o2o_jax.types import Spec


def define(values: FlagValues) -> None:
    """Flags of this script."""
    flags.define_common(values)
    absl.flags.DEFINE_string(
        "algorithm", None, f"offline algorithm: {', '.join(offline.names())}", required=True, flag_values=values
    )
    absl.flags.DEFINE_string(
        "env", None, "task, such as mujoco/hopper-medium or gym/Pendulum-v1; the dataset's by default",
        flag_values=values,
    )  # fmt: skip
    flags.define_path(
        values,
        "dataset",
        None,
        "Minari id, or path of a Minari dataset, a D4RL or an npz file; the task's own by default",
    )
    absl.flags.DEFINE_integer(
        "eval_episodes",
        None,
        "per seed and evaluation, what the task asks for by default; 0 for no evaluation, which needs no simulator",
        lower_bound=0,
        flag_values=values,
    )
    flags.define_phase_evaluation(values, 50_000, "0 for one at the end")


def main(args: FlagValues) -> None:
    """Trains, evaluates, saves. Impure."""
    mesh = flags.setup_devices(args.seeds, args.devices)
    plan = read_job(args, mesh).plan(mesh)
    program.execute(args, plan)
    if plan.evaluator is not None and not args.dry_run and log.row_counts(args.out).get("evaluation"):
        print(table(args.out))


def read_job(args: FlagValues, mesh: Mesh) -> OfflineJob:
    """Returns the job of a command line. Impure: reads what the dataset says of itself, prints.

    Raises:
      FileNotFoundError: there is no such dataset.
      ValueError: no such task, or settings that don't fit.
    """
    module = offline.load(args.algorithm)
    task = find_task(args.env, args.dataset)

    def estimate(config: Any) -> list[str]:
        sizes = task or sources.load(args.dataset, clip_actions=args.clip_actions).spec
        return estimates.describe(outline(args, mesh, sizes, config))

    default = module.Config.for_task(task) if task else module.Config()
    return OfflineJob(
        algorithm=args.algorithm,
        config=overrides.settings(args, args.algorithm, default, estimate),
        env=task.name if task else "",
        dataset=args.dataset or "",
        clip_actions=args.clip_actions,
        seeds=args.seeds,
        first_seed=args.first_seed,
        envpool=args.envpool,
        eval_every=args.eval_every,
        eval_sampled=args.eval_sampled,
        eval_episodes=_eval_episodes(args, task),
    )


def outline(args: FlagValues, mesh: Mesh, task: Task | Spec, config: Any) -> Plan:
    """Returns the plan of a command line without data and environments, for estimates.

    Args:
      args: the command line.
      mesh: devices that share the seeds.
      task: of the data, or their sizes alone.
      config: settings of its algorithm.
    """
    spec = task.spec if isinstance(task, Task) else task
    setup = Setup(offline.load(args.algorithm).make(config, spec), config, task, flags.seed_list(args), mesh)
    episodes = _eval_episodes(args, task if isinstance(task, Task) else None)
    settings = {"algorithm": args.algorithm, "eval_episodes": episodes}
    return Plan(setup, eval_every=args.eval_every, eval_sampled=args.eval_sampled, settings=settings)


def _eval_episodes(args: FlagValues, task: Task | None) -> int:
    """Episodes of a seed in an evaluation: those that were asked for, or as many as the task asks for."""
    if task is None:
        return 0
    return task.eval_episodes if args.eval_episodes is None else args.eval_episodes


def find_task(env: str | None, dataset: str | None) -> Task | None:
    """The task that --env names or that the dataset belongs to; None, and says so, where it belongs to none.

    Raises:
      ValueError: neither is given; no such task.
      FileNotFoundError: no such dataset.
    """
    if not env and not dataset:
        raise ValueError("pass --env, a task, or --dataset, its data, or both")
    try:
        task = envs.get_task(env) if env else envs.task_of_dataset(dataset or "")
    except ValueError as error:
        if env:
            raise
        print(f"note: this run has no environment and no evaluation, since {error}")
        return None
    for warning in task.warnings:
        print(f"note: {warning}")
    return task


def table(out: str | Path) -> str:
    """Returns and normalized scores of the last evaluation, per seed and their mean; impure: reads the CSV file."""
    columns = log.read(out, "evaluation")
    last = columns["step"] == columns["step"].max()
    rows = [f"{'seed':>4}  {'return':>8}  {'score':>6}"]
    names = [*(str(seed) for seed in columns["seed"][last]), "mean"]
    with_mean = [np.append(columns[term][last], columns[term][last].mean()) for term in ("return", "score")]
    rows += [f"{name:>4}  {mean:>8.1f}  {score:>6.1f}" for name, mean, score in zip(names, *with_mean, strict=True)]
    return "\n".join(rows)
