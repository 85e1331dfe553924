"""Policy networks, one per head: normalised observations in, a distribution over actions out."""

import math
from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from o2o_jax.networks.mlp import MLP, Dense, dense, zeros
from o2o_jax.ops.distributions import Deterministic, Gaussian, TanhGaussian, moment_matched
from o2o_jax.types import Array, Params

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class Actor(nn.Module):
    """Base of the heads, which map observations [..., O] to a `Distribution` over actions [..., A].

    Attributes:
      action_dim: A.
      hidden: widths of the hidden layers.
      layer_init: of every layer, one of those of `MLP`; by default that of the head's source.
      layer_norm: whether hidden layers are normalised.
    """

    action_dim: int
    hidden: Sequence[int] = (256, 256)
    layer_init: str = "orthogonal"
    layer_norm: bool = False
    head: ClassVar[str]


class DeterministicActor(Actor):
    """tanh of a linear output: TD3, TD3+BC, O2TD3."""

    head: ClassVar[str] = "deterministic"

    @nn.compact
    def __call__(self, observation: Array) -> Deterministic:
        """Maps observations [..., O] to a point mass over actions [..., A]."""
        x = MLP(self.hidden, self.layer_norm, init=self.layer_init)(observation)
        return Deterministic(jnp.tanh(dense(self.action_dim, x.shape[-1], self.layer_init, output=True)(x)))


class GaussianActor(Actor):
    """Normal with a tanh mean and a log σ that does not depend on the state: IQL, PPO, O2PPO."""

    head: ClassVar[str] = "gaussian"
    bounded: ClassVar[bool] = True  # whether the mean goes through tanh

    @nn.compact
    def __call__(self, observation: Array) -> Gaussian:
        """Maps observations [..., O] to a normal over actions [..., A]."""
        x = MLP(self.hidden, self.layer_norm, init=self.layer_init)(observation)
        mean = dense(self.action_dim, x.shape[-1], self.layer_init, output=True)(x)
        log_std = self.param("log_std", zeros, (self.action_dim,))
        return Gaussian(jnp.tanh(mean) if self.bounded else mean, jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX))


class FreeGaussianActor(GaussianActor):
    """The same without tanh, so that only the executed action is bounded: AWAC.

    A head of its own: its parameters look like those of `GaussianActor`, which would read them as another policy.

    The attributes are those of `Actor`.
    """

    layer_init: str = "fan_in"
    head: ClassVar[str] = "gaussian_free"
    bounded: ClassVar[bool] = False


def cap_std(params: Params, std: float) -> Params:
    """Returns a `GaussianActor`'s parameters with a σ [A] that is nowhere above `std`, in units of the action."""
    log_std = jnp.minimum(params["params"]["log_std"], math.log(std))
    return {"params": params["params"] | {"log_std": log_std}}


def scale_output(params: Params, scale: float) -> Params:
    """Returns a `GaussianActor`'s parameters with the output layer, [W, A] and [A], `scale` times as large."""
    output = jax.tree.map(lambda leaf: scale * leaf, params["params"]["Dense_0"])
    return {"params": params["params"] | {"Dense_0": output}}


class TanhGaussianActor(Actor):
    """Squashed normal with state-dependent mean and log σ: SAC, CQL, O2SAC.

    log σ = m · raw + b with trainable scalars m (from 1) and b (from −1), clipped to [−20, 2].

    The attributes are those of `Actor`, whose `layer_init` is of the hidden layers alone here; the output's is Xavier
    uniform of gain 0.01.
    """

    layer_init: str = "fan_in"
    head: ClassVar[str] = "tanh_gaussian"

    @nn.compact
    def __call__(self, observation: Array) -> TanhGaussian:
        """Maps observations [..., O] to a squashed normal over actions [..., A]."""
        x = MLP(self.hidden, self.layer_norm, init=self.layer_init)(observation)
        output_init = nn.initializers.variance_scaling(1e-4, "fan_avg", "uniform")  # Xavier uniform, gain 0.01
        output = Dense(2 * self.action_dim, output_init)(x)
        mean, log_std = jnp.split(output, 2, axis=-1)
        multiplier = self.param("log_std_multiplier", nn.initializers.constant(1.0), ())
        offset = self.param("log_std_offset", nn.initializers.constant(-1.0), ())
        return TanhGaussian(mean, jnp.clip(multiplier * log_std + offset, LOG_STD_MIN, LOG_STD_MAX))


class MixtureActor(Actor):
    """An equal mixture of squashed normals as one, by its moments: Off2On's ensemble of policies.

    It is made of trained actors, and so is none of `HEADS`, which policies are cloned to.

    Attributes:
      num_members: N actors. Every parameter has a leading axis N.

    The other attributes are those of `TanhGaussianActor`.
    """

    layer_init: str = "fan_in"
    num_members: int = 5
    head: ClassVar[str] = "mixture"

    @nn.compact
    def __call__(self, observation: Array) -> TanhGaussian:
        """Maps observations [..., O] to a squashed normal over actions [..., A]."""
        member = nn.vmap(
            TanhGaussianActor,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            axis_size=self.num_members,
        )
        members = member(self.action_dim, self.hidden, self.layer_init, self.layer_norm, name="members")(observation)
        return moment_matched(members, LOG_STD_MIN, LOG_STD_MAX)

    @staticmethod
    def of(params: Params) -> Params:
        """Returns parameters of `TanhGaussianActor`s, stacked [N, ...], as those of a mixture."""
        return {"params": {"members": params["params"]}}


HEADS: dict[str, type[Actor]] = {
    actor.head: actor for actor in (DeterministicActor, GaussianActor, FreeGaussianActor, TanhGaussianActor)
}
