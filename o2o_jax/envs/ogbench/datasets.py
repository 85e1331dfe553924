"""Datasets of OGBench's tasks: its own files, and what is made here."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from o2o_jax.data import sources
from o2o_jax.data.dataset import Dataset, validate
from o2o_jax.envs.ogbench.tasks import MADE_HERE, SCENES, scene_of
from o2o_jax.interfaces import Task
from o2o_jax.reading import local, read_npz

KEYS = ("observations", "actions", "terminals", "qpos")  # of OGBench's files
WAY_OUT = "download it again with ogbench.download_datasets"


def load_dataset(task: Task, source: str | None = None, clip_actions: bool = False) -> Dataset:
    """Loads the task's dataset: made here, one of one's own, or a file of OGBench's, whose rewards are the task's.

    A step that is taken where the task is done ends its episode, whatever the recording did then.

    Args:
      task: the task.
      source: what `sources.load` reads, or the path of OGBench's `<scene>-<kind>-v0.npz`; None for `task.dataset_id`.
      clip_actions: as of `sources.load`.

    Returns:
      The dataset: transitions [N], actions in [-1, 1].

    Raises:
      ValueError: the data don't fit the task, or OGBench, whose files need its goals, isn't installed.
      FileNotFoundError: the data are not there.
    """
    if source is None:
        source = task.dataset_id
        if not sources.minari_folder(source).exists():
            scene, kind = scene_of(task)
            raise FileNotFoundError(
                f"no dataset {source} at {sources.minari_folder(source)}: make one by python -m experiments.dataset "
                f"--env={task.name}, or download OGBench's by python -c \"import ogbench; ogbench.download_datasets("
                f"['{scene}-{kind}-v0'])\" and pass --dataset=~/.ogbench/data/{scene}-{kind}-v0.npz"
            )
    path = pathlib.Path(local(source)).expanduser()
    if path.suffix.lower() == ".npz" and path.is_file():
        arrays = read_npz(str(path), WAY_OUT)
        if "terminals" in arrays:
            return validate(_relabelled(task, arrays, str(path), clip_actions), task.spec)
    dataset = sources.load(source, task, clip_actions=clip_actions)
    return _ended(dataset, task) if dataset.name.startswith(MADE_HERE) else dataset


def _relabelled(task: Task, arrays: dict[str, np.ndarray], name: str, clip_actions: bool) -> Dataset:
    """A dataset of OGBench's arrays [N, ...]: rows of states, of which the last of a trajectory has no step."""
    from o2o_jax.envs.ogbench.goals import STATE_KEYS, Goal

    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}, which OGBench's files have: {WAY_OUT}")
    stepped = np.flatnonzero(arrays["terminals"] == 0)
    if len(stepped) and stepped[-1] == len(arrays["terminals"]) - 1:
        raise ValueError(f"{name} ends within a trajectory: {WAY_OUT}")
    rewards, done = Goal(task).rewards({key: arrays[key][stepped] for key in STATE_KEYS if key in arrays})
    actions = arrays["actions"][stepped]
    return Dataset.from_arrays(
        arrays["observations"][stepped].astype(np.float32),
        np.clip(actions, -1.0, 1.0) if clip_actions else actions,
        rewards,
        done,
        arrays["terminals"][stepped + 1] != 0,
        arrays["observations"][stepped + 1].astype(np.float32),
        name=name,
    )


def _ended(dataset: Dataset, task: Task) -> Dataset:
    """A dataset that was recorded beyond what the task asks for, whose episodes end where it is done."""
    scene, _ = scene_of(task)
    done = dataset.transitions.reward >= (1.0 if SCENES[scene].goals == 1 else 0.0)
    ends = np.union1d(np.flatnonzero(done) + 1, dataset.episode_ends)
    transitions = dataclasses.replace(dataset.transitions, terminated=done.astype(np.float32))
    return dataclasses.replace(dataset, transitions=transitions, episode_ends=ends)
