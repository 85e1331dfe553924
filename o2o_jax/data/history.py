"""Histories gathered from a dataset whose rows follow one another, on the device."""

import jax
import jax.numpy as jnp

from o2o_jax.data.transform import Normalizer
from o2o_jax.types import Array, History, Spec, Transition


def padding(spec: Spec, episodes: int, context: int) -> History:
    """Returns histories [E, K] without a step: all zeros."""
    numbers = jnp.zeros((episodes, context))
    return History(
        observation=jnp.zeros((*numbers.shape, spec.observation_dim)),
        action=jnp.zeros((*numbers.shape, spec.action_dim)),
        return_to_go=numbers,
        valid=numbers,
    )


def columns(rows: Transition, return_to_go: Array) -> History:
    """Returns rows [N] of a dataset, and what is to be received from each on [N], as `gather` takes them."""
    return History(rows.observation, rows.action, return_to_go, jnp.ones_like(return_to_go))


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
    rows = jnp.where(valid, last[..., None] + offset, 0)  # negative ones count from the end: across a ring's seam

    def take(column: Array) -> Array:
        kept = valid.reshape(valid.shape + (1,) * (column.ndim - 1))
        return jnp.where(kept, column[rows], 0.0)

    return jax.tree.map(take, columns)


def following(columns: History, first: Array, remaining: Array, context: int) -> History:
    """Gathers the steps from a row on, up to its episode's end; what is missing is padding in front.

    Args:
      columns: rows [N], as of `gather`; those of a ring may lie across its seam.
      first: [...] int32 rows that the histories begin with.
      remaining: [...] int32 steps that the episode has from there on, the row's own among them.
      context: K; at most N where they are of a ring.

    Returns:
      Histories [..., K].
    """
    length = jnp.minimum(remaining, context)
    last = (first + length - 1) % len(columns.valid)
    return gather(columns, last, length, context)


def with_action(history: History, action: Array) -> History:
    """Writes the actions [..., A] into the newest step of histories [..., K]."""
    return history.replace(action=history.action.at[..., -1, :].set(action))


def normalize(history: History, normalizer: Normalizer, return_scale: float) -> History:
    """Normalises raw histories [..., K] for a network; returns to go are multiplied by `return_scale`."""
    return history.replace(
        observation=normalizer(history.observation), return_to_go=return_scale * history.return_to_go
    )
