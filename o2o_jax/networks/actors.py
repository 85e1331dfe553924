"""Policy networks, one per head: normalised observations in, a distribution over actions out."""

import math
from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from o2o_jax.networks.mlp import MLP, orthogonal, zeros
from o2o_jax.ops.distributions import Deterministic, Gaussian, TanhGaussian
from o2o_jax.types import Array, Params

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class Actor(nn.Module):
    """Base of the heads, which map observations [..., O] to a `Distribution` over actions [..., A].

    Attributes:
      action_dim: A.
      hidden: widths of the hidden layers.
    """

    action_dim: int
    hidden: Sequence[int] = (256, 256)
    head: ClassVar[str]


class DeterministicActor(Actor):
    """tanh of a linear output: TD3, TD3+BC, O2TD3."""

    head: ClassVar[str] = "deterministic"

    @nn.compact
    def __call__(self, observation: Array) -> Deterministic:
        """[..., O] -> point mass over [..., A]."""
        x = MLP(self.hidden)(observation)
        return Deterministic(jnp.tanh(nn.Dense(self.action_dim, kernel_init=orthogonal, bias_init=zeros)(x)))


class GaussianActor(Actor):
    """Normal with a tanh mean and a log σ that does not depend on the state: IQL, PPO, O2PPO."""

    head: ClassVar[str] = "gaussian"

    @nn.compact
    def __call__(self, observation: Array) -> Gaussian:
        """[..., O] -> normal over [..., A]."""
        x = MLP(self.hidden)(observation)
        mean = jnp.tanh(nn.Dense(self.action_dim, kernel_init=orthogonal, bias_init=zeros)(x))
        log_std = self.param("log_std", zeros, (self.action_dim,))
        return Gaussian(mean, jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX))


def cap_std(params: Params, std: float) -> Params:
    """Parameters of a `GaussianActor` whose σ is nowhere above `std`, in units of the action."""
    log_std = jnp.minimum(params["params"]["log_std"], math.log(std))
    return {"params": params["params"] | {"log_std": log_std}}


class TanhGaussianActor(Actor):
    """Squashed normal with state-dependent mean and log σ: SAC, CQL, O2SAC.

    log σ = m · raw + b with trainable scalars m (from 1) and b (from −1), clipped to [−20, 2].
    """

    head: ClassVar[str] = "tanh_gaussian"

    @nn.compact
    def __call__(self, observation: Array) -> TanhGaussian:
        """[..., O] -> squashed normal over [..., A]."""
        x = MLP(self.hidden, init="fan_in")(observation)
        output_init = nn.initializers.variance_scaling(1e-4, "fan_avg", "uniform")  # Xavier uniform, gain 0.01
        output = nn.Dense(2 * self.action_dim, kernel_init=output_init, bias_init=zeros)(x)
        mean, log_std = jnp.split(output, 2, axis=-1)
        multiplier = self.param("log_std_multiplier", nn.initializers.constant(1.0), ())
        offset = self.param("log_std_offset", nn.initializers.constant(-1.0), ())
        return TanhGaussian(mean, jnp.clip(multiplier * log_std + offset, LOG_STD_MIN, LOG_STD_MAX))


HEADS: dict[str, type[Actor]] = {actor.head: actor for actor in (DeterministicActor, GaussianActor, TanhGaussianActor)}
