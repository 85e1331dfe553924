"""Values as histograms: a smoothed target distribution over bins, and the mean of one."""

import chex
import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from o2o_jax.types import Array

SIGMA_PER_BIN = 0.75  # Farebrother et al. (arXiv:2403.03950), section 3.1


def bin_edges(low: float, high: float, num_bins: int) -> Array:
    """Returns the [num_bins + 1] edges of equally wide bins over [low, high], in return units."""
    return jnp.linspace(low, high, num_bins + 1)


def _log_difference(upper: Array, lower: Array) -> Array:
    """Returns log(Φ(upper) − Φ(lower)) for upper > lower, from the tail in which it doesn't round to 0."""
    mirrored = lower > 0  # Φ(u) − Φ(l) = Φ(−l) − Φ(−u)
    larger = log_ndtr(jnp.where(mirrored, -lower, upper))
    smaller = log_ndtr(jnp.where(mirrored, -upper, lower))
    return larger + jnp.log(-jnp.expm1(smaller - larger))


def hl_gauss(target: Array, edges: Array) -> Array:
    """Returns a scalar target's probabilities over the bins, those of a normal distribution cut off at the outer edges.

        p_j = [ Φ((z_{j+1} − y) / σ) − Φ((z_j − y) / σ) ] / [ Φ((z_m − y) / σ) − Φ((z_0 − y) / σ) ],   σ = √2 · 0.75 · w

    Args:
      target: [...] y, in return units.
      edges: [m + 1] z of `bin_edges`, w apart.

    Returns:
      [..., m] probabilities; no gradient flows through them.

    Source: Farebrother et al. (arXiv:2403.03950), whose σ is 0.75 w; PA-RL's code divides by √2 σ before the normal
    distribution function, which makes it √2 times as wide, as here.
    """
    chex.assert_rank(edges, 1)
    sigma = jnp.sqrt(2.0) * SIGMA_PER_BIN * (edges[1] - edges[0])
    scaled = (jnp.expand_dims(edges, tuple(range(target.ndim))) - target[..., None]) / sigma
    log_mass = _log_difference(scaled[..., 1:], scaled[..., :-1])
    return jax.lax.stop_gradient(jax.nn.softmax(log_mass, axis=-1))


def histogram_mean(logits: Array, edges: Array) -> Array:
    """Returns the mean [...] of the bins' centres, in return units, under the softmax of logits [..., m]."""
    centres = (edges[1:] + edges[:-1]) / 2
    return jax.nn.softmax(logits, axis=-1) @ centres
