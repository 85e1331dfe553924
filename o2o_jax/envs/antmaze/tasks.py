"""Facts of the AntMaze tasks, and of the task that their data's ant learns."""

import functools

import numpy as np

from o2o_jax.envs.mazes import MAX_EPISODE_STEPS, Layout, Maze, same_dynamics
from o2o_jax.interfaces import Task
from o2o_jax.types import Spec

# v4, whose ant observes 27 numbers as D4RL's does
ENV_IDS = {"umaze": "AntMaze_UMaze-v4", "medium": "AntMaze_Medium-v4", "large": "AntMaze_Large-v4"}
NAMES = ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse")
CELL_SIZE = 4.0
NEAREST_GOAL, FARTHEST_GOAL = 1.0, 1.5 * CELL_SIZE  # from the ant that learns to reach them, as far as waypoints lie
SPEC = Spec(observation_dim=29, action_dim=8)

# Scores: 100 for a thousand steps that make good 1 length unit a second towards goals.
GOAL_ANT = Task(
    name="antmaze/goal-ant",
    env_id="GoalAnt",  # registered nowhere
    spec=SPEC,
    max_episode_steps=1_000,
    random_score=0.0,
    expert_score=3_000.0,
)


@functools.cache
def tasks() -> dict[str, Task]:
    """Returns all tasks by full name: mazes, "antmaze/medium-play", and "antmaze/goal-ant", which has no dataset."""
    found = {GOAL_ANT.name: GOAL_ANT}
    for name in NAMES:
        maze = name.partition("-")[0]
        found[f"antmaze/{name}"] = Task(
            name=f"antmaze/{name}",
            env_id=ENV_IDS[maze],
            spec=SPEC,
            max_episode_steps=MAX_EPISODE_STEPS[maze],
            dataset_id=f"o2o/antmaze/{name}-v0",
            random_score=0.0,
            expert_score=1.0,
            remote_ids=(f"D4RL/antmaze/{name}-v1",),
            same_dynamics=same_dynamics(ENV_IDS[maze]),
            sparse_reward=True,
            long_horizon=maze != "umaze",
            eval_episodes=100,
        )
    return found


def layout(task: Task) -> Layout:
    """Returns starts and goals: from D4RL's start to its goal, recorded episodes by the kind of data.

    umaze keeps to that start and goal; play starts anywhere; diverse also leads anywhere.
    """
    name, _, kind = task.name.removeprefix("antmaze/").partition("-")
    maze = Maze.named(name, CELL_SIZE)
    starts, (goal,) = maze.cells("S"), maze.cells("G")
    anywhere = tuple(cell for cell in maze.cells() if cell != goal)
    return Layout(
        maze,
        goal,
        starts,
        collection_starts=anywhere if kind else starts,
        collection_goals=maze.cells() if kind == "diverse" else (goal,),
        flatten=_flatten,
    )


def _flatten(observation: dict[str, np.ndarray]) -> np.ndarray:
    """[..., 29] position, then v4's 27: D4RL's state; the goal stays out of it."""
    return np.concatenate([observation["achieved_goal"], observation["observation"]], axis=-1)
