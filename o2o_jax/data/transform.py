"""How raw observations and rewards become what networks see: one object, offline and online."""

import flax.struct
import jax.numpy as jnp

from o2o_jax.types import Array, Transition

STD_OFFSET = 1e-3  # hyperparameters, section 4: added to the standard deviation


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
        """Leaves observations [..., O] as they are."""
        return cls(jnp.zeros(observation_dim), jnp.ones(observation_dim))

    @classmethod
    def fit(cls, observations: Array) -> "Normalizer":
        """Statistics of raw observations [N, O]."""
        return cls(jnp.mean(observations, axis=0), jnp.std(observations, axis=0) + STD_OFFSET)

    def __call__(self, observation: Array) -> Array:
        """[..., O] raw to [..., O] normalised."""
        shape = (1,) * (observation.ndim - 1) + (-1,)
        return (observation - self.mean.reshape(shape)) / self.std.reshape(shape)


@flax.struct.dataclass
class Transform:
    """Normalises observations and maps rewards to `scale · r + shift`; part of every train state.

    The dataset and the replay buffer hold raw values and every update transforms its batch, so that data of both
    sources can't differ in scale. Evaluation never passes through here: it reports raw returns.
    """

    normalizer: Normalizer
    reward_scale: float = flax.struct.field(pytree_node=False, default=1.0)
    reward_shift: float = flax.struct.field(pytree_node=False, default=0.0)

    def __call__(self, batch: Transition) -> Transition:
        """A raw batch [B] to what the losses see [B]."""
        return batch.replace(
            observation=self.normalizer(batch.observation),
            next_observation=self.normalizer(batch.next_observation),
            reward=self.reward_scale * batch.reward + self.reward_shift,
        )
