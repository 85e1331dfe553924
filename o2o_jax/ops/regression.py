"""Regression towards the better part of the data: expectiles of values, weights of actions."""

import chex
import jax
import jax.numpy as jnp

from o2o_jax.types import Array

WEIGHT_MAX = 100.0  # the authors' code, of IQL and of AWAC: no action weighs more


def expectile_loss(value: Array, target: Array, expectile: float) -> Array:
    """Computes the asymmetric squared error that is least where the value is the κ-expectile of its targets.

        mean |κ − 𝟙(u < 0)| u²,   u = y − V

    Args:
      value: [B] V, the differentiated argument.
      target: [B] y, constant.
      expectile: κ in (0, 1): 0.5 is half the squared error, towards 1 the value approaches the largest target.

    Returns:
      [] loss, differentiable in `value` alone.

    Raises:
      AssertionError: while tracing, if the arrays differ in shape.

    Source: Kostrikov et al. (arXiv:2110.06169), section 4.1 and Eq. (5).
    """
    chex.assert_equal_shape([value, target])
    excess = jax.lax.stop_gradient(target) - value
    weight = jnp.where(excess < 0, 1.0 - expectile, expectile)
    return jnp.mean(weight * jnp.square(excess))


def advantage_weight(advantage: Array, inverse_temperature: float) -> Array:
    """Returns the weight of an action of the data in imitation.

        w = min( exp(b A), 100 )

    Args:
      advantage: [...] A(s, a), in return units.
      inverse_temperature: b ≥ 0, per return unit; 0 imitates all alike.

    Returns:
      [...] in [0, 100]; no gradient flows through it.

    Source: Kostrikov et al. (arXiv:2110.06169), Eq. (7), and the actor's step of Nair et al. (arXiv:2006.09359), with
    b = 1 / λ. The bound is the code's alone, in both.
    """
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(inverse_temperature * advantage), WEIGHT_MAX))
