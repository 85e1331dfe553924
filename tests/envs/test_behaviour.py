import jax
import numpy as np
import pytest

from o2o_jax.envs.behaviour import load_behaviour, save_behaviour
from o2o_jax.networks import HEADS
from tests import tiny


@pytest.mark.parametrize("head", sorted(HEADS))
def test_policy_survives_its_file(tmp_path, head):
    policy = tiny.make_policy(head)
    save_behaviour(tmp_path / "policy.npz", policy, {"env_id": "Hopper-v5", "return_mean": 1.5})
    loaded, metadata = load_behaviour(tmp_path / "policy.npz")
    assert (metadata["env_id"], metadata["return_mean"]) == ("Hopper-v5", 1.5)
    assert loaded.actor == policy.actor
    observation = jax.random.normal(jax.random.key(1), (4, 11))
    samples = [p.distribution(observation).sample(jax.random.key(2)) for p in (policy, loaded)]
    np.testing.assert_array_equal(*samples)


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match=r"is an \.npz file"):
        save_behaviour(tmp_path / "policy.txt", tiny.make_policy(), {})
    with pytest.raises(FileNotFoundError, match=r"no behaviour policy '.*none.npz'; python -m experiments.behaviour"):
        load_behaviour(tmp_path / "none.npz")
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 nonsense")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("damaged.npz", "other.npz"):
        with pytest.raises(ValueError, match=f"{name} is damaged .*: pass a file of experiments.behaviour"):
            load_behaviour(tmp_path / name)
