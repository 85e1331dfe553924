"""Datasets of the AntMaze tasks."""

from o2o_jax.data.dataset import Dataset
from o2o_jax.envs import mazes, registered
from o2o_jax.envs.antmaze.tasks import GOAL_ANT, layout
from o2o_jax.interfaces import Task


def load_dataset(task: Task, source: str | None = None, clip_actions: bool = False) -> Dataset:
    """Loads the task's dataset, or Minari's D4RL/antmaze/*: observations [N, 29], actions [N, 8].

    Raises:
      ValueError, FileNotFoundError: see `mazes.load_dataset`; "antmaze/goal-ant" has none.
    """
    if task.name == GOAL_ANT.name:
        return registered.load_dataset(task, source, clip_actions)
    return mazes.load_dataset(task, layout(task), source, clip_actions)
