"""OGBench's demonstrators, each within the environment that it acts in. Imported when data are made.

Source: OGBench's generation of its datasets (Park et al., arXiv:2410.20092), by the oracles of its package.
"""

from typing import Any

import gymnasium
import numpy as np

from o2o_jax.envs.ogbench.goals import Goal
from o2o_jax.envs.ogbench.settled import Settled
from o2o_jax.envs.ogbench.tasks import NOISY, PLAY, STITCH

ARM_ACTIONS = 5  # of the arm, and of nothing else
EPISODE_STEPS = 1_000  # of an episode of data
GIANT_STEPS, STITCH_STEPS = 2_000, 200
ARM_NOISE, SMOOTHING, MIN_NORM = 0.1, 0.5, 0.4
NOISE_OF_ACTIONS = np.array([1.0, 1.0, 1.0, 3.0, 10.0])  # x, y, z, yaw, gripper
POINT_NOISE = 0.5
STITCH_CELLS = 4  # length of a way in data of kind "stitch"
CUBE_STEPS_IN_SCENE = 100  # that the closed-loop oracle tries, where there is more to do than cubes
STACKING = {"single": (0.0, 0.0), "double": (0.0, 0.25), "triple": (0.05, 0.35), "quadruple": (0.1, 0.5)}


class _Demonstrated(Settled):
    """An environment that is recorded for a task: its rewards, and no end where it is done.

    Args:
      env: of OGBench, without a task.
      goal: of the task.
    """

    def __init__(self, env: gymnasium.Env, goal: Goal) -> None:
        super().__init__(env)
        self._goal = goal

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps the environment; the reward is that of the state in which the action was taken."""
        observation, _, _, truncated, info = super().step(action)
        keys = {"qpos": "prev_qpos", "button_states": "prev_button_states"}
        rewards, _ = self._goal.rewards({key: info[name][None] for key, name in keys.items() if name in info})
        with self.drawing():
            self._seen(observation, info)
        return observation, float(rewards[0]), False, truncated, info

    def _seen(self, observation: Any, info: dict[str, Any]) -> None:
        """Takes note of what a step has led to."""
        raise NotImplementedError


class Arm(_Demonstrated):
    """An arm that does one thing after the other, by a plan with smooth noise, or in closed loop with white noise.

    Args:
      env: in the mode "data_collection".
      goal: of the task.
      scene: its name, "cube-single".
      kind: of data, PLAY or NOISY.
    """

    def __init__(self, env: gymnasium.Env, goal: Goal, scene: str, kind: str) -> None:
        super().__init__(env, goal)
        self._stacking = STACKING.get(scene.partition("-")[2], (0.5, 0.5))
        self._noisy = kind == NOISY
        self._oracles = _oracles(env, scene, kind)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode, and the first thing to do."""
        observation, info = super().reset(seed=seed, options=options)
        with self.drawing():
            self._stack = np.random.uniform(*self._stacking)
            self._noise = np.random.uniform(0.0, ARM_NOISE)
            self._begin(observation, info)
        return observation, info

    def advise(self) -> np.ndarray:
        """Returns what the oracle does next [5], in [-1, 1]."""
        with self.drawing():
            action = np.array(self._oracle.select_action(*self._last))
            if self._noisy:
                action = action + np.random.normal(0.0, self._noise * NOISE_OF_ACTIONS)
        return np.clip(action, -1.0, 1.0)

    def _seen(self, observation: Any, info: dict[str, Any]) -> None:
        self._last = observation, info
        if self._oracle.done:
            self._begin(*self.unwrapped.set_new_target(p_stack=self._stack))  # type: ignore[attr-defined]
            self._last = observation, info

    def _begin(self, observation: Any, info: dict[str, Any]) -> None:
        self._oracle = self._oracles[info["privileged/target_task"]]
        self._oracle.reset(observation, info)
        self._last = observation, info


class Point(_Demonstrated):
    """A point that heads for one corner of a maze after the other, or, in data of kind "stitch", for one close by.

    Args:
      env: a maze.
      goal: of the task.
      kind: of data, NAVIGATE or STITCH.
    """

    def __init__(self, env: gymnasium.Env, goal: Goal, kind: str) -> None:
        super().__init__(env, goal)
        self._kind = kind
        self._free, self._corners = cells(env.unwrapped.maze_map)  # type: ignore[attr-defined]

    def _options(self) -> dict[str, Any]:
        """Returns a start anywhere, and the first goal."""
        start, ends = self._free[np.random.randint(len(self._free))], self._corners
        if self._kind == STITCH:
            ends = ways_of(self.unwrapped.maze_map, start, STITCH_CELLS) or [start]  # type: ignore[attr-defined]
        return {"task_info": {"init_ij": start, "goal_ij": ends[np.random.randint(len(ends))]}}

    def advise(self) -> np.ndarray:
        """Returns the noisy direction of the next cell on the way [2], in [-1, 1]."""
        maze: Any = self.unwrapped
        towards, _ = maze.get_oracle_subgoal(maze.get_xy(), maze.cur_goal_xy)
        direction = towards - maze.get_xy()
        with self.drawing():
            noise = np.random.normal(0.0, POINT_NOISE, 2)
        return np.clip(direction / (np.linalg.norm(direction) + 1e-6) + noise, -1.0, 1.0)

    def _seen(self, observation: Any, info: dict[str, Any]) -> None:
        if info["success"] and self._kind != STITCH:
            corner = self._corners[np.random.randint(len(self._corners))]
            self.unwrapped.set_goal(corner)  # type: ignore[attr-defined]


def episode_steps(scene: str, kind: str) -> int:
    """Returns how many steps an episode of a maze's data has."""
    if kind == STITCH:
        return STITCH_STEPS
    return GIANT_STEPS if scene.endswith("giant") else EPISODE_STEPS


def cells(maze: np.ndarray) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Returns the free cells of a maze, and those of them that are no passage straight ahead.

    Args:
      maze: [rows, columns], 1 is wall.
    """
    free = [(int(i), int(j)) for i, j in np.argwhere(maze == 0)]

    def is_passage(i: int, j: int) -> bool:
        upright, across = (maze[i - 1, j], maze[i + 1, j]), (maze[i, j - 1], maze[i, j + 1])
        return (upright, across) in (((0, 0), (1, 1)), ((1, 1), (0, 0)))

    return free, [cell for cell in free if not is_passage(*cell)]


def ways_of(maze: np.ndarray, start: tuple[int, int], length: int) -> list[tuple[int, int]]:
    """Returns the cells of a maze [rows, columns] that a shortest way of some length leads to."""
    reached, edge = {start}, [start]
    for _ in range(length):
        around = [(i + di, j + dj) for i, j in edge for di, dj in ((-1, 0), (0, -1), (1, 0), (0, 1))]
        edge = sorted({cell for cell in around if maze[cell] == 0} - reached)
        reached |= set(edge)
    return edge


def _oracles(env: gymnasium.Env, scene: str, kind: str) -> dict[str, Any]:
    """Oracles by what they do, as many as the scene has things."""
    from ogbench.manipspace.oracles.markov import button_markov, cube_markov, drawer_markov, window_markov
    from ogbench.manipspace.oracles.plan import button_plan, cube_plan, drawer_plan, window_plan

    buttons_alone = scene.startswith("puzzle")
    hand = {"gripper_always_closed": True} if buttons_alone else {}
    settings: dict[str, Any]
    if kind == PLAY:
        settings = {"env": env, "noise": ARM_NOISE, "noise_smoothing": SMOOTHING}
        makers = {
            "cube": cube_plan.CubePlanOracle, "button": button_plan.ButtonPlanOracle,
            "drawer": drawer_plan.DrawerPlanOracle, "window": window_plan.WindowPlanOracle,
        }  # fmt: skip
        tries = {}
    else:
        settings = {"env": env, "min_norm": MIN_NORM}
        makers = {
            "cube": cube_markov.CubeMarkovOracle, "button": button_markov.ButtonMarkovOracle,
            "drawer": drawer_markov.DrawerMarkovOracle, "window": window_markov.WindowMarkovOracle,
        }  # fmt: skip
        tries = {"max_step": CUBE_STEPS_IN_SCENE} if scene == "scene" else {}
    names = {"cube": ("cube",), "puzzle": ("button",)}.get(scene.partition("-")[0], tuple(makers))
    own: dict[str, dict[str, Any]] = {"cube": tries, "button": hand}
    return {name: makers[name](**settings, **own.get(name, {})) for name in names}
