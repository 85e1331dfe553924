"""Environments of the PointMaze tasks. The simulator is imported when one is made."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from o2o_jax.envs import mazes
from o2o_jax.envs.pointmaze.tasks import layout
from o2o_jax.envs.vector import make_vector
from o2o_jax.interfaces import Task

if TYPE_CHECKING:
    import gymnasium


def make_env(task: Task, **settings: Any) -> gymnasium.Env:
    """Makes one environment of the task; see `mazes.make_env`."""
    return mazes.make_env(task, layout(task), **settings)


def make_vector_env(task: Task, num_envs: int) -> gymnasium.vector.VectorEnv:
    """Makes `num_envs` environments of the task that step together; see `vector.make_vector`."""
    return make_vector(functools.partial(make_env, task), num_envs)


def make_collection_env(task: Task, num_envs: int) -> gymnasium.vector.VectorEnv:
    """Makes `num_envs` that step together, to record in; see `mazes.make_collection_env`."""
    return mazes.make_collection_env(task, layout(task), num_envs)
