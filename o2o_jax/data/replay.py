"""What an online update learns from: a ring of fresh transitions per seed, mixed with a dataset."""

from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp

from o2o_jax.training import sample_batch
from o2o_jax.types import Array, Spec, Transition

Mode = Literal["half", "all", "part", "none"]


@flax.struct.dataclass
class RingBuffer:
    """The newest transitions of one seed.

    Attributes:
      storage: transitions [C], rows beyond `size` are zeros.
      position: [] int32, the row that is written next.
      size: [] int32, rows filled.
    """

    storage: Transition
    position: Array
    size: Array


def make_buffer(spec: Spec, capacity: int) -> RingBuffer:
    """An empty ring for `capacity` transitions.

    Raises:
      ValueError: if the capacity is less than 1.
    """
    if capacity < 1:
        raise ValueError(f"a replay buffer needs room for at least 1 transition, got {capacity}")
    observations = jnp.zeros((capacity, spec.observation_dim))
    scalars = jnp.zeros(capacity)
    storage = Transition(
        observation=observations,
        action=jnp.zeros((capacity, spec.action_dim)),
        reward=scalars,
        next_observation=jnp.zeros_like(observations),
        terminated=jnp.zeros_like(scalars),
    )
    return RingBuffer(storage, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def insert(buffer: RingBuffer, transition: Transition) -> RingBuffer:
    """Writes one transition (no leading axis) over the oldest row."""
    capacity = buffer.storage.reward.shape[0]
    storage = jax.tree.map(
        lambda column, row: jax.lax.dynamic_update_index_in_dim(column, row, buffer.position, 0),
        buffer.storage,
        transition,
    )
    return RingBuffer(storage, (buffer.position + 1) % capacity, jnp.minimum(buffer.size + 1, capacity))


def sample(buffer: RingBuffer, dataset: Transition | None, key: Array, batch_size: int, mode: Mode) -> Transition:
    """Draws a batch [B], uniformly with replacement, from the two sources as Table 6 names them.

    `half` takes ⌊B/2⌋ rows from each source. `all` and `part` draw from the union of both, as if the dataset (or its
    best episodes, which the caller passes as `dataset`) had been loaded into the buffer first, without a copy per seed.
    `none` leaves the dataset out.

    Args:
      buffer: at least one row filled.
      dataset: transitions [N] shared by all seeds; unused, and may be None, in mode `none`.
      key: draws the rows.
      batch_size: B.
      mode: the replay mode.

    Returns:
      Raw transitions [B].
    """
    if mode == "none":
        return _rows(buffer.storage, jax.random.randint(key, (batch_size,), 0, buffer.size))
    assert dataset is not None, f"replay mode {mode} needs a dataset"
    if mode == "half":
        offline_key, online_key = jax.random.split(key)
        online_rows = jax.random.randint(online_key, (batch_size - batch_size // 2,), 0, buffer.size)
        offline = sample_batch(dataset, offline_key, batch_size // 2)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), offline, _rows(buffer.storage, online_rows))
    dataset_size = dataset.reward.shape[0]
    rows = jax.random.randint(key, (batch_size,), 0, dataset_size + buffer.size)
    offline = _rows(dataset, jnp.minimum(rows, dataset_size - 1))
    online = _rows(buffer.storage, jnp.maximum(rows - dataset_size, 0))

    def choose(a: Array, b: Array) -> Array:
        return jnp.where((rows < dataset_size).reshape((-1,) + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, offline, online)


def _rows(columns: Transition, rows: Array) -> Transition:
    return jax.tree.map(lambda column: column[rows], columns)
