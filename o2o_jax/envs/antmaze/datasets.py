"""Datasets of the AntMaze tasks."""

from o2o_jax.data import sources
from o2o_jax.data.dataset import Dataset
from o2o_jax.envs import mazes
from o2o_jax.envs.antmaze.tasks import GOAL_ANT, layout
from o2o_jax.interfaces import Task


def load_dataset(task: Task, source: str | None = None) -> Dataset:
    """The task's dataset, or Minari's D4RL/antmaze/*; see `mazes.load_dataset`.

    Raises:
      ValueError: "antmaze/goal-ant" has no dataset; or see `mazes.load_dataset`.
    """
    if task.name != GOAL_ANT.name:
        return mazes.load_dataset(task, layout(task), source)
    if source is None:
        raise ValueError(
            f"{task.name} is there to learn in from scratch and has no dataset: pass a dataset's id or path"
        )
    return sources.load(source, task)
