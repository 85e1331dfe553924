"""Families whose tasks need nothing but the id of a registered environment: making it, loading its data."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from o2o_jax import envs, registry
from o2o_jax.data import sources
from o2o_jax.data.dataset import Dataset
from o2o_jax.envs import arguments
from o2o_jax.envs.arguments import TIME_LIMIT
from o2o_jax.envs.failure import staying
from o2o_jax.envs.vector import make_vector
from o2o_jax.interfaces import Task

if TYPE_CHECKING:
    import gymnasium


def make_env(task: Task, **settings: Any) -> gymnasium.Env:
    """Makes one environment of the task: actions in [-1, 1], truncated at the task's time limit.

    Args:
      task: the task.
      **settings: of `gymnasium.make`, such as render_mode="rgb_array".

    Raises:
      ValueError: gymnasium isn't installed, doesn't know `task.env_id`, or lacks its simulator.
    """
    gymnasium = require("gymnasium", "mujoco")
    env = make_registered(task.env_id, task.max_episode_steps, **json.loads(task.env_arguments), **settings)
    space = env.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    if not (np.all(space.low == -1.0) and np.all(space.high == 1.0)):
        env = gymnasium.wrappers.RescaleAction(env, space.dtype.type(-1.0), space.dtype.type(1.0))
    return env


def make_vector_env(task: Task, num_envs: int) -> gymnasium.vector.VectorEnv:
    """Makes `num_envs` environments of the task that step together; see `vector.make_vector`."""
    return make_vector(functools.partial(make_env, task), num_envs)


def make_registered(env_id: str, max_episode_steps: int | None = None, **settings: Any) -> gymnasium.Env:
    """Makes an environment as it is registered, with settings of its own; None leaves its time limit.

    Raises:
      ValueError: gymnasium isn't installed, or can't make it.
    """
    gymnasium = require("gymnasium", "mujoco")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)  # versions are chosen by name
        try:
            with staying():
                return gymnasium.make(env_id, max_episode_steps, disable_env_checker=True, **settings)
        except KeyboardInterrupt:  # of the user, or of who stops this run
            raise
        except (
            BaseException
        ) as error:  # SystemExit among them, of gymnasium, or of the environment, which anyone may have written
            if isinstance(error, SystemExit) and not isinstance(error.code, str):
                raise ValueError(
                    f"{env_id!r} ends the process while it is imported or made, with status {error.code!r}, as a "
                    "script does that reads the command line: register it in a module that does nothing else"
                ) from error
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            asks = "missing" in reason and "argument" in reason and "?" not in env_id
            hint = ": arguments go into its name, as in gym/Hopper-v5?healthy_reward=0.0" if asks else ""
            raise ValueError(f"gymnasium can't make {env_id!r} ({registry.clipped(reason, 300)}){hint}") from error


def load_dataset(task: Task, source: str | None = None, clip_actions: bool = False) -> Dataset:
    """Loads the task's dataset, checked against its environment. Reads the disk, and the network for remote ids.

    Args:
      task: the task.
      source: what `sources.load` reads; None for `task.dataset_id`, or a newer version of it where that isn't here.
      clip_actions: as of `sources.load`.

    Returns:
      The dataset: transitions [N], actions in [-1, 1].

    Raises:
      ValueError: the task has no dataset, or the data doesn't fit it; see `sources.load`.
      FileNotFoundError: the data is not there; the message says how to make it.
    """
    if source is None and not task.dataset_id:
        raise envs.no_dataset(task, "pass the id or path of one")
    source = source or sources.newest(task.dataset_id)
    dataset = sources.load(source, task, clip_actions=clip_actions)
    check_origin(sources.origin(source), task)
    return dataset


def check_origin(origin: sources.Origin, task: Task) -> None:
    """Refuses data of an environment that had other arguments, another time limit or other wrappers than the task's.

    Raises:
      ValueError: it had.
    """
    if not origin.env_id or importlib.util.find_spec("gymnasium") is None:  # then nothing is played either
        return
    theirs, wrappers = arguments.recorded(origin)
    own = json.loads(task.env_arguments)
    ours, _ = arguments.recorded(sources.Origin("", task.env_id, {"kwargs": own, TIME_LIMIT: task.max_episode_steps}))
    if wrappers:
        raise ValueError(
            f"{origin.dataset_id} was recorded in {origin.env_id} under {registry.listed(wrappers)}, which {task.name} "
            "does without: register the environment with it, keep the data as an npz file, and choose that --env"
        )
    if theirs != ours:
        raise ValueError(
            f"{origin.dataset_id} was recorded in {arguments.join(origin.env_id, theirs)}, but {task.name} runs "
            f"{arguments.join(task.env_id, ours)}: choose --env='gym/{arguments.join(origin.env_id, theirs)}'"
        )


def require(module: str, extra: str) -> ModuleType:
    """Imports a package that is optional here.

    Raises:
      ValueError: it isn't installed; the message names the extra of this package that brings it.
      ModuleNotFoundError: it is, but lacks a package that it imports itself.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ValueError(f"{module} is not installed: pip install 'o2o_jax[{extra}]'") from None
