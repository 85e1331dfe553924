"""Action distributions over [-1, 1]^A: what the heads of policies give."""

import math
from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp

from o2o_jax.types import Array

LOG_2 = math.log(2.0)
MODE_LIMIT = 0.9999  # the authors' code clips the deterministic action of a squashed policy here
LOG_PROB_LIMIT = 1.0 - 1e-4  # and a given action here, before it asks for its density


class Distribution(Protocol):
    """Interface of every head's distribution; `log_prob` is missing where there is no density."""

    def mode(self) -> Array:
        """Returns the action [..., A] to evaluate with."""

    def sample(self, key: Array) -> Array:
        """Draws an action [..., A] in [-1, 1]."""


def normal_log_prob(value: Array, mean: Array, log_std: Array) -> Array:
    """Returns the log-density of a normal per dimension, nats. All are [..., A], `log_std` may broadcast."""
    standardized = (value - mean) * jnp.exp(-log_std)
    return -0.5 * jnp.square(standardized) - log_std - 0.5 * math.log(2.0 * math.pi)


@flax.struct.dataclass
class Deterministic:
    """A point mass.

    Attributes:
      action: [..., A] in [-1, 1].
    """

    action: Array

    def mode(self) -> Array:
        """Returns the action [..., A] itself."""
        return self.action

    def sample(self, key: Array) -> Array:
        """Returns the action [..., A] itself; exploration noise is the algorithm's business."""
        del key
        return self.action


@flax.struct.dataclass
class Gaussian:
    """Normal(mean, exp(log_std)), not squashed; samples are clipped.

    Attributes:
      mean: [..., A] μ, before it is clipped to [-1, 1].
      log_std: [A] or [..., A] log σ, σ in units of the action.
    """

    mean: Array
    log_std: Array

    def mode(self) -> Array:
        """Returns the mean [..., A], clipped to [-1, 1]."""
        return jnp.clip(self.mean, -1.0, 1.0)

    def sample(self, key: Array) -> Array:
        """Draws a sample [..., A], clipped to [-1, 1]."""
        noise = jax.random.normal(key, self.mean.shape)
        return jnp.clip(self.mean + jnp.exp(self._log_std()) * noise, -1.0, 1.0)

    def sample_and_log_prob(self, key: Array) -> tuple[Array, Array]:
        """Draws a clipped sample [..., A], with the log-density [...] of what it was clipped to, nats."""
        action = self.sample(key)
        return action, self.log_prob(action)

    def log_prob(self, action: Array) -> Array:
        """Returns the log-density [...] of `action` [..., A], nats, of the normal before samples are clipped."""
        return jnp.sum(normal_log_prob(action, self.mean, self._log_std()), axis=-1)

    def log_prob_at(self, deviations: float) -> Array:
        """Returns the log-density [...], nats, at μ + kσ, k `deviations` in every dimension."""
        return self.log_prob(self.mean + deviations * jnp.exp(self._log_std()))

    def entropy(self) -> Array:
        """Returns the differential entropy [...], nats, of the normal before samples are clipped."""
        return jnp.sum(self._log_std() + 0.5 * math.log(2.0 * math.pi * math.e), axis=-1)

    def _log_std(self) -> Array:
        return jnp.broadcast_to(self.log_std, self.mean.shape)


@flax.struct.dataclass
class TanhGaussian:
    """tanh(Normal(mean, exp(log_std))).

    Attributes:
      mean: [..., A] μ of the normal.
      log_std: [..., A] its log σ.
    """

    mean: Array
    log_std: Array

    def mode(self) -> Array:
        """Returns tanh of the mean [..., A], kept off the edge where the density is infinite."""
        return jnp.clip(jnp.tanh(self.mean), -MODE_LIMIT, MODE_LIMIT)

    def sample(self, key: Array) -> Array:
        """Draws a reparameterised sample [..., A]."""
        return self.sample_and_log_prob(key)[0]

    def sample_and_log_prob(self, key: Array) -> tuple[Array, Array]:
        """Draws a reparameterised sample [..., A], with its log-density [...], nats, from the unsquashed sample."""
        noise = jax.random.normal(key, self.mean.shape)
        unsquashed = self.mean + jnp.exp(self.log_std) * noise
        return jnp.tanh(unsquashed), self._log_prob_of(unsquashed)

    def log_prob(self, action: Array) -> Array:
        """Returns the log-density [...] of `action` [..., A], nats; actions beyond ±(1 − 1e-4) count as that."""
        action = jnp.clip(action, -LOG_PROB_LIMIT, LOG_PROB_LIMIT)
        return self._log_prob_of(jnp.arctanh(action))

    def log_prob_at(self, deviations: float) -> Array:
        """Returns the log-density [...], nats, of the action tanh(μ + kσ), k `deviations` in every dimension."""
        return self._log_prob_of(self.mean + deviations * jnp.exp(self.log_std))

    def _log_prob_of(self, unsquashed: Array) -> Array:
        # log |d tanh(u) / du| = 2 (log 2 − u − softplus(−2u)): finite for every u, unlike log(1 − tanh²)
        log_jacobian = 2.0 * (LOG_2 - unsquashed - jax.nn.softplus(-2.0 * unsquashed))
        return jnp.sum(normal_log_prob(unsquashed, self.mean, self.log_std) - log_jacobian, axis=-1)


def moment_matched(members: TanhGaussian, log_std_min: float, log_std_max: float) -> TanhGaussian:
    """Returns one squashed normal over actions [..., A] for an equal mixture of K, with its moments before tanh.

        μ = mean_k μ_k,   σ² = mean_k σ_k² + mean_k (μ_k − μ)²,   log σ clipped

    Args:
      members: squashed normals over actions [K, ..., A].
      log_std_min: lower bound of log σ.
      log_std_max: upper bound of log σ.

    Source: Lee et al. (arXiv:2107.00591), who print σ² = mean_k (μ_k² + σ_k²) − μ²: the same, which rounding can make
    negative.
    """
    mean = jnp.mean(members.mean, axis=0)
    variance = jnp.mean(jnp.exp(2.0 * members.log_std) + jnp.square(members.mean - mean[None]), axis=0)
    return TanhGaussian(mean, jnp.clip(0.5 * jnp.log(variance), log_std_min, log_std_max))


def normal_divergence(policy: Gaussian | TanhGaussian, other: Gaussian | TanhGaussian) -> Array:
    """Computes the KL divergence of the normals, before samples are clipped, in closed form; tanh leaves it as it is.

        KL(π, π') = Σ_j ( log(σ'_j / σ_j) + [ σ_j² + (μ_j − μ'_j)² ] / (2 σ'_j²) − ½ )

    Args:
      policy: π over actions [..., A].
      other: π', likewise, of the same kind.

    Returns:
      [...] nats, at least 0.
    """
    log_ratio = jnp.broadcast_to(policy.log_std - other.log_std, policy.mean.shape)  # of the two σ
    distance = (policy.mean - other.mean) * jnp.exp(-jnp.broadcast_to(other.log_std, policy.mean.shape))
    return jnp.sum(0.5 * (jnp.expm1(2.0 * log_ratio) + jnp.square(distance)) - log_ratio, axis=-1)
