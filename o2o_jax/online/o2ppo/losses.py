"""Losses of O2PPO: networks evaluated, equations of `ops/` applied. The differentiated argument comes first."""

import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.ops.advantage import clipped_surrogate
from o2o_jax.types import Array, Metrics, Params

LOG_RATIO_LIMIT = 20.0  # nats: far beyond any clip, and its exponential and the gradient of that are finite


def value_loss(critic_params: Params, critic: networks.Value, observation: Array, target: Array) -> Array:
    """Squared error of the value function: mean (V(s) − y)².

    Args:
      critic_params: differentiated.
      critic: network.
      observation: [B, O] normalised.
      target: [B] returns or their estimates y, in return units, constant.

    Returns:
      [] loss.

    Source: Eq. (8), whose target A + V(s') is a misprint of A + V(s) (D-57).
    """
    return jnp.mean(jnp.square(critic.apply(critic_params, observation) - target))


def actor_loss(
    actor_params: Params,
    actor: networks.Actor,
    observation: Array,
    action: Array,
    old_log_prob: Array,
    positive: Array,
    negative: Array,
    clip: float,
    entropy_weight: float,
) -> tuple[Array, Metrics]:
    """Clipped surrogate and a bonus for entropy.

        −mean[ min( ρ A', clip(ρ, 1 − ε, 1 + ε) A' ) + c H(π(·|s)) ],   ρ = π(a|s) / π_old(a|s)

    Args:
      actor_params: differentiated.
      actor: network with a Gaussian head.
      observation: [B, O] normalised.
      action: [B, A] executed actions, clipped to [-1, 1]; both densities are taken there (D-43).
      old_log_prob: [B] log π_old(a|s) of the policy that took them, nats.
      positive: [B] positive part of A', see `ops.advantage.clipped_surrogate`.
      negative: [B] negative part of A'.
      clip: ε.
      entropy_weight: c, in advantages per nat.

    Returns:
      [] loss, and metrics: the entropy, nats; an estimate of KL(π_old, π), nats; the share of ratios beyond 1 ± ε.

    Source: Eq. (7).
    """
    distribution = actor.apply(actor_params, observation)
    log_ratio = distribution.log_prob(action) - old_log_prob
    ratio = jnp.exp(jnp.minimum(log_ratio, LOG_RATIO_LIMIT))
    entropy = jnp.mean(distribution.entropy())
    surrogate = jnp.mean(clipped_surrogate(ratio, positive, negative, clip))
    metrics = {
        "entropy": entropy,
        "divergence": jnp.mean(ratio - 1.0 - log_ratio),
        "clipped": jnp.mean(jnp.abs(ratio - 1.0) > clip),
    }
    return -surrogate - entropy_weight * entropy, metrics
