"""Losses of PROTO: those of soft actor-critic with a second price, that of leaving π_k."""

import chex
import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.losses import mean_value
from o2o_jax.ops.distributions import TanhGaussian
from o2o_jax.types import Array, Params


def regularization(log_prob: Array, followed_log_prob: Array, alpha: Array, weight: Array) -> Array:
    """Prices an action by its policy's entropy, and by how much less likely it is by π_k.

        α log π(a|s) + c [ log π(a|s) − log π_k(a|s) ]

    Args:
      log_prob: [B] log π(a|s) of an action that π has sampled, nats.
      followed_log_prob: [B] log π_k(a|s) of the same, nats.
      alpha: [] temperature α, return units per nat.
      weight: [] c ≥ 0, return units per nat.

    Returns:
      [B] return units.

    Raises:
      AssertionError: while tracing, if the densities differ in shape.

    Source: Li et al. (arXiv:2305.15669), the authors' code.
    """
    chex.assert_equal_shape([log_prob, followed_log_prob])
    return alpha * log_prob + weight * (log_prob - followed_log_prob)


def actor_loss(
    actor_params: Params,
    actor: networks.Actor,
    critic_params: Params,
    critic: networks.Critics,
    followed: TanhGaussian,
    observation: Array,
    key: Array,
    alpha: Array,
    weight: Array,
) -> tuple[Array, tuple[Array, Array]]:
    """Computes the policy loss with both prices.

        mean( α log π(a|s) + c [ log π(a|s) − log π_k(a|s) ] − 1/E Σ_i Q_i(s, a) ),   a ~ π(·|s)

    Args:
      actor_params: differentiated.
      actor: network with a tanh-Gaussian head.
      critic_params: parameters with a leading axis E, constant.
      critic: ensemble network.
      followed: π_k(·|s) for the batch, constant.
      observation: [B, O] normalised.
      key: draws the actions.
      alpha: [] temperature α, return units per nat.
      weight: [] c ≥ 0, return units per nat.

    Returns:
      [] loss, and log-densities [B] and log ratios log π − log π_k [B], nats.

    Source: Li et al. (arXiv:2305.15669), the authors' code.
    """
    action, log_prob = actor.apply(actor_params, observation).sample_and_log_prob(key)
    followed_log_prob = followed.log_prob(action)
    q = mean_value(critic_params, critic, observation, action)  # [B]
    loss = jnp.mean(regularization(log_prob, followed_log_prob, alpha, weight) - q)
    return loss, (log_prob, log_prob - followed_log_prob)
