import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.data.transform import Normalizer
from o2o_jax.envs import mujoco
from o2o_jax.envs.mujoco import behaviour
from o2o_jax.networks import HEADS
from o2o_jax.policy import Policy


def make_policy(head="tanh_gaussian", observation_dim=11, action_dim=3):
    actor = HEADS[head](action_dim, (8, 8))
    params = actor.init(jax.random.key(0), jnp.zeros(observation_dim))
    return Policy(params, Normalizer(jnp.arange(1.0 * observation_dim), jnp.full(observation_dim, 2.0)), actor)


@pytest.mark.parametrize("head", sorted(HEADS))
def test_policy_survives_its_file(tmp_path, head):
    policy = make_policy(head)
    mujoco.save_behaviour(tmp_path / "policy.npz", policy, {"env_id": "Hopper-v5", "return_mean": 1.5})
    loaded, metadata = mujoco.load_behaviour(tmp_path / "policy.npz")
    assert (metadata["env_id"], metadata["return_mean"]) == ("Hopper-v5", 1.5)
    assert loaded.actor == policy.actor
    observation = jax.random.normal(jax.random.key(1), (4, 11))
    samples = [p.distribution(observation).sample(jax.random.key(2)) for p in (policy, loaded)]
    np.testing.assert_array_equal(*samples)


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match=r"is an \.npz file"):
        mujoco.save_behaviour(tmp_path / "policy.txt", make_policy(), {})
    with pytest.raises(FileNotFoundError, match=r"no behaviour policy 'hopper-nonsense'; shipped: "):
        mujoco.load_behaviour("hopper-nonsense")
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 nonsense")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("damaged.npz", "other.npz"):
        with pytest.raises(ValueError, match=f"{name} is damaged or no behaviour policy"):
            mujoco.load_behaviour(tmp_path / name)


def test_which_policies_make_a_dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(behaviour, "SHIPPED", tmp_path)
    for quality, head in (("medium", "tanh_gaussian"), ("expert", "gaussian")):
        mujoco.save_behaviour(tmp_path / f"hopper-{quality}.npz", make_policy(head), {})
    assert mujoco.behaviours(envs.get_task("mujoco/hopper-random")) == [None]
    heads = [policy.head for policy in mujoco.behaviours(envs.get_task("mujoco/hopper-medium-expert"))]
    assert heads == ["tanh_gaussian", "gaussian"]
    with pytest.raises(FileNotFoundError, match="'walker2d-medium'; shipped: hopper-expert, hopper-medium"):
        mujoco.behaviours(envs.get_task("mujoco/walker2d-medium"))
    with pytest.raises(ValueError, match="mujoco/hopper-medium-replay is the replay buffer"):
        mujoco.behaviours(envs.get_task("mujoco/hopper-medium-replay"))


@pytest.mark.parametrize("name", behaviour.shipped_behaviours())
def test_shipped_policies_load_and_fit_their_environment(name):
    policy, metadata = mujoco.load_behaviour(name)
    task = envs.get_task(f"mujoco/{name}")
    assert metadata["env_id"] == task.env_id
    action = policy.distribution(jnp.zeros((2, task.spec.observation_dim))).mode()
    assert action.shape == (2, task.spec.action_dim)
    assert np.isfinite(action).all()
