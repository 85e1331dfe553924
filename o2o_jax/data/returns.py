"""Returns to go of every row of a dataset, and the value that a critic starts from."""

import flax.struct
import jax.numpy as jnp

from o2o_jax.ops.advantage import discounted_returns, steps_to_end
from o2o_jax.types import Array, Rollout


@flax.struct.dataclass
class ReturnsToGo:
    """Discounted rewards from every row to the end of its episode, and the state to bootstrap from there.

    Attributes:
      value: [N] G_t = Σ_{j<k} γ^j r_{t+j}, return units, k the steps that are left of the episode.
      tail_weight: [N] w_t = γ^k (1 − d): what the value of the last state counts for; 0 after a termination.
      last_observation: [N, O] raw, s_e' at the episode's end.
    """

    value: Array
    tail_weight: Array
    last_observation: Array

    @classmethod
    def of(cls, reward: Array, rollout: Rollout, discount: float) -> "ReturnsToGo":
        """Of whole episodes, one after the other.

        Args:
          reward: [N] of every step, transformed.
          rollout: raw steps [N]; the last row ends an episode in any case.
          discount: γ, in (0, 1).
        """
        last, steps = steps_to_end(rollout.ended)
        return cls(
            discounted_returns(reward, rollout.ended, discount),
            (1.0 - rollout.terminated[last]) * discount**steps,
            rollout.next_observation[last],
        )

    def level(self, bonus: Array | float = 0.0) -> Array:
        """The constant [] that satisfies b = mean(G + bonus + w b): about the mean value of who recorded the data.

        Args:
          bonus: [N] what values contain beside these returns.
        """
        return jnp.mean(self.value + bonus) / (1.0 - jnp.mean(self.tail_weight))
