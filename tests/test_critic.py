import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import networks, offline, online
from o2o_jax.critic import QFunction
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.policy import Handoff
from o2o_jax.types import Spec
from tests import tiny

SPEC = Spec(observation_dim=3, action_dim=2)


def make(discount=0.9, alpha=0.0, **transform):
    network = networks.make_critic((8,), layer_norm=False, num_critics=2)
    params = network.init(jax.random.key(0), jnp.zeros((1, 3)), jnp.zeros((1, 2)))
    normalizer = Normalizer(jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 2.0, 2.0]))
    return QFunction(params, Transform(normalizer, **transform), jnp.asarray(alpha), network, discount)


def test_it_takes_raw_observations_and_gives_the_lower_twin():
    critic = make()
    batch = tiny.random_batch(SPEC)
    normalized = (batch.observation - jnp.array([[1.0, 2.0, 3.0]])) / 2.0
    twins = critic.network.apply(critic.params, normalized, batch.action)
    np.testing.assert_allclose(critic(batch.observation, batch.action), jnp.min(twins, axis=0), rtol=1e-6)


@pytest.mark.parametrize("other", [{"discount": 0.8}, {"reward_scale": 2.0}, {"reward_shift": -1.0}])
def test_values_of_other_rewards_are_not_compared(other):
    assert make().same_units(make(alpha=0.5))
    assert not make().same_units(make(**other))


CONFIG = {"hidden": (8,), "critic_hidden": (8,), "discount": 0.7}


def states():
    """Every algorithm with critics, and its first state."""
    for name in offline.names():
        module = offline.load(name)
        if hasattr(module.Config, "critic_hidden"):
            algorithm = module.make(module.Config(**CONFIG), SPEC)
            yield name, algorithm, algorithm.init(jax.random.key(0), Normalizer.identity(3))
    for name in online.names():
        module = online.load(name)
        extra = {"critic_source": "random"} if hasattr(module.Config, "critic_source") else {}
        algorithm = module.make(module.Config(**CONFIG, **extra), SPEC)
        policy = Handoff(tiny.make_policy(algorithm.head, 3, 2))
        policy = None if algorithm.critic is None else policy.replace(policy=_small(policy.policy))
        yield name, algorithm, algorithm.init(jax.random.key(0), policy)


def _small(policy):
    actor = type(policy.actor)(2, (8,))
    return policy.replace(params=actor.init(jax.random.key(0), jnp.zeros((1, 3))), actor=actor)


def test_every_algorithm_with_critics_shows_them():
    shown = {}
    for name, algorithm, state in states():
        if algorithm.critic is None:
            continue
        shown[name] = critic = algorithm.critic(state)
        batch = tiny.random_batch(SPEC)
        values = critic(batch.observation, batch.action)
        assert values.shape == (16,)
        assert jnp.isfinite(values).all()
        assert critic.discount == 0.7
    assert shown.keys() >= {"td3_bc", "cql", "iql", "awac", "o2sac", "o2td3", "sac", "td3"}
    assert not {"bc", "o2ppo", "ppo"} & shown.keys()
    np.testing.assert_allclose(shown["o2sac"].alpha, 0.2, rtol=1e-6)  # soft values
    assert shown["cql"].alpha == shown["o2td3"].alpha == 0.0
