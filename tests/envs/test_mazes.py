import itertools
import sys

import gymnasium_robotics.envs.maze.maps as theirs
import numpy as np
import pytest
from gymnasium_robotics.envs.maze.maze_v4 import Maze as TheirMaze

from o2o_jax import envs
from o2o_jax.data.sources import Episode
from o2o_jax.envs import mazes
from o2o_jax.envs.mazes import GRIDS, Layout, Maze

UMAZE = Maze.named("umaze", 4.0)
LOOP = Maze(("#####", "#...#", "#.#.#", "#...#", "#####", "#...#", "#####"), 1.0)
LAYOUT = Layout(UMAZE, (1, 1), ((3, 1),), ((3, 1),), ((1, 1),), flatten=lambda observation: observation["observation"])


@pytest.mark.parametrize("name", GRIDS)
def test_mazes_are_those_of_gymnasium_robotics(name):
    maze = Maze.named(name, 4.0)
    their_map = {"umaze": theirs.U_MAZE, "medium": theirs.MEDIUM_MAZE, "large": theirs.LARGE_MAZE}[name]
    assert mazes.gymnasium_map(maze, (), ()) == their_map
    their_maze = TheirMaze(their_map, 4.0, 0.5)
    for cell in maze.cells():
        np.testing.assert_array_equal(maze.centre(cell), their_maze.cell_rowcol_to_xy(np.array(cell)))
        for corner in ([-1.9, -1.9], [1.9, 1.9]):
            assert maze.cell(maze.centre(cell) + corner) == cell
    assert len(maze.cells("S")) == len(maze.cells("G")) == 1


def test_cells_by_hand():
    # Five cells of side 4 around the origin: centres of rows and columns at -8, -4, 0, 4, 8, y upwards.
    np.testing.assert_array_equal(UMAZE.centre((1, 1)), [-4, 4])
    np.testing.assert_array_equal(UMAZE.centre((3, 2)), [0, -4])
    assert UMAZE.cell(np.array([-5.9, 5.9])) == (1, 1)
    assert UMAZE.cell(np.array([5.9, -2.1])) == (3, 3)
    assert mazes.gymnasium_map(UMAZE, starts=((1, 1), (1, 2)), goals=((1, 1), (3, 3)))[1:4] == [
        [1, "c", "r", 0, 1],
        [1, 1, 1, 0, 1],
        [1, 0, 0, "g", 1],
    ]


def path(maze, start, goal):
    cells = [start]
    while cells[-1] != goal:
        cells.append(maze.next_cell(cells[-1], goal))
    return cells


def test_shortest_path_by_hand():
    assert path(UMAZE, (3, 1), (1, 1)) == [(3, 1), (3, 2), (3, 3), (2, 3), (1, 3), (1, 2), (1, 1)]
    assert path(LOOP, (1, 1), (3, 2)) == [(1, 1), (2, 1), (3, 1), (3, 2)]  # the other way round takes 5 steps
    with pytest.raises(ValueError, match=r"no way leads from cell \(1, 1\) to \(5, 2\)"):
        LOOP.next_cell((1, 1), (5, 2))


@pytest.mark.parametrize("name", GRIDS)
def test_ways_lead_from_everywhere_to_everywhere_and_are_as_long_back(name):
    maze = Maze.named(name, 1.0)
    for start, goal in itertools.combinations(maze.cells(), 2):
        there = path(maze, start, goal)
        assert len(there) == len(path(maze, goal, start)) <= len(maze.cells())
        assert set(there) <= set(maze.cells())


def test_waypoints_by_hand():
    goals = np.array([[-4.5, 4.5]] * 3)
    positions = np.array([[-3.0, -4.0], [0.5, 3.0], [-3.0, 5.0]])  # far, in the cell beside, in the cell itself
    np.testing.assert_array_equal(UMAZE.waypoints(positions, goals), [[0, -4], [-4.5, 4.5], [-4.5, 4.5]])


def walk(xs, y=4.0, goals=((-4.0, 4.0),)):
    """An episode along a row, as a goal environment records it; the last of `goals` lasts."""
    positions = np.array([[x, y] for x in xs], np.float32)
    steps = len(xs) - 1
    goals = np.array(list(goals) + [goals[-1]] * (len(xs) - len(goals)), np.float32)
    observations = {"observation": positions, "achieved_goal": positions, "desired_goal": goals}
    actions = np.arange(2.0 * steps, dtype=np.float32).reshape(steps, 2)
    truncations = (np.arange(steps) == steps - 1).astype(np.float32)
    return Episode(observations, actions, np.full(steps, 7.0, np.float32), np.zeros(steps, np.float32), truncations)


def test_relabelling_by_hand():
    # The goal is at x = -4: -3.5 lies within 0.5 of it, on the third step; what comes after is cut off.
    episode = mazes.relabelled(LAYOUT, walk([-2.0, -2.5, -3.0, -3.5, -4.0, -4.5]), 0)
    np.testing.assert_array_equal(episode.observations[:, 0], [-2, -2.5, -3, -3.5])
    np.testing.assert_array_equal(episode.actions, [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(episode.rewards, [0, 0, 1])
    np.testing.assert_array_equal(episode.terminations, [0, 0, 1])
    np.testing.assert_array_equal(episode.truncations, [0, 0, 0])


def test_an_episode_that_misses_the_goal_stays_whole():
    episode = mazes.relabelled(LAYOUT, walk([-2.0, -2.5, -3.0]), 0)
    np.testing.assert_array_equal(episode.rewards, [0, 0])
    np.testing.assert_array_equal(episode.terminations, [0, 0])
    np.testing.assert_array_equal(episode.truncations, [0, 1])


def test_a_stale_first_goal_does_not_count():
    episode = mazes.relabelled(LAYOUT, walk([-3.0, -4.0], goals=[(4.0, -4.0), (-4.0, 4.0)]), 0)
    np.testing.assert_array_equal(episode.rewards, [1])


def test_an_episode_that_begins_at_the_goal_begins_when_it_has_left():
    episode = mazes.relabelled(LAYOUT, walk([-4.0, -3.6, -3.2, -2.8, -3.6, -4.0]), 0)
    np.testing.assert_array_equal(episode.observations[:, 0], np.float32([-3.2, -2.8, -3.6]))
    np.testing.assert_array_equal(episode.actions[:, 0], [4, 6])
    np.testing.assert_array_equal(episode.rewards, [0, 1])
    assert mazes.relabelled(LAYOUT, walk([-4.0, -4.1, -4.0]), 0) is None


def test_episodes_steered_elsewhere_get_goals_of_evaluation():
    # Along the middle of the goal's cell, from x = -2.4 to -5: how soon it counts depends on the goal that was drawn.
    elsewhere = walk(np.linspace(-2.4, -5.0, 53), goals=[(4.0, -4.0)])
    lengths = [len(mazes.relabelled(LAYOUT, elsewhere, number).rewards) for number in range(40)]
    assert lengths == [len(mazes.relabelled(LAYOUT, elsewhere, number).rewards) for number in range(40)]
    assert len(set(lengths)) > 10
    goals = np.array([LAYOUT.draw_goal(np.random.default_rng(number)) for number in range(200)])
    assert np.abs(goals - [-4, 4]).max() <= 1.0  # a quarter of a cell
    assert np.abs(goals - [-4, 4]).max(axis=0).min() > 0.9
    reached = [np.abs(goal[1] - 4.0) < 0.49 for goal in goals[:40]]  # a goal near the middle can't be missed
    rewards = [mazes.relabelled(LAYOUT, elsewhere, number).rewards.sum() for number in range(40)]
    assert all(reward == 1 for reward, near in zip(rewards, reached, strict=True) if near)
    assert 0 in rewards


def test_episodes_made_here_stay_as_they_are():
    episode = walk([0.0, 1.0])._replace(observations=np.zeros((2, 4), np.float32))
    assert mazes.relabelled(LAYOUT, episode, 0) is episode


def test_files_of_d4rl_are_refused(tmp_path):
    task = envs.get_task("pointmaze/umaze")
    with pytest.raises(ValueError, match="D4RL's files of mazes can't be read.*--env=pointmaze/umaze"):
        mazes.load_dataset(task, LAYOUT, str(tmp_path / "maze2d-umaze-sparse-v1.hdf5"))


def test_without_gymnasium_robotics(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(ValueError, match=r"gymnasium_robotics is not installed: pip install 'o2o_jax\[robotics\]'"):
        envs.family("pointmaze").make_env(envs.get_task("pointmaze/umaze"))
