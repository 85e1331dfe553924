"""Losses of PA-RL's critics. The differentiated argument comes first."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from o2o_jax import networks
from o2o_jax.losses import at_every
from o2o_jax.ops.conservative import calibrated, conservative_gap
from o2o_jax.ops.histogram import histogram_mean, hl_gauss
from o2o_jax.types import Array, Metrics, Params


class Probes(NamedTuple):
    """Actions whose values the penalty lowers.

    Attributes:
      action: [B, K, A].
      copies: [B, K] times that each counts.
      floor: [B, K] return units, below which its value isn't lowered; −∞ where there is none.
    """

    action: Array
    copies: Array
    floor: Array


def td_loss(
    critic_params: Params, critic: networks.QNetwork, observation: Array, action: Array, target: Array
) -> tuple[Array, Array]:
    """Averages over the critics how far they are from the target: by squares, or the cross-entropy of histograms.

        1/E Σ_i mean (Q_i(s, a) − y)²,   or   −1/E Σ_i mean Σ_j p_j(y) log softmax_j(l_i(s, a))

    Args:
      critic_params: parameters with a leading axis E, differentiated.
      critic: ensemble network, of values or `networks.HistogramCritics`.
      observation: [B, O] normalised.
      action: [B, A] of the batch.
      target: [B] regression target y, constant.

    Returns:
      [] loss, and the values [E, B], in return units.

    Source: Mark et al. (arXiv:2412.06685), the authors' code.
    """
    if not isinstance(critic, networks.HistogramCritics):
        q = critic.apply(critic_params, observation, action)
        return jnp.mean(jnp.square(q - target[None])), q
    logits = critic.logits.apply(critic_params, observation, action)  # [E, B, m]
    cross_entropy = -jnp.sum(hl_gauss(target, critic.edges)[None] * jax.nn.log_softmax(logits), axis=-1)
    return jnp.mean(cross_entropy), histogram_mean(logits, critic.edges)


def penalty(critic_params: Params, critic: networks.QNetwork, observation: Array, q: Array, probes: Probes) -> Array:
    """Computes by how much probes, and the data's actions among them, are valued above the data's: Cal-QL's penalty.

        1/E Σ_i mean( log( (Σ_k n_k exp max(Q_i(s, a_k), R_k) + exp Q_i(s, a)) / (Σ_k n_k + 1) ) − Q_i(s, a) )

    Args:
      critic_params: parameters with a leading axis E, differentiated.
      critic: ensemble network.
      observation: [B, O] normalised.
      q: [E, B] values of the batch's actions, differentiated too.
      probes: a_k, n_k and R_k.

    Returns:
      [] penalty, in return units.

    Source: Mark et al. (arXiv:2412.06685), the authors' code, without importance weights.
    """
    probed = critic.apply(critic_params, at_every(observation, probes.action), probes.action)  # [E, B, K]
    probed = jnp.concatenate([calibrated(probed, probes.floor), q[..., None]], axis=-1)
    copies = jnp.concatenate([probes.copies, jnp.ones_like(probes.copies[:, :1])], axis=-1)
    shares = copies / jnp.sum(copies, axis=-1, keepdims=True)
    return jnp.mean(conservative_gap(q, probed, -jnp.log(shares), 1.0, None))


def critic_loss(
    critic_params: Params,
    critic: networks.QNetwork,
    observation: Array,
    action: Array,
    target: Array,
    probes: Probes | None,
    weight: float,
) -> tuple[Array, Metrics]:
    """Adds the weighted penalty to the temporal-difference loss.

        td_loss + w · penalty

    Args:
      critic_params: parameters with a leading axis E, differentiated.
      critic: ensemble network.
      observation: [B, O] normalised.
      action: [B, A] of the batch.
      target: [B] regression target, constant.
      probes: of the penalty; None leaves it out.
      weight: w.

    Returns:
      [] loss, and metrics.

    Source: Mark et al. (arXiv:2412.06685), the authors' code.
    """
    loss, q = td_loss(critic_params, critic, observation, action, target)
    metrics = {"td_loss": loss, "q": jnp.mean(q), "target_q": jnp.mean(target)}
    if probes is not None:
        gap = penalty(critic_params, critic, observation, q, probes)
        loss, metrics = loss + weight * gap, metrics | {"gap": gap}
    return loss, metrics | {"critic_loss": loss}
