"""Penalty of ReBRAC's targets; its losses are those of TD3+BC."""

import jax.numpy as jnp

from o2o_jax.types import Array


def distance_penalty(action: Array, data_action: Array, known: Array, weight: float) -> Array:
    """Computes what the value of a state is lowered by, for an action away from the data's there.

        β₂ ‖ã' − a'‖²,   0 where a' is not known

    Args:
      action: [B, A] ã' of the target policy, smoothed.
      data_action: [B, A] a' of the dataset at the same states.
      known: [B] 1 where there is such an action, else 0.
      weight: β₂.

    Returns:
      [B] return units.

    Source: Tarasov et al. (arXiv:2305.09836); its authors' code sums over the dimensions, as here.
    """
    return weight * known * jnp.sum(jnp.square(action - data_action), axis=-1)
