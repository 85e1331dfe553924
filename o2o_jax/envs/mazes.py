"""Mazes on a grid, for a ball and an ant alike: where cells lie, the way through, what counts as the goal."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from o2o_jax.data import sources
from o2o_jax.data.dataset import Dataset
from o2o_jax.envs import registered
from o2o_jax.envs.vector import make_vector
from o2o_jax.interfaces import Task

if TYPE_CHECKING:
    import gymnasium

Cell = tuple[int, int]  # row from the top, column from the left

GOAL_RADIUS = 0.5  # length units; D4RL's. gymnasium-robotics itself counts up to 0.45
POSITION_NOISE = 0.25  # sides of a cell by which starts and goals lie off its centre, at most, along each axis

# D4RL's mazes with its goals of evaluation (G) and its starts of the ant (S). gymnasium-robotics turns D4RL's y axis
# upwards. In umaze, which is its own mirror image, S and G change places with it: seen from the start, the way to the
# goal is D4RL's, and the same as in Minari's recordings.
GRIDS = {
    "umaze": """
        #####
        #G..#
        ###.#
        #S..#
        #####
    """,
    "medium": """
        ########
        #S.##..#
        #..#...#
        ##...###
        #..#...#
        #.#..#.#
        #...#.G#
        ########
    """,
    "large": """
        ############
        #S...#.....#
        #.##.#.#.#.#
        #......#...#
        #.####.###.#
        #..#.#.....#
        ##.#.#.#.###
        #..#...#.G.#
        ############
    """,
}
MAX_EPISODE_STEPS = {"umaze": 700, "medium": 1_000, "large": 1_000}


@dataclasses.dataclass(frozen=True)
class Maze:
    """A grid of square cells centred on the origin, x along its rows and y upwards.

    Attributes:
      rows: top row first; "#" is wall, every other letter is free.
      cell_size: side of a cell, length units.
    """

    rows: tuple[str, ...]
    cell_size: float

    @classmethod
    def named(cls, name: str, cell_size: float) -> Maze:
        """Returns one of `GRIDS`."""
        return cls(tuple(GRIDS[name].split()), cell_size)

    def cells(self, letter: str | None = None) -> tuple[Cell, ...]:
        """Lists the cells with a letter, or all free ones, row by row."""
        return tuple(
            (row, column)
            for row, letters in enumerate(self.rows)
            for column, found in enumerate(letters)
            if (found != "#" if letter is None else found == letter)
        )

    def centre(self, cell: Cell) -> np.ndarray:
        """Returns the position [2] of a cell's centre, length units."""
        row, column = cell
        x, y = column + 0.5 - len(self.rows[0]) / 2, len(self.rows) / 2 - row - 0.5
        return self.cell_size * np.array([x, y])

    def cell(self, position: np.ndarray) -> Cell:
        """Returns the cell that a position [2] lies in, free or not."""
        x, y = np.asarray(position) / self.cell_size
        return int(np.floor(len(self.rows) / 2 - y)), int(np.floor(x + len(self.rows[0]) / 2))

    def next_cell(self, cell: Cell, goal: Cell) -> Cell:
        """Returns the cell after `cell` on a shortest path to `goal`; the goal itself once there.

        Raises:
          ValueError: no way leads there.
        """
        if cell == goal:
            return goal
        steps = _steps_to(self.rows, goal)
        ways = [neighbour for neighbour in _neighbours(cell) if neighbour in steps]
        if not ways:
            raise ValueError(f"no way leads from cell {cell} to {goal}")
        return min(ways, key=lambda neighbour: steps[neighbour])

    def waypoints(self, positions: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Returns the points [N, 2] to head for next, from positions [N, 2] towards goals [N, 2].

        That is the centre of the next cell on a shortest path, or the goal as soon as its cell is the next one.

        Raises:
          ValueError: no way leads to a goal.
        """
        waypoints = np.array(goals, np.float64)
        for n, (position, goal) in enumerate(zip(positions, goals, strict=True)):
            cell = self.next_cell(self.cell(position), self.cell(goal))
            if cell != self.cell(goal):
                waypoints[n] = self.centre(cell)
        return waypoints


@dataclasses.dataclass(frozen=True)
class Layout:
    """Starts and goals of a task's episodes, in evaluation and while its dataset is made.

    Attributes:
      maze: the grid.
      goal: the cell whose goal is rewarded.
      starts: cells that episodes of evaluation start in.
      collection_starts: cells that recorded episodes start in.
      collection_goals: cells that recorded episodes are steered to, one after the other.
      flatten: the simulator's observation, a dictionary, or many of them, to the task's [..., O].
    """

    maze: Maze
    goal: Cell
    starts: tuple[Cell, ...]
    collection_starts: tuple[Cell, ...]
    collection_goals: tuple[Cell, ...]
    flatten: Callable[[dict[str, np.ndarray]], np.ndarray]

    def is_rewarded(self, goal: np.ndarray) -> bool:
        """Returns whether a goal [2] that an episode is steered to lies in the cell whose goal is rewarded."""
        return self.maze.cell(goal) == self.goal

    def draw_goal(self, random: np.random.Generator) -> np.ndarray:
        """Draws a goal [2] as evaluation does for each episode: somewhere near the centre of its cell."""
        noise = random.uniform(-POSITION_NOISE, POSITION_NOISE, size=2)
        return self.maze.centre(self.goal) + self.maze.cell_size * noise


def same_dynamics(env_id: str) -> tuple[str, ...]:
    """Lists ids of gymnasium-robotics' other mazes that have the walls of one; starts, goals and rewards differ."""
    name, _, version = env_id.rpartition("-")
    variants = [f"{goals}{reward}" for goals in ("", "_Diverse_G", "_Diverse_GR") for reward in ("", "Dense")]
    return tuple(f"{name}{variant}-{version}" for variant in variants if variant)


def make_env(task: Task, layout: Layout, **settings: Any) -> gymnasium.Env:
    """Makes one environment of the task: the goal, drawn anew at each reset, is worth 1 and ends the episode.

    Args:
      task: the task.
      layout: its maze.
      **settings: of `gymnasium.make`, such as render_mode="rgb_array".

    Raises:
      ValueError: gymnasium-robotics isn't installed.
    """
    return _make(task, layout, layout.starts, (layout.goal,), **settings)


def make_collection_env(task: Task, layout: Layout, num_envs: int) -> gymnasium.vector.VectorEnv:
    """Makes `num_envs` that step together, to record in: other starts and steered goals, the rewards of evaluation.

    Controllers read `steering_goal` of each environment.

    Raises:
      ValueError: `num_envs` below 1; gymnasium-robotics isn't installed.
    """
    make = functools.partial(_make, task, layout, layout.collection_starts, layout.collection_goals)
    return make_vector(make, num_envs)


def _make(
    task: Task, layout: Layout, starts: tuple[Cell, ...], goals: tuple[Cell, ...], **settings: Any
) -> gymnasium.Env:
    registered.require("gymnasium_robotics", "robotics")  # registers the mazes
    from o2o_jax.envs import maze_env

    return maze_env.make(task, layout, starts, goals, **settings)


def load_dataset(task: Task, layout: Layout, source: str | None = None, clip_actions: bool = False) -> Dataset:
    """Loads a maze's dataset: the one made here, or one of Minari's. Reads the disk, and the network for remote ids.

    Minari's own recordings hold a dictionary per observation, continue after the goal, and reward whatever goal they
    were steered to. Here they get flat observations and the rewards of evaluation; see `relabelled`.

    Args:
      task: the task.
      layout: which goal is rewarded.
      source: a Minari id or the folder of a Minari dataset; None for `task.dataset_id`.
      clip_actions: as of `sources.load`.

    Returns:
      The dataset: flat observations [N, O], actions [N, A] in [-1, 1].

    Raises:
      ValueError: the data doesn't fit the task; see `sources.load`.
      FileNotFoundError: the data is not there; the message says how to make it.
    """
    source = source or sources.newest(task.dataset_id)
    path = pathlib.Path(source)
    if path.suffix.lower() in sources.HDF5_SUFFIXES and path.name != sources.MINARI_FILE:
        raise ValueError(
            f"{source}: D4RL's files of mazes can't be read, since their axes and their ant differ from those of "
            f"{task.env_id}: pass one of Minari's ids or python -m experiments.dataset --env={task.name}"
        )
    return sources.load(source, task, functools.partial(relabelled, layout), clip_actions)


def relabelled(layout: Layout, episode: sources.Episode, number: int) -> sources.Episode | None:
    """Relabels a goal environment's episode as evaluation would have recorded it: 1 at its goal, where it ends.

    An episode that was steered to the rewarded cell keeps its goal. Every other one gets a goal of evaluation, drawn
    with `number` as the seed, so that loading twice gives the same data. What follows the first success is cut off,
    and so is what precedes an episode's leaving the goal where it began there: no evaluation does.

    Args:
      layout: which goal is rewarded.
      episode: as recorded, of T steps; with flat observations it was made here and is returned as it is.
      number: of the episode in its dataset.

    Returns:
      The episode, of at most T steps, observations [T + 1, O]; None where it never leaves the goal.
    """
    if not isinstance(episode.observations, dict):
        return episode
    steered_to = episode.observations["desired_goal"][-1]  # the first row's may still be the episode's before
    goal = steered_to if layout.is_rewarded(steered_to) else layout.draw_goal(np.random.default_rng(number))
    away = np.linalg.norm(episode.observations["achieved_goal"] - goal, axis=1) > GOAL_RADIUS  # [T + 1]
    if not away[:-1].any():
        return None
    begin = int(np.argmax(away))
    reached = ~away[begin + 1 :]
    length = int(np.argmax(reached)) + 1 if reached.any() else len(reached)
    rows, reward = slice(begin, begin + length), reached[:length].astype(np.float32)
    return sources.Episode(
        layout.flatten(episode.observations)[begin : begin + length + 1],
        episode.actions[rows],
        rewards=reward,
        terminations=reward,
        truncations=episode.truncations[rows],
    )


def _neighbours(cell: Cell) -> list[Cell]:
    row, column = cell
    return [(row - 1, column), (row, column + 1), (row + 1, column), (row, column - 1)]


@functools.cache
def _steps_to(rows: tuple[str, ...], goal: Cell) -> dict[Cell, int]:
    """Steps from every free cell to the goal, breadth first."""
    steps = {goal: 0}
    queue = deque([goal])
    while queue:
        cell = queue.popleft()
        for row, column in _neighbours(cell):
            inside = 0 <= row < len(rows) and 0 <= column < len(rows[row])
            if inside and rows[row][column] != "#" and (row, column) not in steps:
                steps[row, column] = steps[cell] + 1
                queue.append((row, column))
    return steps


def gymnasium_map(maze: Maze, starts: tuple[Cell, ...], goals: tuple[Cell, ...]) -> list[list[Any]]:
    """Writes the maze as gymnasium-robotics reads it: 1 is wall, "r" a start, "g" a goal, "c" both, 0 neither."""
    letters = {(False, False): 0, (True, False): "r", (False, True): "g", (True, True): "c"}
    return [
        [1 if letter == "#" else letters[(r, c) in starts, (r, c) in goals] for c, letter in enumerate(row)]
        for r, row in enumerate(maze.rows)
    ]
