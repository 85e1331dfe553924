"""What an online update learns from: a ring of fresh transitions per seed, mixed with a dataset, or a whole rollout."""

import dataclasses
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp

from o2o_jax.types import Array, Rollout, Spec, Transition

Mode = Literal["half", "all", "part", "none", "auto"]


@flax.struct.dataclass
class RingBuffer:
    """The newest transitions of one seed.

    Attributes:
      storage: transitions [C], rows beyond `size` are zeros; a `Rollout` where the ends of episodes are kept too.
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


def make_rollout(spec: Spec, length: int) -> RingBuffer:
    """An empty ring for the newest `length` steps; each time it has come round they lie in the order of time.

    Raises:
      ValueError: if the length is less than 1.
    """
    buffer = make_buffer(spec, length)
    return buffer.replace(storage=Rollout(**vars(buffer.storage), truncated=jnp.zeros(length)))


def insert(buffer: RingBuffer, step: Transition) -> RingBuffer:
    """Writes one step (no leading axis) over the oldest row; a ring of mere transitions keeps no ends of episodes."""
    capacity = buffer.storage.reward.shape[0]
    columns = {field.name: getattr(step, field.name) for field in dataclasses.fields(buffer.storage)}
    storage = jax.tree.map(
        lambda column, row: jax.lax.dynamic_update_index_in_dim(column, row, buffer.position, 0),
        buffer.storage,
        buffer.storage.replace(**columns),
    )
    return RingBuffer(storage, (buffer.position + 1) % capacity, jnp.minimum(buffer.size + 1, capacity))


def cut(buffer: RingBuffer) -> RingBuffer:
    """Marks the newest row as its episode's last, where ends are kept: the next row begins another one."""
    if not isinstance(buffer.storage, Rollout):
        return buffer
    storage, newest = buffer.storage, buffer.position - 1
    truncated = storage.truncated.at[newest].set(1.0 - storage.terminated[newest])
    return buffer.replace(storage=storage.replace(truncated=truncated))


def sample(
    buffer: RingBuffer,
    dataset: Transition | None,
    key: Array,
    batch_size: int,
    mode: Mode,
    regime: Array | None = None,
) -> Transition:
    """Draws a batch [B], uniformly with replacement, from the two sources as Table 6 names them.

    `half` takes ⌊B/2⌋ rows from each source. `all` and `part` draw from the union of both, as if the dataset (or its
    best episodes, which the caller passes as `dataset`) had been loaded into the buffer first, without a copy per seed.
    `none` leaves the dataset out. `auto`, which is this package's, does one of these by what the policy is worth beside
    the dataset, and draws the rows that this mode draws: `none` where it is better, `half` where it is like it, `all`
    where it is worse.

    Args:
      buffer: at least one row filled.
      dataset: transitions [N] shared by all seeds; unused, and may be None, in mode `none`.
      key: draws the rows.
      batch_size: B.
      mode: the replay mode.
      regime: [] int32, of `diagnosis.REGIMES`; unused but in mode `auto`, where seeds may differ in it.

    Returns:
      Raw transitions [B].
    """
    if mode == "none":
        return _rows(buffer.storage, jax.random.randint(key, (batch_size,), 0, buffer.size))
    assert dataset is not None, f"replay mode {mode} needs a dataset"
    dataset_size = dataset.reward.shape[0]
    if mode == "half":
        offline_rows, online_rows = _half(key, batch_size, dataset_size, buffer.size)
        offline = _rows(dataset, offline_rows)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), offline, _rows(buffer.storage, online_rows))
    rows = jax.random.randint(key, (batch_size,), 0, dataset_size + buffer.size)
    if mode == "auto":  # all three draws as rows of the union; the networks' work is the batch's, and there is one
        assert regime is not None, "replay mode auto needs a regime"
        offline_rows, online_rows = _half(key, batch_size, dataset_size, buffer.size)
        half = jnp.concatenate([offline_rows, online_rows + dataset_size])
        none = jax.random.randint(key, (batch_size,), 0, buffer.size) + dataset_size
        rows = jnp.where(regime > 0, none, jnp.where(regime < 0, rows, half))
    offline = _rows(dataset, jnp.minimum(rows, dataset_size - 1))
    online = _rows(buffer.storage, jnp.maximum(rows - dataset_size, 0))

    def choose(a: Array, b: Array) -> Array:
        return jnp.where((rows < dataset_size).reshape((-1,) + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, offline, online)


def _half(key: Array, batch_size: int, dataset_size: int, size: Array) -> tuple[Array, Array]:
    """Rows [⌊B/2⌋] of the dataset and rows [B − ⌊B/2⌋] of the ring."""
    offline_key, online_key = jax.random.split(key)
    offline_rows = jax.random.randint(offline_key, (batch_size // 2,), 0, dataset_size)
    return offline_rows, jax.random.randint(online_key, (batch_size - batch_size // 2,), 0, size)


def _rows(columns: Transition, rows: Array) -> Transition:
    return jax.tree.map(lambda column: column[rows], columns)
