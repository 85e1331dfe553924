"""The values that every module passes around."""

import dataclasses
from typing import Any

import flax.struct
import jax

Array = jax.Array
Params = Any  # a pytree of arrays, as flax's `init` returns it
Metrics = dict[str, jax.Array]  # scalars, one per term of an update


@flax.struct.dataclass
class Transition:
    """One step of an environment, or a batch of them with leading axes [...].

    Attributes:
      observation: [..., O] raw observation s, in the environment's units.
      action: [..., A] executed action a in [-1, 1].
      reward: [...] raw reward r of the step.
      next_observation: [..., O] s', the true last observation where an episode ended.
      terminated: [...] float32, 1 where s' is absorbing. A time limit is not a termination: it leaves 0, so that
        targets bootstrap through it.
    """

    observation: Array
    action: Array
    reward: Array
    next_observation: Array
    terminated: Array


@dataclasses.dataclass(frozen=True)
class Spec:
    """What networks need to know of an environment: sizes of flat observations and actions."""

    observation_dim: int
    action_dim: int

    def __post_init__(self) -> None:
        if self.observation_dim < 1 or self.action_dim < 1:
            raise ValueError(f"observation_dim and action_dim must be at least 1, got {self}")
