"""Loss of TD3+BC's actor; that of its critics is `o2o_jax.losses.td_loss`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.types import Array, Metrics, Params


def actor_loss(
    actor_params: Params,
    actor: networks.Actor,
    value: Callable[[Array, Array], Array],
    observation: Array,
    action: Array,
    alpha: float,
    cloning_weight: Array | float = 1.0,
) -> tuple[Array, Metrics]:
    """Computes the deterministic policy loss at a fixed scale, with a cloning term.

        −α · mean Q(s, π(s)) / mean |Q(s, π(s))|  +  w · mean (π(s) − a)²

    The denominator is a constant of the gradient; the second mean runs over the batch and the dimensions.

    Args:
      actor_params: differentiated.
      actor: network with a deterministic head.
      value: Q, of observations [B, O] and actions [B, A] to values [B], with constant parameters; TD3+BC has Q₁ here.
      observation: [B, O] normalised.
      action: [B, A] of the batch.
      alpha: weight of the Q term.
      cloning_weight: w of the cloning term; 1 in TD3+BC.

    Returns:
      [] loss, and the mean (π(s) − a)².

    Source: Fujimoto and Gu (arXiv:2106.06860), section 5, which scales by |Q₁(s, a)| of the batch's actions; its
    authors' code takes Q₁(s, π(s)), as here.
    """
    own_action = actor.apply(actor_params, observation).mode()
    q = value(observation, own_action)  # [B]
    scale = alpha / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
    cloning = jnp.mean(jnp.square(own_action - action))
    return cloning_weight * cloning - scale * jnp.mean(q), {"cloning_loss": cloning}
