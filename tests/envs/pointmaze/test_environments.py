import dataclasses

import gymnasium
import jax
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from o2o_jax import envs
from o2o_jax.cli import dataset
from o2o_jax.envs import pointmaze
from o2o_jax.envs.pointmaze.behaviour import act
from o2o_jax.envs.pointmaze.tasks import layout
from o2o_jax.envs.vector import last_observations

UMAZE = envs.get_task("pointmaze/umaze")


@pytest.fixture(scope="module")
def env():
    return pointmaze.make_env(UMAZE)


def place(env, position, velocity=(0.0, 0.0)):
    env.unwrapped.point_env.set_state(np.array(position, float), np.array(velocity, float))


@pytest.mark.parametrize(("maze", "limit"), [("umaze", 700), ("medium", 1000), ("large", 1000)])
def test_environment_fits_its_task(maze, limit):
    task = envs.get_task(f"pointmaze/{maze}")
    env = pointmaze.make_env(task)
    assert env.observation_space == gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (2,))
    assert env.spec.max_episode_steps == task.max_episode_steps == limit
    np.testing.assert_array_equal(task.score(np.array([0.0, 0.25, 1.0])), [0, 25, 100])


def test_starts_and_goals_are_drawn_anew(env):
    starts, goals = [], []
    for seed in range(60):
        observation, info = env.reset(seed=seed)
        starts.append(observation[:2])
        goals.append(env.goal)
        assert info == {}
        np.testing.assert_array_equal(observation[2:], 0)
        np.testing.assert_array_equal(env.goal, env.steering_goal)
    # The goal's cell is the one in the upper left corner, centred at (-1, 1); no start lies in it.
    assert np.abs(np.array(goals) - [-1, 1]).max() <= 0.25
    assert np.std(goals, axis=0).min() > 0.1
    cells = {layout(UMAZE).maze.cell(start) for start in starts}
    assert cells == set(layout(UMAZE).maze.cells()) - {(1, 1)}
    observation, _ = env.reset(seed=3)
    np.testing.assert_array_equal(observation[:2], starts[3])
    np.testing.assert_array_equal(env.goal, goals[3])


def test_success_ends_the_episode(env):
    # The ball is at rest, so that the step ends where it was placed.
    env.reset(seed=0)
    place(env, np.add(env.goal, [0.51, 0.0]))
    observation, reward, terminated, truncated, info = env.step(np.zeros(2, np.float32))
    assert (reward, terminated, truncated, info) == (0.0, False, False, {"success": False})
    place(env, np.add(env.goal, [0.49, 0.0]))
    observation, reward, terminated, truncated, info = env.step(np.zeros(2, np.float32))
    assert (reward, terminated, truncated, info) == (1.0, True, False, {"success": True})
    np.testing.assert_allclose(observation[:2], np.add(env.goal, [0.49, 0.0]))


def test_observation_is_position_and_velocity(env):
    env.reset(seed=0)
    place(env, [1.0, 0.5], [2.0, -1.0])
    observation, *_ = env.step(np.zeros(2, np.float32))
    # 0.01 s at hardly less than that velocity
    np.testing.assert_allclose(observation, [1.02, 0.49, 2.0, -1.0], atol=0.01)


def test_vector_never_shows_a_reset_row():
    task = dataclasses.replace(UMAZE, max_episode_steps=5)
    vector = pointmaze.make_vector_env(task, 2)
    single = pointmaze.make_env(task)
    observations, _ = vector.reset(seed=[3, 4])
    np.testing.assert_array_equal(observations[0], single.reset(seed=3)[0])
    action = np.array([0.1, -0.2], np.float32)
    for step in range(1, 6):
        after_reset, _, terminated, truncated, info = vector.step(np.stack([action, action]))
        expected, *_ = single.step(action)
        np.testing.assert_array_equal(last_observations(after_reset, info)[0], expected)
        assert not terminated.any()
        assert truncated.tolist() == [step == 5] * 2
    assert np.abs(after_reset[0] - expected).max() > 1e-3  # the row itself is the next episode's


@pytest.mark.parametrize("maze", ["umaze", "medium"])
def test_controller_reaches_the_goal_from_everywhere(maze):
    task = envs.get_task(f"pointmaze/{maze}")
    (behaviour,) = pointmaze.behaviours(task)
    assert (behaviour.name, behaviour.share) == ("waypoint controller", 1.0)
    vector = pointmaze.make_vector_env(task, 8)
    episodes = dataset.collect(vector, behaviour.act, 3_000, jax.random.key(0), np.random.default_rng(0))
    assert len(episodes) > 10
    assert all(episode["terminations"][-1] and episode["rewards"].sum() == 1 for episode in episodes[:-1])


def test_controller_by_hand():
    class Steered:
        def get_attr(self, name):
            assert name == "steering_goal"
            return np.array([[-1.0, 1.0], [-1.0, 1.0]])

    # In the cell of the goal, at distance (0.02, -0.05) and velocity (0.1, -0.2): 10 · distance − velocity. From the
    # lower left cell the way leads right first: the force towards the centre of the next cell is clipped to 1.
    observations = np.array([[-1.02, 1.05, 0.1, -0.2], [-1.0, -1.0, 0.0, 0.0]])
    maze = layout(UMAZE).maze
    draws = [act(maze, Steered(), observations, jax.random.key(seed)) for seed in range(400)]
    np.testing.assert_allclose(np.mean(draws, axis=0)[0], [0.1, -0.3], atol=0.06)
    noise = 0.5 * np.asarray(jax.random.normal(jax.random.key(0), (2, 2)))
    expected = np.clip(np.array([[0.1, -0.3], [1.0, 0.0]]) + noise, -1, 1)
    np.testing.assert_allclose(draws[0], expected, atol=1e-6)


def test_episodes_are_recorded_on_the_way_to_anywhere():
    vector = pointmaze.make_collection_env(UMAZE, 2)
    vector.reset(seed=[0, 1])
    maze = layout(UMAZE).maze
    steered_to, rewarded = set(), []
    (behaviour,) = pointmaze.behaviours(UMAZE)
    observations, _ = vector.reset(seed=[0, 1])
    for step in range(1_500):
        steering_goals, goals = vector.get_attr("steering_goal"), vector.get_attr("goal")
        for steering_goal, goal in zip(steering_goals, goals, strict=True):
            steered_to.add(maze.cell(steering_goal))
            assert np.abs(goal - [-1, 1]).max() <= 0.25
            if maze.cell(steering_goal) == (1, 1):
                np.testing.assert_array_equal(steering_goal, goal)
        actions = behaviour.act(vector, observations, jax.random.key(step))
        observations, rewards, terminated, _, info = vector.step(actions)
        last = last_observations(observations, info)[:, :2]
        near = np.linalg.norm(last - np.stack(goals), axis=1) <= 0.5
        np.testing.assert_array_equal(terminated, near)
        np.testing.assert_array_equal(rewards, near)
        rewarded += [reward for reward in rewards if reward]
    assert len(steered_to) > 4
    assert rewarded


@pytest.mark.filterwarnings("ignore")
def test_generated_dataset_passes_both_readers(minari_root):
    assert dataset.make_dataset(UMAZE, 2_000) == "o2o/pointmaze/umaze-v0"
    loaded = pointmaze.load_dataset(UMAZE)
    theirs = minari.load_dataset("o2o/pointmaze/umaze-v0")
    assert loaded.size == theirs.total_steps == 2_000
    rows = loaded.transitions
    last = loaded.episode_ends - 1
    np.testing.assert_array_equal(rows.reward, rows.terminated)
    assert rows.terminated.sum() == rows.terminated[last].sum() > 0
    assert loaded.returns().tolist() == [episode.rewards.sum() for episode in theirs.iterate_episodes()]
    inside = np.setdiff1d(np.arange(2_000), last)
    np.testing.assert_array_equal(rows.next_observation[inside], rows.observation[inside + 1])
    # 5 per second at most, for 0.01 s: no reset is a transition
    assert np.abs(rows.next_observation - rows.observation)[:, :2].max() < 0.06
    # Played again from their seeds, all episodes are the same.
    vector = pointmaze.make_collection_env(UMAZE, 1)
    seeds = [metadata["seed"] for metadata in theirs.storage.get_episode_metadata(theirs.episode_indices)]
    for seed, episode in zip(seeds, theirs.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(vector.reset(seed=[seed])[0][0], episode.observations[0])
        for step, action in enumerate(episode.actions):
            observations, rewards, terminated, _, info = vector.step(action[None])
            last = last_observations(observations, info)
            np.testing.assert_array_equal(last[0], episode.observations[step + 1])
            assert (rewards[0], terminated[0]) == (episode.rewards[step], episode.terminations[step])
    assert theirs.recover_environment(eval_env=True).spec.kwargs["maze_map"][1] == [1, "g", "r", "r", 1]


@pytest.mark.filterwarnings("ignore")
def test_minaris_recordings_load(minari_root):
    # As Minari's: one long way cut where a goal was reached, the next episode's first goal still the old one, and
    # goals all over the maze; here the ball is dragged.
    cells = [(1, 2), (1, 1), (3, 3), (1, 1)]
    maze = layout(UMAZE).maze
    buffers, position, old_goal = [], maze.centre((1, 3)), np.zeros(2)
    for cell in cells:
        goal = maze.centre(cell) + 0.1
        positions = np.linspace(position, goal, 21)
        observations = {
            "observation": np.hstack([positions, np.full((21, 2), 9.0)]),
            "achieved_goal": positions,
            "desired_goal": np.vstack([old_goal, np.repeat(goal[None], 20, axis=0)]),
        }
        reached = np.linalg.norm(positions[1:] - goal, axis=1) <= 0.45
        buffers.append(
            EpisodeBuffer(
                observations=observations,
                actions=np.zeros((20, 2), np.float32),
                rewards=reached.astype(float),
                terminations=np.zeros(20, bool),
                truncations=np.arange(20) == 19,
            )
        )
        position, old_goal = goal, goal
    env = gymnasium.make("PointMaze_UMaze-v3", continuing_task=True, reset_target=True)
    minari.create_dataset_from_buffers("D4RL/pointmaze/umaze-v2", buffers, env=env.spec)
    loaded = pointmaze.load_dataset(UMAZE, "D4RL/pointmaze/umaze-v2")
    assert loaded.transitions.observation.shape[1] == 4
    np.testing.assert_array_equal(loaded.transitions.observation[:, 2:], 9)
    # The first doesn't come near (-1, 1). The second goes a unit of length from (0.1, 1.1) to (-0.9, 1.1) and the
    # fourth starts at (1.1, -0.9), so that both are cut at 0.5 from their goal. The third leads away from there and
    # gets a goal of evaluation, near which it begins.
    lengths = np.diff(loaded.episode_ends, prepend=0)
    assert lengths[[0, 1, 3]].tolist() == [20, 10, 17]
    assert 10 < lengths[2] < 20
    assert loaded.returns().tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match="recorded in PointMaze_UMaze-v3, but pointmaze/medium runs PointMaze_Medium"):
        pointmaze.load_dataset(envs.get_task("pointmaze/medium"), "D4RL/pointmaze/umaze-v2")
