"""Losses and values of Off2On: critics of several agents, each with targets of its own, and one policy."""

import jax
import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.ops.bellman import ensemble_squared_error
from o2o_jax.ops.density_ratio import density_ratio_loss
from o2o_jax.types import Array, Metrics, Params


def agent_values(values: Array, num_agents: int) -> Array:
    """Returns the lowest value of each agent's critics, [N, ...], from those of all [N E, ...]."""
    return jnp.min(values.reshape(num_agents, -1, *values.shape[1:]), axis=1)


def critic_loss(
    critic_params: Params, critic: networks.QNetwork, observation: Array, action: Array, target: Array
) -> tuple[Array, Metrics]:
    """Sums the squared temporal-difference errors of all critics, each by the target of its agent.

        Σ_k Σ_j mean (Q_kj(s, a) − y_k)²

    Args:
      critic_params: parameters with a leading axis N E, differentiated.
      critic: ensemble network of all agents' critics.
      observation: [B, O] normalised.
      action: [B, A] of the batch.
      target: [N, B] y_k of each agent, constant.

    Returns:
      [] loss, and the mean values of the batch's actions and of the targets.

    Source: Lee et al. (arXiv:2107.00591).
    """
    q = critic.apply(critic_params, observation, action)  # [N E, B]
    targets = jnp.repeat(target, q.shape[0] // target.shape[0], axis=0)
    return ensemble_squared_error(q, targets), {"q": jnp.mean(q), "target_q": jnp.mean(target)}


def density_ratio(params: Params, network: networks.Critic, observation: Array, action: Array) -> Array:
    """Returns w(s, a) = relu(f(s, a)) ≥ 0, [B], of normalised observations [B, O] and actions [B, A]."""
    return jax.nn.relu(network.apply(params, observation, action))


def ratio_loss(
    params: Params, network: networks.Critic, offline: tuple[Array, Array], online: tuple[Array, Array]
) -> Array:
    """Computes `ops.density_ratio.density_ratio_loss` of w.

    Args:
      params: of w, differentiated.
      network: f.
      offline: observations [B, O], normalised, and actions [B, A] of the dataset.
      online: fresh ones, likewise.

    Returns:
      [] loss.

    Source: Lee et al. (arXiv:2107.00591).
    """
    return density_ratio_loss(*(density_ratio(params, network, *rows) for rows in (offline, online)))
