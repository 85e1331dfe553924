"""envpool's environments beside gymnasium's: the same dynamics, and evaluation by either."""

import dataclasses

import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.envs import mujoco
from o2o_jax.runtime.evaluate import Evaluator, PoolEvaluator, make_evaluator, start_seeds

pytest.importorskip("envpool")
ROBOTS = {"hopper": 5, "halfcheetah": 8, "walker2d": 8}  # observed positions; x, the first one, isn't observed


def place(env, observation, x, positions):
    """Puts a gymnasium environment where another one is."""
    env.unwrapped.set_state(np.concatenate([[x], observation[:positions]]), observation[positions:])


@pytest.mark.parametrize(("robot", "positions"), ROBOTS.items())
def test_equal_states_and_actions_lead_to_equal_states(robot, positions):
    task = envs.get_task(f"mujoco/{robot}-medium")
    pool = mujoco.make_pool(task, [3, 4])
    observations, info = pool.reset()
    twins = [mujoco.make_env(task) for _ in range(2)]
    for i, twin in enumerate(twins):
        twin.reset(seed=0)
        place(twin, observations[i], info["x_position"][i], positions)
    random = np.random.default_rng(0)
    for _ in range(10):
        actions = random.uniform(-1.0, 1.0, (2, task.spec.action_dim))
        observations, rewards, terminated, _, _ = pool.step(actions)
        for i, twin in enumerate(twins):
            observation, reward, fell, _, _ = twin.step(actions[i])
            np.testing.assert_allclose(observations[i], observation, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(rewards[i], reward, rtol=1e-5, atol=1e-6)
            assert terminated[i] == fell
        if terminated.any():
            break
    pool.close()


def test_an_episode_is_truncated_at_the_limit_of_the_task():
    pool = mujoco.make_pool(envs.get_task("mujoco/halfcheetah"), [0])
    pool.reset()
    flags = [pool.step(np.zeros((1, 6)))[2:4] for _ in range(1_000)]
    assert [bool(truncated[0]) for _, truncated in flags] == [False] * 999 + [True]
    assert not any(terminated[0] for terminated, _ in flags)


def episode(task, observation, x):
    """Return and length of doing nothing in gymnasium's Hopper, from where another one is."""
    env = mujoco.make_env(task)
    env.reset(seed=0)
    place(env, observation, x, ROBOTS["hopper"])
    total, length, ended = 0.0, 0, False
    while not ended:
        _, reward, terminated, truncated, _ = env.step(np.zeros(3))
        total, length, ended = total + reward, length + 1, terminated or truncated
    return total, length


def test_evaluation_counts_episodes_to_their_ends_alone():
    # Hopper falls when it does nothing, sooner or later: rows of episodes that others outlast must not count
    task = envs.get_task("mujoco/hopper")
    evaluator = make_evaluator(mujoco, task, [0, 1], 3, pool=True)
    assert isinstance(evaluator, PoolEvaluator)
    received, asked = [], []

    def act(observations):
        assert observations.shape == (2, 3, 11)
        assert observations.dtype == np.float32
        asked.append(observations)
        return np.zeros((2, 3, 3), np.float32)

    returns, lengths = evaluator(act, received.append)
    assert len(set(lengths.ravel())) > 1
    starts = [start for seed in (0, 1) for start in start_seeds(seed, 3, 1)]
    pool = mujoco.make_pool(task, starts)
    observations, info = pool.reset()
    np.testing.assert_array_equal(asked[0].reshape(6, 11), observations.astype(np.float32))
    alone = np.array([episode(task, *start) for start in zip(observations, info["x_position"], strict=True)])
    np.testing.assert_allclose(returns.ravel(), alone[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(lengths.ravel(), alone[:, 1])
    np.testing.assert_allclose(np.sum(received, axis=0), returns, rtol=1e-5)


def test_every_evaluation_starts_alike():
    evaluator = make_evaluator(mujoco, envs.get_task("mujoco/hopper"), [0], 2, pool=True)
    first, second = (evaluator(lambda observations: np.ones((1, 2, 3))) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_without_envpool_gymnasium_evaluates():
    evaluator = make_evaluator(mujoco, envs.get_task("mujoco/hopper"), [0], 1)
    assert isinstance(evaluator, Evaluator)
    evaluator.close()


def test_what_envpool_has_not_is_refused():
    with pytest.raises(ValueError, match="pointmaze/umaze has no environments in envpool"):
        make_evaluator(envs.family("pointmaze"), envs.get_task("pointmaze/umaze"), [0], 1, pool=True)
    unknown = dataclasses.replace(envs.get_task("mujoco/hopper"), env_id="Hoper-v5")
    with pytest.raises(ValueError, match="envpool has no Hoper-v5"):
        mujoco.make_pool(unknown, [0])


def test_arguments_are_none_of_envpool():
    task = dataclasses.replace(envs.get_task("mujoco/hopper-medium"), env_arguments='{"healthy_reward": 0.0}')
    with pytest.raises(ValueError, match="don't take the arguments of mujoco/hopper-medium: evaluate without it"):
        mujoco.make_pool(task, [0])
