"""Bellman targets and the loss of a critic ensemble."""

import chex
import jax
import jax.numpy as jnp

from o2o_jax.types import Array


def td_target(reward: Array, terminated: Array, next_value: Array, discount: float) -> Array:
    """Computes the one-step target, which bootstraps wherever the episode did not truly terminate.

        y = r + γ (1 − d) V(s')

    Args:
      reward: [B] rewards.
      terminated: [B] 1 where s' is absorbing, else 0; a time limit is 0.
      next_value: [B] value of s', with every entropy or constraint term inside.
      discount: γ, in (0, 1).

    Returns:
      [B] regression target; no gradient flows through it.

    Raises:
      AssertionError: while tracing, if the arrays differ in shape.

    Source: Eq. (3), (6), (37), (47) share this form.
    """
    chex.assert_equal_shape([reward, terminated, next_value])
    return jax.lax.stop_gradient(reward + discount * (1.0 - terminated) * next_value)


def ensemble_squared_error(q: Array, target: Array) -> Array:
    """Sums the mean squared errors of the critics.

        Σ_i mean_b (Q_i − y)²

    Args:
      q: [E, B] one row per critic.
      target: [B], or [E, B] where each critic has its own target.

    Returns:
      [] loss.

    Source: Eq. (1) and the critic losses built on it.
    """
    target = jnp.broadcast_to(target if target.ndim == 2 else target[None], q.shape)
    return jnp.sum(jnp.mean(jnp.square(q - target), axis=-1))
