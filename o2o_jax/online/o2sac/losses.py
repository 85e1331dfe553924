"""Losses of O2SAC: networks evaluated, equations of `ops/` applied. The differentiated argument comes first."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from o2o_jax.ops.alignment import aligned_q
from o2o_jax.ops.bellman import ensemble_squared_error
from o2o_jax.ops.distributions import TanhGaussian
from o2o_jax.types import Array, Metrics, Params


def td_loss(
    critic_params: Params, critic: nn.Module, observation: Array, action: Array, target: Array
) -> tuple[Array, Metrics]:
    """Squared temporal-difference error of every critic, summed.

    Args:
      critic_params: parameters with a leading axis E, differentiated.
      critic: ensemble network.
      observation: [B, O] normalised.
      action: [B, A] of the batch.
      target: [B] regression target, constant.

    Returns:
      [] loss, and the mean value of the batch's actions.

    Source: Eq. (3), (37).
    """
    q = critic.apply(critic_params, observation, action)  # [E, B]
    return ensemble_squared_error(q, target), {"q": jnp.mean(q), "target_q": jnp.mean(target)}


def soft_value(
    target_critic_params: Params, critic: nn.Module, observation: Array, action: Array, entropy_cost: Array
) -> Array:
    """Soft value of a sampled action: min_i Q̄_i(s, a) − cost.

    Args:
      target_critic_params: parameters with a leading axis E.
      critic: ensemble network.
      observation: [B, O] normalised.
      action: [B, A] sampled there.
      entropy_cost: [B] α log π(a|s), plus λ times the divergence where the policy is constrained.

    Returns:
      [B] values.

    Source: Eq. (3), (37).
    """
    return jnp.min(critic.apply(target_critic_params, observation, action), axis=0) - entropy_cost


def align_loss(
    critic_params: Params,
    critic: nn.Module,
    target_critic_params: Params,
    offline_distribution: TanhGaussian,
    observation: Array,
    action: Array,
    alpha: Array,
) -> tuple[Array, Metrics]:
    """Pulls overestimated actions below the policy's own and retains the value of that one.

        Σ_i mean (Q_i(s, a) − Q'(s, a))²  +  Σ_i mean (Q_i(s, ȧ) − Q̄(s, ȧ))²

    Args:
      critic_params: parameters with a leading axis E, differentiated.
      critic: ensemble network.
      target_critic_params: of the re-evaluated critics, fixed throughout alignment.
      offline_distribution: π_off(·|s) for the batch.
      observation: [B, O] normalised.
      action: [B, A] probes sampled from the policy that alignment trains, constant.
      alpha: [] temperature, return units per nat.

    Returns:
      [] loss, and its terms; `overestimated` is the share of probes with Q(s, a) > Q(s, ȧ) (completeness).

    Source: Eq. (12), (13), (14).
    """
    mode = offline_distribution.mode()
    states = jnp.stack([observation, observation])  # one pass for both action sets
    actions = jnp.stack([action, mode])
    target_q, target_q_mode = jnp.min(critic.apply(target_critic_params, states, actions), axis=0)  # [B] each
    log_prob, log_prob_mode = offline_distribution.log_prob(action), offline_distribution.log_prob(mode)
    target = aligned_q(target_q, target_q_mode, log_prob, log_prob_mode, alpha)

    q = critic.apply(critic_params, states, actions)  # [E, 2, B]
    align = ensemble_squared_error(q[:, 0], target)
    retain = ensemble_squared_error(q[:, 1], jax.lax.stop_gradient(target_q_mode))
    lowest = jnp.min(q, axis=0)
    metrics = {
        "align_loss": align,
        "retain_loss": retain,
        "q": jnp.mean(q[:, 0]),
        "q_mode": jnp.mean(q[:, 1]),
        "target_q": jnp.mean(target),
        "overestimated": jnp.mean(lowest[0] > lowest[1]),
    }
    return align + retain, metrics


def divergence(
    log_prob: Array, action: Array, reference_distribution: TanhGaussian, log_prob_min: float
) -> Array:
    """One-sample estimate of KL(π, π_ref) per state.

        k = log π(a|s) − max( log π_ref(a|s), −50 ),   a ~ π(·|s)

    Args:
      log_prob: [B] log π(a|s), nats.
      action: [B, A] the samples; the gradient flows through them.
      reference_distribution: π_ref(·|s).
      log_prob_min: bound in nats; no gradient where it is active.

    Returns:
      [B] nats; single samples may be negative.

    Source: Eq. (36), (39); D-08, D-51.
    """
    return log_prob - jnp.maximum(reference_distribution.log_prob(action), log_prob_min)


def actor_loss(
    actor_params: Params,
    actor: nn.Module,
    critic_params: Params,
    critic: nn.Module,
    observation: Array,
    key: Array,
    alpha: Array,
) -> tuple[Array, tuple[Array, Array]]:
    """Entropy-regularised policy loss without a constraint.

        mean( α log π(a|s) − min_i Q_i(s, a) ),   a ~ π(·|s)

    Args:
      actor_params: differentiated.
      actor: network with a tanh-Gaussian head.
      critic_params: parameters with a leading axis E, constant.
      critic: ensemble network.
      observation: [B, O] normalised.
      key: draws the actions.
      alpha: [] temperature, return units per nat.

    Returns:
      [] loss, and the actions [B, A] with their log-densities [B].

    Source: Eq. (2).
    """
    action, log_prob = actor.apply(actor_params, observation).sample_and_log_prob(key)
    q = jnp.min(critic.apply(critic_params, observation, action), axis=0)
    return jnp.mean(alpha * log_prob - q), (action, log_prob)


def constrained_actor_loss(
    actor_params: Params,
    actor: nn.Module,
    critic_params: Params,
    critic: nn.Module,
    reference_distribution: TanhGaussian,
    observation: Array,
    key: Array,
    alpha: Array,
    lagrange: Array,
    log_prob_min: float,
) -> tuple[Array, tuple[Array, Array]]:
    """Policy loss with the price of leaving the reference policy.

        mean( α log π(a|s) − min_i Q_i(s, a) + λ k(s, a) )

    Args: as `actor_loss`, and
      reference_distribution: π_ref(·|s) for the batch.
      lagrange: [] λ ≥ 0, return units per nat.
      log_prob_min: bound of log π_ref, nats.

    Returns:
      [] loss, and log-densities [B] and divergences [B], nats.

    Source: Eq. (36).
    """
    loss, (action, log_prob) = actor_loss(actor_params, actor, critic_params, critic, observation, key, alpha)
    divergences = divergence(log_prob, action, reference_distribution, log_prob_min)
    return loss + lagrange * jnp.mean(divergences), (log_prob, divergences)
