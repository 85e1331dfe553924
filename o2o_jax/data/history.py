"""Histories gathered from a dataset whose rows follow one another, on the device."""

import jax
import jax.numpy as jnp

from o2o_jax.data.transform import Normalizer
from o2o_jax.types import Array, History


def gather(columns: History, last: Array, length: Array, context: int) -> History:
    """Gathers the steps up to a row, filled up in front with padding.

    Args:
      columns: every row of a dataset [N] in order, each valid: an episode's rows lie next to one another.
      last: [...] int32 rows that the histories end with.
      length: [...] int32 in [1, K], how many steps of the episode each history has.
      context: K.

    Returns:
      Histories [..., K]; padding is zeros.
    """
    offset = jnp.arange(1 - context, 1).reshape((1,) * last.ndim + (context,))
    valid = offset > -length[..., None]  # [..., K]
    rows = jnp.where(valid, last[..., None] + offset, 0)

    def take(column: Array) -> Array:
        kept = valid.reshape(valid.shape + (1,) * (column.ndim - 1))
        return jnp.where(kept, column[rows], 0.0)

    return jax.tree.map(take, columns)


def normalize(history: History, normalizer: Normalizer, return_scale: float) -> History:
    """Normalises raw histories [..., K] for a network; returns to go are multiplied by `return_scale`."""
    return history.replace(
        observation=normalizer(history.observation), return_to_go=return_scale * history.return_to_go
    )
