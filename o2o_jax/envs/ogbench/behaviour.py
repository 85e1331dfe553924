"""Behaviour of the datasets: OGBench's own demonstrators."""

from typing import Any

import numpy as np

from o2o_jax.envs.behaviour import Behaviour
from o2o_jax.envs.ogbench.tasks import scene_of, tasks
from o2o_jax.interfaces import Task
from o2o_jax.types import Array

ALONE = ("pointmaze", "cube", "scene", "puzzle")  # scenes whose demonstrators need no trained policy


def benchmark() -> list[str]:
    """Returns the names of the tasks whose data are made here, one per scene and kind."""
    return [name for name, task in tasks().items() if _is_alone(task) and "-task" not in name]


def behaviours(task: Task) -> list[Behaviour]:
    """Returns the demonstrator of the task's data alone.

    Raises:
      ValueError: it is a policy that OGBench's package hasn't got.
    """
    scene, kind = scene_of(task)
    if not _is_alone(task):
        raise ValueError(
            f"{task.name} can't be made here, since a trained ant or humanoid recorded its data: download them by "
            f"python -c \"import ogbench; ogbench.download_datasets(['{scene}-{kind}-v0'])\" and pass --dataset"
        )
    return [Behaviour(f"OGBench's demonstrator of {kind} data", 1.0, advised)]


def _is_alone(task: Task) -> bool:
    return scene_of(task)[0].partition("-")[0] in ALONE


def advised(vector: Any, observations: np.ndarray, key: Array) -> np.ndarray:
    """Returns what the demonstrators of N environments do next [N, A], which draw from their own generators."""
    del observations, key
    return np.stack(vector.call("advise")).astype(np.float32)
