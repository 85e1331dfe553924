"""Environments of envpool, an extra: many at once, stepped in C++."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from o2o_jax.envs.registered import require
from o2o_jax.interfaces import Task


def make_pool(task: Task, seeds: Sequence[int], **settings: Any) -> Any:
    """As many environments as there are seeds, alike to the task's own but for MuJoCo's version and the start states.

    They have gymnasium's vector interface and reset themselves on the step *after* an episode's end: that step ignores
    its action and is no transition. Every environment draws its start states from its own seed.

    Args:
      task: one whose `env_id` envpool knows by the same name, with actions in [-1, 1].
      seeds: one per environment.
      settings: of the environment, by envpool's names.

    Raises:
      ValueError: envpool isn't installed, or doesn't know the environment.
    """
    envpool = require("envpool", "envpool")
    if task.env_arguments != "{}":
        raise ValueError(f"envpool's environments don't take the arguments of {task.name}: evaluate without it")
    if task.env_id not in envpool.list_all_envs():
        raise ValueError(f"envpool has no {task.env_id}: evaluate without it")
    return envpool.make(
        task.env_id,
        env_type="gymnasium",
        num_envs=len(seeds),
        num_threads=min(len(seeds), os.cpu_count() or 1),
        seed=[seed % 2**31 for seed in seeds],  # all that envpool takes
        max_episode_steps=task.max_episode_steps,
        **settings,
    )
