"""Decisions, by the last checks of a measure, on whether a phase of updates is done.

A history [K + 1] holds a measure at the last K + 1 checks, the oldest first; NaN where there was none yet, and then
nothing is ever done but for `no_longer_rises`, which is used beside others.

Source: this package; the paper has fixed counts of updates.
"""

import jax.numpy as jnp

from o2o_jax.types import Array


def no_longer_falls(history: Array, tolerance: float) -> Array:
    """Decides whether an error is at its floor: over K checks it got no lower than where it was, but for a tolerance.

        min( x_1, …, x_K ) ≥ (1 − tolerance) x_0

    The floor of a squared temporal-difference error, the noise of rewards and next actions, is unknown: that an error
    on rows it was not trained on comes no nearer to it is what can be seen. A target that still grows makes the error
    grow too, so that this alone says nothing of the value: see `missing_share`.

    Args:
      history: [K + 1] errors ≥ 0.
      tolerance: relative, ≥ 0.

    Returns:
      [] bool.
    """
    return jnp.min(history[1:]) >= (1.0 - tolerance) * history[0]


def no_longer_rises(history: Array, tolerance: float) -> Array:
    """Decides whether a measure is at its ceiling: over K checks it got no higher than it was, but for a tolerance.

        max( x_1, …, x_K ) ≤ x_0 + tolerance

    A series that only fluctuates is done sooner or later at any level: its oldest value is the highest of the window at
    one check in K + 1.

    Args:
      history: [K + 1].
      tolerance: in the measure's own unit, ≥ 0.

    Returns:
      [] bool; true of NaN, a measure that says nothing.
    """
    return ~(jnp.max(history[1:]) > history[0] + tolerance)


def settled(history: Array, tolerance: float) -> Array:
    """Decides whether a measure is settled: its range over the last K + 1 checks is small beside its size.

        max x − min x ≤ tolerance · max |x|

    The range, since a measure that rose and came back has the same ends: an actor that runs after overestimated
    actions leaves the offline policy before it returns.

    Args:
      history: [K + 1].
      tolerance: relative, ≥ 0.

    Returns:
      [] bool.
    """
    return jnp.max(history) - jnp.min(history) <= tolerance * jnp.max(jnp.abs(history))


def missing_share(history: Array, updates: int, rate: float) -> Array:
    """Estimates how much of its final value a bootstrapped value still lacks, from how fast it moves.

        |x_K − x_0| / (updates · rate · |x_K|)

    With a target network that follows by ρ per update, values obey dV/dt = ρ (T V − V). The slowest part of the
    error, common to all states, decays with the rate ρ (1 − γ), so that what is missing is the speed divided by it.
    A squared error can't tell: it is small wherever critic and target agree, right or wrong.

    Args:
      history: [K + 1] mean values of the same rows, return units.
      updates: between the oldest and the newest, > 0.
      rate: ρ (1 − γ) per update.

    Returns:
      [] ≥ 0, as a share of the present value.
    """
    speed = jnp.abs(history[-1] - history[0]) / updates
    return speed / (rate * jnp.abs(history[-1]))
