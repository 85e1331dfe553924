"""The decision transformer: what each step's action may depend on, and the bounds of its distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import networks
from o2o_jax.types import History

STEPS = 4
ACTOR = networks.DecisionTransformer(action_dim=2, width=8, layers=2, heads=2, dropout=0.5)
APPLY = jax.jit(ACTOR.apply)


def make_history(batch=2, steps=STEPS, valid=None):
    keys = jax.random.split(jax.random.key(0), 3)
    return History(
        observation=jax.random.normal(keys[0], (batch, steps, 3)),
        action=jax.random.uniform(keys[1], (batch, steps, 2), minval=-1.0, maxval=1.0),
        return_to_go=jax.random.normal(keys[2], (batch, steps)),
        valid=jnp.ones((batch, steps)) if valid is None else jnp.asarray([valid] * batch, jnp.float32),
    )


@pytest.fixture(scope="module")
def params():
    return jax.jit(ACTOR.init)(jax.random.key(1), make_history())


def differs(params, before, after):
    """Tells for each step whether its distributions differ."""
    means = [APPLY(params, history).mean for history in (before, after)]
    return jnp.any(means[0] != means[1], axis=(0, 2)).tolist()


@pytest.mark.parametrize(
    ("field", "dependent"),
    [
        ("return_to_go", [False, False, True, True]),
        ("observation", [False, False, True, True]),
        ("action", [False, False, False, True]),  # a step's own action comes after what it is read off
    ],
)
def test_nothing_that_follows_counts(field, dependent, params):
    history = make_history()
    changed = history.replace(**{field: getattr(history, field).at[:, 2].add(1.0)})
    assert differs(params, history, changed) == dependent


def test_padding_does_not_count(params):
    history = make_history(valid=[0, 0, 1, 1])
    padding = history.valid == 0
    changed = history.replace(
        observation=jnp.where(padding[..., None], 9.0, history.observation),
        action=jnp.where(padding[..., None], 0.9, history.action),
        return_to_go=jnp.where(padding, -9.0, history.return_to_go),
    )
    assert differs(params, history, changed)[2:] == [False, False]
    # nor does how much of it there is
    shorter = jax.tree.map(lambda column: column[:, 2:], history)
    found, expected = APPLY(params, history), APPLY(params, shorter)
    np.testing.assert_allclose(found.mean[:, 2:], expected.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.log_std[:, 2:], expected.log_std, rtol=1e-4, atol=1e-5)
    assert jnp.all(jnp.isfinite(found.mean))  # where a step sees nothing at all


def test_a_history_is_mapped_as_it_is_in_a_batch(params):
    history = make_history()
    one = jax.tree.map(lambda column: column[1], history)
    np.testing.assert_allclose(APPLY(params, one).mean, APPLY(params, history).mean[1], rtol=1e-4, atol=1e-5)


def test_log_std_is_bounded(params):
    output = params["params"]["Dense_4"]
    found = []
    for bias in (-100.0, 0.0, 100.0):
        layer = {"kernel": jnp.zeros_like(output["kernel"]), "bias": jnp.full(2, bias)}
        found.append(APPLY({"params": params["params"] | {"Dense_4": layer}}, make_history()).log_std[0, 0, 0])
    np.testing.assert_allclose(found, [-5.0, -1.5, 2.0], rtol=1e-6)


def test_dropout_is_for_training_alone(params):
    history = make_history()
    train = jax.jit(lambda key: ACTOR.apply(params, history, deterministic=False, rngs={"dropout": key}).mean)
    assert jnp.any(train(jax.random.key(0)) != train(jax.random.key(1)))
    np.testing.assert_array_equal(APPLY(params, history).mean, APPLY(params, history).mean)


def test_weights_begin_as_the_authors_do(params):
    block = params["params"]["Block_0"]
    assert 0.015 < jnp.std(block["Dense_2"]["kernel"]) < 0.025
    assert all(jnp.all(block[f"Dense_{index}"]["bias"] == 0.0) for index in range(4))
    kernel = params["params"]["Dense_3"]["kernel"]  # of the mean
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(2), atol=1e-5)
