"""Datasets of the MuJoCo tasks."""

import re

from o2o_jax.data import sources
from o2o_jax.data.dataset import Dataset
from o2o_jax.interfaces import Task

# Environments that move otherwise from some version on; the others differ in the reward of a fall at most.
NEW_DYNAMICS = {"Walker2d": 5}  # right foot's friction 0.9 -> 1.9


def load_dataset(task: Task, source: str | None = None) -> Dataset:
    """The task's dataset, checked against its environment. Reads the disk, and the network for remote ids.

    Args:
      task: the task.
      source: a Minari id, the folder of a Minari dataset, or a D4RL HDF5 file; None for `task.dataset_id`.

    Raises:
      ValueError: the task has no dataset, or the data doesn't fit it: see `sources.load`, or it was recorded in a
        version of the environment with other dynamics.
      FileNotFoundError: the data is not there; the message says how to make it.
    """
    if source is None and not task.dataset_id:
        raise ValueError(
            f"{task.name} names no dataset: choose a quality, as in {task.name}-medium, or pass a dataset's id or path"
        )
    dataset = sources.load(source or task.dataset_id, task)
    if dataset.env_id and _dynamics(dataset.env_id) != _dynamics(task.env_id):
        raise ValueError(
            f"{dataset.name} was recorded in {dataset.env_id}, which moves otherwise than {task.env_id}: "
            f"instead of {task.name} choose a task of that version, with or without -v4 after the robot's name"
        )
    return dataset


def _dynamics(env_id: str) -> tuple[str, bool]:
    """Equal for environments with equal dynamics."""
    match = re.fullmatch(r"(.+)-v(\d+)", env_id)
    if not match:
        return env_id, False
    return match[1], match[1] in NEW_DYNAMICS and int(match[2]) >= NEW_DYNAMICS[match[1]]
