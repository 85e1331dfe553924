"""Heads: their bounds, and where their parameters begin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import networks
from o2o_jax.networks.actors import LOG_STD_MAX, LOG_STD_MIN

FAR = jnp.full((4, 3), 1e3)  # observations that drive a linear output far beyond the bounds of actions


def make(head, **settings):
    actor = networks.HEADS[head](2, (8,), **settings)
    return actor, actor.init(jax.random.key(0), FAR)


@pytest.mark.parametrize("head", networks.HEADS)
def test_actions_are_bounded(head):
    actor, params = make(head)
    distribution = actor.apply(params, FAR)
    for action in (distribution.mode(), distribution.sample(jax.random.key(1))):
        assert action.shape == (4, 2)
        assert jnp.all(jnp.abs(action) <= 1.0)


def test_a_bounded_mean_is_the_tanh_of_a_free_one():
    _, params = make("gaussian")
    bounded, free = (networks.HEADS[head](2, (8,)).apply(params, FAR / 1e3) for head in ("gaussian", "gaussian_free"))
    np.testing.assert_allclose(bounded.mean, jnp.tanh(free.mean), rtol=1e-6)
    assert jnp.any(jnp.abs(networks.FreeGaussianActor(2, (8,)).apply(params, FAR).mean) > 1.0)


@pytest.mark.parametrize("head", ["gaussian", "gaussian_free"])
def test_log_std_is_shared_by_all_states_and_bounded(head):
    actor, params = make(head)
    np.testing.assert_array_equal(actor.apply(params, FAR).log_std, np.zeros(2))
    params["params"]["log_std"] = jnp.array([-100.0, 100.0])
    np.testing.assert_array_equal(actor.apply(params, FAR).log_std, [LOG_STD_MIN, LOG_STD_MAX])


@pytest.mark.parametrize("head", ["deterministic", "gaussian", "gaussian_free"])
def test_fan_in_initialises_every_layer_as_pytorch_does(head):
    # uniform in ±1/√inputs, biases too: ±1/√3 of the first layer, ±1/√200 of the second
    actor = networks.HEADS[head](2, (200,), layer_init="fan_in")
    layers = actor.init(jax.random.key(0), FAR)["params"]
    for layer, inputs in ((layers["MLP_0"]["Dense_0"], 3), (layers["Dense_0"], 200)):
        largest = max(jnp.max(jnp.abs(layer[name])) for name in ("kernel", "bias"))
        assert 0.95 < largest * np.sqrt(inputs) <= 1.0
        assert jnp.all(layer["bias"] != 0.0)


def test_critics_are_independent_and_initialised_as_asked():
    observation, action = jnp.zeros((1, 3)), jnp.zeros((1, 2))
    params = networks.Critics((200,), False, 2, layer_init="fan_in").init(jax.random.key(0), observation, action)
    bias = params["params"]["MLP_0"]["Dense_0"]["bias"]
    assert bias.shape == (2, 200)
    assert 0.95 < jnp.max(jnp.abs(bias)) * np.sqrt(5.0) <= 1.0
    assert jnp.all(bias[0] != bias[1])


def test_a_scaled_output_scales_the_mean_before_the_tanh():
    _, params = make("gaussian")
    params["params"]["Dense_0"]["bias"] = jnp.array([0.5, -0.5])
    free = networks.FreeGaussianActor(2, (8,))
    scaled = free.apply(networks.scale_output(params, 0.1), FAR)
    np.testing.assert_allclose(scaled.mean, 0.1 * free.apply(params, FAR).mean, rtol=1e-5)
