"""The ant that learns to reach goals around it, to be steered through mazes. Imported when one is made."""

from typing import Any

import gymnasium
import numpy as np

from o2o_jax.envs import registered
from o2o_jax.envs.antmaze import egocentric
from o2o_jax.envs.antmaze.tasks import FARTHEST_GOAL, NEAREST_GOAL
from o2o_jax.envs.mazes import GOAL_RADIUS
from o2o_jax.interfaces import Task

SPEED_WEIGHT, STEP_REWARD, CONTROL_COST = 3.0, 0.2, 0.05


class GoalAnt(gymnasium.Wrapper):
    """Ant-v4, rewarded for its speed towards a goal.

        r = 3 (d − d') / dt + 0.2 − 0.05 ‖a‖²,   d the distance to the goal, until it falls

    By v4's own weights, 1, 1 and ½, an ant that SAC trained from scratch was still where it began after 190,000 steps.

    Observations and actions are those of `egocentric.view`, the goal's offset in the place of the position.

    Goals lie around the ant, in any direction. One that is reached is replaced at once: an episode has many, and ends
    by a fall or its time limit.

    Args:
      env: Ant-v4 that observes its position too.

    Attributes:
      goal: [2] position of the present one.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        shape = env.observation_space.shape
        assert shape == (29,)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float64)
        self.goal = np.full(2, np.nan)
        self._turns = np.zeros(1, int)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode; returns its first observation [29], as the ant sees it, and an empty `info`."""
        observation, _ = self.env.reset(seed=seed, options=options)
        self.goal = self._draw(observation[:2])
        return self._view(observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes an action [8]; `info["success"]` says whether it reached the goal, which is then another one."""
        simulator: Any = self.env.unwrapped
        before = np.linalg.norm(self.goal - simulator.data.qpos[:2])
        observation, _, terminated, truncated, _ = self.env.step(egocentric.turn_back(action[None], self._turns)[0])
        after = np.linalg.norm(self.goal - observation[:2])
        speed = (before - after) / simulator.dt
        success = bool(after <= GOAL_RADIUS)
        if success:
            self.goal = self._draw(observation[:2])
        reward = SPEED_WEIGHT * speed + STEP_REWARD - CONTROL_COST * float(np.square(action).sum())
        return self._view(observation), reward, terminated, truncated, {"success": success}

    def _draw(self, position: np.ndarray) -> np.ndarray:
        random = self.env.unwrapped.np_random
        angle, distance = random.uniform(0.0, 2.0 * np.pi), random.uniform(NEAREST_GOAL, FARTHEST_GOAL)
        return position + distance * np.array([np.cos(angle), np.sin(angle)])

    def _view(self, observation: np.ndarray) -> np.ndarray:
        seen, self._turns = egocentric.view(observation[None, 2:], (self.goal - observation[:2])[None])
        return seen[0]


def make(task: Task, **settings: Any) -> GoalAnt:
    """Makes one environment, truncated at the task's time limit; `settings` are of `gymnasium.make`."""
    seen = {"exclude_current_positions_from_observation": False}
    return GoalAnt(registered.make_registered("Ant-v4", task.max_episode_steps, **seen, **settings))
