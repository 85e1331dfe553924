"""Losses and values that several algorithms share: an ensemble of critics evaluated, equations of `ops/` applied."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.ops.bellman import ensemble_squared_error
from o2o_jax.ops.distributions import Gaussian, TanhGaussian
from o2o_jax.types import Array, Metrics, Params

NormalT = TypeVar("NormalT", bound=Gaussian | TanhGaussian)


def td_loss(
    critic_params: Params, critic: networks.QNetwork, observation: Array, action: Array, target: Array
) -> tuple[Array, Metrics]:
    """Sums the squared temporal-difference errors of the critics.

        Σ_i mean (Q_i(s, a) − y)²

    Args:
      critic_params: parameters with a leading axis E, differentiated.
      critic: ensemble network.
      observation: [B, O] normalised.
      action: [B, A] of the batch.
      target: [B] regression target y, constant.

    Returns:
      [] loss, and the mean values of the batch's actions and of the target.

    Source: Eq. (3), (6), (37), (47).
    """
    q = critic.apply(critic_params, observation, action)  # [E, B]
    return ensemble_squared_error(q, target), {"q": jnp.mean(q), "target_q": jnp.mean(target)}


def lowest_value(critic_params: Params, critic: networks.QNetwork, observation: Array, action: Array) -> Array:
    """Returns the lowest value of the critics: min_i Q_i(s, a).

    Args:
      critic_params: parameters with a leading axis E.
      critic: ensemble network.
      observation: [..., O] normalised.
      action: [..., A].

    Returns:
      [...] values, in return units.

    Source: Eq. (3), (6).
    """
    return jnp.min(critic.apply(critic_params, observation, action), axis=0)


def mean_value(critic_params: Params, critic: networks.QNetwork, observation: Array, action: Array) -> Array:
    """Returns the mean value of the critics: 1/E Σ_i Q_i(s, a).

    The arguments are those of `lowest_value`.

    Returns:
      [...] values, in return units.

    Source: Ball et al. (arXiv:2302.02948), Algorithm 1.
    """
    return jnp.mean(critic.apply(critic_params, observation, action), axis=0)


def draw_critics(critic_params: Params, key: Array, number: int) -> Params:
    """Draws critics of an ensemble without replacement, all subsets alike.

    Args:
      critic_params: parameters with a leading axis E.
      key: draws the subset; unused where all are asked for.
      number: M ≤ E.

    Returns:
      Parameters with a leading axis M; of all critics in their order where M = E.

    Source: Chen et al. (arXiv:2101.05982), Algorithm 1.
    """
    size = jax.tree.leaves(critic_params)[0].shape[0]
    if number == size:
        return critic_params
    drawn = jax.random.permutation(key, size)[:number]
    return jax.tree.map(lambda leaf: leaf[drawn], critic_params)


def next_value(
    target_critic_params: Params,
    critic: networks.QNetwork,
    next_distribution: Gaussian | TanhGaussian,
    next_observation: Array,
    key: Array,
    num_actions: int,
    alpha: Array | None = None,
) -> Array:
    """Values the next state by the best of n sampled actions.

        max_k ( min_i Q̄_i(s', a'_k) − α log π(a'_k|s') ),   a'_k ~ π(·|s')

    Args:
      target_critic_params: parameters with a leading axis E.
      critic: ensemble network.
      next_distribution: π(·|s') for the batch.
      next_observation: [B, O] normalised.
      key: draws the actions.
      num_actions: n; 1 is the plain backup.
      alpha: [] temperature, return units per nat; None leaves the entropy out.

    Returns:
      [B] values, in return units.

    Source: Kumar et al. (arXiv:2006.04779), appendix F, for n; Haarnoja et al. (arXiv:1801.01290) for the entropy.
    """
    action, log_prob = repeated(next_distribution, num_actions).sample_and_log_prob(key)  # [B, n, A], [B, n]
    value = lowest_value(target_critic_params, critic, at_every(next_observation, action), action)
    return jnp.max(value if alpha is None else value - alpha * log_prob, axis=-1)


def repeated(distribution: NormalT, num_actions: int) -> NormalT:
    """Repeats a distribution n times per state, to sample from: parameters [B, A], or [A], become [B, n, A]."""
    batch_size, action_dim = distribution.mean.shape
    shape = (batch_size, num_actions, action_dim)

    def repeat(leaf: Array) -> Array:
        return jnp.broadcast_to(jnp.broadcast_to(leaf, distribution.mean.shape)[:, None], shape)

    return jax.tree.map(repeat, distribution)


def at_every(observation: Array, actions: Array) -> Array:
    """Repeats observations [B, O] beside the actions [B, n, A] of each: [B, n, O]."""
    return jnp.broadcast_to(observation[:, None], (*actions.shape[:-1], observation.shape[-1]))


def soft_actor_loss(
    actor_params: Params,
    actor: networks.Actor,
    critic_params: Params,
    critic: networks.QNetwork,
    observation: Array,
    key: Array,
    alpha: Array | float,
    value: Callable = lowest_value,
) -> tuple[Array, tuple[Array, Array, Gaussian | TanhGaussian]]:
    """Computes the entropy-regularised policy loss.

        mean( α log π(a|s) − min_i Q_i(s, a) ),   a ~ π(·|s)

    Args:
      actor_params: differentiated.
      actor: network with a density.
      critic_params: parameters with a leading axis E, constant.
      critic: ensemble network.
      observation: [B, O] normalised.
      key: draws the actions.
      alpha: [] temperature, return units per nat.
      value: of an action by the critics, `lowest_value` as above, or `mean_value`.

    Returns:
      [] loss, and the actions [B, A], their log-densities [B], nats, and the distribution π(·|s) that they come from.

    Source: Eq. (2).
    """
    distribution = actor.apply(actor_params, observation)
    action, log_prob = distribution.sample_and_log_prob(key)
    q = value(critic_params, critic, observation, action)  # [B]
    return jnp.mean(alpha * log_prob - q), (action, log_prob, distribution)


def weighted_likelihood_loss(
    actor_params: Params, actor: networks.Actor, observation: Array, action: Array, weight: Array
) -> tuple[Array, Metrics]:
    """Computes the negative log-likelihood of the batch's actions, each with its own weight.

        −mean( w log π(a|s) )

    Args:
      actor_params: differentiated.
      actor: network with a density.
      observation: [B, O] normalised.
      action: [B, A] of the batch.
      weight: [B] w of `ops.regression.advantage_weight`, constant.

    Returns:
      [] loss, and the mean log-density, nats, and weight.

    Source: Kostrikov et al. (arXiv:2110.06169), Eq. (7), and the actor's step of Nair et al. (arXiv:2006.09359).
    """
    log_prob = actor.apply(actor_params, observation).log_prob(action)  # [B]
    metrics = {"log_prob": jnp.mean(log_prob), "weight": jnp.mean(weight)}
    return -jnp.mean(jax.lax.stop_gradient(weight) * log_prob), metrics


def align_and_retain_loss(
    critic_params: Params, critic: networks.QNetwork, states: Array, actions: Array, target: Array, target_mode: Array
) -> tuple[Array, Metrics]:
    """Regresses the probes on their capped values, and the policy's own actions on the values they had.

        Σ_i mean (Q_i(s, a) − Q'_i(s, a))²  +  Σ_i mean (Q_i(s, ȧ) − q̇)²

    Args:
      critic_params: parameters with a leading axis E, differentiated.
      critic: ensemble network.
      states: [2, B, O] normalised, the batch twice: both action sets go through the critics in one pass.
      actions: [2, B, A] probes a and the policy's own actions ȧ.
      target: [B] or [E, B] capped values Q' of the probes.
      target_mode: [B] values q̇ of the policy's own actions.

    Returns:
      [] loss, and its terms. `overestimated` is the share of probes with Q(s, a) > Q(s, ȧ), which tells how far
      alignment has come.

    Source: Eq. (13), (14), (16).
    """
    q = critic.apply(critic_params, states, actions)  # [E, 2, B]
    align = ensemble_squared_error(q[:, 0], jax.lax.stop_gradient(target))
    retain = ensemble_squared_error(q[:, 1], jax.lax.stop_gradient(target_mode))
    lowest = jnp.min(q, axis=0)
    metrics = {
        "critic_loss": align + retain,
        "align_loss": align,
        "retain_loss": retain,
        "q": jnp.mean(q[:, 0]),
        "q_mode": jnp.mean(q[:, 1]),
        "target_q": jnp.mean(target),
        "overestimated": jnp.mean(lowest[0] > lowest[1]),
    }
    return align + retain, metrics
