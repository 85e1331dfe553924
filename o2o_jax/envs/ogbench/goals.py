"""Rewards of a task for states that were recorded without one. Imported when they are needed."""

import types
from collections.abc import Mapping

import numpy as np

from o2o_jax.envs import registered
from o2o_jax.envs.ogbench.environments import make_env
from o2o_jax.interfaces import Task

STATE_KEYS = ("qpos", "button_states")  # of what OGBench records, those that tell whether a task is done


class Goal:
    """Goal of a task, where its environment has it.

    Args:
      task: the task.

    Raises:
      ValueError: OGBench isn't installed.
    """

    def __init__(self, task: Task) -> None:
        registered.require("ogbench", "ogbench")
        self._task = task
        with_goal = make_env(task)
        with_goal.reset(seed=0)
        # relabelling resets the environment, which takes milliseconds, and reads nothing but its goal
        self._env = types.SimpleNamespace(unwrapped=with_goal.unwrapped, reset=lambda: None)

    def rewards(self, states: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Returns rewards [N] of the task, as its environments give them, and whether it is done [N], at states.

        Args:
          states: arrays [N, ...] under `STATE_KEYS`, as far as the scene has them.
        """
        from ogbench.relabel_utils import relabel_dataset

        rows = dict(states)
        relabel_dataset(self._task.env_id, self._env, rows)
        return rows["rewards"] + (1.0 if self._task.sparse_reward else 0.0), rows["masks"] == 0.0
