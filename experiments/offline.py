"""Trains offline policies, all seeds side by side, and evaluates them.

    python -m experiments.offline --algorithm=td3_bc --env=mujoco/hopper-medium --seeds=5 --out=runs/td3_bc

The output folder gets `offline.csv`, `evaluation.csv` (both by updates) and the checkpoint that experiments.finetune
takes as --policy=runs/td3_bc. A run that was stopped goes on with --resume.

Data of one's own is an npz file, and a registered environment a task:

    python -m experiments.offline --algorithm=td3_bc --env=gym/Pendulum-v1 --dataset=arrays.npz --out=runs/td3_bc

Without --env it is the environment that the dataset says it was recorded in. Where it doesn't say, training goes on
without an environment, and without evaluation.
"""

import dataclasses
from pathlib import Path
from typing import Any

import absl.flags
import jax
import numpy as np
from absl.flags import FlagValues

from experiments import estimates, flags
from o2o_jax import envs, offline
from o2o_jax.data import sources
from o2o_jax.interfaces import Task
from o2o_jax.runtime import interrupt, log, phases, provenance, seeds
from o2o_jax.runtime.checkpoint import Checkpoints, check_claim, claim, locked
from o2o_jax.runtime.evaluate import evaluation_metrics, make_evaluator, policy_episodes

CHECKPOINT_EVERY = 50_000  # updates, where --eval_every doesn't say


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
    absl.flags.DEFINE_string(
        "dataset", None, "Minari id, or path of a Minari dataset, a D4RL or an npz file; the task's own by default",
        flag_values=values,
    )  # fmt: skip
    absl.flags.DEFINE_integer(
        "eval_episodes",
        None,
        "per seed and evaluation, what the task asks for by default; 0 for no evaluation, which needs no simulator",
        lower_bound=0,
        flag_values=values,
    )
    absl.flags.DEFINE_integer(
        "eval_every", 50_000, "updates between evaluations; 0 for one at the end", lower_bound=0, flag_values=values
    )


def main(args: FlagValues) -> None:
    """Trains, evaluates, saves. Impure."""
    mesh = flags.setup_devices(args.seeds, args.devices)
    module = offline.load(args.algorithm)
    task = find_task(args.env, args.dataset)
    dataset = envs.family(task.name).load_dataset(task, args.dataset) if task else sources.load(args.dataset)

    def estimate(config: Any) -> list[str]:
        work = estimates.offline_work(module, config, dataset.spec)
        return estimates.describe(work, config, dataset.spec, args.seeds, mesh)

    default = module.Config.for_task(task) if task else module.Config()
    config = flags.settings(args, args.algorithm, default, estimate)
    algorithm = module.make(config, dataset.spec)
    (training,) = algorithm.phases
    dataset = algorithm.select(dataset)
    eval_episodes = args.eval_episodes
    if eval_episodes is None:
        eval_episodes = task.eval_episodes if task else 0
    seed_list = flags.seed_list(args)
    evaluator = None
    if task and eval_episodes:
        evaluator = make_evaluator(envs.family(task.name), task, seed_list, eval_episodes, args.envpool)
    settings = {
        "script": "offline",
        "algorithm": args.algorithm,
        "env": task.name if task else "",
        "dataset": dataset.name,
        "transitions": dataset.size,
        "spec": dataclasses.asdict(dataset.spec),
        "seeds": args.seeds,
        "first_seed": args.first_seed,
        "eval_every": args.eval_every,
        "eval_episodes": eval_episodes,
        "envpool": args.envpool,
        "config": dataclasses.asdict(config),
    }
    if args.dry_run:
        check_claim(args.out, settings, args.resume)
        state = jax.eval_shape(algorithm.init, jax.random.key(0), dataset.normalizer())
        print(flags.preview({"updates": config.updates}, dataset, state, args.seeds, mesh))
        if evaluator:
            evaluator.close()
        return
    out = claim(args.out, settings, args.resume)

    init_keys, update_keys = jax.vmap(jax.random.split, out_axes=1)(seeds.keys(seed_list, "offline"))
    state = phases.start_states(algorithm.init, mesh, init_keys, dataset.normalizer(), shared=(1,))
    play = policy_episodes(algorithm.policy, seed_list, mesh)
    with (
        locked(out),
        interrupt.deferred(),
        log.MetricLog(out, args.tensorboard, args.first_seed) as metric_log,
        Checkpoints(out / "checkpoints", settings) as checkpoints,
    ):
        provenance.record(out, dataset)
        if checkpoints.latest_step() is not None:
            state, _ = checkpoints.restore(state)
        if int(state.step) >= config.updates:
            print(f"the run in {out} is complete: nothing is left to do")
        metric_log.rewind("evaluation", int(state.step))

        def checkpoint(state: Any, done: int) -> None:
            due = done == config.updates or (args.eval_every and done % args.eval_every == 0)
            if task and evaluator and due:
                scores = evaluation_metrics(task, *play(evaluator, state))
                metric_log.write("evaluation", done, scores)
            checkpoints.save(done, state)

        phases.run_phase(
            training,
            state,
            dataset.rollout(),
            update_keys,
            mesh,
            metric_log,
            checkpoint=checkpoint,
            checkpoint_every=args.eval_every or CHECKPOINT_EVERY,
        )
    if evaluator:
        evaluator.close()
        print(table(out))


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
    for remark in task.remarks:
        print(f"note: {remark}")
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


if __name__ == "__main__":
    flags.run(main, define, __doc__)
