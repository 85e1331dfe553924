"""Returns to go of every row of a dataset, and the value that a critic starts from."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from o2o_jax.ops.advantage import discounted_returns, linear_recurrence, steps_from_start, steps_to_end
from o2o_jax.types import Array, Extras, Rollout


@flax.struct.dataclass
class Tail:
    """State and weight beyond the end of every row's episode.

    Attributes:
      weight: [N] w_t = γ^k (1 − d): what the value of the last state counts for, k steps on; 0 after a termination.
      observation: [N, O] raw, s_e' at the episode's end.
    """

    weight: Array
    observation: Array


@flax.struct.dataclass
class ReturnsToGo:
    """Discounted rewards from every row to the end of its episode, and the state to bootstrap from there.

    Attributes:
      value: [N] G_t = Σ_{j<k} γ^j r_{t+j}, return units, k the steps that are left of the episode.
      tail: of the episodes; None where returns do not continue beyond what was recorded.
    """

    value: Array
    tail: Tail | None = None

    @classmethod
    def of(cls, reward: Array, rollout: Rollout, discount: float) -> "ReturnsToGo":
        """Computes the returns to go of whole episodes, one after the other, with their tails.

        Args:
          reward: [N] of every step, transformed.
          rollout: raw steps [N]; the last row ends an episode in any case.
          discount: γ, in (0, 1).

        Returns:
          [N] returns and their tail.
        """
        last, steps = steps_to_end(rollout.ended)
        weight = (1.0 - rollout.terminated[last]) * discount**steps
        tail = Tail(weight, rollout.next_observation[last])
        return cls(discounted_returns(reward, rollout.ended, discount), tail)

    def bootstrapped(self, last_value: Callable[[Array], Array]) -> Array:
        """Extends the returns by a value where their episode was cut off.

            G + w V(s_e')

        Args:
          last_value: V, raw observations [N, O] to values [N], return units.

        Returns:
          [N] return units; G itself without a tail. No gradient flows through V.
        """
        if self.tail is None:
            return self.value
        return self.value + self.tail.weight * jax.lax.stop_gradient(last_value(self.tail.observation))

    def level(self, bonus: Array | float = 0.0) -> Array:
        """Solves b = mean(G + bonus + w b) for b, [] return units: about the mean value of the policy behind the data.

        Args:
          bonus: [N] or [] what values contain beside these returns, return units.
        """
        weight = 0.0 if self.tail is None else jnp.mean(self.tail.weight)
        return jnp.mean(self.value + bonus) / (1.0 - weight)


@dataclasses.dataclass(frozen=True)
class RecordedReturns:
    """Rule for returns to go that end where an episode was recorded to, as Cal-QL takes them.

        R_t = r_t + γ R_{t+1},   r = scale · raw + shift,   0 beyond the last step

    Where a task has a reward for steps that don't reach its goal, an episode of nothing else counts as one that would
    have gone on like that for ever: R_t = r / (1 − γ) at all its steps.

    Attributes:
      discount: γ, in (0, 1).
      reward_scale: factor of raw rewards.
      reward_shift: added after it.
      failure_reward: raw reward of a step that doesn't reach the goal; None for a task without such a goal.

    Source: the authors' code of Nakamoto et al. (arXiv:2303.05479).
    """

    discount: float
    reward_scale: float = 1.0
    reward_shift: float = 0.0
    failure_reward: float | None = None

    def of(self, rollout: Rollout) -> Array:
        """Returns R [N] of whole episodes, raw steps [N] one after the other; the last row ends one in any case."""
        value = discounted_returns(self.reward(rollout.reward), rollout.ended, self.discount)
        from_here = linear_recurrence(self.reaches(rollout.reward), 1.0 - rollout.ended, reverse=True)
        first, _ = steps_from_start(rollout.ended)
        return self.settled(value, from_here[first] > 0)

    def reward(self, raw: Array) -> Array:
        """Returns the rewards r [...] of raw ones [...]."""
        return self.reward_scale * raw + self.reward_shift

    def reaches(self, raw: Array) -> Array:
        """Returns [...] 1 where a step of raw reward [...] has another than that of failure."""
        return jnp.ones_like(raw) if self.failure_reward is None else (raw != self.failure_reward).astype(jnp.float32)

    def settled(self, value: Array, reached: Array) -> Array:
        """Returns [...] R of sums of rewards [...]; `reached` [...]: whether their episode had more than failure."""
        if self.failure_reward is None:
            return value
        endless = (self.reward_scale * self.failure_reward + self.reward_shift) / (1.0 - self.discount)
        return jnp.where(reached, value, endless)


def prepare(recorded: RecordedReturns, state: Any, dataset: Rollout) -> tuple[Any, Extras]:
    """Computes the returns to go of every row, as a phase's `Prepare`.

    Args:
      recorded: what returns to go are.
      state: as it is; nothing of it is read.
      dataset: raw transitions [N], whole episodes.

    Returns:
      The state, and `ReturnsToGo` [N], of the data alone, without a tail.
    """
    return state, Extras(shared=ReturnsToGo(recorded.of(dataset)))
