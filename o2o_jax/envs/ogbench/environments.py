"""Environments of OGBench's tasks. Simulator and OGBench are imported when one is made."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

from o2o_jax.envs import registered
from o2o_jax.envs.ogbench.tasks import SCENES, scene_of
from o2o_jax.envs.vector import make_vector
from o2o_jax.interfaces import Task

if TYPE_CHECKING:
    import gymnasium


def make_env(task: Task, **settings: Any) -> gymnasium.Env:
    """Makes one environment of the task; where one thing has to be done, a reward of 1 says that it is.

    Args:
      task: the task.
      **settings: of `gymnasium.make`, such as render_mode="rgb_array".

    Raises:
      ValueError: OGBench isn't installed.
    """
    registered.require("ogbench", "ogbench")
    import gymnasium

    from o2o_jax.envs.ogbench.settled import Settled

    env: gymnasium.Env = Settled(_registered(task, task.max_episode_steps, **settings))
    if task.sparse_reward:  # -1 and 0 as 0 and 1, which is what other sparse tasks have
        env = gymnasium.wrappers.TransformReward(env, lambda reward: float(reward) + 1.0)
    return env


def make_vector_env(task: Task, num_envs: int) -> gymnasium.vector.VectorEnv:
    """Makes `num_envs` environments of the task that step together; see `vector.make_vector`."""
    return make_vector(functools.partial(make_env, task), num_envs)


def make_collection_env(task: Task, num_envs: int) -> gymnasium.vector.VectorEnv:
    """Makes `num_envs` that step together, to record in: OGBench's demonstrators say what to do next, by `advise`.

    Episodes last as long as those of OGBench's datasets and go on where the task is done; rewards are the task's.

    Raises:
      ValueError: OGBench isn't installed.
    """
    return make_vector(functools.partial(_make_recorded, task), num_envs)


def _make_recorded(task: Task) -> gymnasium.Env:
    registered.require("ogbench", "ogbench")
    from o2o_jax.envs.ogbench import demonstrators
    from o2o_jax.envs.ogbench.goals import Goal

    scene, kind = scene_of(task)
    settings: dict[str, Any] = {"terminate_at_goal": False, "reward_task_id": None}
    goal = Goal(task)
    if SCENES[scene].action_dim == demonstrators.ARM_ACTIONS:
        simulator = _registered(task, demonstrators.EPISODE_STEPS, mode="data_collection", **settings)
        return demonstrators.Arm(simulator, goal, scene, kind)
    return demonstrators.Point(_registered(task, demonstrators.episode_steps(scene, kind), **settings), goal, kind)


def _registered(task: Task, max_episode_steps: int, **settings: Any) -> gymnasium.Env:
    from o2o_jax.envs.ogbench.settled import quiet

    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a screen that isn't there
        env = registered.make_registered(task.env_id, max_episode_steps, **settings)
    env.unwrapped.render_mode = settings.get("render_mode")  # which an arm draws in, and doesn't say
    return env
