"""Datasets of the PointMaze tasks."""

from o2o_jax.data.dataset import Dataset
from o2o_jax.envs import mazes
from o2o_jax.envs.pointmaze.tasks import layout
from o2o_jax.interfaces import Task


def load_dataset(task: Task, source: str | None = None, clip_actions: bool = False) -> Dataset:
    """Loads the task's dataset, or Minari's D4RL/pointmaze/*: observations [N, 4], actions [N, 2].

    Raises:
      ValueError, FileNotFoundError: see `mazes.load_dataset`.
    """
    return mazes.load_dataset(task, layout(task), source, clip_actions)
