"""Losses of O2SAC: networks evaluated, equations of `ops/` applied. The differentiated argument comes first."""

from typing import Literal, NamedTuple

import flax.struct
import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.losses import align_and_retain_loss, lowest_value, soft_actor_loss
from o2o_jax.ops.alignment import aligned_q
from o2o_jax.ops.distributions import TanhGaussian, normal_divergence
from o2o_jax.types import Array, Metrics, Params


@flax.struct.dataclass
class Anchor:
    """Anchor of alignment in a state: π_off, and the worth of its own action. Constant throughout the phase.

    Attributes:
      offline: π_off(·|s).
      log_prob_mode: [...] log π_off(ȧ|s), nats.
      q_mode: [...] q̇ = min_i Q̄_i(s, ȧ), return units.
    """

    offline: TanhGaussian
    log_prob_mode: Array
    q_mode: Array

    @classmethod
    def of(
        cls,
        offline_params: Params,
        actor: networks.Actor,
        target_critic_params: Params,
        critic: networks.Critic,
        observation: Array,
    ) -> "Anchor":
        """At normalised observations [..., O]."""
        offline = actor.apply(offline_params, observation)
        mode = offline.mode()
        q_mode = lowest_value(target_critic_params, critic, observation, mode)
        return cls(offline, offline.log_prob(mode), q_mode)


class Divergence(NamedTuple):
    """Measure of the distance from a reference policy.

    Attributes:
      kind: of one "sample", or the "exact" KL(π, π_ref).
      log_prob_min: bound of log π_ref at a sample, nats (D-08).
    """

    kind: Literal["sample", "exact"] = "sample"
    log_prob_min: float = -50.0


def align_loss(
    critic_params: Params,
    critic: networks.Critic,
    target_critic_params: Params,
    anchor: Anchor,
    observation: Array,
    action: Array,
    alpha: Array,
    log_prob_min: float | None = None,
) -> tuple[Array, Metrics]:
    """Pulls overestimated actions below the policy's own and retains the value of that one.

    `align_and_retain_loss` with one target for both critics, `aligned_q` of the lower target critic.

    Args:
      critic_params: parameters with a leading axis E, differentiated.
      critic: ensemble network.
      target_critic_params: of the re-evaluated critics, fixed throughout alignment.
      anchor: of the batch's states.
      observation: [B, O] normalised.
      action: [B, A] probes sampled from the policy that alignment trains, constant.
      alpha: [] temperature, return units per nat.
      log_prob_min: bound of log π_off from below, nats, so that one probe can't dominate; None for none.

    Returns:
      [] loss, and its terms.

    Source: Eq. (12), (13), (14); the paper prints a bound of −50, the authors' code has none (D-08).
    """
    states, actions = jnp.stack([observation, observation]), jnp.stack([action, anchor.offline.mode()])
    target_q = lowest_value(target_critic_params, critic, observation, action)
    log_prob = anchor.offline.log_prob(action)
    if log_prob_min is not None:
        log_prob = jnp.maximum(log_prob, log_prob_min)
    target = aligned_q(target_q, anchor.q_mode, log_prob, anchor.log_prob_mode, alpha)
    return align_and_retain_loss(critic_params, critic, states, actions, target, anchor.q_mode)


def divergence(log_prob: Array, action: Array, reference_distribution: TanhGaussian, log_prob_min: float) -> Array:
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


def constrained_actor_loss(
    actor_params: Params,
    actor: networks.Actor,
    critic_params: Params,
    critic: networks.Critic,
    reference_distribution: TanhGaussian,
    observation: Array,
    key: Array,
    alpha: Array,
    lagrange: Array,
    measure: Divergence,
) -> tuple[Array, tuple[Array, Array]]:
    """Policy loss with the price of leaving the reference policy.

        mean( α log π(a|s) − min_i Q_i(s, a) + λ k(s, a) )

    The arguments that are missing here are those of `losses.soft_actor_loss`.

    Args:
      reference_distribution: π_ref(·|s) for the batch.
      lagrange: [] λ ≥ 0, return units per nat.
      measure: of the divergence k.

    Returns:
      [] loss, and log-densities [B] and divergences [B], nats.

    Source: Eq. (36).
    """
    loss, (action, log_prob, policy) = soft_actor_loss(
        actor_params, actor, critic_params, critic, observation, key, alpha
    )
    if measure.kind == "exact":
        divergences = normal_divergence(policy, reference_distribution)
    else:
        divergences = divergence(log_prob, action, reference_distribution, measure.log_prob_min)
    return loss + lagrange * jnp.mean(divergences), (log_prob, divergences)
