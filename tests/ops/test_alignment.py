import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.ops.alignment import aligned_q, bounded_distance, decayed_anchor


def test_aligned_q_by_hand():
    # anchor = 5 − 0.5 · (−1 − (−3)) = 4.   min(4, 6) = 4: overrated, capped.   min(4, 2) = 2: left alone.
    target = aligned_q(jnp.array([6.0, 2.0]), jnp.full(2, 5.0), jnp.full(2, -3.0), jnp.full(2, -1.0), alpha=0.5)
    np.testing.assert_allclose(target, [4.0, 2.0])


def test_aligned_q_is_nowhere_above_q():
    keys = jax.random.split(jax.random.key(0), 4)
    q, q_mode, log_prob, log_prob_mode = (10.0 * jax.random.normal(key, (1_000,)) for key in keys)
    target = aligned_q(q, q_mode, log_prob, log_prob_mode, 0.2)
    assert jnp.all(target <= q)
    assert jnp.any(target < q)


def test_aligned_q_of_the_mode_is_its_own_value():
    q = jnp.array([3.0, -3.0])
    np.testing.assert_array_equal(aligned_q(q, q, jnp.ones(2), jnp.ones(2), 0.2), q)


def test_aligned_q_is_a_constant():
    arguments = (jnp.array([6.0, 2.0]), jnp.full(2, 5.0), jnp.full(2, -3.0), jnp.full(2, -1.0), jnp.array(0.5))
    gradients = jax.grad(lambda *args: jnp.sum(aligned_q(*args)), argnums=(0, 1, 2, 3, 4))(*arguments)
    assert all(not jnp.any(gradient) for gradient in gradients)


def test_aligned_q_refuses_other_shapes():
    with pytest.raises(AssertionError):
        aligned_q(jnp.ones((2, 1)), jnp.ones(2), jnp.ones(2), jnp.ones(2), 0.2)


def test_bounded_distance_by_hand():
    # (0.3, 0.4) has length 0.5; / √2 = 0.35355, bounded by 0.2.   (0.03, 0.04): 0.035355.   Equal actions: 0.
    action = jnp.array([[0.3, 0.4], [0.03, 0.04], [0.0, 0.0]])
    distance = bounded_distance(action, jnp.zeros((3, 2)), bound=0.2)
    np.testing.assert_allclose(distance, [0.2, 0.035355, 0.0], rtol=1e-4)


def test_bounded_distance_does_not_depend_on_the_number_of_dimensions():
    distances = [bounded_distance(jnp.full(size, 0.1), jnp.zeros(size), 0.2) for size in (1, 3, 17)]
    np.testing.assert_allclose(distances, np.full(3, 0.1), rtol=1e-6)


def test_decayed_anchor_by_hand():
    # 1 + 4 · 0.5² = 2: divides a positive value, multiplies a negative one; distance 0 changes nothing
    values = decayed_anchor(jnp.array([6.0, -6.0, 6.0, 0.0]), jnp.array([0.5, 0.5, 0.0, 0.5]), decay=4.0)
    np.testing.assert_allclose(values, [3.0, -12.0, 6.0, 0.0])


def test_decayed_anchor_stays_just_below_the_mode_s_value():
    # δ ≤ 0.2 and k = 1: q̇ / 1.04 ≤ cap ≤ q̇ above zero, 1.04 q̇ ≤ cap ≤ q̇ below
    q_mode = jnp.linspace(-5.0, 5.0, 101)
    cap = decayed_anchor(q_mode, jnp.full(101, 0.2), decay=1.0)
    assert jnp.all(cap <= q_mode)
    np.testing.assert_allclose(cap, jnp.where(q_mode >= 0, q_mode / 1.04, 1.04 * q_mode), rtol=1e-6)


def test_decayed_anchor_refuses_other_shapes():
    with pytest.raises(AssertionError):
        decayed_anchor(jnp.ones((2, 1)), jnp.ones(2), 1.0)
