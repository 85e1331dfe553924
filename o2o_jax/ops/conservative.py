"""The penalty of conservative Q-learning and the multiplier of its Lagrange version."""

import chex
import jax
import jax.numpy as jnp

from o2o_jax.types import Array

MULTIPLIER_MAX = 1e6  # the authors' code: α' never exceeds it


def conservative_gap(
    q: Array, q_sampled: Array, log_density: Array, temperature: float, gap_min: float | None
) -> Array:
    """Returns by how much sampled actions are valued above the data's, per critic.

        gap_i = mean_b max( T log Σ_k exp( (Q_i(s, a_k) − log μ(a_k)) / T )  −  Q_i(s, a),  lower )

    Args:
      q: [E, B] values of the data's actions.
      q_sampled: [E, B, K] values of K sampled actions at the same states.
      log_density: [B, K] log μ(a_k) under the distribution that each was drawn from, nats; constant.
      temperature: T > 0.
      gap_min: lower bound of a single state's gap, in return units, or None.

    Returns:
      [E] gaps, in return units; differentiable in `q` and `q_sampled`.

    Raises:
      AssertionError: while tracing, if the shapes don't fit each other.

    Source: Kumar et al. (arXiv:2006.04779), Eq. (4) and appendix F, CQL(H) with importance sampling. The constant log K
    of a mean is left out, as in the authors' code; the bound is the code's alone.
    """
    chex.assert_equal_shape_prefix([q, q_sampled], 2)
    chex.assert_shape(log_density, q_sampled.shape[1:])
    importance = q_sampled - jax.lax.stop_gradient(log_density)[None]
    soft_maximum = temperature * jax.nn.logsumexp(importance / temperature, axis=-1)  # [E, B]
    gap = soft_maximum - q
    if gap_min is not None:
        gap = jnp.maximum(gap, gap_min)
    return jnp.mean(gap, axis=-1)


def calibrated(q_sampled: Array, floor: Array) -> Array:
    """Bounds sampled actions' values from below: what lies under its bound counts as the bound, and has no gradient.

        max( Q_i(s, a_k), R_k )

    Args:
      q_sampled: [E, B, K] values of K sampled actions.
      floor: [B, K] R, in return units, constant; −∞ where there is none.

    Returns:
      [E, B, K] values, in return units; differentiable in `q_sampled` where they exceed the bound.

    Raises:
      AssertionError: while tracing, if the shapes don't fit each other.

    Source: Nakamoto et al. (arXiv:2303.05479), section 5.
    """
    chex.assert_shape(floor, q_sampled.shape[1:])
    return jnp.maximum(q_sampled, jax.lax.stop_gradient(floor)[None])


def gap_multiplier(log_alpha_prime: Array) -> Array:
    """Returns the price [] of a gap beyond its target, α' = min(exp(log α'), 1e6), of [] log α'.

    Source: Kumar et al. (arXiv:2006.04779), appendix F; the bound is the authors' code's alone.
    """
    return jnp.minimum(jnp.exp(log_alpha_prime), MULTIPLIER_MAX)


def gap_multiplier_loss(log_alpha_prime: Array, gap: Array, target_gap: float, weight: float) -> Array:
    """Computes the loss of log α': descent raises α' while the gap exceeds its target.

        −mean_i α' w (gap_i − g)

    Args:
      log_alpha_prime: [] log α', the differentiated argument.
      gap: [E] of `conservative_gap`, constant.
      target_gap: g, in return units.
      weight: w, of the penalty.

    Returns:
      [] loss, differentiable in `log_alpha_prime` alone.

    Source: Kumar et al. (arXiv:2006.04779), appendix F.
    """
    excess = jax.lax.stop_gradient(jnp.mean(gap) - target_gap)
    return -gap_multiplier(log_alpha_prime) * weight * excess
