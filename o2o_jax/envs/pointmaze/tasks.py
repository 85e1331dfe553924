"""Facts of the PointMaze tasks."""

import functools
import operator

from o2o_jax.envs.mazes import MAX_EPISODE_STEPS, Layout, Maze, same_dynamics
from o2o_jax.interfaces import Task
from o2o_jax.types import Spec

ENV_IDS = {"umaze": "PointMaze_UMaze-v3", "medium": "PointMaze_Medium-v3", "large": "PointMaze_Large-v3"}
CELL_SIZE = 1.0


@functools.cache
def tasks() -> dict[str, Task]:
    """Returns all tasks by full name, "pointmaze/umaze"."""
    return {
        f"pointmaze/{maze}": Task(
            name=f"pointmaze/{maze}",
            env_id=env_id,
            spec=Spec(observation_dim=4, action_dim=2),
            max_episode_steps=MAX_EPISODE_STEPS[maze],
            dataset_id=f"o2o/pointmaze/{maze}-v0",
            random_score=0.0,
            expert_score=1.0,
            remote_ids=(f"D4RL/pointmaze/{maze}-v2", f"D4RL/pointmaze/{maze}-dense-v2"),
            same_dynamics=same_dynamics(env_id),
            published_settings=False,
            sparse_reward=True,
            long_horizon=maze != "umaze",
            eval_episodes=100,
        )
        for maze, env_id in ENV_IDS.items()
    }


def layout(task: Task) -> Layout:
    """Returns starts and goals: from anywhere to D4RL's goal, recorded episodes from anywhere to anywhere.

    Observations are the simulator's own, position and velocity [4]: D4RL's of maze2d. The goal stays out of them.
    """
    maze = Maze.named(task.name.removeprefix("pointmaze/"), CELL_SIZE)
    (goal,) = maze.cells("G")
    starts = tuple(cell for cell in maze.cells() if cell != goal)
    return Layout(maze, goal, starts, starts, collection_goals=maze.cells(), flatten=operator.itemgetter("observation"))
