"""Loss of TD3+BC's actor; that of its critics is `o2o_jax.losses.td_loss`."""

import jax
import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.types import Array, Metrics, Params


def actor_loss(
    actor_params: Params,
    actor: networks.Actor,
    critic_params: Params,
    critic: networks.Critic,
    observation: Array,
    action: Array,
    alpha: float,
) -> tuple[Array, Metrics]:
    """Computes the deterministic policy loss at a fixed scale, with a cloning term.

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
