"""Facts of OGBench's tasks."""

import functools
from typing import NamedTuple

from o2o_jax.interfaces import Task
from o2o_jax.types import Spec

NAVIGATE, STITCH, EXPLORE, PLAY, NOISY = "navigate", "stitch", "explore", "play", "noisy"
TASKS = 5  # of every scene; one without a number is its default
EVAL_EPISODES = 50  # per evaluation, the field's protocol
MADE_HERE = "o2o/ogbench/"


class Scene(NamedTuple):
    """An environment and what is recorded in it.

    Attributes:
      observation_dim: O.
      action_dim: A.
      max_episode_steps: time limit of evaluation.
      kinds: of datasets.
      goals: how many things have to be where they belong at the same time.
      is_long: whether a way through it is rarely recorded as a whole.
    """

    observation_dim: int
    action_dim: int
    max_episode_steps: int
    kinds: tuple[str, ...]
    goals: int = 1
    is_long: bool = False


_MAZE, _ARM = (NAVIGATE, STITCH), (PLAY, NOISY)
SCENES = {
    "pointmaze-medium": Scene(2, 2, 1_000, _MAZE),
    "pointmaze-large": Scene(2, 2, 1_000, _MAZE, is_long=True),
    "pointmaze-giant": Scene(2, 2, 1_000, _MAZE, is_long=True),
    "pointmaze-teleport": Scene(2, 2, 1_000, _MAZE, is_long=True),
    "antmaze-medium": Scene(29, 8, 1_000, (*_MAZE, EXPLORE), is_long=True),
    "antmaze-large": Scene(29, 8, 1_000, (*_MAZE, EXPLORE), is_long=True),
    "antmaze-giant": Scene(29, 8, 1_000, _MAZE, is_long=True),
    "antmaze-teleport": Scene(29, 8, 1_000, (*_MAZE, EXPLORE), is_long=True),
    "humanoidmaze-medium": Scene(69, 21, 2_000, _MAZE, is_long=True),
    "humanoidmaze-large": Scene(69, 21, 2_000, _MAZE, is_long=True),
    "humanoidmaze-giant": Scene(69, 21, 4_000, _MAZE, is_long=True),
    "antsoccer-arena": Scene(42, 8, 1_000, _MAZE),
    "antsoccer-medium": Scene(42, 8, 1_000, _MAZE, is_long=True),
    "cube-single": Scene(28, 5, 200, _ARM),
    "cube-double": Scene(37, 5, 500, _ARM, goals=2),
    "cube-triple": Scene(46, 5, 1_000, _ARM, goals=3),
    "cube-quadruple": Scene(55, 5, 1_000, _ARM, goals=4),
    "scene": Scene(40, 5, 750, _ARM, goals=5),
    "puzzle-3x3": Scene(55, 5, 500, _ARM, goals=9),
    "puzzle-4x4": Scene(83, 5, 500, _ARM, goals=16),
    "puzzle-4x5": Scene(99, 5, 1_000, _ARM, goals=20),
    "puzzle-4x6": Scene(115, 5, 1_000, _ARM, goals=24),
}


@functools.cache
def tasks() -> dict[str, Task]:
    """Returns all tasks by full name: "ogbench/cube-single-play", and "ogbench/cube-single-play-task3" of its five.

    Where one thing has to be done the reward is 1 at the goal, where the episode ends, and the score the share of
    episodes that come there. Where there are several it is OGBench's, minus the number of those that are not done, and
    a score of 100 means that all were done from the first step on.
    """
    found = {}
    for name, scene in SCENES.items():
        for kind in scene.kinds:
            for number in ("", *(f"-task{number + 1}" for number in range(TASKS))):
                task = f"{name}-{kind}{number}"
                found[f"ogbench/{task}"] = Task(
                    name=f"ogbench/{task}",
                    env_id=f"{name}-singletask{number}-v0",
                    spec=Spec(scene.observation_dim, scene.action_dim),
                    max_episode_steps=scene.max_episode_steps,
                    dataset_id=f"{MADE_HERE}{task}-v0",
                    random_score=0.0 if scene.goals == 1 else -1.0 * scene.goals * scene.max_episode_steps,
                    expert_score=1.0 if scene.goals == 1 else 0.0,
                    published_settings=False,
                    sparse_reward=scene.goals == 1,
                    long_horizon=scene.is_long,
                    eval_episodes=EVAL_EPISODES,
                )
    return found


def scene_of(task: Task) -> tuple[str, str]:
    """Returns the name of a task's scene and the kind of its data: "cube-single" and "play"."""
    name = task.name.removeprefix("ogbench/")
    (scene,) = (scene for scene in SCENES if name.startswith(f"{scene}-"))
    return scene, name.removeprefix(f"{scene}-").partition("-")[0]
