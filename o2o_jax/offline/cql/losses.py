"""Losses of CQL: networks evaluated, equations of `ops/` applied. The differentiated argument comes first."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.losses import at_every, repeated
from o2o_jax.ops.bellman import ensemble_squared_error
from o2o_jax.ops.conservative import calibrated, conservative_gap
from o2o_jax.ops.distributions import TanhGaussian
from o2o_jax.types import Array, Metrics, Params


class SampledActions(NamedTuple):
    """Actions whose values the penalty lowers, constants.

    Attributes:
      action: [B, K, A].
      log_density: [B, K] nats, each under what it was drawn from.
      floor: [B, K] values below which the penalty lowers nothing, return units; None for none.
    """

    action: Array
    log_density: Array
    floor: Array | None = None


def sampled_actions(
    distribution: TanhGaussian,
    next_distribution: TanhGaussian,
    key: Array,
    num_actions: int,
    returns: Array | None = None,
) -> SampledActions:
    """Draws actions whose values the penalty lowers: n uniform ones, n of π(·|s) and n of π(·|s').

    Args:
      distribution: π(·|s) for the batch.
      next_distribution: π(·|s').
      key: draws the actions.
      num_actions: n.
      returns: [B] returns to go of the data at s, the floor under the values of π's actions, not of the uniform ones
        (Cal-QL); −∞ where they aren't known. None leaves floors out.

    Returns:
      Actions [B, 3n, A], their log-densities [B, 3n] and floors [B, 3n], constants.

    Source: Kumar et al. (arXiv:2006.04779), appendix F; the third kind, taken to s, is the authors' code alone. Floors:
    Nakamoto et al. (arXiv:2303.05479), section 5.
    """
    uniform_key, current_key, next_key = jax.random.split(key, 3)
    batch_size, action_dim = distribution.mean.shape
    uniform = jax.random.uniform(uniform_key, (batch_size, num_actions, action_dim), minval=-1.0, maxval=1.0)
    uniform_log_density = jnp.full((batch_size, num_actions), -action_dim * math.log(2.0))
    current, current_log_prob = repeated(distribution, num_actions).sample_and_log_prob(current_key)
    following, following_log_prob = repeated(next_distribution, num_actions).sample_and_log_prob(next_key)
    actions = jnp.concatenate([uniform, current, following], axis=1)
    log_density = jnp.concatenate([uniform_log_density, current_log_prob, following_log_prob], axis=1)
    floor = None
    if returns is not None:
        of_policy = jnp.broadcast_to(returns[:, None], (batch_size, 2 * num_actions))
        floor = jnp.concatenate([jnp.full((batch_size, num_actions), -jnp.inf), of_policy], axis=1)
    return jax.lax.stop_gradient(SampledActions(actions, log_density, floor))


def critic_loss(
    critic_params: Params,
    critic: networks.Critic,
    observation: Array,
    action: Array,
    target: Array,
    sampled: SampledActions,
    weight: Array | float,
    target_gap: float,
    temperature: float,
    gap_min: float | None,
) -> tuple[Array, tuple[Array, Metrics]]:
    """Sums the squared temporal-difference error and the conservative penalty of the critics.

        Σ_i [ mean (Q_i(s, a) − y)²  +  w (gap_i − g) ]

    Args:
      critic_params: parameters with a leading axis E, differentiated.
      critic: ensemble network.
      observation: [B, O] normalised.
      action: [B, A] of the batch.
      target: [B] regression target y, constant.
      sampled: [B, K] of `sampled_actions`.
      weight: [] w of the penalty, times α' in the Lagrange version; constant.
      target_gap: g, return units; 0 without a multiplier.
      temperature: of the soft maximum.
      gap_min: lower bound of a state's gap, or None.

    Returns:
      [] loss, and the gaps [E] with metrics. With floors one of them is `bounded`, the share of the sampled actions
      whose values lie below theirs.

    Source: Kumar et al. (arXiv:2006.04779), Eq. (4), whose ½ before the squared error the authors' code leaves out, as
    here.
    """
    actions = jnp.concatenate(
        [action[:, None], sampled.action], axis=1
    )  # one pass for the data's action and all samples
    q = critic.apply(critic_params, at_every(observation, actions), actions)  # [E, B, 1 + K]
    q, q_sampled = q[..., 0], q[..., 1:]
    td_loss = ensemble_squared_error(q, target)
    bounded = {}
    if sampled.floor is not None:
        bounded = {"bounded": jnp.mean(q_sampled < sampled.floor[None])}
        q_sampled = calibrated(q_sampled, sampled.floor)
    gap = conservative_gap(q, q_sampled, sampled.log_density, temperature, gap_min)
    metrics = {"td_loss": td_loss, "gap": jnp.mean(gap), "q": jnp.mean(q), "target_q": jnp.mean(target)}
    return td_loss + weight * jnp.sum(gap - target_gap), (gap, metrics | bounded)
