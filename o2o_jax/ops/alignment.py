"""The targets that align a critic with the policy it was re-evaluated for."""

import chex
import jax
import jax.numpy as jnp

from o2o_jax.types import Array


def aligned_q(q: Array, q_mode: Array, log_prob: Array, log_prob_mode: Array, alpha: Array) -> Array:
    """Caps a Q-value by what the policy's own action is worth.

        Q'(s, a) = min( Q̄(s, ȧ) − α [log π_off(ȧ|s) − log π_off(a|s)],  Q̄(s, a) )

    Args:
      q: [B] target-critic value of the sampled action a, in return units.
      q_mode: [B] target-critic value of the policy's action ȧ, the anchor.
      log_prob: [B] log π_off(a|s), nats.
      log_prob_mode: [B] log π_off(ȧ|s), nats.
      alpha: [] temperature, return units per nat, > 0.

    Returns:
      [B] regression target, nowhere above `q`; no gradient flows through it.

    Raises:
      AssertionError: while tracing, if the four arrays differ in shape.

    Source: Eq. (12).
    """
    chex.assert_equal_shape([q, q_mode, log_prob, log_prob_mode])
    anchor = q_mode - alpha * (log_prob_mode - log_prob)
    return jax.lax.stop_gradient(jnp.minimum(anchor, q))


def bounded_distance(action: Array, mode_action: Array, bound: float) -> Array:
    """Measures the distance of two actions, scaled to the size of one dimension and bounded from above.

        δ = min( ‖a − ȧ‖₂ / √|A|,  σ )

    Args:
      action: [..., A] actions.
      mode_action: [..., A] the policy's own actions.
      bound: σ, the standard deviation of the smoothing noise, > 0.

    Returns:
      [...] in [0, σ].

    Raises:
      AssertionError: while tracing, if the shapes differ.

    Source: Eq. (15), which prints max; its text bounds the distance from above and the authors' code takes min.
    """
    chex.assert_equal_shape([action, mode_action])
    squared = jnp.mean(jnp.square(action - mode_action), axis=-1)
    return jnp.minimum(jnp.sqrt(squared), bound)


def decayed_anchor(q_mode: Array, distance: Array, decay: float) -> Array:
    """Returns the largest value that an action at some distance from the policy's own may have.

        q̇ / (1 + k δ²)  where q̇ ≥ 0,   q̇ (1 + k δ²)  where q̇ < 0

    Args:
      q_mode: [B] target-critic value of the policy's action ȧ.
      distance: [B] δ of `bounded_distance`.
      decay: k > 0.

    Returns:
      [B] nowhere above `q_mode`.

    Raises:
      AssertionError: while tracing, if the shapes differ.

    Source: Eq. (15), (43), (44); the closing sentence of section G.2 exchanges the two cases, its formulas and the
    authors' code do not.
    """
    chex.assert_equal_shape([q_mode, distance])
    factor = 1.0 + decay * jnp.square(distance)
    return jnp.where(q_mode >= 0, q_mode / factor, q_mode * factor)
