"""Mazes of gymnasium-robotics by D4RL's rules. Imported when one is made, once the simulator is."""

import pathlib
from typing import Any

import gymnasium
import numpy as np

from o2o_jax.envs import registered
from o2o_jax.envs.mazes import GOAL_RADIUS, Cell, Layout, gymnasium_map
from o2o_jax.interfaces import Task


class MazeEnv(gymnasium.Wrapper):
    """Flat observations without a goal; the step that reaches the goal is rewarded with 1 and ends the episode.

    The simulator draws a goal to steer to at every reset and whenever the last one was reached. Evaluation has one
    cell for it and rewards that goal. While a dataset is made, episodes are steered all over the maze, and what is
    rewarded is the goal of evaluation: that of the steering where it lies in the same cell, else one drawn per episode.

    Args:
      env: of gymnasium-robotics, with the time limit.
      layout: which goal is rewarded.

    Attributes:
      goal: [2] position of the rewarded goal, of this episode.
    """

    def __init__(self, env: gymnasium.Env, layout: Layout) -> None:
        super().__init__(env)
        self._layout = layout
        self._maze: Any = env.unwrapped
        size = layout.flatten(env.observation_space.sample()).shape
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, size, np.float64)
        self.goal = np.full(2, np.nan)

    @property
    def steering_goal(self) -> np.ndarray:
        """[2] position that the episode is steered to now: for controllers, never in the observation."""
        return self._maze.goal

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode; returns its first observation [O] and an empty `info`."""
        observation, _ = self.env.reset(seed=seed, options=options)
        steered_to = self._maze.goal.copy()
        rewarded = self._layout.is_rewarded(steered_to)
        self.goal = steered_to if rewarded else self._layout.draw_goal(self._maze.np_random)
        return self._layout.flatten(observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes an action [A]; `info["success"]` says whether it reached the goal."""
        observation, _, _, truncated, _ = self.env.step(action)
        success = bool(np.linalg.norm(observation["achieved_goal"] - self.goal) <= GOAL_RADIUS)
        if self._layout.is_rewarded(self._maze.goal):  # the simulator may just have drawn it, with noise of its own
            self._maze.goal = self.goal.copy()
            self._maze.update_target_site_pos()
        return self._layout.flatten(observation), float(success), success, truncated, {"success": success}


def make(task: Task, layout: Layout, starts: tuple[Cell, ...], goals: tuple[Cell, ...], **settings: Any) -> MazeEnv:
    """Makes one environment, truncated at the task's time limit.

    Args:
      task: with the gymnasium id of the maze.
      layout: the maze, and which goal is rewarded.
      starts: cells that episodes start in.
      goals: cells that they are steered to.
      **settings: of `gymnasium.make`.
    """
    maze_map = gymnasium_map(layout.maze, starts, goals)
    env = registered.make_registered(
        task.env_id,
        task.max_episode_steps,
        maze_map=maze_map,
        continuing_task=len(goals) > 1,
        reset_target=True,
        **settings,
    )
    unwrapped: Any = env.unwrapped
    pathlib.Path(unwrapped.tmp_xml_file_path).unlink(missing_ok=True)  # read by now, and nobody else removes it
    return MazeEnv(env, layout)
