"""Environments of the Adroit tasks. Gymnasium-robotics is imported when one is made: that registers them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from o2o_jax.envs import registered
from o2o_jax.envs.vector import make_vector
from o2o_jax.interfaces import Task

if TYPE_CHECKING:
    import gymnasium


def make_env(task: Task, **settings: Any) -> gymnasium.Env:
    """Makes one environment of the task: actions in [-1, 1], truncated at the task's time limit.

    Raises:
      ValueError: gymnasium-robotics isn't installed.
    """
    registered.require("gymnasium_robotics", "robotics")
    return registered.make_env(task, **settings)


def make_vector_env(task: Task, num_envs: int) -> gymnasium.vector.VectorEnv:
    """Makes `num_envs` environments of the task that step together; see `vector.make_vector`."""
    return make_vector(functools.partial(make_env, task), num_envs)
