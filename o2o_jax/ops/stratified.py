"""Draws of rows by their priorities."""

import jax
import jax.numpy as jnp

from o2o_jax.types import Array

BLOCK = 1_024  # rows whose sums are kept apart: one running sum of millions of rows loses small ones in 32 bits


def stratified_draw(key: Array, priority: Array, batch_size: int) -> Array:
    """Draws rows [B] in proportion to their priorities, one of each of B equal parts of their sum.

    Args:
      key: draws the point in each part.
      priority: [N] at least 0, of which one is above.
      batch_size: B.

    Source: Schaul et al. (arXiv:1511.05952), whose tree of sums has two levels here.
    """
    blocks = jnp.pad(priority, (0, -priority.shape[0] % BLOCK)).reshape(-1, BLOCK)
    sums = blocks.sum(axis=1)
    ends = jnp.cumsum(sums)
    below = 1.0 - 1e-6  # a point that rounding moves to the end of a sum is in none of its rows
    share = (jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,))) / batch_size
    point = jnp.minimum(share, below) * ends[-1]
    block = jnp.minimum(jnp.searchsorted(ends, point, side="right"), sums.shape[0] - 1)
    inner = jnp.cumsum(blocks[block], axis=1)  # [B, BLOCK]
    rest = jnp.clip(point - (ends[block] - sums[block]), 0.0, below * inner[:, -1])
    return block * BLOCK + jnp.sum(inner <= rest[:, None], axis=1)
