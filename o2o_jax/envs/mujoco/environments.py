"""Environments of the MuJoCo tasks. Gymnasium is imported when one is made."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING

import numpy as np

from o2o_jax.interfaces import Task

if TYPE_CHECKING:
    import gymnasium


def make_env(task: Task) -> gymnasium.Env:
    """One environment of the task: actions in [-1, 1], truncated at the task's time limit.

    Raises:
      gymnasium.error.NameNotFound: the installed gymnasium doesn't know `task.env_id`.
    """
    import gymnasium

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)  # v4 is chosen by name
        env = gymnasium.make(task.env_id, max_episode_steps=task.max_episode_steps, disable_env_checker=True)
    space = env.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    if not (np.all(space.low == -1.0) and np.all(space.high == 1.0)):
        env = gymnasium.wrappers.RescaleAction(env, np.float32(-1.0), np.float32(1.0))
    return env


def make_vector_env(task: Task, num_envs: int) -> gymnasium.vector.VectorEnv:
    """Several environments that step together, in this process.

    An episode's end resets its environment on the same step: every row is a transition, and the true last
    observation is in `info["final_obs"]` (`o2o_jax.envs.vector.last_observations`).

    Args:
      task: the task.
      num_envs: N ≥ 1.

    Raises:
      ValueError: `num_envs` below 1.
    """
    import gymnasium

    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")
    return gymnasium.vector.SyncVectorEnv(
        [functools.partial(make_env, task)] * num_envs, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP
    )
