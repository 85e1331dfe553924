import math

import hypothesis.strategies as some
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from o2o_jax.ops.conservative import (
    MULTIPLIER_MAX,
    calibrated,
    conservative_gap,
    gap_multiplier,
    gap_multiplier_loss,
)

Q = jnp.array([[1.0, 0.0]])  # [E = 1, B = 2]
# exp(Q − log μ): 2 / 2 + 3 / 1 = 4 at the first state, 1 + 1 = 2 at the second
Q_SAMPLED = jnp.log(jnp.array([[[2.0, 3.0], [1.0, 1.0]]]))
LOG_DENSITY = jnp.log(jnp.array([[2.0, 1.0], [1.0, 1.0]]))


def test_gap_by_hand():
    # mean of log 4 − 1 and log 2 − 0
    gap = conservative_gap(Q, Q_SAMPLED, LOG_DENSITY, temperature=1.0, gap_min=None)
    np.testing.assert_allclose(gap, [(math.log(4.0) - 1.0 + math.log(2.0)) / 2.0], rtol=1e-6)


def test_gap_with_a_temperature_by_hand():
    # second state alone: 2 log(e^(0/2) + e^(0/2)) − 0 = 2 log 2
    gap = conservative_gap(Q[:, 1:], Q_SAMPLED[:, 1:], LOG_DENSITY[1:], temperature=2.0, gap_min=None)
    np.testing.assert_allclose(gap, [2.0 * math.log(2.0)], rtol=1e-6)


def test_gap_is_bounded_per_state():
    # log 4 − 1 = 0.386 is lifted to 0.5; log 2 = 0.693 stays
    gap = conservative_gap(Q, Q_SAMPLED, LOG_DENSITY, temperature=1.0, gap_min=0.5)
    np.testing.assert_allclose(gap, [(0.5 + math.log(2.0)) / 2.0], rtol=1e-6)


def test_gap_of_samples_at_one_value_from_their_own_density():
    # a soft maximum over K samples of uniform density ½^A: Q + A log 2 + log K
    gap = conservative_gap(
        jnp.zeros((2, 3)), jnp.full((2, 3, 10), 7.0), jnp.full((3, 10), -2 * math.log(2.0)), 1.0, None
    )
    np.testing.assert_allclose(gap, np.full(2, 7.0 + 2 * math.log(2.0) + math.log(10.0)), rtol=1e-6)


def test_gap_gradients_in_closed_form():
    gradients = jax.grad(lambda *args: jnp.sum(conservative_gap(*args, 1.0, None)), argnums=(0, 1, 2))(
        Q, Q_SAMPLED, LOG_DENSITY
    )
    # −1 / B for the data; softmax / B for the samples: (1, 3) / 4 and (1, 1) / 2; none for the densities
    np.testing.assert_allclose(gradients[0], [[-0.5, -0.5]], rtol=1e-6)
    np.testing.assert_allclose(gradients[1], [[[0.125, 0.375], [0.25, 0.25]]], rtol=1e-6)
    np.testing.assert_array_equal(gradients[2], np.zeros((2, 2)))


def test_no_gradient_where_the_bound_is_active():
    gradient = jax.grad(lambda q: jnp.sum(conservative_gap(q, Q_SAMPLED, LOG_DENSITY, 1.0, 0.5)))(Q)
    np.testing.assert_allclose(gradient, [[0.0, -0.5]])


def test_values_are_calibrated_by_hand():
    # of 1, 3 and 2 with floors 2, 2 and none: 2, 3 and 2
    q, floor = jnp.array([[[1.0, 3.0, 2.0]]]), jnp.array([[2.0, 2.0, -jnp.inf]])
    np.testing.assert_array_equal(calibrated(q, floor), [[[2.0, 3.0, 2.0]]])
    gradients = jax.grad(lambda q, floor: jnp.sum(calibrated(q, floor)), argnums=(0, 1))(q, floor)
    np.testing.assert_array_equal(gradients[0], [[[0.0, 1.0, 1.0]]])  # what is bounded isn't pushed down
    np.testing.assert_array_equal(gradients[1], np.zeros((1, 3)))
    with pytest.raises(AssertionError):
        calibrated(q, floor[0])


def test_gap_refuses_other_shapes():
    with pytest.raises(AssertionError):
        conservative_gap(Q, Q_SAMPLED, LOG_DENSITY[:1], 1.0, None)
    with pytest.raises(AssertionError):
        conservative_gap(Q[:, :1], Q_SAMPLED, LOG_DENSITY, 1.0, None)


def test_multiplier_loss_by_hand():
    # α' = 2, w = 5, mean gap (3 + 1) / 2 = 2, target 0.8: −2 · 5 · 1.2
    loss = gap_multiplier_loss(jnp.log(2.0), jnp.array([3.0, 1.0]), target_gap=0.8, weight=5.0)
    np.testing.assert_allclose(loss, -12.0, rtol=1e-6)


def test_multiplier_grows_while_the_gap_exceeds_its_target():
    gradient = jax.grad(gap_multiplier_loss, argnums=(0, 1))
    moves, to_gap = gradient(0.0, jnp.array([2.0]), 0.8, 5.0)
    np.testing.assert_allclose(moves, -5.0 * 1.2, rtol=1e-6)  # descent makes log α' grow
    np.testing.assert_array_equal(to_gap, [0.0])
    moves, _ = gradient(0.0, jnp.array([0.3]), 0.8, 5.0)
    np.testing.assert_allclose(moves, 5.0 * 0.5, rtol=1e-6)


def test_multiplier_is_bounded():
    assert gap_multiplier(jnp.asarray(50.0)) == MULTIPLIER_MAX
    np.testing.assert_allclose(gap_multiplier(jnp.asarray(1.0)), math.e, rtol=1e-6)
    assert jax.grad(gap_multiplier_loss)(50.0, jnp.array([2.0]), 0.8, 5.0) == 0.0


VALUES = some.floats(-1e4, 1e4, width=32)


@given(q=VALUES, sampled=some.lists(VALUES, min_size=4, max_size=4), temperature=some.floats(0.1, 10.0))
def test_the_gap_lies_between_the_best_sample_and_as_much_above_it_as_there_are_samples(q, sampled, temperature):
    gap = float(conservative_gap(jnp.full((1, 1), q), jnp.array([[sampled]]), jnp.zeros((1, 4)), temperature, None)[0])
    best, rounding = max(sampled) - q, 1e-2
    assert best - rounding <= gap <= best + temperature * np.log(4.0) + rounding
