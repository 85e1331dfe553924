import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.ops.bellman import ensemble_squared_error, td_target


def test_td_target_by_hand():
    # 1 + 0.9 · 10 = 10 continues; 2 alone where s' is absorbing
    target = td_target(jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0]), jnp.array([10.0, 10.0]), discount=0.9)
    np.testing.assert_allclose(target, [10.0, 2.0])


def test_td_target_is_a_constant():
    def total(reward, next_value):
        return jnp.sum(td_target(reward, jnp.zeros(2), next_value, 0.9))

    gradients = jax.grad(total, argnums=(0, 1))(jnp.ones(2), jnp.ones(2))
    np.testing.assert_array_equal(gradients, np.zeros((2, 2)))


@pytest.mark.parametrize("column", [(2, 1), (1,), (3,)])
def test_td_target_refuses_columns(column):
    # [B] + [B, 1] would silently become [B, B]
    with pytest.raises(AssertionError):
        td_target(jnp.ones(column), jnp.zeros(2), jnp.ones(2), 0.9)


def test_ensemble_squared_error_by_hand():
    # ((1 − 0)² + (2 − 2)²) / 2  +  ((3 − 0)² + (0 − 2)²) / 2 = 0.5 + 6.5
    q = jnp.array([[1.0, 2.0], [3.0, 0.0]])
    np.testing.assert_allclose(ensemble_squared_error(q, jnp.array([0.0, 2.0])), 7.0)
    # a target of its own for each critic: 0  +  ((3 − 1)² + (0 − 0)²) / 2
    np.testing.assert_allclose(ensemble_squared_error(q, jnp.array([[1.0, 2.0], [1.0, 0.0]])), 2.0)


def test_gradient_of_a_critic_is_that_of_its_own_mean_squared_error():
    q, target = jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([0.0, 2.0])
    gradient = jax.grad(ensemble_squared_error)(q, target)
    np.testing.assert_allclose(gradient, 2.0 * (q - target[None]) / 2.0)
