import types

import jax
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.envs import mujoco
from o2o_jax.envs.behaviour import load_behaviour, sample_actions, save_behaviour
from o2o_jax.envs.mujoco import behaviour
from tests import tiny


def vector(num_envs, action_dim):
    """Parts that behaviours read of a vector environment."""
    return types.SimpleNamespace(action_space=types.SimpleNamespace(shape=(num_envs, action_dim)))


def test_who_makes_a_dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(behaviour, "SHIPPED", tmp_path)
    for quality, head in (("medium", "tanh_gaussian"), ("expert", "gaussian")):
        save_behaviour(tmp_path / f"hopper-{quality}.npz", tiny.make_policy(head), {})
    (uniform,) = mujoco.behaviours(envs.get_task("mujoco/hopper-random"))
    assert (uniform.name, uniform.share) == ("uniform actions", 1.0)
    mixture = mujoco.behaviours(envs.get_task("mujoco/hopper-medium-expert"))
    assert [part.name for part in mixture] == ["sampled medium policy", "sampled expert policy"]
    assert [part.share for part in mixture] == [0.5, 0.5]
    observations, key = np.ones((4, 11)), jax.random.key(0)
    expert = load_behaviour(tmp_path / "hopper-expert.npz")[0]
    np.testing.assert_array_equal(mixture[1].act(None, observations, key), sample_actions(expert, observations, key))
    with pytest.raises(FileNotFoundError, match="'walker2d-medium'; shipped: hopper-expert, hopper-medium"):
        mujoco.behaviours(envs.get_task("mujoco/walker2d-medium"))
    assert len(mujoco.behaviours(envs.get_task("mujoco/hopper-v4-medium-expert"))) == 2
    with pytest.raises(ValueError, match="mujoco/hopper has no dataset of its own: choose a quality"):
        mujoco.behaviours(envs.get_task("mujoco/hopper"))


def test_replay_is_random_steps_then_snapshots(tmp_path, monkeypatch):
    monkeypatch.setattr(behaviour, "SHIPPED", tmp_path)
    policies = [tiny.make_policy(seed=seed) for seed in range(3)]
    metadata = {"shares": [0.3, 0.4, 0.2], "random_share": 0.1}
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *policies)
    save_behaviour(tmp_path / "hopper-medium-replay.npz", stacked, metadata, np.float16)
    first, *rest = mujoco.behaviours(envs.get_task("mujoco/hopper-medium-replay"))
    assert (first.name, first.share) == ("uniform actions", 0.1)
    assert [part.share for part in rest] == [0.3, 0.4, 0.2]
    observations, key = np.ones((4, 11)), jax.random.key(0)
    for policy, part in zip(policies, rest, strict=True):
        np.testing.assert_allclose(
            part.act(None, observations, key), sample_actions(policy, observations, key), atol=2e-3
        )
    with pytest.raises(FileNotFoundError, match="experiments.behaviour --env=mujoco/walker2d trains one"):
        mujoco.behaviours(envs.get_task("mujoco/walker2d-medium-replay"))


def test_uniform_actions_fill_the_bounds():
    (uniform,) = mujoco.behaviours(envs.get_task("mujoco/hopper-random"))
    actions = uniform.act(vector(500, 3), np.zeros((500, 11)), jax.random.key(0))
    assert actions.shape == (500, 3)
    assert np.abs(actions).max() <= 1.0
    np.testing.assert_allclose([np.mean(actions), np.std(actions)], [0.0, 3**-0.5], atol=0.05)


@pytest.mark.parametrize("name", behaviour.shipped_behaviours())
def test_shipped_policies_load_and_fit_their_environment(name):
    task = envs.get_task(f"mujoco/{name}")
    assert behaviour.shipped(name)[1]["env_id"] == task.env_id
    for part in mujoco.behaviours(task):
        observations = np.zeros((2, task.spec.observation_dim))
        actions = part.act(vector(2, task.spec.action_dim), observations, jax.random.key(0))
        assert actions.shape == (2, task.spec.action_dim)
        assert np.isfinite(actions).all()


def test_shipped_policies_are_small():
    assert sum(len((behaviour.SHIPPED / f"{name}.npz").read_bytes()) for name in behaviour.shipped_behaviours()) < 12e6
