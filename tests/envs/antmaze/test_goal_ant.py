import dataclasses

import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.cli import behaviour
from o2o_jax.envs import antmaze, registered
from o2o_jax.envs.antmaze import egocentric
from o2o_jax.envs.behaviour import load_behaviour
from tests import tiny

TASK = envs.get_task("antmaze/goal-ant")


@pytest.fixture(scope="module")
def env():
    return antmaze.make_env(TASK)


def place(env, position, height=0.75):
    ant = env.unwrapped
    qpos = ant.init_qpos.copy()
    qpos[:3] = [*position, height]
    ant.set_state(qpos, np.zeros(14))


def test_goals_lie_around_the_ant(env):
    assert env.observation_space.shape == (TASK.spec.observation_dim,)
    assert env.action_space.shape == (TASK.spec.action_dim,)
    assert env.spec.max_episode_steps == 1_000
    goals = []
    for seed in range(200):
        observation, _ = env.reset(seed=seed)
        offset = env.goal - env.unwrapped.data.qpos[:2]
        np.testing.assert_allclose(np.linalg.norm(observation[-2:]), np.linalg.norm(offset))
        assert observation[-2] > 0.7 * abs(observation[-1])  # in front of the side that counts as the front
        goals.append(offset)
    distance = np.linalg.norm(goals, axis=1)
    assert 1.0 <= distance.min() < 1.2
    assert 5.8 < distance.max() <= 6.0
    angles = np.arctan2(*np.transpose(goals))
    assert np.histogram(angles, bins=8, range=(-np.pi, np.pi))[0].min() > 10
    env.reset(seed=7)
    np.testing.assert_array_equal(env.goal - env.unwrapped.data.qpos[:2], goals[7])


def test_reward_by_hand(env):
    # Ant-v4 beside it, which takes the turned actions: what the ant sees of its observation, and its fall.
    v4 = registered.make_registered("Ant-v4", 1_000)
    observation, _ = env.reset(seed=0)
    goal, before = env.goal, env.unwrapped.data.qpos[:2].copy()
    seen, turns = egocentric.view(v4.reset(seed=0)[0][None], (goal - before)[None])
    np.testing.assert_array_equal(observation, seen[0])
    random = np.random.default_rng(0)
    for _ in range(20):
        action = random.uniform(-1.0, 1.0, 8).astype(np.float32)
        before = env.unwrapped.data.qpos[:2].copy()
        turned = egocentric.turn_back(action[None], turns)[0]
        observation, reward, terminated, truncated, info = env.step(action)
        after = env.unwrapped.data.qpos[:2]
        v4_observation, _, v4_terminated, _, _ = v4.step(turned)
        speed = (np.linalg.norm(goal - before) - np.linalg.norm(goal - after)) / 0.05
        np.testing.assert_allclose(reward, 3.0 * speed + 0.2 - 0.05 * np.square(action).sum(), rtol=1e-5)
        seen, turns = egocentric.view(v4_observation[None], (goal - after)[None])
        np.testing.assert_array_equal(observation, seen[0])
        assert (terminated, truncated, info["success"]) == (v4_terminated, False, False)


def test_a_goal_that_is_reached_is_replaced(env):
    env.reset(seed=0)
    goal = env.goal
    place(env, goal + np.array([0.0, 0.45]))
    observation, reward, terminated, _, info = env.step(np.zeros(8, np.float32))
    assert info["success"]
    assert not terminated
    assert 1.0 <= np.linalg.norm(observation[-2:]) <= 6.0
    assert np.linalg.norm(env.goal - goal) > 0.5
    assert abs(reward) < 3.0  # it hardly moved towards the old goal; none of it is the new one's distance


def test_a_fall_ends_the_episode(env):
    env.reset(seed=0)
    place(env, [0.0, 0.0], height=1.5)  # v4's healthy heights are 0.2 to 1; from below 0.2 it bounces back
    assert env.step(np.zeros(8, np.float32))[2]


def test_an_ant_is_trained_by_the_script_for_behaviours(tmp_path, monkeypatch):
    monkeypatch.setattr(behaviour, "CHOICE_EPISODES", 1)
    monkeypatch.setattr(envs, "get_task", lambda name: dataclasses.replace(TASK, max_episode_steps=20))
    schedule = {"env_steps": 4, "rollout.env_steps": 4, "rollout.minibatch_size": 4, "evaluation.every_env_steps": 4}
    tiny.call(
        behaviour,
        "--env=antmaze/goal-ant",
        f"--out={tmp_path / 'ant'}",
        *tiny.ONLINE_SIZES,
        *(f"--set={name}={value}" for name, value in schedule.items()),
        "--set=evaluation.episodes=1",
    )
    policy, metadata = load_behaviour(tmp_path / "ant" / "snapshots" / "00000004-seed0.npz")
    assert policy.distribution(np.zeros((1, 29), np.float32)).mode().shape == (1, 8)
    assert metadata["env_id"] == "GoalAnt"
