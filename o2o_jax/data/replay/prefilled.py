"""A buffer that begins with some rows of the dataset, and maybe half of every batch from all of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.data.replay.ring import RingBuffer, insert, offline_rows, ring_init
from o2o_jax.data.replay.union import of_both
from o2o_jax.interfaces import Replay
from o2o_jax.types import Array, Transition


def prefilled(capacity: int, batch_size: int, rows: int, half: bool) -> Replay:
    """Returns the rule of a buffer that M rows of the dataset have been loaded into first, without a copy per seed.

    The rows are drawn once, without replacement, the same ones for all seeds; they stay when the ring has come round.

    Args:
      capacity: C of the ring [C] of fresh transitions.
      batch_size: B of a batch [B].
      rows: M, all of the dataset where it has fewer.
      half: whether ⌊B/2⌋ rows of every batch are of the whole dataset, the others of the buffer; else all are of the
        buffer.

    Source: Li et al. (arXiv:2305.15669), the authors' code.
    """
    offline = batch_size // 2 if half else 0

    def sample(buffer: RingBuffer, dataset: Transition | None, key: Array) -> Transition:
        dataset = offline_rows(dataset, buffer.storage)
        size = dataset.reward.shape[0]
        loaded = jnp.asarray(loaded_rows(size, rows))
        offline_key, buffer_key = jax.random.split(key)
        old = jax.random.randint(offline_key, (offline,), 0, size)
        place = jax.random.randint(buffer_key, (batch_size - offline,), 0, loaded.size + buffer.size)
        fresh = place - loaded.size + size  # as a row of the union of dataset and ring
        mixed = jnp.where(place < loaded.size, loaded[jnp.minimum(place, loaded.size - 1)], fresh)
        return of_both(dataset, buffer, jnp.concatenate([old, mixed]))

    return Replay(ring_init(capacity), insert, sample)


@functools.cache
def loaded_rows(size: int, rows: int) -> np.ndarray:
    """Returns [M] different rows of N = `size`, all [N] if there are fewer: the same random ones every time."""
    return np.random.default_rng(0).permutation(size)[:rows].astype(np.int32)
