"""Rows of the dataset and fresh ones by their priorities, which updates rewrite."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from o2o_jax.data.replay.ring import RingBuffer, insert, make_buffer, offline_rows, rows
from o2o_jax.data.replay.union import of_both
from o2o_jax.interfaces import Replay
from o2o_jax.ops.stratified import stratified_draw
from o2o_jax.types import Array, Rollout, Spec, Transition


@flax.struct.dataclass
class PrioritizedBuffer:
    """Fresh transitions of one seed, and the priorities of all rows.

    Attributes:
      ring: fresh transitions [C].
      priority: [N + C], of the dataset's rows and of the ring's; 0 where there is none yet.
      highest: [] with which a fresh row begins.
    """

    ring: RingBuffer
    priority: Array
    highest: Array


@flax.struct.dataclass
class PrioritizedBatch:
    """Rows for an update and for learning what they are worth.

    Attributes:
      drawn: transitions [B] by their priorities.
      place: [B] int32, of each in the union of dataset and ring.
      offline: transitions [B] of the dataset, drawn uniformly.
      online: fresh transitions [B], drawn uniformly.
    """

    drawn: Transition
    place: Array
    offline: Transition
    online: Transition


def uniform_batch(dataset: Transition, key: Array, batch_size: int) -> PrioritizedBatch:
    """Draws a batch [B] of a dataset [N] alone, all of it uniformly: an `interfaces.Sample` where nothing is fresh."""
    places = jax.random.randint(key, (3, batch_size), 0, dataset.reward.shape[0])
    return PrioritizedBatch(rows(dataset, places[0]), places[0], rows(dataset, places[1]), rows(dataset, places[2]))


def prioritized(
    capacity: int,
    batch_size: int,
    priority: Callable[[Any, PrioritizedBatch], Array],
    fresh_share: float,
    fresh_rows: int = 1_000,
) -> Replay:
    """Returns the rule of balanced replay: batches by priority, which is found anew for the rows of every batch.

    Rows of the dataset begin with 1. Fresh ones begin with the highest priority there has been, at first

        N f / ((1 − f) F)

    so that F fresh rows are drawn with probability f.

    Args:
      capacity: C of the ring [C] of fresh transitions.
      batch_size: B of a batch, a `PrioritizedBatch`.
      priority: (state before an update, batch of it) -> [B] of its rows that were drawn by priority.
      fresh_share: f in (0, 1).
      fresh_rows: F.

    Raises:
      ValueError: while drawing, if there is no dataset, or another than the buffer was made for.

    Source: Lee et al. (arXiv:2107.00591), and its authors' code.
    """

    def init(spec: Spec, rows: int = 0) -> PrioritizedBuffer:
        highest = rows * fresh_share / ((1.0 - fresh_share) * fresh_rows) if rows else 1.0
        priorities = jnp.concatenate([jnp.ones(rows), jnp.zeros(capacity)])
        return PrioritizedBuffer(make_buffer(spec, capacity), priorities, jnp.asarray(highest, jnp.float32))

    def add(buffer: PrioritizedBuffer, step: Rollout) -> PrioritizedBuffer:
        place = buffer.priority.shape[0] - capacity + buffer.ring.position
        priorities = jax.lax.dynamic_update_index_in_dim(buffer.priority, buffer.highest, place, 0)
        return buffer.replace(ring=insert(buffer.ring, step), priority=priorities)

    def sample(buffer: PrioritizedBuffer, dataset: Transition | None, key: Array) -> PrioritizedBatch:
        dataset = offline_rows(dataset, buffer.ring.storage)
        size, expected = dataset.reward.shape[0], buffer.priority.shape[0] - capacity
        if size != expected:
            raise ValueError(f"the buffer has priorities of {expected} rows of a dataset, and this one has {size}")
        place_key, offline_key, online_key = jax.random.split(key, 3)
        place = stratified_draw(place_key, buffer.priority, batch_size)
        old = jax.random.randint(offline_key, (batch_size,), 0, size)
        fresh = jax.random.randint(online_key, (batch_size,), 0, buffer.ring.size)
        drawn = of_both(dataset, buffer.ring, place)
        return PrioritizedBatch(drawn, place, rows(dataset, old), rows(buffer.ring.storage, fresh))

    def feedback(buffer: PrioritizedBuffer, batch: PrioritizedBatch, state: Any) -> PrioritizedBuffer:
        found = priority(state, batch)
        highest = jnp.maximum(buffer.highest, jnp.max(found))
        return buffer.replace(priority=buffer.priority.at[batch.place].set(found), highest=highest)

    return Replay(init, add, sample, feedback=feedback)
