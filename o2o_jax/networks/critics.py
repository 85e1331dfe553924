"""Value networks."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp

from o2o_jax.networks.mlp import MLP, dense, orthogonal, zeros
from o2o_jax.types import Array


class Critic(nn.Module):
    """Q(s, a): normalised observations [..., O] and actions [..., A] to values [...], in return units."""

    hidden: Sequence[int] = (256, 256)
    layer_norm: bool = False

    @nn.compact
    def __call__(self, observation: Array, action: Array) -> Array:
        """[..., O], [..., A] -> [...]."""
        x = MLP(self.hidden, self.layer_norm)(jnp.concatenate([observation, action], axis=-1))
        return nn.Dense(1, kernel_init=orthogonal, bias_init=zeros)(x)[..., 0]


class Value(nn.Module):
    """V(s): normalised observations [..., O] to values [...], in return units.

    Attributes:
      hidden: widths of the hidden layers.
      activation: elementwise non-linearity.
      layer_init: of every layer, "orthogonal" or "fan_in", see `MLP`.
    """

    hidden: Sequence[int] = (256, 256)
    activation: Callable = nn.relu
    layer_init: str = "orthogonal"

    @nn.compact
    def __call__(self, observation: Array) -> Array:
        """[..., O] -> [...]."""
        x = MLP(self.hidden, activation=self.activation, init=self.layer_init)(observation)
        return dense(1, x.shape[-1], self.layer_init)(x)[..., 0]


def make_critic(hidden: Sequence[int], layer_norm: bool, num_critics: int) -> nn.Module:
    """An ensemble of independent critics: `apply(params, s [..., O], a [..., A])` gives [E, ...].

    Args:
      hidden: widths of the hidden layers.
      layer_norm: whether hidden layers are normalised.
      num_critics: E ≥ 1. Every parameter gets a leading axis E.
    """
    ensemble = nn.vmap(
        Critic, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=num_critics
    )
    return ensemble(hidden, layer_norm)
