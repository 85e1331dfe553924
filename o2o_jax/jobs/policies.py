"""Policies leave here: out of a run, into a folder of their own, and back. Impure: reads and writes the disk."""

import os
import typing
from pathlib import Path
from typing import Literal

from o2o_jax import envs, registry
from o2o_jax.interfaces import Task
from o2o_jax.policy import AnyPolicy
from o2o_jax.runtime import provenance, saved
from o2o_jax.runtime.deployed import DeployedPolicy

Which = Literal["best", "last", "offline", "aligned", "lowest"]
WHICH: tuple[str, ...] = typing.get_args(Which)


def load_policy(run: str | os.PathLike, seed: int = 0, which: Which = "best", env: str | None = None) -> DeployedPolicy:
    """Loads a policy, to be called with NumPy observations.

    Neither a simulator nor the dataset is needed, nor the offline run that a fine-tuning run started from.

    Args:
      run: folder of a run, offline or online, maybe still under way; or of `save_policy`, which holds one policy.
      seed: number of the run's seed.
      which: of an online run
        "best": π_ref where it rolls back, which is what it delivers; else that of the highest evaluation online;
        "last": the actor as it was saved last;
        "offline": the one that it began with, where it was cloned the clone;
        "aligned": the one that alignment ended with;
        "lowest": that of the lowest evaluation online.
        An offline run has one policy, which is "best", "last" and "offline".
      env: name of the task that it is for, by whose bounds actions come in the environment's units; None for the
        run's own. Of data alone there is none, and actions are in [-1, 1].

    Raises:
      FileNotFoundError: there is no such folder, or it has not come as far as that policy.
      ValueError: no such policy, seed or task, or one of other sizes, or see `saved.read` and `handoffs.load_kept`.
    """
    found = _load(run, seed, which)
    if env is None:
        return found
    task = envs.get_task(env)
    if task.spec != found.spec:
        raise ValueError(f"the policy is of {found.spec}, but {task.name} has {task.spec}: name a task that fits")
    return DeployedPolicy(found.policy, task, found.made)


def _load(run: str | os.PathLike, seed: int, which: Which) -> DeployedPolicy:
    if which not in WHICH:
        raise ValueError(registry.unknown("policy", which, WHICH))
    if saved.is_saved(run):
        found = saved.read(run)
        if seed not in (0, found.made.get("seed", 0)):
            raise ValueError(f"{run} holds one policy, not that of seed {seed!r}: leave seed out")
        if which not in ("best", found.made.get("which")):
            raise ValueError(f"{run} holds one policy, not the {which} one: leave which out, or load it from its run")
        return found
    from o2o_jax.jobs import handoffs  # which reads checkpoints, by what a saved policy doesn't need

    policy, task, made = handoffs.load_kept(run, seed, which)
    return DeployedPolicy(policy, task, made)


def save_policy(policy: DeployedPolicy | AnyPolicy, folder: str | os.PathLike, task: Task | str | None = None) -> Path:
    """Writes a policy to a small folder of its own, arrays and JSON, which `load_policy` reads without the run.

    `--policy=<folder>` of `o2o finetune` starts from it.

    Args:
      policy: of `load_policy`, or of one seed, such as `Handoff.policy` or `Algorithm.policy(state)`.
      folder: that does not exist.
      task: its environment, or the name of it; None for that of the policy, if it knows one.

    Returns:
      The folder.

    Raises:
      FileExistsError: there is something of that name.
      ValueError: no such task, or of other sizes, or see `saved.save`.
    """
    task = envs.get_task(task) if isinstance(task, str) else task
    if not isinstance(policy, DeployedPolicy):
        if not isinstance(policy, AnyPolicy):
            raise ValueError(
                f"save_policy takes policies of this package, got a {type(policy).__name__}: clone it first, as by "
                "o2o_jax.clone"
            )
        if policy.normalizer.mean.ndim != 1:
            raise ValueError("save_policy takes a policy of one seed: take one of several with runtime.seeds.take")
        policy = DeployedPolicy(policy, task)
    elif task is not None:
        policy = DeployedPolicy(policy.policy, task, policy.made)
    if policy.task is not None and policy.task.spec != policy.spec:
        raise ValueError(f"the policy is of {policy.spec}, but {policy.task.name} has {policy.task.spec}")
    saving = {"command": provenance.command(), "commit": provenance.commit(), **provenance.environment()}
    return saved.save(DeployedPolicy(policy.policy, policy.task, {**policy.made, "saved": saving}), folder)
