import math

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.ops.histogram import bin_edges, histogram_mean, hl_gauss

EDGES = bin_edges(-2.0, 2.0, 4)


def cdf(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2


def test_probabilities_by_the_error_function():
    sigma, y = math.sqrt(2) * 0.75, 0.3  # bins are 1 wide
    mass = [cdf((z + 1 - y) / sigma) - cdf((z - y) / sigma) for z in (-2, -1, 0, 1)]
    np.testing.assert_allclose(hl_gauss(jnp.array(y), EDGES), np.array(mass) / sum(mass), rtol=1e-5)


def test_the_mean_of_a_target_in_the_middle_is_the_target():
    edges = bin_edges(-10.0, 10.0, 21)
    probabilities = hl_gauss(jnp.array([0.0, 20 / 21]), edges)
    np.testing.assert_allclose(histogram_mean(jnp.log(probabilities), edges), [0.0, 20 / 21], atol=1e-4)


def test_targets_far_outside_fall_into_the_outer_bins():
    probabilities = hl_gauss(jnp.array([-200.0, 200.0]), EDGES)
    np.testing.assert_allclose(probabilities, [[1, 0, 0, 0], [0, 0, 0, 1]], atol=1e-6)


def test_the_mean_of_equal_logits_is_the_middle():
    np.testing.assert_allclose(histogram_mean(jnp.zeros(4), bin_edges(0.0, 4.0, 4)), 2.0)


def test_targets_get_no_gradient():
    assert jax.grad(lambda y: hl_gauss(y, EDGES)[0])(jnp.array(0.3)) == 0
