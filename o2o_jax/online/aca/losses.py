"""Critics of ACA; the losses themselves are those of soft actor-critic, `o2o_jax.losses`."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from o2o_jax import losses, networks
from o2o_jax.ops.distributions import Gaussian, TanhGaussian
from o2o_jax.types import Array, Metrics, Params


def bounded_log_prob(distribution: Gaussian | TanhGaussian, action: Array, deviations: float) -> Array:
    """Bounds a log-density softly from below by that far off the mean.

        softplus( log π_0(a|s) − b(s) ) + b(s),   b(s) = min( log π_0 at μ − βσ, log π_0 at μ + βσ )

    Args:
      distribution: π_0(·|s).
      action: [..., A]; the gradient flows through it.
      deviations: β.

    Returns:
      [...] nats, above b(s), which gets no gradient.

    Source: Yu and Zhang (ICML 2023), the authors' code.
    """
    bound = jnp.minimum(distribution.log_prob_at(-deviations), distribution.log_prob_at(deviations))
    bound = jax.lax.stop_gradient(bound)
    return jax.nn.softplus(distribution.log_prob(action) - bound) + bound


@flax.struct.dataclass
class AlignedParams:
    """Parameters of `AlignedCritics`.

    Attributes:
      residual: of R, with a leading axis E.
      reference: of π_0.
      weight: [] w in [0, 1], return units per nat.
    """

    residual: Params
    reference: Params
    weight: Array


class AlignedCritics(NamedTuple):
    """Critics whose values are the log-density of a policy, and what is added to it.

        Q_i(s, a) = R_i(s, a) + w ℓ_0(s, a)

    By R_i of the state alone they prefer what the policy prefers: actor and critics are aligned.

    Attributes:
      residual: the ensemble R.
      actor: the network of π_0.
      deviations: β of `bounded_log_prob`, which ℓ_0 is.

    Source: Yu and Zhang (ICML 2023).
    """

    residual: networks.Critics
    actor: networks.Actor
    deviations: float

    def apply(self, params: AlignedParams, observation: Array, action: Array) -> Array:
        """Maps normalised observations [..., O] and actions [..., A] to values [E, ...], return units."""
        residual = self.residual.apply(params.residual, observation, action)
        return residual + self.density(params, observation, action)[None]

    def density(self, params: AlignedParams, observation: Array, action: Array) -> Array:
        """Maps the same to w ℓ_0(s, a) [...], which all critics have in common."""
        distribution = self.actor.apply(params.reference, observation)
        return params.weight * bounded_log_prob(distribution, action, self.deviations)


def lowest_value(params: AlignedParams, critic: AlignedCritics, observation: Array, action: Array) -> Array:
    """Returns the lowest value of aligned critics, to be differentiated by the action.

        min_i R_i(s, a) + w ℓ_0(s, a)

    The minimum is taken of R: its derivative asks which operand is equal to it, and a sum with a product, w ℓ_0, may be
    rounded otherwise where XLA computes it once more. No operand would be, and 0 / 0 of them get the gradient.

    Args:
      params: of the critics.
      critic: ensemble network.
      observation: [..., O] normalised.
      action: [..., A].

    Returns:
      [...] values, return units.

    Source: Yu and Zhang (ICML 2023), the authors' code.
    """
    lowest = losses.lowest_value(params.residual, critic.residual, observation, action)
    return lowest + critic.density(params, observation, action)


def critic_loss(
    residual_params: Params,
    critic: AlignedCritics,
    params: AlignedParams,
    observation: Array,
    action: Array,
    target: Array,
) -> tuple[Array, Metrics]:
    """Sums the squared temporal-difference errors of the critics, for what learns of them.

        Σ_i mean( R_i(s, a) + w ℓ_0(s, a) − y )²

    Args:
      residual_params: of R, with a leading axis E, differentiated.
      critic: ensemble network.
      params: of the critics, whose other parts are constant.
      observation: [B, O] normalised.
      action: [B, A] of the batch.
      target: [B] regression target y, constant.

    Returns:
      [] loss, and metrics of `td_loss`.

    Source: Yu and Zhang (ICML 2023).
    """
    return losses.td_loss(params.replace(residual=residual_params), critic, observation, action, target)
