"""Losses of RLPD: those of soft actor-critic over an ensemble. The differentiated argument comes first."""

import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.losses import td_loss
from o2o_jax.ops import lagrangian
from o2o_jax.types import Array, Metrics, Params


def critic_loss(
    critic_params: Params, critic: networks.Critics, observation: Array, action: Array, target: Array
) -> tuple[Array, Metrics]:
    """Averages the squared temporal-difference errors over the critics, rather than to sum them as `td_loss`.

        1/E Σ_i mean (Q_i(s, a) − y)²

    The arguments and metrics are those of `td_loss`: `target` [B] is one for all critics.

    Returns:
      [] loss, and metrics.

    Source: Ball et al. (arXiv:2302.02948), Algorithm 1; the mean over critics is that of the authors' code.
    """
    loss, metrics = td_loss(critic_params, critic, observation, action, target)
    return loss / critic.num_critics, metrics


def temperature_loss(log_alpha: Array, log_prob: Array, target_entropy: float) -> Array:
    """Computes the loss of log α in the authors' form, whose gradient is α times that of `lagrangian.temperature_loss`.

        −α · mean( log π(a|s) + H̄ ),   α = exp(log α)

    Args:
      log_alpha: [] log α, the differentiated argument.
      log_prob: [B] log π(a|s) of sampled actions, nats.
      target_entropy: H̄, nats.

    Returns:
      [] loss, differentiable in `log_alpha` alone.

    Source: Ball et al. (arXiv:2302.02948), the authors' code.
    """
    return lagrangian.temperature_loss(jnp.exp(log_alpha), log_prob, target_entropy)
