"""Measures of how far critics, policy and dataset agree: what a readiness report is made of."""

import chex
import jax
import jax.numpy as jnp

from o2o_jax.types import Array


def ranks(values: Array) -> Array:
    """Ranks the values of the last axis, from 1 on; equal values share the mean of their ranks.

    Args:
      values: [..., K]. Costs K² comparisons.

    Returns:
      [..., K] float32 in [1, K].
    """
    own, other = values[..., :, None], values[..., None, :]
    return jnp.sum(other < own, axis=-1) + 0.5 * (jnp.sum(other == own, axis=-1) + 1.0)


def rank_correlation(x: Array, y: Array) -> Array:
    """Computes Spearman's rank correlation along the last axis.

        ρ = cov(rank x, rank y) / (std(rank x) std(rank y))

    Args:
      x: [..., K].
      y: [..., K].

    Returns:
      [...] in [-1, 1]; 0 where all of x or all of y are equal, since there is no order then.

    Raises:
      AssertionError: while tracing, if the shapes differ.

    Source: Spearman (1904).
    """
    chex.assert_equal_shape([x, y])
    x, y = (ranks(values) - 0.5 * (values.shape[-1] + 1.0) for values in (x, y))
    scale = jnp.sqrt(jnp.sum(jnp.square(x), axis=-1) * jnp.sum(jnp.square(y), axis=-1))
    return jnp.sum(x * y, axis=-1) / jnp.where(scale > 0, scale, 1.0)


def overestimation(q: Array, q_mode: Array) -> tuple[Array, Array]:
    """Measures how often, and by how much, probes are worth more than the policy's own action.

        P( Q(s, a) > Q(s, ȧ) ),   E[ Q(s, a) − Q(s, ȧ) | Q(s, a) > Q(s, ȧ) ]

    Args:
      q: [N, K] values of K probes at each of N states, in return units.
      q_mode: [N] values of the policy's own action ȧ.

    Returns:
      [] share in [0, 1], and [] mean gap ≥ 0, in return units: 0 where there is none.

    Source: section 3, the improvement mismatch.
    """
    excess = jnp.maximum(q - q_mode[:, None], 0.0)
    count = jnp.sum(excess > 0)
    return count / excess.size, jnp.sum(excess) / jnp.maximum(count, 1)


def proposition_values(
    q_fqe: Array, q_align: Array, q_mode: Array, log_prob: Array, log_prob_mode: Array, alpha: Array
) -> tuple[Array, Array, Array]:
    """Estimates the state values that alignment is to order, V_fqe ≤ V_align ≤ V_ȧ, by probes a ~ π_off.

        V_fqe(s)   = E[ Q_fqe(s, a) − α log π_off(a|s) ]  over the probes that need no calibration, which are those with
                     Q_fqe(s, a) ≤ Q_fqe(s, ȧ) − α [log π_off(ȧ|s) − log π_off(a|s)]
        V_align(s) = E[ Q_align(s, a) − α log π_off(a|s) ]
        V_ȧ(s)     = Q_fqe(s, ȧ) − α log π_off(ȧ|s)

    Args:
      q_fqe: [N, K] values of the probes by the re-evaluated critic, in return units.
      q_align: [N, K] the same by the aligned critic.
      q_mode: [N] values of ȧ by the re-evaluated critic, the anchor.
      log_prob: [N, K] log π_off(a|s), nats; without effect where α = 0.
      log_prob_mode: [N] log π_off(ȧ|s), nats.
      alpha: [] temperature, return units per nat; 0 for a deterministic policy.

    Returns:
      V_fqe, V_align and V_ȧ, [N] each. V_fqe is −∞ where all probes need calibration: it bounds nothing there.

    Raises:
      AssertionError: while tracing, if the shapes differ.

    Source: Proposition 4.3, Eq. (14), (32) to (34).
    """
    chex.assert_equal_shape([q_fqe, q_align, log_prob])
    chex.assert_equal_shape([q_mode, log_prob_mode])
    entropy_bonus = -alpha * log_prob
    v_mode = q_mode - alpha * log_prob_mode
    low = q_fqe + entropy_bonus <= v_mode[:, None]
    count = jnp.sum(low, axis=-1)
    total = jnp.sum(jnp.where(low, q_fqe + entropy_bonus, 0.0), axis=-1)
    v_fqe = jnp.where(count > 0, total / jnp.maximum(count, 1), -jnp.inf)
    return v_fqe, jnp.mean(q_align + entropy_bonus, axis=-1), v_mode


def neighbour_distance(
    state: Array, action: Array, data_state: Array, data_action: Array, neighbours: int, batch_size: int = 64
) -> Array:
    """Measures how far an action is from the nearest one that the data shows in the states most like this one.

        min_{j ∈ N(s)} ‖a − a_j‖₂ / √|A|,   N(s): the k states of the data that are nearest to s

    Args:
      state: [N, O] in the units in which states are compared: normalised.
      action: [N, A] or [N, K, A], one or K actions at each state.
      data_state: [M, O] likewise.
      data_action: [M, A].
      neighbours: k, at most M.
      batch_size: states at a time, so that no N × M × O numbers are needed.

    Returns:
      [N] or [N, K], in units of one dimension of the action.
    """

    def nearest(row: tuple[Array, Array]) -> Array:
        one_state, one_action = row
        squared = jnp.sum(jnp.square(data_state - one_state[None]), axis=-1)  # [M]
        _, index = jax.lax.top_k(-squared, neighbours)
        difference = one_action[..., None, :] - data_action[index].reshape(
            (1,) * (one_action.ndim - 1) + (neighbours, -1)
        )
        return jnp.sqrt(jnp.min(jnp.mean(jnp.square(difference), axis=-1), axis=-1))

    return jax.lax.map(nearest, (state, action), batch_size=batch_size)
