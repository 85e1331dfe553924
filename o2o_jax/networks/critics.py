"""Value networks."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax.numpy as jnp

from o2o_jax.networks.mlp import MLP, dense
from o2o_jax.ops.histogram import bin_edges, histogram_mean
from o2o_jax.types import Array, Params


class QNetwork(Protocol):
    """Interface of what gives values of actions, one critic or an ensemble: modules, and what is made of them."""

    def apply(self, params: Any, observation: Array, action: Array, /) -> Any:
        """Maps normalised observations [..., O] and actions [..., A] to values [...], of an ensemble [E, ...]."""


class Critic(nn.Module):
    """Q(s, a): normalised observations [..., O] and actions [..., A] to values [...], in return units.

    Attributes:
      hidden: widths of the hidden layers.
      layer_norm: whether hidden layers are normalised.
      layer_init: of every layer, one of those of `MLP`.
      outputs: 1 for values; more are logits [..., outputs] of what values are made of.
    """

    hidden: Sequence[int] = (256, 256)
    layer_norm: bool = False
    layer_init: str = "orthogonal"
    outputs: int = 1

    @nn.compact
    def __call__(self, observation: Array, action: Array) -> Array:
        """Maps observations [..., O] and actions [..., A] to values [...], or to logits [..., outputs]."""
        x = MLP(self.hidden, self.layer_norm, init=self.layer_init)(jnp.concatenate([observation, action], axis=-1))
        found = dense(self.outputs, x.shape[-1], self.layer_init, output=True)(x)
        return found[..., 0] if self.outputs == 1 else found


class Value(nn.Module):
    """V(s): normalised observations [..., O] to values [...], in return units.

    Attributes:
      hidden: widths of the hidden layers.
      activation: elementwise non-linearity.
      layer_init: of every layer, one of those of `MLP`.
    """

    hidden: Sequence[int] = (256, 256)
    activation: Callable = nn.relu
    layer_init: str = "orthogonal"

    @nn.compact
    def __call__(self, observation: Array) -> Array:
        """Maps observations [..., O] to values [...]."""
        x = MLP(self.hidden, activation=self.activation, init=self.layer_init)(observation)
        return dense(1, x.shape[-1], self.layer_init, output=True)(x)[..., 0]


class Critics(nn.Module):
    """An ensemble of independent critics: observations [..., O] and actions [..., A] to values [E, ...].

    Attributes:
      hidden: widths of the hidden layers.
      layer_norm: whether hidden layers are normalised.
      num_critics: E ≥ 1. Every parameter has a leading axis E.
      layer_init: of every layer, one of those of `MLP`.
      outputs: 1 for values; more are logits [E, ..., outputs], as `HistogramCritics` takes them.
    """

    hidden: Sequence[int]
    layer_norm: bool
    num_critics: int
    layer_init: str = "orthogonal"
    outputs: int = 1

    def setup(self) -> None:
        """Names the parameters as one critic's."""
        each = nn.vmap(
            Critic, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=0, axis_size=self.num_critics
        )
        self.each = each(self.hidden, self.layer_norm, self.layer_init, self.outputs)
        nn.share_scope(self, self.each)

    def __call__(self, observation: Array, action: Array) -> Array:
        """Maps observations [..., O] and actions [..., A] to values [E, ...]."""
        # copies, so that the first layers are products of their own: of one input for all, they would be a single
        # product whose result has to be transposed for the layers that follow
        copies = (jnp.broadcast_to(x, (self.num_critics, *x.shape)) for x in (observation, action))
        return self.each(*copies)


@dataclasses.dataclass(frozen=True)
class HistogramCritics:
    """Critics whose values are the means of histograms over [low, high].

    Attributes:
      logits: the ensemble, whose `outputs` are the bins.
      low: value of the first edge, in return units.
      high: value of the last one.

    Source: Farebrother et al. (arXiv:2403.03950).
    """

    logits: Critics
    low: float
    high: float

    @property
    def edges(self) -> Array:
        """[bins + 1] edges of the bins, in return units."""
        return bin_edges(self.low, self.high, self.logits.outputs)

    def init(self, key: Array, observation: Array, action: Array) -> Params:
        """Returns initial parameters, leaves [E, ...], for observations [..., O] and actions [..., A]."""
        return self.logits.init(key, observation, action)

    def apply(self, params: Params, observation: Array, action: Array) -> Array:
        """Maps normalised observations [..., O] and actions [..., A] to values [E, ...], in return units."""
        return histogram_mean(self.logits.apply(params, observation, action), self.edges)


def critic_settings(params: Params) -> dict[str, Any]:
    """Reads hidden, layer_norm and num_critics of `Critics` off their parameters, whose leaves are [E, ...]."""
    layers = params["params"]["MLP_0"]
    biases = [layers[f"Dense_{i}"]["bias"] for i in range(sum(name.startswith("Dense") for name in layers))]
    return {
        "hidden": tuple(bias.shape[-1] for bias in biases),
        "layer_norm": any(name.startswith("LayerNorm") for name in layers),
        "num_critics": biases[0].shape[0],
    }


def shift_output(params: Params, shift: Array) -> Params:
    """Returns parameters of `Critics` whose values are [] `shift`, in return units, higher everywhere."""
    layer = params["params"]["Dense_0"]
    return {"params": params["params"] | {"Dense_0": layer | {"bias": layer["bias"] + shift}}}


def near_constant(params: Params, value: float) -> Params:
    """Returns parameters of a `Critic` whose values are about `value`, by small weights of its output and that bias."""
    layer = params["params"]["Dense_0"]
    output = {"kernel": 0.01 * layer["kernel"], "bias": jnp.full_like(layer["bias"], value)}
    return {"params": params["params"] | {"Dense_0": output}}


def append_inputs(params: Params, number: int) -> Params:
    """Returns parameters of `Critics` that take `number` more inputs, the last ones, by weights of zero.

    Values are what they were, whatever the further inputs are: critics of states alone, which were made with actions
    [..., 0], become critics of actions [..., number].
    """
    first = params["params"]["MLP_0"]["Dense_0"]
    kernel = jnp.pad(first["kernel"], ((0, 0), (0, number), (0, 0)))  # [E, D, W]
    layers = params["params"]["MLP_0"] | {"Dense_0": first | {"kernel": kernel}}
    return {"params": params["params"] | {"MLP_0": layers}}
