import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.ops.regression import WEIGHT_MAX, advantage_weight, expectile_loss

VALUE, TARGET = jnp.array([2.0, 4.0]), jnp.array([3.0, 1.0])


def test_expectile_loss_by_hand():
    # u = 1, −3:   (0.7 · 1 + 0.3 · 9) / 2
    np.testing.assert_allclose(expectile_loss(VALUE, TARGET, 0.7), 1.7, rtol=1e-6)


def test_half_expectile_is_half_the_squared_error():
    np.testing.assert_allclose(expectile_loss(VALUE, TARGET, 0.5), 0.5 * np.mean((VALUE - TARGET) ** 2), rtol=1e-6)


def test_expectile_gradients_in_closed_form():
    # −2 w u / B: −0.7 where the value is too low, 0.3 · 3 where it is too high; the target gets none
    to_value, to_target = jax.grad(expectile_loss, argnums=(0, 1))(VALUE, TARGET, 0.7)
    np.testing.assert_allclose(to_value, [-0.7, 0.9], rtol=1e-6)
    np.testing.assert_array_equal(to_target, [0.0, 0.0])


@pytest.mark.parametrize(("expectile", "best"), [(0.5, 0.5), (0.75, 0.75), (0.9, 0.9)])
def test_expectiles_of_a_fair_coin(expectile, best):
    # targets 0 and 1: κ (1 − v) = (1 − κ) v, so that v = κ
    coin = jnp.array([0.0, 1.0])
    grid = np.linspace(0.0, 1.0, 1_001)
    losses = [expectile_loss(jnp.full(2, v), coin, expectile) for v in grid]
    np.testing.assert_allclose(grid[np.argmin(losses)], best, atol=2e-3)


def test_expectile_loss_refuses_other_shapes():
    with pytest.raises(AssertionError):
        expectile_loss(VALUE, TARGET[:1], 0.7)


def test_advantage_weight_by_hand():
    # exp(3 · 0) = 1, exp(3 · log 2) = 8, exp(−3 · log 2) = 1 / 8, and exp(3 · 2) = 403 is too much
    weight = advantage_weight(jnp.array([0.0, np.log(2.0), -np.log(2.0), 2.0]), 3.0)
    np.testing.assert_allclose(weight, [1.0, 8.0, 0.125, 100.0], rtol=1e-5)


def test_advantage_weight_stays_finite_and_orders_actions():
    advantage = jnp.linspace(-1e4, 1e4, 101)
    weight = advantage_weight(advantage, 10.0)
    assert jnp.all(jnp.diff(weight) >= 0.0)
    assert (weight[0], weight[-1]) == (0.0, WEIGHT_MAX)


def test_advantage_weight_is_a_constant():
    gradient = jax.grad(lambda advantage: jnp.sum(advantage_weight(advantage, 3.0)))(jnp.array([-1.0, 0.0, 5.0]))
    np.testing.assert_array_equal(gradient, np.zeros(3))
