"""The newest transitions of one seed, in a ring."""

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from o2o_jax.types import Array, Spec, Transition, counter


@flax.struct.dataclass
class RingBuffer:
    """The newest transitions of one seed.

    Attributes:
      storage: transitions [C], rows beyond `size` are zeros; a `Rollout` where the ends of episodes are kept too.
      position: [] int32, the row that is written next.
      size: [] int32, rows filled.
    """

    storage: Transition
    position: Array = counter()
    size: Array = counter()


def make_buffer(spec: Spec, capacity: int) -> RingBuffer:
    """Returns an empty ring [C] for C = `capacity` transitions.

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


def ring_init(capacity: int) -> Callable[..., RingBuffer]:
    """Returns the `interfaces.Replay.init` of a ring [C] for C = `capacity`, however many rows the dataset has."""

    def init(spec: Spec, rows: int = 0) -> RingBuffer:
        del rows
        return make_buffer(spec, capacity)

    return init


def insert(buffer: RingBuffer, step: Transition) -> RingBuffer:
    """Writes one step, without a leading axis, over a ring's [C] oldest row; one of transitions keeps no ends."""
    capacity = buffer.storage.reward.shape[0]
    columns = {field.name: getattr(step, field.name) for field in dataclasses.fields(buffer.storage)}
    storage = jax.tree.map(
        lambda column, row: jax.lax.dynamic_update_index_in_dim(column, row, buffer.position, 0),
        buffer.storage,
        buffer.storage.replace(**columns),
    )
    return RingBuffer(storage, (buffer.position + 1) % capacity, jnp.minimum(buffer.size + 1, capacity))


def rows(columns: Transition, indices: Array) -> Transition:
    """Returns the rows [B] of transitions [N] at indices [B]."""
    return jax.tree.map(lambda column: column[indices], columns)


def offline_rows(dataset: Transition | None, like: Transition) -> Transition:
    """Returns the dataset [N] that a rule draws from beside fresh rows `like` [C].

    Raises:
      ValueError: there is none, or its rows are of another kind than the fresh ones, such as with extras.
    """
    if dataset is None:
        raise ValueError("this replay rule draws from a dataset, and there is none: pass one, or set replay.mode=none")
    if type(dataset) is not type(like):
        raise ValueError(
            f"this replay rule mixes {type(like).__name__} rows with {type(dataset).__name__} rows: a method that "
            "computes extras while fine-tuning needs a rule whose own rows have them too"
        )
    return dataset
