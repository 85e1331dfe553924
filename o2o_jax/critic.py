"""The critic as others read it: values of raw observations and actions, and the units that they are in."""

from typing import Any

import flax.struct
import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.data.transform import Transform
from o2o_jax.losses import lowest_value
from o2o_jax.types import Array, Params


@flax.struct.dataclass
class QFunction:
    """Q(s, a) of raw observations, the lower of twin critics: to values what `policy.Policy` is to actions.

    Attributes:
      params: of the ensemble.
      transform: of observations, and of the rewards that the values add up.
      alpha: [] temperature of the entropy that the values contain, return units per nat; 0 where they contain none.
      network: the ensemble, static.
      discount: γ of the values, in (0, 1), static.
    """

    params: Params
    transform: Transform
    alpha: Array
    network: networks.QNetwork = flax.struct.field(pytree_node=False)
    discount: float = flax.struct.field(pytree_node=False)

    @classmethod
    def of(cls, state: Any, network: networks.QNetwork, discount: float, alpha: Array | float = 0.0) -> "QFunction":
        """Returns the critics of a train state, from its fields `critic`, leaves [E, ...], and `transform`.

        Args:
          state: of one seed.
          network: the ensemble.
          discount: γ of the values, in (0, 1).
          alpha: [] temperature of the entropy that the values contain, return units per nat.
        """
        return cls(state.critic, state.transform, jnp.asarray(alpha, jnp.float32), network, discount)

    def __call__(self, observation: Array, action: Array) -> Array:
        """Maps raw observations [..., O] and actions [..., A] to values [...], in units of the transformed reward."""
        return lowest_value(self.params, self.network, self.transform.normalizer(observation), action)

    def same_units(self, other: "QFunction") -> bool:
        """Returns whether both add up the same rewards with the same discount, so that their values can be compared."""
        units = [(q.discount, q.transform.reward_scale, q.transform.reward_shift) for q in (self, other)]
        return units[0] == units[1]
