"""The ant that learns to reach goals around it, to be steered through mazes. Imported when one is made."""

from typing import Any

import gymnasium
import numpy as np

from o2o_jax.envs import registered
from o2o_jax.envs.antmaze.tasks import FARTHEST_GOAL, NEAREST_GOAL
from o2o_jax.envs.mazes import GOAL_RADIUS
from o2o_jax.interfaces import Task


class GoalAnt(gymnasium.Wrapper):
    """Ant-v4, rewarded for its speed towards a goal where v4 rewards that along x.

        r = (d − d') / dt + 1 − ½ ‖a‖²,   d the distance to the goal, 1 for every step, until it falls

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
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float64)  # as many: goal for position
        self.goal = np.full(2, np.nan)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The first observation [29]: v4's 27, then the goal relative to the ant."""
        observation, _ = self.env.reset(seed=seed, options=options)
        self.goal = self._draw(observation[:2])
        return self._relative(observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; `info["success"]` says whether it reached the goal, which is then another one."""
        simulator: Any = self.env.unwrapped
        before = np.linalg.norm(self.goal - simulator.data.qpos[:2])
        observation, reward, terminated, truncated, info = self.env.step(action)
        after = np.linalg.norm(self.goal - observation[:2])
        speed = (before - after) / simulator.dt
        success = bool(after <= GOAL_RADIUS)
        if success:
            self.goal = self._draw(observation[:2])
        reward = float(reward) - info["reward_forward"] + speed
        return self._relative(observation), reward, terminated, truncated, {"success": success}

    def _draw(self, position: np.ndarray) -> np.ndarray:
        random = self.env.unwrapped.np_random
        angle, distance = random.uniform(0.0, 2.0 * np.pi), random.uniform(NEAREST_GOAL, FARTHEST_GOAL)
        return position + distance * np.array([np.cos(angle), np.sin(angle)])

    def _relative(self, observation: np.ndarray) -> np.ndarray:
        return np.concatenate([observation[2:], self.goal - observation[:2]])


def make(task: Task) -> GoalAnt:
    """One environment, truncated at the task's time limit."""
    limit = task.max_episode_steps
    return GoalAnt(registered.make_registered("Ant-v4", limit, exclude_current_positions_from_observation=False))
