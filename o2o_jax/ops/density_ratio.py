"""Density ratios of fresh and old transitions, learned by telling them apart, and the priorities they make."""

import jax
import jax.numpy as jnp

from o2o_jax.types import Array

EPSILON = 1e-10  # the authors' code: of logarithms and of the mean that priorities are divided by


def density_ratio_loss(offline_ratio: Array, online_ratio: Array) -> Array:
    """Computes the negative variational bound on the Jensen-Shannon divergence of online and offline data.

        −mean_off log( 2 / (w + 1) + ε ) − mean_on log( 2 w / (w + 1) + ε )

    Its minimiser is w = d_on / d_off, where it is −2 JS, between −2 log 2 and 0.

    Args:
      offline_ratio: [B] w ≥ 0 of transitions of the dataset.
      online_ratio: [C] w ≥ 0 of fresh transitions.

    Returns:
      [] loss.

    Source: Lee et al. (arXiv:2107.00591), and its authors' code, which has the ε.
    """
    offline = jnp.log(2.0 / (offline_ratio + 1.0) + EPSILON)
    online = jnp.log(2.0 * online_ratio / (online_ratio + 1.0) + EPSILON)
    return -jnp.mean(offline) - jnp.mean(online)


def ratio_priority(ratio: Array, offline_ratio: Array, temperature: float) -> Array:
    """Returns priorities [B] of replay, self-normalised by a batch of the dataset; no gradient flows through them.

        p = clip( w^(1/T) / (mean_off w^(1/T) + ε), 0.001, 1000 )

    Args:
      ratio: [B] w ≥ 0 of the transitions.
      offline_ratio: [C] w ≥ 0 of uniform rows of the dataset.
      temperature: T > 0; the higher, the more alike the priorities.

    Source: Lee et al. (arXiv:2107.00591), and its authors' code, which has the bounds.
    """
    scale = jnp.mean(offline_ratio ** (1.0 / temperature)) + EPSILON
    return jax.lax.stop_gradient(jnp.clip(ratio ** (1.0 / temperature) / scale, 1e-3, 1e3))
