"""The multilayer perceptron under every network here, and its initialisations."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from o2o_jax.ops.layers import add_bias, layer_norm, product
from o2o_jax.types import Array

zeros = nn.initializers.zeros_init()


def orthogonal(key: Array, shape: Sequence[int], dtype: Any = jnp.float32, gain: float = 1.0) -> Array:
    """Draws orthogonal weights [D, W], of gain 1 for every layer, the output included, as the authors have it.

    One matrix after another, also under `vmap`: on a processor, batched QR decompositions that run at the same time
    wait for each other's threads, and with few threads for ever.
    """
    draw = jax.custom_batching.sequential_vmap(lambda key: nn.initializers.orthogonal(gain)(key, shape, dtype))
    return draw(key)


def fan_in_uniform(fan_in: int) -> Callable:
    """Returns an initialiser uniform in ±1/√fan_in, of weights and biases: what PyTorch's linear layer does."""
    bound = 1.0 / math.sqrt(fan_in)

    def init(key, shape, dtype=float):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def parameter(module: nn.Module, name: str, init: Callable, shape: Sequence[int]) -> Array:
    """Returns a parameter [*shape] of a module, as its `param` gives it.

    That one also traces the initialiser wherever the network is applied, to compare shapes: a tenth of the time that it
    takes to trace an update (`benchmarks/NOTES.md`).
    """
    found = module.get_variable("params", name)
    return module.param(name, init, shape) if found is None else found


class Dense(nn.Module):
    """A linear layer, [..., D] to [..., width]; parameters as flax's module of this name.

    Attributes:
      width: of its output.
      kernel_init: of the weights.
      bias_init: of the bias.
    """

    width: int
    kernel_init: Callable
    bias_init: Callable = zeros

    @nn.compact
    def __call__(self, x: Array, join: Callable[[Array, Array], Array] | None = None) -> Array:
        """Maps [..., D] to [..., width]; `join` (product, bias) adds the bias, and what follows where it is given."""
        kernel = parameter(self, "kernel", self.kernel_init, (x.shape[-1], self.width))
        return (join or add_bias)(product(x, kernel), parameter(self, "bias", self.bias_init, (self.width,)))


def dense(width: int, inputs: int, init: str, output: bool = False) -> Dense:
    """Makes a linear layer, [..., inputs] to [..., width], initialised by `init`, one of those of `MLP`.

    `output` says that it is a network's last.
    """
    if init == "fan_in":
        uniform = fan_in_uniform(inputs)
        return Dense(width, uniform, uniform)
    if init == "scaled_orthogonal":
        return Dense(width, functools.partial(orthogonal, gain=0.01 if output else math.sqrt(2.0)))
    return Dense(width, {"orthogonal": orthogonal, "xavier": nn.initializers.xavier_uniform()}[init])


class LayerNorm(nn.Module):
    """Normalises x + offset over the last axis, then scales and shifts; parameters as flax's module of this name."""

    @nn.compact
    def __call__(self, x: Array, offset: Array) -> Array:
        """Maps x [..., W] and offset [W] to [..., W]."""
        scale = parameter(self, "scale", nn.initializers.ones_init(), (x.shape[-1],))
        bias = parameter(self, "bias", zeros, (x.shape[-1],))
        return layer_norm(x, offset, scale, bias, 1e-5)  # PyTorch's ε; flax's default is 1e-6


class MLP(nn.Module):
    """Hidden layers Dense → (LayerNorm) → activation; maps [..., D] to [..., hidden[-1]].

    Attributes:
      hidden: widths.
      layer_norm: whether every hidden layer is normalised before its activation.
      activation: elementwise non-linearity.
      init: "orthogonal" (gain 1, zero bias), "scaled_orthogonal" (gain √2, of a network's output 0.01, zero bias),
        "xavier" (uniform, zero bias) or "fan_in" (PyTorch's default).
    """

    hidden: Sequence[int]
    layer_norm: bool = False
    activation: Callable = nn.relu
    init: str = "orthogonal"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., D] to [..., hidden[-1]]."""
        for width in self.hidden:
            x = dense(width, x.shape[-1], self.init)(x, LayerNorm() if self.layer_norm else add_bias)
            x = self.activation(x)
        return x
