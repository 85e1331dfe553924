"""The steps that were just taken, whole and in the order of time."""

import functools

import jax
import jax.numpy as jnp

from o2o_jax.data.replay.ring import RingBuffer, insert, make_buffer
from o2o_jax.interfaces import Replay
from o2o_jax.types import Array, Rollout, Spec, Transition


def rollout(length: int, num_envs: int = 1) -> Replay:
    """Returns the rule of on-policy methods, for a schedule of `length` environment steps per round of updates.

    Each time the ring has come round, its rows lie in the order of time. The dataset is left out.

    Args:
      length: T, steps of a rollout; a batch is [T].
      num_envs: E, environments that take turns. A batch has the T/E rows of the first one, then those of the second.
    """

    def sample(buffer: RingBuffer, dataset: None, key: Array) -> Transition:
        del dataset, key
        steps = buffer.storage
        assert isinstance(steps, Rollout)
        return steps if num_envs == 1 else by_environment(steps, num_envs)

    def init(spec: Spec, rows: int = 0) -> RingBuffer:
        del rows
        return make_rollout(spec, length)

    return Replay(init, insert, sample, choose=lambda dataset: None, cut=functools.partial(cut, num_envs=num_envs))


def by_environment(steps: Rollout, num_envs: int) -> Rollout:
    """Returns the rows [T] of E environments that took turns one environment after the other.

    An episode under way counts as cut off at the last row of its environment, where another's first one follows.
    """

    def sort(column: Array) -> Array:
        return column.reshape(-1, num_envs, *column.shape[1:]).swapaxes(0, 1)  # [E, T/E, ...]

    steps = jax.tree.map(sort, steps)
    steps = steps.replace(truncated=steps.truncated.at[:, -1].set(1.0 - steps.terminated[:, -1]))
    return jax.tree.map(lambda column: column.reshape(-1, *column.shape[2:]), steps)


def make_rollout(spec: Spec, length: int) -> RingBuffer:
    """Returns an empty ring [T] for the newest T = `length` steps, which keeps the ends of episodes too.

    Raises:
      ValueError: if the length is less than 1.
    """
    buffer = make_buffer(spec, length)
    return buffer.replace(storage=Rollout(**vars(buffer.storage), truncated=jnp.zeros(length)))


def cut(buffer: RingBuffer, num_envs: int = 1) -> RingBuffer:
    """Marks a ring's [T] newest row of each environment as its episode's last: the next row begins another one."""
    storage, newest = buffer.storage, buffer.position - 1 - jnp.arange(num_envs)
    truncated = storage.truncated.at[newest].set(1.0 - storage.terminated[newest])
    return buffer.replace(storage=storage.replace(truncated=truncated))
