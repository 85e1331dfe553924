"""Actions improved by a critic: the best of a policy's samples, moved uphill."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from o2o_jax.types import Array


def best_actions(action: Array, q: Array, count: int) -> Array:
    """Keeps the most valuable of a state's actions.

    Args:
      action: [B, N, A] sampled actions.
      q: [B, N] their values, in return units.
      count: K of them are kept, 1 ≤ K ≤ N.

    Returns:
      [B, K, A] actions, the most valuable first; no gradient flows through them.

    Raises:
      AssertionError: while tracing, if the shapes don't fit each other.
      ValueError: while tracing, if `count` is outside [1, N].

    Source: Mark et al. (arXiv:2412.06685), global optimisation.
    """
    chex.assert_equal_shape_prefix([action, q], 2)
    if not 1 <= count <= q.shape[1]:
        raise ValueError(f"Set count between 1 and the {q.shape[1]} sampled actions, got {count}")
    _, index = jax.lax.top_k(q, count)  # [B, K]
    return jax.lax.stop_gradient(jnp.take_along_axis(action, index[..., None], axis=1))


def ascend(q: Callable[[Array], Array], action: Array, num_steps: int, step_size: float) -> tuple[Array, Array]:
    """Moves actions up the critic's gradient, and returns the best point of each one's way.

        a ← clip( a + η ∇_a Q(s, a), −1, 1 )

    Args:
      q: values [...] of actions [..., A] at their states, in return units; the value of one depends on it alone.
      action: [..., A] first points, in [-1, 1].
      num_steps: steps of the gradient.
      step_size: η, squared action units per return unit.

    Returns:
      [..., A] the most valuable point of each way, first and last ones included, and [...] its value, never below the
      first one's; no gradient flows through either.

    Source: Mark et al. (arXiv:2412.06685), local optimisation; its authors' code, which also keeps the best point.
    Of points of equal value the last is taken, as there.
    """

    def better(best: tuple[Array, Array], point: Array, value: Array) -> tuple[Array, Array]:
        is_better = value >= best[1]
        return jnp.where(is_better[..., None], point, best[0]), jnp.where(is_better, value, best[1])

    def step(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        point, *best = carry
        value, pull_back = jax.vjp(q, point)
        (gradient,) = pull_back(jnp.ones_like(value))
        return jnp.clip(point + step_size * gradient, -1.0, 1.0), *better((best[0], best[1]), point, value)

    start = jax.lax.stop_gradient(action)
    last, *best = jax.lax.fori_loop(0, num_steps, step, (start, start, jnp.full(start.shape[:-1], -jnp.inf)))
    return jax.lax.stop_gradient(better((best[0], best[1]), last, q(last)))


def drawn_action(action: Array, q: Array, key: Array) -> Array:
    """Draws one of a state's actions, more valuable ones more often.

        P(a_k) ∝ exp(Q(s, a_k))

    Args:
      action: [B, K, A] actions.
      q: [B, K] their values, in return units.
      key: of the draw.

    Returns:
      [B, A] actions; no gradient flows through them.

    Raises:
      AssertionError: while tracing, if the shapes don't fit each other.

    Source: Mark et al. (arXiv:2412.06685), what the policy imitates.
    """
    chex.assert_equal_shape_prefix([action, q], 2)
    index = jax.random.categorical(key, q, axis=-1)  # [B]
    return jax.lax.stop_gradient(jnp.take_along_axis(action, index[:, None, None], axis=1)[:, 0])
