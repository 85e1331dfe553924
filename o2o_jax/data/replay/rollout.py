"""The steps that were just taken, whole and in the order of time."""

import functools

import jax.numpy as jnp

from o2o_jax.data.replay.ring import RingBuffer, insert, make_buffer
from o2o_jax.interfaces import Replay
from o2o_jax.types import Array, Rollout, Spec, Transition


def rollout(length: int) -> Replay:
    """Returns the rule of on-policy methods, for a schedule of `length` environment steps per round of updates.

    Each time the ring has come round, its rows lie in the order of time. The dataset is left out.

    Args:
      length: T, steps of a rollout; a batch is [T].
    """

    def sample(buffer: RingBuffer, dataset: None, key: Array) -> Transition:
        del dataset, key
        return buffer.storage

    init = functools.partial(make_rollout, length=length)
    return Replay(init, insert, sample, choose=lambda dataset: None, cut=cut)


def make_rollout(spec: Spec, length: int) -> RingBuffer:
    """Returns an empty ring [T] for the newest T = `length` steps, which keeps the ends of episodes too.

    Raises:
      ValueError: if the length is less than 1.
    """
    buffer = make_buffer(spec, length)
    return buffer.replace(storage=Rollout(**vars(buffer.storage), truncated=jnp.zeros(length)))


def cut(buffer: RingBuffer) -> RingBuffer:
    """Marks a ring's [T] newest row as its episode's last: the next row begins another one."""
    storage, newest = buffer.storage, buffer.position - 1
    truncated = storage.truncated.at[newest].set(1.0 - storage.terminated[newest])
    return buffer.replace(storage=storage.replace(truncated=truncated))
