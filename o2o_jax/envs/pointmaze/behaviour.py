"""Behaviour of the datasets: a controller that pushes the ball from waypoint to waypoint."""

import functools
from typing import Any

import jax
import numpy as np

from o2o_jax.envs.behaviour import Behaviour
from o2o_jax.envs.mazes import Maze
from o2o_jax.envs.pointmaze.tasks import layout
from o2o_jax.interfaces import Task
from o2o_jax.types import Array

# D4RL's controller of maze2d
GAIN = 10.0  # force per distance to the waypoint
DAMPING = 1.0  # force per velocity, against it
NOISE_STD = 0.5  # on the clipped force


def behaviours(task: Task) -> list[Behaviour]:
    """Returns the waypoint controller alone."""
    return [Behaviour("waypoint controller", 1.0, functools.partial(act, layout(task).maze))]


def act(maze: Maze, vector: Any, observations: np.ndarray, key: Array) -> np.ndarray:
    """Draws noisy forces [N, 2] towards the next waypoints on the way to the goals of `vector`.

        a = clip( clip(10 (w − x) − v, ±1) + 0.5 ε, ±1 )

    Args:
      maze: where waypoints lie.
      vector: N environments, each with its `steering_goal`.
      observations: [N, 4] raw: position x and velocity v.
      key: draws the noise ε.

    Returns:
      [N, 2] in [-1, 1].

    Raises:
      ValueError: no way leads to a goal.

    Source: D4RL's waypoint controller, whose waypoints are jittered and left only at rest; here the next waypoint
    counts from the moment that the ball enters a cell, so that the controller needs no memory.
    """
    position, velocity = observations[:, :2], observations[:, 2:]
    waypoints = maze.waypoints(position, np.stack(vector.get_attr("steering_goal")))
    force = np.clip(GAIN * (waypoints - position) - DAMPING * velocity, -1.0, 1.0)
    return np.clip(force + NOISE_STD * np.asarray(jax.random.normal(key, force.shape)), -1.0, 1.0)
