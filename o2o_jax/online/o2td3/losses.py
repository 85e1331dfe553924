"""Losses of O2TD3: networks evaluated, equations of `ops/` applied. The differentiated argument comes first."""

import flax.struct
import jax
import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.losses import align_and_retain_loss, lowest_value
from o2o_jax.ops.alignment import bounded_distance, decayed_anchor
from o2o_jax.types import Array, Metrics, Params


@flax.struct.dataclass
class Anchor:
    """Anchor of alignment in a state: π_off's own action and its worth. Constant throughout the phase.

    Attributes:
      mode_action: [..., A] ȧ = π_off(s).
      q_mode: [...] q̇ = min_i Q̄_i(s, ȧ), return units.
    """

    mode_action: Array
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
        mode_action = actor.apply(offline_params, observation).mode()
        return cls(mode_action, lowest_value(target_critic_params, critic, observation, mode_action))


def align_loss(
    critic_params: Params,
    critic: networks.Critic,
    target_critic_params: Params,
    anchor: Anchor,
    observation: Array,
    noisy_action: Array,
    decay: float,
    smoothing_std: float,
) -> tuple[Array, Metrics]:
    """Pulls overestimated actions below the policy's own and retains the value of that one.

        Q'_i(s, ã) = min( decayed_anchor(q̇, δ),  Q̄_i(s, ã) ),   q̇ = min_j Q̄_j(s, ȧ)

    Args:
      critic_params: parameters with a leading axis E, differentiated.
      critic: ensemble network.
      target_critic_params: of the re-evaluated critics, fixed throughout alignment.
      anchor: of the batch's states.
      observation: [B, O] normalised.
      noisy_action: [B, A] probes ã: actions of the policy that alignment trains, with smoothing noise; constant.
      decay: k of Eq. (15).
      smoothing_std: σ of Eq. (15), the bound of the distance.

    Returns:
      [] loss, and its terms; each critic has its own bound Q̄_i, as in the authors' code.

    Source: Eq. (15), (16), (40) to (44).
    """
    states, actions = jnp.stack([observation, observation]), jnp.stack([noisy_action, anchor.mode_action])
    target_q = critic.apply(target_critic_params, observation, noisy_action)  # [E, B]
    distance = bounded_distance(noisy_action, anchor.mode_action, smoothing_std)
    target = jnp.minimum(decayed_anchor(anchor.q_mode, distance, decay)[None], target_q)
    return align_and_retain_loss(critic_params, critic, states, actions, target, anchor.q_mode)


def actor_loss(
    actor_params: Params,
    actor: networks.Actor,
    critic_params: Params,
    critic: networks.Critic,
    observation: Array,
) -> tuple[Array, Array]:
    """Deterministic policy loss: −mean Q_1(s, π(s)).

    Args:
      actor_params: differentiated.
      actor: network with a deterministic head.
      critic_params: of the first critic alone, without the axis E; constant.
      critic: network of one critic.
      observation: [B, O] normalised.

    Returns:
      [] loss, and the actions π(s) [B, A].

    Source: Eq. (5).
    """
    action = actor.apply(actor_params, observation).mode()
    return -jnp.mean(critic.apply(critic_params, observation, action)), action


def constrained_actor_loss(
    actor_params: Params,
    actor: networks.Actor,
    critic_params: Params,
    critic: networks.Critic,
    reference_action: Array,
    observation: Array,
    lagrange: Array,
    normalize: bool,
) -> tuple[Array, Array]:
    """Policy loss, on the scale of its Q-values, with the price of leaving the reference policy.

        −mean Q_1(s, π(s)) / mean |Q_1(s, π(s))|  +  λ mean (π(s) − π_ref(s))²

    The arguments that are missing here are those of `actor_loss`.

    Args:
      reference_action: [B, A] actions of π_ref.
      lagrange: [] λ ≥ 0; 0 leaves TD3.
      normalize: whether the first term is divided by its stopped mean magnitude, as above.

    Returns:
      [] loss, and squared distances [B, A] per state and dimension.

    Source: Eq. (45), which doesn't divide; the authors' code does (D-25).
    """
    action = actor.apply(actor_params, observation).mode()
    q = critic.apply(critic_params, observation, action)  # [B]
    divergence = jnp.square(action - reference_action)
    scale = jax.lax.stop_gradient(jnp.mean(jnp.abs(q))) if normalize else 1.0
    return -jnp.mean(q) / scale + lagrange * jnp.mean(divergence), divergence
