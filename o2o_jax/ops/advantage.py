"""Returns and advantages along a rollout, the auxiliary advantage of O2PPO, and the clipped surrogate."""

from typing import Literal

import chex
import jax
import jax.numpy as jnp

from o2o_jax.types import Array

SOFTPLUS_SHIFT = 4.0  # Eq. (51), per dimension of the action
NORMALIZATION_EPS = 1e-5  # the authors' code: added to the standard deviation of advantages

DIVERGENCE_FACTOR = 1.5  # how far a divergence may lie from its target, and by how much a weight then moves
WEIGHT_MIN, WEIGHT_MAX = 0.1, 10.0  # of the auxiliary advantage; at the lower one the policy is all but free

Baseline = Literal["entropy", "policy"]
Pairing = Literal["paired", "outer"]


def linear_recurrence(value: Array, decay: Array, start: Array | float = 0.0, reverse: bool = False) -> Array:
    """Computes a running sum that forgets: y_t = x_t + c_t y_{t−1}, or y_t = x_t + c_t y_{t+1} in reverse.

    Args:
      value: [T] x.
      decay: [T] c.
      start: [] y before the first step; after the last one, in reverse.
      reverse: whether it runs against time.

    Returns:
      [T] y.

    Raises:
      AssertionError: while tracing, if the shapes differ.
    """
    chex.assert_equal_shape([value, decay])

    def step(carry: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        carry = inputs[0] + inputs[1] * carry
        return carry, carry

    return jax.lax.scan(step, jnp.asarray(start, value.dtype), (value, decay), reverse=reverse)[1]


def discounted_returns(reward: Array, ended: Array, discount: float) -> Array:
    """Computes the discounted sum of an episode's rewards from each step on, as far as the rows go.

        G_t = r_t + γ (1 − ended_t) G_{t+1}

    Args:
      reward: [T] rewards of consecutive steps.
      ended: [T] 1 where the next row belongs to another episode.
      discount: γ, in (0, 1).

    Returns:
      [T] returns, in return units.

    Source: section 4.1, the re-evaluation of O2PPO.
    """
    return linear_recurrence(reward, discount * (1.0 - ended), reverse=True)


def steps_to_end(ended: Array) -> tuple[Array, Array]:
    """Finds the last row of each row's episode.

    Args:
      ended: [T] 1 where the next row belongs to another episode; the last row ends one in any case.

    Returns:
      [T] int32 row of the episode's last step, and [T] int32 how many steps lead past it, 1 at that row itself.
    """
    rows = jnp.arange(ended.shape[0])
    last = jax.lax.cummin(jnp.where(ended > 0, rows, ended.shape[0] - 1), reverse=True)
    return last, last - rows + 1


def steps_from_start(ended: Array) -> tuple[Array, Array]:
    """Finds the first row of each row's episode.

    Args:
      ended: [T] 1 where the next row belongs to another episode; the first row begins one in any case.

    Returns:
      [T] int32 row of the episode's first step, and [T] int32 how many steps lead there, 0 at that row itself.
    """
    rows = jnp.arange(ended.shape[0])
    begins = jnp.concatenate([jnp.ones(1), ended[:-1]])
    first = jax.lax.cummax(jnp.where(begins > 0, rows, 0))
    return first, rows - first


def generalized_advantage(
    reward: Array,
    value: Array,
    next_value: Array,
    terminated: Array,
    ended: Array,
    discount: float,
    gae_lambda: float,
) -> Array:
    """Estimates generalised advantages, with a bootstrap wherever an episode did not truly terminate.

        A_t = δ_t + γ λ (1 − ended_t) A_{t+1},   δ_t = r_t + γ (1 − terminated_t) V(s'_t) − V(s_t)

    Args:
      reward: [T] rewards of consecutive steps.
      value: [T] V(s_t).
      next_value: [T] V(s'_t) of the true next observation, also where an episode ended.
      terminated: [T] 1 where s' is absorbing; a time limit is 0.
      ended: [T] 1 where the next row belongs to another episode: a time limit is 1.
      discount: γ, in (0, 1).
      gae_lambda: λ in [0, 1]; 1 gives the return less V(s_t).

    Returns:
      [T] advantages, in return units; no gradient flows through them.

    Raises:
      AssertionError: while tracing, if the arrays differ in shape.

    Source: Schulman et al. (arXiv:1506.02438), Eq. (16).
    """
    chex.assert_equal_shape([reward, value, next_value, terminated, ended])
    delta = reward + discount * (1.0 - terminated) * next_value - value
    return jax.lax.stop_gradient(linear_recurrence(delta, discount * gae_lambda * (1.0 - ended), reverse=True))


def reference_advantage(log_prob: Array, baseline: Array) -> Array:
    """Returns how much more likely than a baseline the reference policy takes an action.

        z = log π_ref(a|s) − b

    With b = −H(π_ref(·|s)), the page's, z is 0 on average under π_ref. E_π[z] then is a cross-entropy, whose maximum is
    a point at the mean of π_ref: σ shrinks. With b = log π_old(a|s) of the policy that acted, z is 0 for every action
    where that is π_ref, and the gradient of E_π[z] at π = π_old is that of −KL(π, π_ref).

    Args:
      log_prob: [T] log π_ref(a|s), nats.
      baseline: [T] b, nats; an entropy in closed form (D-44).

    Returns:
      [T] nats. With the entropy at most half a nat per dimension of the action for a normal distribution.

    Raises:
      AssertionError: while tracing, if the shapes differ.

    Source: Eq. (17), (48), without the factor α, for the entropy; the other one is this package's.
    """
    chex.assert_equal_shape([log_prob, baseline])
    return log_prob - baseline


def adapted_weight(weight: Array, divergence: Array, target: Array | float) -> Array:
    """Adapts the weight of a term that holds a policy near another, after a look at how far it has gone.

        β ← 1.5 β  where KL > 1.5 κ,    β / 1.5  where KL < κ / 1.5,    β  in between;    then into [0.1, 10]

    Args:
      weight: [] β so far.
      divergence: [] KL, nats; NaN leaves β as it is.
      target: [] κ, nats.

    Returns:
      [] β.

    Source: Schulman et al. (arXiv:1707.06347), section 4, whose steps are factors of 2 and whose β has no bounds. Here
    the divergence is from a policy that stays, and grows over many rollouts: β would run away before it has effect.
    """
    step = jnp.where(divergence > DIVERGENCE_FACTOR * target, DIVERGENCE_FACTOR, 1.0)
    step = jnp.where(divergence < target / DIVERGENCE_FACTOR, 1.0 / DIVERGENCE_FACTOR, step)
    return jnp.clip(step * weight, WEIGHT_MIN, WEIGHT_MAX)


def auxiliary_advantage(log_ratio: Array, action_dim: int, scale: float) -> Array:
    """Bounds the reference advantage per dimension from below, so that one unlikely action can't dominate a batch.

        α [ softplus(z + 4|A|) − 4|A| ] / |A|

    Args:
      log_ratio: [T] z of `reference_advantage`, nats.
      action_dim: |A|.
      scale: α, in units of the advantages' standard deviation.

    Returns:
      [T] in standard deviations of the advantage, between −4α and about α / 2.

    Source: Eq. (51), which bounds each dimension by itself; the authors' code bounds their sum, as here (D-34).
    """
    shift = SOFTPLUS_SHIFT * action_dim
    return scale * (jax.nn.softplus(log_ratio + shift) - shift) / action_dim


def combined_advantage(advantage: Array, auxiliary: Array, weight: Array, pairing: Pairing = "paired") -> Array:
    """Combines the estimated advantage with a share of the auxiliary one on its scale, for the policy's update.

        A' = (A + β std(A) A_α) / (1 + β)

    Args:
      advantage: [T] A.
      auxiliary: [T] A_α of `auxiliary_advantage`.
      weight: [] β, at least 0.
      pairing: "paired" gives each sample its own auxiliary advantage. "outer" gives every sample all of them: what a
        broadcast in the authors' code does (D-32), kept to reproduce it.

    Returns:
      [T, 1] A', or [T, T] with "outer", whose row t holds A_t beside every auxiliary advantage.

    Raises:
      AssertionError: while tracing, if the shapes differ.

    Source: Eq. (18), section H.5; the division by 1 + β is the authors' code's (D-33).
    """
    chex.assert_equal_shape([advantage, auxiliary])
    auxiliary = weight * jnp.std(advantage, ddof=1) * auxiliary
    return (advantage[:, None] + (auxiliary[None] if pairing == "outer" else auxiliary[:, None])) / (1.0 + weight)


def normalized(advantage: Array) -> Array:
    """Shifts and scales advantages [...] to mean 0 and standard deviation 1 over all of them, so that no unit is left.

    Source: the authors' code, which adds 1e-5 to the deviation.
    """
    return (advantage - jnp.mean(advantage)) / (jnp.std(advantage, ddof=1) + NORMALIZATION_EPS)


def clipped_surrogate(ratio: Array, positive: Array, negative: Array, clip: float) -> Array:
    """Computes the objective of proximal policy optimisation per sample, to be made large.

        min( ρ A, clip(ρ, 1 − ε, 1 + ε) A )

    The minimum is the smaller ratio times A where A > 0 and the larger one where A < 0, so that the mean over several
    advantages of one sample needs only the means of their positive and of their negative parts.

    Args:
      ratio: [B] ρ = π(a|s) / π_old(a|s).
      positive: [B] max(A, 0), or its mean over the sample's advantages; constant.
      negative: [B] min(A, 0), or likewise; constant.
      clip: ε in (0, 1).

    Returns:
      [B] differentiable in `ratio` alone.

    Raises:
      AssertionError: while tracing, if the shapes differ.

    Source: Eq. (7).
    """
    chex.assert_equal_shape([ratio, positive, negative])
    bounded = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
    positive, negative = jax.lax.stop_gradient((positive, negative))
    return jnp.minimum(ratio, bounded) * positive + jnp.maximum(ratio, bounded) * negative
