"""The dataset and the fresh transitions as one: every row of both is as likely as any other."""

from typing import Any

import jax
import jax.numpy as jnp

from o2o_jax.data.replay.ring import RingBuffer, insert, offline_rows, ring_init, rows
from o2o_jax.interfaces import Replay
from o2o_jax.types import Array, Transition


def union(capacity: int, batch_size: int, best_episodes: int | None = None) -> Replay:
    """Returns the rule that draws as if the dataset had been loaded into the buffer first, without a copy per seed.

    Args:
      capacity: C of the ring [C] of fresh transitions.
      batch_size: B of a batch [B].
      best_episodes: of the dataset, by return, that alone are drawn from; None for all of it.

    Source: Table 6, "all" and "part".
    """

    def choose(dataset: Any) -> Any:
        return dataset if best_episodes is None else dataset.best_episodes(best_episodes)

    def sample(buffer: RingBuffer, dataset: Transition | None, key: Array) -> Transition:
        dataset = offline_rows(dataset, buffer.storage)
        indices = jax.random.randint(key, (batch_size,), 0, dataset.reward.shape[0] + buffer.size)
        return of_both(dataset, buffer, indices)

    return Replay(ring_init(capacity), insert, sample, choose)


def of_both(dataset: Transition, buffer: RingBuffer, indices: Array) -> Transition:
    """Returns rows [B] of the union at indices [B]: 0 to N − 1 are the dataset's [N], from N on the ring's [C]."""
    size = dataset.reward.shape[0]
    offline = rows(dataset, jnp.minimum(indices, size - 1))
    online = rows(buffer.storage, jnp.maximum(indices - size, 0))

    def choose(a: Array, b: Array) -> Array:
        return jnp.where((indices < size).reshape((-1,) + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, offline, online)
