import types

import jax
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.envs import mujoco
from o2o_jax.envs.behaviour import load_behaviour, sample_actions, save_behaviour
from o2o_jax.envs.mujoco import behaviour
from tests import tiny


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
    with pytest.raises(ValueError, match="mujoco/hopper-medium-replay is the replay buffer"):
        mujoco.behaviours(envs.get_task("mujoco/hopper-medium-replay"))


def test_uniform_actions_fill_the_bounds():
    (uniform,) = mujoco.behaviours(envs.get_task("mujoco/hopper-random"))
    vector = types.SimpleNamespace(action_space=types.SimpleNamespace(shape=(500, 3)))
    actions = uniform.act(vector, np.zeros((500, 11)), jax.random.key(0))
    assert actions.shape == (500, 3)
    assert np.abs(actions).max() <= 1.0
    np.testing.assert_allclose([np.mean(actions), np.std(actions)], [0.0, 3**-0.5], atol=0.05)


@pytest.mark.parametrize("name", behaviour.shipped_behaviours())
def test_shipped_policies_load_and_fit_their_environment(name):
    task = envs.get_task(f"mujoco/{name}")
    assert load_behaviour(behaviour.SHIPPED / f"{name}.npz")[1]["env_id"] == task.env_id
    for part in mujoco.behaviours(task):
        actions = part.act(None, np.zeros((2, task.spec.observation_dim)), jax.random.key(0))
        assert actions.shape == (2, task.spec.action_dim)
        assert np.isfinite(actions).all()
