"""Fresh transitions with the returns to go of their episodes, beside a dataset that has them too."""

import math

import flax.struct
import jax
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
      returns: [C] returns to go, return units; of the episodes under way as far as they have come, −∞ of one that was
        lost.
      steps: [E] int32, of the episode under way in each environment; first that of the one whose turn is next.
      reached: [E] bool, whether one of these steps had another reward than that of failure.
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
        """Returns [C] bool, which rows are of an episode under way."""
        age, num_envs = self.age(), self.steps.shape[0]
        turns, before = jax.lax.div(age, num_envs), jax.lax.rem(age, num_envs)
        # of one environment [1] will do, without a look-up for every row
        return turns < (self.steps if num_envs == 1 else self.steps[num_envs - 1 - before])


def with_returns(rule: Replay, recorded: RecordedReturns, num_envs: int = 1) -> Replay:
    """Returns a rule that draws as `rule` does, of whose rows each has `ReturnsToGo` as its shared extras.

    Every step adds its discounted reward to all rows of its episode at once, one pass over C numbers: nothing has to be
    found and written back when an episode ends, which the seeds of a run do at different times. Until then the returns
    of its rows are given out as −∞.

    Args:
      rule: on a `RingBuffer`, with a dataset that has the same extras, or without one.
      recorded: what returns to go are.
      num_envs: E, environments that take turns: every E-th row is of the same one.
    """

    def init(spec: Spec, rows: int = 0) -> ReturnsBuffer:
        ring = rule.init(spec, rows)
        zeros = jnp.zeros_like(ring.storage.reward)
        return ReturnsBuffer(ring, zeros, jnp.zeros(num_envs, jnp.int32), jnp.zeros(num_envs, bool))

    def add(buffer: ReturnsBuffer, step: Rollout) -> ReturnsBuffer:
        reached = buffer.reached[0] | (recorded.reaches(step.reward) > 0)
        steps = buffer.steps[0] + 1
        buffer = buffer.replace(ring=rule.add(buffer.ring, step))
        age = buffer.age()
        turns = jax.lax.div(age, num_envs)  # steps of this environment since
        before = jnp.where(age > 0, buffer.returns, 0.0)  # the newest row lies where the oldest one lay
        weight = jnp.exp(math.log(recorded.discount) * turns)  # γ^turns: XLA's power takes six times as long
        returns = before + weight * recorded.reward(step.reward)
        ended = step.ended > 0
        returns = jnp.where(ended, recorded.settled(returns, reached), returns)
        return buffer.replace(
            returns=jnp.where((jax.lax.rem(age, num_envs) == 0) & (turns < steps), returns, buffer.returns),
            steps=_take_turn(buffer.steps, jnp.where(ended, 0, steps)),
            reached=_take_turn(buffer.reached, reached & ~ended),
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


def _take_turn(values: Array, value: Array) -> Array:
    """Takes the first value [E] out and puts one [] at the end, where it waits for its next turn."""
    return jnp.append(values[1:], value)
