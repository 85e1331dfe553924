"""The multiplier that keeps the policy near its reference, and the schedule of its threshold."""

import jax
import jax.numpy as jnp

from o2o_jax.types import Array


def linear_threshold(env_steps: Array, start: float, end: float, ramp_env_steps: float) -> Array:
    """Returns the threshold τ(t) of the constraint: linear, then constant.

        τ(t) = τ_start + (τ_end − τ_start) min(t / T, 1)

    Args:
      env_steps: [] environment steps since fine-tuning began, warm-up included.
      start: τ at step 0, in units of the divergence.
      end: τ from step T on.
      ramp_env_steps: T > 0.

    Returns:
      [] τ(t).

    Source: sections 4.3 and H.3.
    """
    fraction = jnp.minimum(jnp.asarray(env_steps, jnp.float32) / ramp_env_steps, 1.0)
    return start + (end - start) * fraction


def lagrange_loss(log_lagrange: Array, divergence: Array, threshold: Array, asymmetry: float) -> Array:
    """Computes the loss of log λ: descent raises λ where the constraint is violated, and lowers it, slower, elsewhere.

        λ · mean( |ω − 𝟙(u > 0)| u ),   u = τ − f,   λ = exp(log λ)

    Args:
      log_lagrange: [] log λ, the differentiated argument.
      divergence: [...] f(π, π_ref) per sample, or per sample and dimension.
      threshold: [] τ, in units of `divergence`.
      asymmetry: ω in [0.5, 1): weight of violations; satisfied constraints weigh 1 − ω.

    Returns:
      [] loss, differentiable in `log_lagrange` alone.

    Source: Eq. (49), which prints |0.7 − 𝕀(f > τ)|; its own text and the authors' code give 0.7 to f > τ, as here.
    """
    slack = threshold - divergence
    weight = jnp.where(slack > 0, 1.0 - asymmetry, asymmetry)
    return jnp.exp(log_lagrange) * jax.lax.stop_gradient(jnp.mean(weight * slack))


def temperature_loss(log_alpha: Array, log_prob: Array, target_entropy: float) -> Array:
    """Computes the loss of log α: descent raises α while the entropy is below its target.

        −log α · mean( log π(a|s) + H̄ )

    Args:
      log_alpha: [] log α, the differentiated argument.
      log_prob: [B] log π(a|s) of sampled actions, nats.
      target_entropy: H̄, nats; −|A| by convention.

    Returns:
      [] loss, differentiable in `log_alpha` alone.

    Source: Eq. (4), which multiplies by α; the authors' code multiplies by log α, as here.
    """
    return -log_alpha * jax.lax.stop_gradient(jnp.mean(log_prob) + target_entropy)
