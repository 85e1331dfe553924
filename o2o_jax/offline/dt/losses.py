"""Losses of the decision transformer: the likelihood of the data's actions, and the temperature under an entropy."""

import jax
import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.types import Array, History, Metrics, Params


def sequence_loss(
    params: Params, actor: networks.DecisionTransformer, history: History, key: Array, temperature: Array
) -> tuple[Array, tuple[Array, Metrics]]:
    """Computes the negative log-likelihood of the data's actions, less the policy's weighted entropy.

        −mean_valid log π(a_t|·) − τ H,   H = −mean log π(ã_t|·), one sample ã_t of every step, padding too

    Args:
      params: differentiated.
      actor: network.
      history: [B, K] as the network sees it.
      key: of the dropout and the sampled actions.
      temperature: [] τ ≥ 0, constant.

    Returns:
      [] loss; the entropy H [], nats; metrics.

    Source: Zheng et al. (arXiv:2202.05607); that padding counts in H is their code's.
    """
    dropout_key, sample_key = jax.random.split(key)
    distribution = actor.apply(params, history, deterministic=False, rngs={"dropout": dropout_key})
    log_prob = distribution.log_prob(history.action)  # [B, K]
    log_likelihood = jnp.sum(history.valid * log_prob) / jnp.sum(history.valid)
    entropy = -jnp.mean(distribution.sample_and_log_prob(sample_key)[1])
    metrics = {"log_likelihood": log_likelihood, "entropy": entropy}
    return -log_likelihood - temperature * entropy, (entropy, metrics)


def temperature_loss(log_temperature: Array, entropy: Array, target_entropy: float) -> Array:
    """Computes the loss of log τ: descent raises τ while the entropy is below its target.

        τ (H − H̄),   τ = exp(log τ)

    Args:
      log_temperature: [] log τ, the differentiated argument.
      entropy: [] H of the policy, nats.
      target_entropy: H̄, nats; −|A|.

    Returns:
      [] loss, differentiable in `log_temperature` alone.

    Source: Zheng et al. (arXiv:2202.05607), the dual of their entropy constraint. That of O2SAC,
    `ops.lagrangian.temperature_loss`, has log τ in front, as its own authors' code.
    """
    return jnp.exp(log_temperature) * jax.lax.stop_gradient(entropy - target_entropy)
