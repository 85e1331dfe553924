"""Losses of TD3+BC: networks evaluated, equations of `ops/` applied. The differentiated argument comes first."""

import jax
import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.ops.bellman import ensemble_squared_error
from o2o_jax.types import Array, Metrics, Params


def next_value(
    target_critic_params: Params, critic: networks.Critic, next_observation: Array, next_action: Array
) -> Array:
    """Value of the next state, the lower of the twin targets: min_i Q̄_i(s', ã').

    Args:
      target_critic_params: parameters with a leading axis E.
      critic: ensemble network.
      next_observation: [B, O] normalised.
      next_action: [B, A] smoothed action of the target policy.

    Returns:
      [B] values, in return units.

    Source: Eq. (6).
    """
    return jnp.min(critic.apply(target_critic_params, next_observation, next_action), axis=0)


def td_loss(
    critic_params: Params, critic: networks.Critic, observation: Array, action: Array, target: Array
) -> tuple[Array, Metrics]:
    """Squared temporal-difference error of every critic, summed.

        Σ_i mean (Q_i(s, a) − y)²

    Args:
      critic_params: parameters with a leading axis E, differentiated.
      critic: ensemble network.
      observation: [B, O] normalised.
      action: [B, A] of the batch.
      target: [B] regression target y, constant.

    Returns:
      [] loss, and the mean values of the batch's actions and of the target.

    Source: Eq. (6).
    """
    q = critic.apply(critic_params, observation, action)  # [E, B]
    return ensemble_squared_error(q, target), {"q": jnp.mean(q), "target_q": jnp.mean(target)}


def actor_loss(
    actor_params: Params,
    actor: networks.Actor,
    critic_params: Params,
    critic: networks.Critic,
    observation: Array,
    action: Array,
    alpha: float,
) -> tuple[Array, Metrics]:
    """Deterministic policy loss at a fixed scale, with a cloning term.

        −α · mean Q₁(s, π(s)) / mean |Q₁(s, π(s))|  +  mean (π(s) − a)²

    The denominator is a constant of the gradient; the second mean runs over the batch and the dimensions.

    Args:
      actor_params: differentiated.
      actor: network with a deterministic head.
      critic_params: parameters of the first critic alone, constant.
      critic: a single network.
      observation: [B, O] normalised.
      action: [B, A] of the batch.
      alpha: weight of the Q term.

    Returns:
      [] loss, and the cloning term.

    Source: Fujimoto and Gu (arXiv:2106.06860), section 5, which scales by |Q₁(s, a)| of the batch's actions; its
    authors' code takes Q₁(s, π(s)), as here.
    """
    own_action = actor.apply(actor_params, observation).mode()
    q = critic.apply(critic_params, observation, own_action)  # [B]
    scale = alpha / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
    cloning = jnp.mean(jnp.square(own_action - action))
    return cloning - scale * jnp.mean(q), {"cloning_loss": cloning}
