"""Smoothing noise on the actions of deterministic policies."""

import chex
import jax.numpy as jnp

from o2o_jax.types import Array


def smoothed_action(action: Array, noise: Array, std: float, clip: float) -> Array:
    """Adds clipped noise to an action, which stays in [-1, 1].

        ã = clip( a + clip(σ ε, −c, c), −1, 1 )

    Args:
      action: [..., A] in [-1, 1].
      noise: [..., A] standard normal ε.
      std: σ, in units of the action.
      clip: c ≥ 0, in units of the action.

    Returns:
      [..., A].

    Raises:
      AssertionError: while tracing, if the shapes differ.

    Source: Eq. (6), section G.2.
    """
    chex.assert_equal_shape([action, noise])
    return jnp.clip(action + jnp.clip(std * noise, -clip, clip), -1.0, 1.0)
