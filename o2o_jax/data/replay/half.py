"""Half of every batch from the dataset, half from the fresh transitions."""

import jax
import jax.numpy as jnp

from o2o_jax.data.replay.ring import RingBuffer, insert, offline_rows, ring_init, rows
from o2o_jax.interfaces import Replay
from o2o_jax.types import Array, Transition


def half(capacity: int, batch_size: int) -> Replay:
    """Returns the rule of Table 6 and of Ball et al. (2023): ⌊B/2⌋ rows of the dataset, the rest fresh ones.

    Args:
      capacity: C of the ring [C] of fresh transitions.
      batch_size: B of a batch [B].
    """

    def sample(buffer: RingBuffer, dataset: Transition | None, key: Array) -> Transition:
        dataset = offline_rows(dataset, buffer.storage)
        old, fresh = indices(key, batch_size, dataset.reward.shape[0], buffer.size)
        batches = rows(dataset, old), rows(buffer.storage, fresh)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *batches)

    return Replay(ring_init(capacity), insert, sample)


def indices(key: Array, batch_size: int, dataset_size: int, size: Array) -> tuple[Array, Array]:
    """Returns rows [⌊B/2⌋] of the dataset and rows [B − ⌊B/2⌋] of a ring of [] `size` rows, drawn uniformly."""
    offline_key, online_key = jax.random.split(key)
    old = jax.random.randint(offline_key, (batch_size // 2,), 0, dataset_size)
    return old, jax.random.randint(online_key, (batch_size - batch_size // 2,), 0, size)
