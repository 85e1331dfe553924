"""Losses of SAC+ML: networks evaluated, equations of `ops/` applied. The differentiated argument comes first."""

import jax
import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.losses import lowest_value
from o2o_jax.ops.bellman import ensemble_squared_error
from o2o_jax.ops.distributions import Gaussian, TanhGaussian
from o2o_jax.types import Array, Metrics, Params


def actor_loss(
    actor_params: Params,
    actor: networks.Actor,
    critic_params: Params,
    critic: networks.Critics,
    observation: Array,
    action: Array,
    key: Array,
    alpha: Array,
    value_weight: float,
) -> tuple[Array, Metrics]:
    """Computes the entropy-regularised policy loss beside the negative log-likelihood of the data's actions.

        c mean( α log π(ã|s) − min_i Q_i(s, ã) ) − mean log π(a|s),   ã ~ π(·|s),   c = w / mean |min_i Q_i(s, ã)|

    Args:
      actor_params: differentiated.
      actor: network with a density.
      critic_params: parameters with a leading axis E, constant.
      critic: ensemble network.
      observation: [B, O] normalised.
      action: [B, A] of the batch.
      key: draws ã.
      alpha: [] temperature, return units per nat.
      value_weight: w; c is constant.

    Returns:
      [] loss, and the mean log-densities of sampled actions and of the data's, nats.

    Source: Yu and Zhang (ICML 2023), the authors' code.
    """
    distribution = actor.apply(actor_params, observation)
    sampled, log_prob = distribution.sample_and_log_prob(key)
    q = lowest_value(critic_params, critic, observation, sampled)
    weight = value_weight / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
    likelihood = jnp.mean(distribution.log_prob(action))
    metrics = {"log_prob": jnp.mean(log_prob), "likelihood": likelihood}
    return weight * jnp.mean(alpha * log_prob - q) - likelihood, metrics


def baseline(baseline_params: Params, network: networks.Critics, observation: Array) -> Array:
    """Returns Z_i(s) [E, ...] of normalised observations [..., O], return units: critics of an action [..., 0]."""
    return network.apply(baseline_params, observation, observation[..., :0])


def baseline_loss(
    baseline_params: Params, network: networks.Critics, observation: Array, log_prob: Array, target: Array
) -> tuple[Array, Metrics]:
    """Sums the squared temporal-difference errors of log-density and baselines, as a critic's value.

        Σ_i mean( log π(a|s) + Z_i(s) − y )²

    Args:
      baseline_params: parameters with a leading axis E, differentiated.
      network: ensemble of functions of the state.
      observation: [B, O] normalised.
      log_prob: [B] log π(a|s) of the batch's actions, nats, constant.
      target: [B] regression target y, constant.

    Returns:
      [] loss, and the mean value of Z.

    Source: Yu and Zhang (ICML 2023), and its authors' code.
    """
    z = baseline(baseline_params, network, observation)  # [E, B]
    return ensemble_squared_error(log_prob[None] + z, target), {"baseline": jnp.mean(z)}


def baseline_value(
    baseline_params: Params,
    network: networks.Critics,
    next_distribution: Gaussian | TanhGaussian,
    next_observation: Array,
    key: Array,
    alpha: Array,
) -> Array:
    """Values the next state as baselines do, which have no targets of their own.

        log π(a'|s') + min_i Z_i(s') − α log π(a'|s'),   a' ~ π(·|s')

    Args:
      baseline_params: parameters with a leading axis E.
      network: ensemble of functions of the state.
      next_distribution: π(·|s') for the batch.
      next_observation: [B, O] normalised.
      key: draws the actions.
      alpha: [] temperature, return units per nat.

    Returns:
      [B] values, return units.

    Source: Yu and Zhang (ICML 2023), the authors' code.
    """
    _, log_prob = next_distribution.sample_and_log_prob(key)
    return log_prob + jnp.min(baseline(baseline_params, network, next_observation), axis=0) - alpha * log_prob
