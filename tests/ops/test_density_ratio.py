"""Density ratios: hand-computed losses and priorities, the minimiser, and what gets no gradient."""

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.ops.density_ratio import density_ratio_loss, ratio_priority


def test_density_ratio_loss_by_hand():
    # offline w = 3: log(2/4) = −log 2;   online w = 1: log 1 = 0;   the loss is log 2
    np.testing.assert_allclose(density_ratio_loss(jnp.array([3.0]), jnp.array([1.0])), np.log(2.0), rtol=1e-6)


def test_density_ratio_loss_is_least_at_the_true_ratio():
    # a place that is visited by a quarter of the offline and by half of the online rows: w = 2 there
    loss = lambda w: density_ratio_loss(
        jnp.stack([w, jnp.ones(()), jnp.ones(()), jnp.ones(())]), jnp.stack([w, jnp.ones(())])
    )
    gradients = jax.vmap(jax.grad(loss))(jnp.array([1.0, 2.0, 4.0]))
    assert gradients[0] < 0 < gradients[2]
    np.testing.assert_allclose(gradients[1], 0.0, atol=1e-6)


def test_ratio_priority_by_hand():
    # T = 2: √16 = 4, √0 = 0 and √1e8 = 1e4, over mean(√1, √9) = 2: 2, and the bounds
    priority = ratio_priority(jnp.array([16.0, 0.0, 1e8]), jnp.array([1.0, 9.0]), 2.0)
    np.testing.assert_allclose(priority, [2.0, 1e-3, 1e3], rtol=1e-5)


def test_ratio_priority_passes_no_gradient():
    gradient = jax.grad(lambda w: ratio_priority(w, w, 5.0).sum())(jnp.array([0.5, 2.0]))
    np.testing.assert_array_equal(gradient, 0.0)
