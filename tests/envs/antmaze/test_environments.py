import dataclasses
import pathlib
import tempfile

import gymnasium
import jax
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from o2o_jax import envs
from o2o_jax.cli import dataset
from o2o_jax.envs import antmaze, registered
from o2o_jax.envs.antmaze import behaviour, egocentric
from o2o_jax.envs.antmaze.tasks import NAMES, layout
from o2o_jax.envs.behaviour import sample_actions, save_behaviour
from o2o_jax.envs.mazes import gymnasium_map
from tests import tiny

UMAZE = envs.get_task("antmaze/umaze")
# Start and goal of evaluation by hand. Cells have a side of 4 around the origin, y upwards: in medium, 8 by 8 cells,
# the second one of an axis is centred at -10, in large, 12 by 9, at -18 and, from above, 12.
PLACES = {
    "umaze": ([-4, -4], [-4, 4]),
    "medium": ([-10, 10], [10, -10]),
    "large": ([-18, 12], [14, -12]),
}


@pytest.fixture(scope="module")
def env():
    return antmaze.make_env(UMAZE)


@pytest.mark.parametrize("name", NAMES)
def test_environment_fits_its_task(name):
    task = envs.get_task(f"antmaze/{name}")
    maze = name.partition("-")[0]
    env = antmaze.make_env(task)
    assert env.observation_space == gymnasium.spaces.Box(-np.inf, np.inf, (29,), np.float64)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (8,))
    assert env.spec.max_episode_steps == task.max_episode_steps == (700 if maze == "umaze" else 1000)
    np.testing.assert_array_equal(task.score(np.array([0.0, 0.25, 1.0])), [0, 25, 100])
    observations, goals = [], []
    for seed in range(30):
        observations.append(env.reset(seed=seed)[0])
        goals.append(env.goal)
    for drawn, centre in zip((np.array(observations)[:, :2], np.array(goals)), PLACES[maze], strict=True):
        assert np.abs(drawn - centre).max() <= 1.0  # a quarter of a cell
        assert np.std(drawn, axis=0).min() > 0.3


def test_no_file_stays_behind():
    before = set(pathlib.Path(tempfile.gettempdir()).glob("ant_maze*"))
    antmaze.make_env(UMAZE)
    assert set(pathlib.Path(tempfile.gettempdir()).glob("ant_maze*")) <= before


def test_observation_is_position_and_v4s_27(env):
    env.reset(seed=0)
    for _ in range(5):
        observation, *_ = env.step(env.action_space.sample())
    ant = env.unwrapped.ant_env
    np.testing.assert_array_equal(observation, np.concatenate([ant.data.qpos, ant.data.qvel]))
    v4 = registered.make_registered("Ant-v4")
    v4.reset(seed=0)
    v4.unwrapped.set_state(ant.data.qpos.copy(), ant.data.qvel.copy())
    np.testing.assert_array_equal(observation[2:], v4.unwrapped._get_obs())


def test_success_ends_the_episode_and_a_fall_does_not(env):
    env.reset(seed=0)
    ant = env.unwrapped.ant_env

    def place(offset, height=0.75):
        position = ant.init_qpos.copy()
        position[:3] = [*(env.goal + np.array([offset, 0.0])), height]
        ant.set_state(position, np.zeros(14))
        _, reward, terminated, truncated, info = env.step(np.zeros(8, np.float32))
        assert not truncated
        assert reward == terminated == info["success"]
        return terminated

    assert not place(0.53)  # it hardly moves within a step
    assert not place(0.53, height=0.1)
    assert place(0.47)


def test_layouts_of_the_kinds_of_data():
    maze = layout(UMAZE).maze
    anywhere = set(maze.cells())
    for name, starts, goals in (
        ("umaze", {(3, 1)}, {(1, 1)}),
        ("umaze-diverse", anywhere - {(1, 1)}, anywhere),
    ):
        here = layout(envs.get_task(f"antmaze/{name}"))
        assert (here.starts, here.goal) == (((3, 1),), (1, 1))
        assert (set(here.collection_starts), set(here.collection_goals)) == (starts, goals)
    play = layout(envs.get_task("antmaze/large-play"))
    assert (play.starts, play.goal, play.collection_goals) == (((1, 1),), (7, 9), ((7, 9),))
    assert len(play.collection_starts) == len(play.maze.cells()) - 1


class Steered:
    """Parts that the controller sees of a vector environment."""

    def __init__(self, *goals):
        self.goals = np.array(goals, float)

    def get_attr(self, name):
        assert name == "steering_goal"
        return self.goals


def test_controller_by_hand():
    # The first ant is two rows below its goal's cell and goes right, then up; 7 units lie before it, of which it sees
    # 6. The second is beside its goal.
    policy = tiny.make_policy("deterministic", 29, 8)
    observations = np.random.default_rng(0).normal(size=(2, 29))
    observations[:, :2] = [[-3.0, -4.0], [-4.5, 4.0]]
    vector = Steered([-4.5, 4.5], [-4.5, 4.5])
    maze = dataclasses.replace(layout(UMAZE).maze, rows=("#####", "#...#", "###.#", "#...#", "#####"))
    maze = dataclasses.replace(maze, cell_size=4.0)
    relative = np.array([[3.0, 0.0], [0.0, 0.5]])
    seen, turns = egocentric.view(observations[:, 2:], relative)
    draws = np.array([behaviour.act(maze, policy, vector, observations, jax.random.key(seed)) for seed in range(300)])
    expected = egocentric.turn_back(np.asarray(sample_actions(policy, seen, jax.random.key(0))), turns)
    inside = np.abs(expected) < 0.4  # where noise of 0.2 is hardly ever clipped
    np.testing.assert_allclose(draws.mean(axis=0)[inside], expected[inside], atol=0.06)
    np.testing.assert_allclose(draws.std(axis=0)[inside], 0.2, atol=0.04)
    assert np.abs(draws).max() <= 1.0


def test_waypoints_farther_than_the_ant_has_learnt_come_nearer(monkeypatch):
    seen = []
    monkeypatch.setattr(
        behaviour, "sample_actions", lambda policy, observations, key: seen.append(observations) or np.zeros((1, 8))
    )
    observations = np.zeros((1, 29))
    observations[0, :2] = [-5.9, -5.9]  # in the lower left corner of its cell, 5.9 + 1.9 units before the next centre
    behaviour.act(layout(UMAZE).maze, None, Steered([-4.0, 4.0]), observations, jax.random.key(0))
    relative = seen[0][0, -2:]
    np.testing.assert_allclose(np.linalg.norm(relative), 6.0)
    np.testing.assert_allclose(relative[1] / relative[0], 1.9 / 5.9)


def test_datasets_need_the_goal_reaching_ant(monkeypatch, tmp_path):
    monkeypatch.setattr(behaviour, "GOAL_ANT_POLICY", tmp_path / "goal-ant.npz")
    with pytest.raises(
        FileNotFoundError, match=r"train it with python -m experiments.behaviour --env=antmaze/goal-ant"
    ):
        antmaze.behaviours(UMAZE)
    with pytest.raises(ValueError, match="antmaze/goal-ant has no dataset"):
        antmaze.behaviours(envs.get_task("antmaze/goal-ant"))
    with pytest.raises(ValueError, match="antmaze/goal-ant names no dataset"):
        antmaze.load_dataset(envs.get_task("antmaze/goal-ant"))


@pytest.mark.filterwarnings("ignore")
def test_generated_dataset_passes_both_readers(minari_root, monkeypatch):
    # An untrained ant, and goals as wide as the maze, so that it reaches some.
    monkeypatch.setattr(behaviour, "GOAL_ANT_POLICY", minari_root / "goal-ant.npz")
    save_behaviour(minari_root / "goal-ant.npz", tiny.make_policy("tanh_gaussian", 29, 8), {})
    task = envs.get_task("antmaze/umaze-diverse")
    assert dataset.make_dataset(task, 800) == "o2o/antmaze/umaze-diverse-v0"
    loaded = antmaze.load_dataset(task)
    theirs = minari.load_dataset("o2o/antmaze/umaze-diverse-v0")
    rows = loaded.transitions
    assert loaded.size == theirs.total_steps == 800
    assert rows.observation.shape == (800, 29)
    np.testing.assert_array_equal(rows.reward, rows.terminated)
    np.testing.assert_array_equal(np.diff(loaded.episode_ends, prepend=0), [len(e) for e in theirs.iterate_episodes()])
    inside = np.setdiff1d(np.arange(800), loaded.episode_ends - 1)
    np.testing.assert_array_equal(rows.next_observation[inside], rows.observation[inside + 1])
    assert np.abs(rows.next_observation - rows.observation)[:, :2].max() < 1.0  # no reset is a transition
    recovered = theirs.recover_environment(eval_env=True).spec
    assert recovered.kwargs["maze_map"] == gymnasium_map(layout(task).maze, ((3, 1),), ((1, 1),))
    assert recovered.max_episode_steps == 700


def recording(goal, positions, truncated_at_end=True):
    """An episode as Minari has it: dictionaries, and the ant stays where it arrived."""
    steps = len(positions) - 1
    return EpisodeBuffer(
        observations={
            "observation": np.arange(27.0) + np.zeros((steps + 1, 27)),
            "achieved_goal": np.asarray(positions, float),
            "desired_goal": np.repeat(np.array([goal], float), steps + 1, axis=0),
        },
        actions=np.zeros((steps, 8), np.float32),
        rewards=(np.linalg.norm(np.asarray(positions[1:]) - goal, axis=1) <= 0.45).astype(float),
        terminations=np.zeros(steps, bool),
        truncations=np.arange(steps) == steps - 1,
    )


@pytest.mark.filterwarnings("ignore")
def test_minaris_recordings_load(minari_root):
    # To (-4, 4) along y = 4 in steps of 0.2, where the ant stays; and to a goal elsewhere, far from it.
    there = np.stack([np.maximum(np.arange(0.0, -8.0, -0.2), -4.0), np.full(40, 4.0)], axis=1)
    away = np.stack([np.linspace(0.0, 4.0, 31), np.full(31, -4.0)], axis=1)
    env = registered.make_registered("AntMaze_UMaze-v4", continuing_task=True)
    minari.create_dataset_from_buffers(
        "D4RL/antmaze/umaze-diverse-v1", [recording((-4.0, 4.0), there), recording((4.0, -4.0), away)], env=env.spec
    )
    task = envs.get_task("antmaze/umaze-diverse")
    loaded = antmaze.load_dataset(task, "D4RL/antmaze/umaze-diverse-v1")
    # -3.6 lies within 0.5 of -4: 18 steps. What was recorded there afterwards is left out.
    assert loaded.episode_ends.tolist() == [18, 48]
    assert loaded.returns().tolist() == [1, 0]
    rows = loaded.transitions
    np.testing.assert_allclose(rows.next_observation[17, :2], [-3.6, 4.0], rtol=1e-6)
    np.testing.assert_array_equal(rows.observation[:, 2:], np.tile(np.arange(27.0), (48, 1)))
    np.testing.assert_array_equal(np.flatnonzero(rows.terminated), [17])


@pytest.mark.filterwarnings("ignore")
def test_recordings_with_other_starts_and_goals_in_the_same_walls_fit(minari_root):
    positions = np.stack([np.linspace(-10.0, -9.0, 11), np.full(11, 10.0)], axis=1)
    env = registered.make_registered("AntMaze_Medium_Diverse_GR-v4", continuing_task=True)
    minari.create_dataset_from_buffers(
        "D4RL/antmaze/medium-diverse-v1", [recording((10.0, 6.0), positions)], env=env.spec
    )
    for name in ("medium-diverse", "medium-play"):
        assert antmaze.load_dataset(envs.get_task(f"antmaze/{name}"), "D4RL/antmaze/medium-diverse-v1").size == 10
    with pytest.raises(ValueError, match="recorded in AntMaze_Medium_Diverse_GR-v4, but antmaze/large-play runs"):
        antmaze.load_dataset(envs.get_task("antmaze/large-play"), "D4RL/antmaze/medium-diverse-v1")


@pytest.mark.parametrize(
    ("dataset_id", "task"),
    [(f"D4RL/antmaze/{name}-v1", f"antmaze/{name}") for name in NAMES]
    + [(f"D4RL/pointmaze/{name}{kind}-v2", f"pointmaze/{name}") for name in PLACES for kind in ("", "-dense")],
)
def test_remote_ids_resolve_to_their_task(dataset_id, task):
    assert envs.task_of_dataset(dataset_id).name == task
