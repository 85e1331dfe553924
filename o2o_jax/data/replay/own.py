"""Fresh transitions alone."""

import jax

from o2o_jax.data.replay.ring import RingBuffer, insert, ring_init, rows
from o2o_jax.interfaces import Replay
from o2o_jax.types import Array, Transition


def own(capacity: int, batch_size: int) -> Replay:
    """Returns the rule that leaves the dataset out.

    Args:
      capacity: C of the ring [C] of fresh transitions.
      batch_size: B of a batch [B].

    Source: Table 6, "none".
    """

    def sample(buffer: RingBuffer, dataset: None, key: Array) -> Transition:
        del dataset
        return rows(buffer.storage, jax.random.randint(key, (batch_size,), 0, buffer.size))

    return Replay(ring_init(capacity), insert, sample, choose=lambda dataset: None)
