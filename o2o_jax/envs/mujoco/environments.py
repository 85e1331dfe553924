"""Environments of the MuJoCo tasks. Gymnasium is imported when one is made."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from o2o_jax.envs.vector import make_vector
from o2o_jax.interfaces import Task

if TYPE_CHECKING:
    import gymnasium


def make_env(task: Task) -> gymnasium.Env:
    """One environment of the task: actions in [-1, 1], truncated at the task's time limit.

    Raises:
      gymnasium.error.NameNotFound: the installed gymnasium doesn't know `task.env_id`.
    """
    import gymnasium

    env = gymnasium.make(task.env_id, max_episode_steps=task.max_episode_steps, disable_env_checker=True)
    space = env.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    if not (np.all(space.low == -1.0) and np.all(space.high == 1.0)):
        env = gymnasium.wrappers.RescaleAction(env, np.float32(-1.0), np.float32(1.0))
    return env


def make_vector_env(task: Task, num_envs: int) -> gymnasium.vector.VectorEnv:
    """Several environments of the task that step together; see `vector.make_vector`."""
    return make_vector(functools.partial(make_env, task), num_envs)
