"""The policy: all that offline training hands to online training."""

from typing import Any

import flax.struct

from o2o_jax import networks
from o2o_jax.data.transform import Normalizer
from o2o_jax.ops.distributions import Distribution
from o2o_jax.types import Array, Params


@flax.struct.dataclass
class Policy:
    """Maps raw observations to a distribution over actions in [-1, 1].

    Attributes:
      params: parameters of `actor`.
      normalizer: applied to raw observations first.
      actor: the network, static.
    """

    params: Params
    normalizer: Normalizer
    actor: networks.Actor = flax.struct.field(pytree_node=False)

    @property
    def head(self) -> str:
        """Kind of distribution: "deterministic", "gaussian" or "tanh_gaussian"."""
        return self.actor.head

    def distribution(self, observation: Array) -> Distribution:
        """Raw observations [..., O] to a distribution over actions [..., A]."""
        return self.actor.apply(self.params, self.normalizer(observation))


@flax.struct.dataclass
class Handoff:
    """What offline training leaves behind.

    Attributes:
      policy: the only part that O2SAC, O2TD3 and O2PPO read.
      state: the offline algorithm's whole state, for direct fine-tuning and the compared methods that go on from it.
      source: name of the offline algorithm.
    """

    policy: Policy
    state: Any = None
    source: str = flax.struct.field(pytree_node=False, default="")
