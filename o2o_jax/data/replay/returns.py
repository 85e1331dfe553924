"""Fresh transitions with the returns to go of their episodes, beside a dataset that has them too."""

import math

import flax.struct
import jax.numpy as jnp

from o2o_jax.data.replay.ring import RingBuffer
from o2o_jax.data.returns import RecordedReturns, ReturnsToGo
from o2o_jax.interfaces import Replay
from o2o_jax.types import Annotated, Array, Extras, Rollout, Spec


@flax.struct.dataclass
class ReturnsBuffer:
    """Fresh transitions of one seed, and what came after each in its episode.

    Attributes:
      ring: fresh transitions [C].
      returns: [C] returns to go, return units; of the episode under way as far as it has come, −∞ of one that was lost.
      steps: [] int32, of the episode under way.
      reached: [] bool, whether one of these steps had another reward than that of failure.
    """

    ring: RingBuffer
    returns: Array
    steps: Array
    reached: Array

    def age(self) -> Array:
        """Returns [C] how many steps ago each row was written, 0 of the newest."""
        capacity = self.returns.shape[0]
        return (self.ring.position - 1 - jnp.arange(capacity)) % capacity

    def under_way(self) -> Array:
        """Returns [C] bool, which rows are of the episode under way."""
        return self.age() < self.steps


def with_returns(rule: Replay, recorded: RecordedReturns) -> Replay:
    """Returns a rule that draws as `rule` does, of whose rows each has `ReturnsToGo` as its shared extras.

    Every step adds its discounted reward to all rows of its episode at once, one pass over C numbers: nothing has to be
    found and written back when an episode ends, which the seeds of a run do at different times. Until then the returns
    of its rows are given out as −∞.

    Args:
      rule: on a `RingBuffer`, with a dataset that has the same extras, or without one.
      recorded: what returns to go are.
    """

    def init(spec: Spec) -> ReturnsBuffer:
        ring = rule.init(spec)
        zeros = jnp.zeros_like(ring.storage.reward)
        return ReturnsBuffer(ring, zeros, jnp.zeros((), jnp.int32), jnp.zeros((), bool))

    def add(buffer: ReturnsBuffer, step: Rollout) -> ReturnsBuffer:
        reached = buffer.reached | (recorded.reaches(step.reward) > 0)
        buffer = buffer.replace(ring=rule.add(buffer.ring, step), steps=buffer.steps + 1)
        age, under_way = buffer.age(), buffer.under_way()
        before = jnp.where(age > 0, buffer.returns, 0.0)  # the newest row lies where the oldest one lay
        weight = jnp.exp(math.log(recorded.discount) * age)  # γ^age: XLA's power takes six times as long
        returns = before + weight * recorded.reward(step.reward)
        ended = step.ended > 0
        returns = jnp.where(ended, recorded.settled(returns, reached), returns)
        return buffer.replace(
            returns=jnp.where(under_way, returns, buffer.returns),
            steps=jnp.where(ended, 0, buffer.steps),
            reached=reached & ~ended,
        )

    def sample(buffer: ReturnsBuffer, dataset: Annotated | None, key: Array) -> Annotated:
        known = jnp.where(buffer.under_way(), -jnp.inf, buffer.returns)
        storage = Annotated.of(buffer.ring.storage, Extras(shared=ReturnsToGo(known)))
        return rule.sample(buffer.ring.replace(storage=storage), dataset, key)

    def cut(buffer: ReturnsBuffer) -> ReturnsBuffer:
        lost = jnp.where(buffer.under_way(), -jnp.inf, buffer.returns)
        nothing = {"steps": jnp.zeros_like(buffer.steps), "reached": jnp.zeros_like(buffer.reached)}
        return buffer.replace(ring=rule.cut(buffer.ring), returns=lost, **nothing)

    return Replay(init, add, sample, rule.choose, cut)
