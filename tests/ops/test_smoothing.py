import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.ops.smoothing import smoothed_action


def test_smoothed_action_by_hand():
    # noise 0.2 · (1, 10, −10) = (0.2, 2, −2), clipped to (0.2, 0.5, −0.5);   0.1 + … = (0.3, 0.6, −0.4)
    action = smoothed_action(jnp.full((1, 3), 0.1), jnp.array([[1.0, 10.0, -10.0]]), std=0.2, clip=0.5)
    np.testing.assert_allclose(action, [[0.3, 0.6, -0.4]], rtol=1e-6)


def test_smoothed_action_stays_among_the_actions():
    # 0.9 + 0.5 = 1.4 and −0.9 − 0.5 = −1.4
    action = smoothed_action(jnp.array([0.9, -0.9]), jnp.array([9.0, -9.0]), std=0.2, clip=0.5)
    np.testing.assert_allclose(action, [1.0, -1.0])


def test_shapes_must_agree():
    with pytest.raises(AssertionError):
        smoothed_action(jnp.zeros((2, 3)), jnp.zeros(3), std=0.2, clip=0.5)
