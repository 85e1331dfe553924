"""Transforms of raw observations, rewards and actions into what networks see: the same ones offline and online."""

from typing import Any

import flax.struct
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from o2o_jax.ops.advantage import linear_recurrence
from o2o_jax.types import Array, BatchT, Transition, expect

STD_OFFSET = 1e-3  # added to the standard deviation, as the authors have it


@flax.struct.dataclass
class Normalizer:
    """Shifts and scales observations; it travels with the policy, whose callers pass raw observations.

    Attributes:
      mean: [O] of the dataset's observations.
      std: [O] of the same, plus 1e-3.
    """

    mean: Array
    std: Array

    @classmethod
    def identity(cls, observation_dim: int) -> "Normalizer":
        """Returns the one that leaves observations [..., O] as they are."""
        return cls(jnp.zeros(observation_dim), jnp.ones(observation_dim))

    @classmethod
    def fit(cls, observations: Array) -> "Normalizer":
        """Fits mean and standard deviation [O] to raw observations [N, O]."""
        return cls(jnp.mean(observations, axis=0), jnp.std(observations, axis=0) + STD_OFFSET)

    def __call__(self, observation: Array) -> Array:
        """Normalises raw observations [..., O].

        Raises:
          ValueError: they are of another size.
        """
        if observation.shape[-1:] != self.mean.shape[-1:]:
            raise ValueError(
                f"expected observations of {self.mean.shape[-1]} numbers, got an array of shape {observation.shape}"
            )
        shape = (1,) * (observation.ndim - 1) + (-1,)
        return (observation - self.mean.reshape(shape)) / self.std.reshape(shape)


@flax.struct.dataclass
class Bounds:
    """Bounds of an environment's own actions, which policies know as −1 and 1.

    Attributes:
      low: [A] the action that −1 stands for.
      high: [A] the action that 1 stands for.
    """

    low: Any
    high: Any

    @classmethod
    def of(cls, action_dim: int, low: ArrayLike = (), high: ArrayLike = ()) -> "Bounds":
        """Returns bounds [A]; without numbers −1 and 1, which leave actions as they are."""
        numbers = [np.asarray(low, np.float32), np.asarray(high, np.float32)]
        ones = np.ones(action_dim, np.float32)
        return cls(*numbers) if numbers[0].size else cls(-ones, ones)

    def to_own(self, action: Array) -> Array:
        """Maps actions [..., A] in [-1, 1] to the environment's units, between its bounds."""
        low, high, middle, half = self._shaped(action.ndim)
        return jnp.clip(middle + half * action, low, high)

    def from_own(self, action: Array) -> Array:
        """Maps actions [..., A] in the environment's units to [-1, 1]; what lies outside its bounds is clipped."""
        _, _, middle, half = self._shaped(action.ndim)
        return jnp.clip((action - middle) / half, -1.0, 1.0)

    def _shaped(self, ndim: int) -> tuple[Array, ...]:
        numbers = (self.low, self.high, 0.5 * (self.low + self.high), 0.5 * (self.high - self.low))
        return tuple(jnp.reshape(number, (1,) * (ndim - 1) + (-1,)) for number in numbers)


@flax.struct.dataclass
class Transform:
    """Transform of observations, normalised, and rewards, `scale · r + shift`; part of every train state.

    The dataset and the replay buffer hold raw values and every update transforms its batch, so that data of both
    sources can't differ in scale. Evaluation never passes through here: it reports raw returns.

    Attributes:
      normalizer: of observations.
      reward_scale: factor of raw rewards, static.
      reward_shift: added after the scale, static.
    """

    normalizer: Normalizer
    reward_scale: float = flax.struct.field(pytree_node=False, default=1.0)
    reward_shift: float = flax.struct.field(pytree_node=False, default=0.0)

    def __call__(self, batch: BatchT) -> BatchT:
        """Transforms a raw batch [B] to what the losses see [B], of the same kind.

        Raises:
          TypeError: it is no batch of transitions.
        """
        expect(batch, Transition, "batch", "pass o2o_jax.Transition(…) of arrays")
        return batch.replace(
            observation=self.normalizer(batch.observation),
            next_observation=self.normalizer(batch.next_observation),
            reward=self.reward_scale * batch.reward + self.reward_shift,
        )


@flax.struct.dataclass
class Moments:
    """Mean and variance of all values seen so far.

    Attributes:
      count: [] float32, values seen.
      mean: [...] 0 before the first value.
      variance: [...] 1 before the first value.
    """

    count: Array
    mean: Array
    variance: Array

    @classmethod
    def start(cls, shape: tuple[int, ...] = ()) -> "Moments":
        """Returns the moments before the first value, mean and variance of `shape` [...]."""
        return cls(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape))

    def update(self, values: Array) -> "Moments":
        """Takes in further values [T, ...]; two sets as one: Chan, Golub and LeVeque (1979)."""
        count = self.count + values.shape[0]
        share, offset = values.shape[0] / count, jnp.mean(values, axis=0) - self.mean
        spread = (1.0 - share) * self.variance + share * jnp.var(values, axis=0)
        return Moments(count, self.mean + share * offset, spread + share * (1.0 - share) * jnp.square(offset))

    @property
    def normalizer(self) -> Normalizer:
        """Of observations [..., O] whose moments [O] these are."""
        return Normalizer(self.mean, jnp.sqrt(self.variance) + STD_OFFSET)


@flax.struct.dataclass
class RewardScale:
    """Scale of rewards: the standard deviation of their discounted sums, over all steps seen so far.

    Attributes:
      sums: moments [] of the discounted sums.
      last: [] the sum at the newest step; 0 where that step ended its episode.
    """

    sums: Moments
    last: Array

    @classmethod
    def start(cls) -> "RewardScale":
        """Returns the scale before the first step, which leaves rewards [...] as they are."""
        return cls(Moments.start(), jnp.zeros(()))

    def update(self, reward: Array, ended: Array, discount: float) -> "RewardScale":
        """Takes in further steps, in the order in which they were taken.

            R_t = r_t + γ (1 − ended_{t−1}) R_{t−1}

        Args:
          reward: [T] r.
          ended: [T] 1 where the next row belongs to another episode.
          discount: γ, in (0, 1).
        """
        decay = discount * jnp.concatenate([jnp.ones(1), 1.0 - ended[:-1]])
        sums = linear_recurrence(reward, decay, self.last)  # [T]
        return RewardScale(self.sums.update(sums), last=sums[-1] * (1.0 - ended[-1]))

    def __call__(self, reward: Array) -> Array:
        """Divides rewards [...] by that standard deviation, plus 1e-8."""
        return reward / (jnp.sqrt(self.sums.variance) + 1e-8)
