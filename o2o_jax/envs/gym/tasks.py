"""Facts of registered environments, read off the environments themselves."""

import contextlib
import json
from typing import Any

import numpy as np

from o2o_jax import registry
from o2o_jax.data.sources import has_width
from o2o_jax.envs import arguments
from o2o_jax.envs.registered import make_registered, require
from o2o_jax.interfaces import Task
from o2o_jax.reading import brief
from o2o_jax.types import Spec

PREFIX = "gym/"


def tasks() -> dict[str, Task]:
    """Returns none: there is no list of what others register. `make_task` makes them."""
    return {}


def make_task(name: str) -> Task:
    """Makes the task of a registered environment, whose sizes and time limit it reads off one that it makes.

    The task has no dataset and no reference scores: its scores are raw returns.

    Args:
      name: `gym/<id>`, or `gym/<module>:<id>` for an environment that importing `module` registers; with arguments
        `gym/<id>?<argument>=<JSON value>&…`, of which `max_episode_steps` is the time limit.

    Raises:
      ValueError: gymnasium can't make it, it has no time limit, or its observations or actions aren't flat and
        continuous, or can't be read.
    """
    env_id, given = arguments.split(name.removeprefix(PREFIX))
    limit = given.pop(arguments.TIME_LIMIT, None)
    try:
        env = make_registered(env_id, limit, **given)
    except ValueError as error:
        if isinstance(error.__cause__, SystemExit):  # the module is the right one
            raise
        raise ValueError(f"{error}; what a package of yours registers is called gym/<module to import>:<id>") from error
    from o2o_jax.envs.border import Border  # where environments are made: it needs gymnasium

    try:
        observed, taken, border = env.observation_space, env.action_space, Border(env)
    except Exception as error:  # of what the environment computes them with
        raise ValueError(f"the spaces of {env_id} can't be read ({brief(error)}): mend the environment") from error
    with contextlib.closing(border):
        spec = Spec(_observation_dim(env_id, observed), _action_dim(env_id, taken))
        low, high = _bounds(taken)
        assert env.spec is not None
        if not env.spec.max_episode_steps:
            raise ValueError(f"{env_id} has no time limit: register it with max_episode_steps")
        return Task(
            name=name,
            env_id=env.spec.id,  # without the module, which is imported now
            spec=spec,
            max_episode_steps=env.spec.max_episode_steps,
            env_arguments=json.dumps(given, sort_keys=True),
            published_settings=False,
            action_low=low,
            action_high=high,
        )


def _observation_dim(env_id: str, space: Any) -> int:
    """O of a space of vectors."""
    if not _is_box(space) or len(space.shape) != 1:
        raise ValueError(
            f"{env_id} observes {_describe(space)}, expected one vector of numbers: register it with "
            "gymnasium.wrappers.FlattenObservation around it"
        )
    if np.isnan(space.low).any() or np.isnan(space.high).any():
        raise ValueError(f"{env_id} has NaN among the bounds of its observations: give its observation_space others")
    return space.shape[0]


def _action_dim(env_id: str, space: Any) -> int:
    """A of a space of vectors between bounds."""
    if not _is_box(space) or not np.issubdtype(space.dtype, np.floating):
        kind = space.dtype if _is_box(space) else _describe(space)
        raise ValueError(f"{env_id} takes {kind} actions; only continuous ones, of a Box, are supported")
    if len(space.shape) != 1:
        raise ValueError(f"{env_id} takes {_describe(space)} actions, expected one vector: reshape them in a wrapper")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(f"{env_id} takes unbounded actions: bound them, as by gymnasium.wrappers.RescaleAction")
    if not has_width(space.low, space.high):
        raise ValueError(
            f"{env_id} takes actions between {registry.listed(space.low)} and {registry.listed(space.high)}, which no "
            "number scales to [-1, 1]: give its action_space the bounds that are meant"
        )
    return space.shape[0]


def _bounds(space: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The task's lower and upper bounds of actions; () for both where all of them are −1 and 1."""
    if np.all(space.low == -1.0) and np.all(space.high == 1.0):
        return (), ()
    return tuple(space.low.tolist()), tuple(space.high.tolist())


def _is_box(space: Any) -> bool:
    return isinstance(space, require("gymnasium", "mujoco").spaces.Box)


def _describe(space: Any) -> str:
    """The kind of a space and what it consists of: "Discrete", "Dict of goal, position", "Box of shape (3, 4)"."""
    kind = type(space).__name__
    if hasattr(space, "keys"):
        return f"{kind} of {registry.listed(space.keys())}"
    return f"{kind} of shape {space.shape}" if space.shape else kind
