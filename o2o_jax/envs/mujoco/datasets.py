"""Datasets of the MuJoCo tasks."""

from o2o_jax.data import sources
from o2o_jax.data.dataset import Dataset
from o2o_jax.interfaces import Task


def load_dataset(task: Task, source: str | None = None) -> Dataset:
    """The task's dataset, checked against its environment. Reads the disk, and the network for remote ids.

    Args:
      task: the task.
      source: a Minari id, the folder of a Minari dataset, or a D4RL HDF5 file; None for `task.dataset_id`.

    Raises:
      ValueError: the task has no dataset, or the data doesn't fit it; see `sources.load`.
      FileNotFoundError: the data is not there; the message says how to make it.
    """
    if source is None and not task.dataset_id:
        raise ValueError(
            f"{task.name} names no dataset: choose a quality, as in {task.name}-medium, or pass a dataset's id or path"
        )
    return sources.load(source or task.dataset_id, task)
