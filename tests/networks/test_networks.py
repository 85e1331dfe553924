"""Outputs of the networks: shapes, activations, initial weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import networks


@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.relu])
def test_value_by_hand(activation):
    # 2 f(1 · 3 − 1 · 1 + 0.5) + 3 f(2 · 3 + 1 · 1) − 1
    layers = {
        "MLP_0": {"Dense_0": {"kernel": jnp.array([[1.0, 2.0], [-1.0, 1.0]]), "bias": jnp.array([0.5, 0.0])}},
        "Dense_0": {"kernel": jnp.array([[2.0], [3.0]]), "bias": jnp.array([-1.0])},
    }
    value = networks.Value((2,), activation=activation).apply({"params": layers}, jnp.array([[3.0, 1.0]]))
    np.testing.assert_allclose(value, [2 * activation(2.5) + 3 * activation(7.0) - 1], rtol=1e-6)


def test_value_keeps_leading_axes():
    network = networks.Value((4,))
    params = network.init(jax.random.key(0), jnp.zeros((1, 3)))
    assert network.apply(params, jnp.zeros((2, 5, 3))).shape == (2, 5)


@pytest.mark.parametrize(
    ("init", "zero_bias"), [("orthogonal", True), ("scaled_orthogonal", True), ("xavier", True), ("fan_in", False)]
)
def test_layers_are_initialised_alike(init, zero_bias):
    params = networks.Value((16, 16), layer_init=init).init(jax.random.key(0), jnp.zeros((1, 4)))["params"]
    for layer, inputs in ((params["MLP_0"]["Dense_0"], 4), (params["MLP_0"]["Dense_1"], 16), (params["Dense_0"], 16)):
        assert bool(jnp.all(layer["bias"] == 0.0)) is zero_bias
        if init in ("xavier", "fan_in"):  # uniform in ±√(6 / (D + W)), or ±1/√D
            bound = np.sqrt(6 / sum(layer["kernel"].shape)) if init == "xavier" else 1 / np.sqrt(inputs)
            assert 0.8 * bound < float(jnp.abs(layer["kernel"]).max()) <= bound
        else:
            scaled = 0.01 if layer is params["Dense_0"] else np.sqrt(2.0)
            gain = 1.0 if init == "orthogonal" else scaled
            np.testing.assert_allclose(jnp.linalg.norm(layer["kernel"], 2), gain, rtol=1e-5)


def test_cap_std_lowers_what_is_above_and_nothing_else():
    actor, observation = networks.GaussianActor(3, (4,)), jnp.ones((1, 2))
    params = actor.init(jax.random.key(0), observation)
    params["params"]["log_std"] = jnp.log(jnp.array([0.01, 0.05, 2.0]))
    capped = networks.cap_std(params, 0.05)
    before, after = actor.apply(params, observation), actor.apply(capped, observation)
    np.testing.assert_allclose(jnp.exp(after.log_std), [0.01, 0.05, 0.05], rtol=1e-5)
    np.testing.assert_array_equal(after.mean, before.mean)
    np.testing.assert_allclose(jnp.exp(before.log_std), [0.01, 0.05, 2.0], rtol=1e-5)


@pytest.mark.parametrize("settings", [((8, 4), True, 2), ((8,), False, 1), ((4, 4, 4), False, 3)])
def test_parameters_tell_how_their_critics_were_made(settings):
    network = networks.Critics(*settings)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 3)), jnp.zeros((1, 2)))
    hidden, layer_norm, num_critics = settings
    expected = {"hidden": hidden, "layer_norm": layer_norm, "num_critics": num_critics}
    assert networks.critic_settings(shapes) == expected


def test_appended_inputs_count_nothing_until_they_learn():
    network, observation = networks.Critics((4, 4), layer_norm=False, num_critics=2), jnp.array([[0.5, -1.0]])
    before = network.init(jax.random.key(0), observation, observation[:, :0])
    after = networks.append_inputs(before, 3)
    action = jnp.array([[1.0, -2.0, 3.0]])
    values = network.apply(before, observation, observation[:, :0])
    np.testing.assert_allclose(network.apply(after, observation, action), values, rtol=1e-6)
    gradient = jax.grad(lambda params: network.apply(params, observation, action).sum())(after)
    assert jnp.abs(gradient["params"]["MLP_0"]["Dense_0"]["kernel"][:, 2:]).max() > 0.0
