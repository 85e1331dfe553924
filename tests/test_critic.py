import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import networks, offline, online
from o2o_jax.critic import QFunction
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.types import Spec
from tests import tiny

SPEC = Spec(observation_dim=3, action_dim=2)


def make(discount=0.9, alpha=0.0, **transform):
    network = networks.Critics((8,), layer_norm=False, num_critics=2)
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


def algorithms():
    """Every algorithm that shows critics, with its first state."""
    for name in offline.names():
        module = offline.load(name)
        if hasattr(module.Config, "critic_hidden"):
            algorithm = module.make(tiny.config(module.Config, **CONFIG), SPEC)
            yield f"offline {name}", algorithm, algorithm.init(jax.random.key(0), Normalizer.identity(3))
    for name in online.names():
        module = online.load(name)
        algorithm = module.make(tiny.configure(module.Config, **CONFIG, critic_source="random"), SPEC)
        if algorithm.critic:
            yield f"online {name}", algorithm, algorithm.init(jax.random.key(0))


def test_every_algorithm_with_critics_shows_them():
    shown = {name: algorithm.critic(state) for name, algorithm, state in algorithms()}
    offline = ("td3_bc", "rebrac", "cql", "cal_ql", "iql", "awac", "sac_ml", "cql_ensemble")
    online = (
        "o2sac",
        "o2td3",
        "sac",
        "td3",
        "iql",
        "awac",
        "cal_ql",
        "pex",
        "aca",
        "off2on",
        "pa_rl",
        "rlpd",
        "wsrl",
        "proto",
        "proto_td3",
    )
    assert shown.keys() >= {f"offline {name}" for name in offline} | {f"online {name}" for name in online}
    assert not {"offline bc", "offline dt", "online o2ppo", "online ppo"} & shown.keys()
    batch = tiny.random_batch(SPEC)
    for critic in shown.values():
        values = critic(batch.observation, batch.action)
        assert values.shape == (16,)
        assert jnp.isfinite(values).all()
        assert critic.discount == 0.7
    np.testing.assert_allclose(shown["online o2sac"].alpha, 0.2, rtol=1e-6)  # soft values
    assert shown["offline cql"].alpha == shown["online o2td3"].alpha == 0.0
