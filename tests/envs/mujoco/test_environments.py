import dataclasses
import warnings

import gymnasium
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.envs import mujoco
from o2o_jax.envs.vector import last_observations

HOPPER = envs.get_task("mujoco/hopper")


@pytest.mark.parametrize("robot", ["hopper", "halfcheetah", "walker2d"])
def test_environment_fits_its_task(robot):
    task = envs.get_task(f"mujoco/{robot}-medium")
    env = mujoco.make_env(task)
    assert env.observation_space.shape == (task.spec.observation_dim,)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (task.spec.action_dim,))
    assert env.spec.max_episode_steps == 1000
    assert task.dataset_id == f"o2o/{robot}/medium-v0"


@pytest.mark.parametrize("robot", ["hopper", "halfcheetah", "walker2d"])
def test_version_four_by_name(robot):
    task, newer = envs.get_task(f"mujoco/{robot}-v4-medium"), envs.get_task(f"mujoco/{robot}-medium")
    assert task.env_id == newer.env_id.replace("-v5", "-v4")
    assert task.dataset_id == f"o2o/{robot}-v4/medium-v0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = mujoco.make_env(task)
    assert env.spec.id == task.env_id
    same = {"name", "env_id", "dataset_id", "remote_ids", "same_dynamics"}
    assert dataclasses.replace(task, **{field: getattr(newer, field) for field in same}) == newer


def test_benchmark_has_fifteen_tasks_of_version_five():
    tasks = [envs.get_task(name) for name in mujoco.benchmark()]
    assert len(tasks) == 15
    assert all(task.dataset_id and task.env_id.endswith("-v5") for task in tasks)
    assert {task.transitions for task in tasks} == {1_000_000, 2_000_000, 402_000, 302_000, 202_000}


def test_scores_and_quality():
    task = envs.get_task("mujoco/hopper-medium-expert")
    np.testing.assert_allclose(task.score(np.array([-20.272305, 3234.3])), [0, 100], atol=1e-9)
    assert task.expert_data
    assert not envs.get_task("mujoco/hopper-medium-replay").expert_data


def test_other_action_bounds_are_rescaled():
    pendulum = dataclasses.replace(HOPPER, env_id="InvertedPendulum-v5")  # actions in [-3, 3]
    env = mujoco.make_env(pendulum)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (1,))
    raw = gymnasium.make("InvertedPendulum-v5")
    env.reset(seed=0), raw.reset(seed=0)
    np.testing.assert_array_equal(env.step(np.array([0.5], np.float32))[0], raw.step(np.array([1.5], np.float32))[0])


def test_vector_never_shows_a_reset_row():
    task = dataclasses.replace(HOPPER, max_episode_steps=5)
    vector = mujoco.make_vector_env(task, 2)
    single = mujoco.make_env(task)
    observations, _ = vector.reset(seed=[3, 4])
    np.testing.assert_array_equal(observations[0], single.reset(seed=3)[0])
    action = np.array([0.1, -0.2, 0.3], np.float32)
    for step in range(1, 6):
        after_reset, reward, terminated, truncated, info = vector.step(np.stack([action, action]))
        expected, single_reward, *_ = single.step(action)
        np.testing.assert_array_equal(last_observations(after_reset, info)[0], expected)
        assert reward[0] == single_reward
        assert not terminated.any()
        assert truncated.tolist() == [step == 5] * 2
    assert np.abs(after_reset[0] - expected).max() > 1e-3  # the row itself is the next episode's


def test_no_environments():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        mujoco.make_vector_env(HOPPER, 0)


def test_task_without_a_dataset():
    with pytest.raises(
        ValueError,
        match="mujoco/hopper names no dataset: choose mujoco/hopper-random, mujoco/hopper-medium, .* or pass the id",
    ):
        mujoco.load_dataset(HOPPER)
