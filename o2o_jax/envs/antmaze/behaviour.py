"""Behaviour of the datasets: an ant that reaches goals around it, steered from waypoint to waypoint."""

import functools
import importlib.resources
from typing import Any

import jax
import numpy as np

from o2o_jax.envs.antmaze import egocentric
from o2o_jax.envs.antmaze.tasks import FARTHEST_GOAL, GOAL_ANT, layout
from o2o_jax.envs.behaviour import Behaviour, load_behaviour, sample_actions
from o2o_jax.envs.mazes import Maze
from o2o_jax.interfaces import Task
from o2o_jax.policy import Policy
from o2o_jax.types import Array

GOAL_ANT_POLICY = importlib.resources.files(__package__) / "policies" / "goal-ant.npz"
NOISE_STD = 0.2  # of the noise on sampled actions, D4RL's


def behaviours(task: Task) -> list[Behaviour]:
    """Returns the steered ant alone.

    Raises:
      ValueError: the task has no dataset.
      FileNotFoundError: the ant's policy isn't shipped; the message says how to train it.
    """
    if task.name == GOAL_ANT.name:
        raise ValueError(f"{task.name} has no dataset: its ant makes those of the mazes, such as antmaze/umaze")
    if not GOAL_ANT_POLICY.is_file():
        raise FileNotFoundError(
            f"datasets of {task.name} need an ant that reaches goals, and {GOAL_ANT_POLICY} isn't there: train it with "
            f"python -m experiments.behaviour --env={GOAL_ANT.name} --algorithm=sac and put its expert.npz there"
        )
    policy = load_behaviour(GOAL_ANT_POLICY)[0]
    return [
        Behaviour(
            "waypoint controller with a goal-reaching ant", 1.0, functools.partial(act, layout(task).maze, policy)
        )
    ]


def act(maze: Maze, policy: Policy, vector: Any, observations: np.ndarray, key: Array) -> np.ndarray:
    """Draws noisy actions [N, 8] of ants that head for the next waypoints on the way to the goals of `vector`.

        a = clip( â + 0.2 ε, ±1 ),   â ~ π_ant( · | what the ant sees of v4's 27 numbers and of the waypoint )

    Args:
      maze: where waypoints lie.
      policy: π_ant, on `egocentric.view`.
      vector: N environments, each with its `steering_goal`.
      observations: [N, 29] raw: the position, then v4's numbers.
      key: draws actions and noise.

    Returns:
      [N, 8] in [-1, 1].

    Raises:
      ValueError: no way leads to a goal.

    Source: D4RL's generation of AntMaze.
    """
    sample_key, noise_key = jax.random.split(key)
    positions = observations[:, :2]
    relative = maze.waypoints(positions, np.stack(vector.get_attr("steering_goal"))) - positions
    distance = np.linalg.norm(relative, axis=1, keepdims=True)
    relative *= FARTHEST_GOAL / np.maximum(distance, FARTHEST_GOAL)  # no farther than what it has learnt
    seen, turns = egocentric.view(observations[:, 2:], relative)
    actions = egocentric.turn_back(np.asarray(sample_actions(policy, seen, sample_key)), turns)
    return np.clip(actions + NOISE_STD * np.asarray(jax.random.normal(noise_key, actions.shape)), -1.0, 1.0)
