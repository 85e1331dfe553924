"""The mechanics shared by every update: gradient steps, target networks, loops over updates."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from o2o_jax.types import Array, BatchT, Metrics, Params, Transition


def gradient_step(
    optimizer: optax.GradientTransformation, gradient: Params, opt_state: Any, params: Params
) -> tuple[Params, Any]:
    """Applies one gradient, a pytree shaped like `params`; returns the new parameters and optimiser state."""
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def polyak_update(params: Params, target: Params, rate: float) -> Params:
    """Moves target parameters towards the current ones, leaf by leaf: θ̄ ← (1 − ρ) θ̄ + ρ θ."""
    return jax.tree.map(lambda new, old: (1.0 - rate) * old + rate * new, params, target)


def where(condition: Array, accepted: Any, otherwise: Any) -> Any:
    """Chooses between two pytrees of one structure by a condition [] bool, so that seeds may choose differently."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), accepted, otherwise)


def sample_batch(dataset: BatchT, key: Array, batch_size: int) -> BatchT:
    """Draws rows of a dataset [N] uniformly with replacement: a batch [B] of the same kind."""
    rows = jax.random.randint(key, (batch_size,), 0, dataset.reward.shape[0])
    return jax.tree.map(lambda column: column[rows], dataset)


def run_updates(
    update: Callable,
    state: Any,
    dataset: Transition,
    key: Array,
    num_updates: int,
    batch_size: int,
    draw: Callable | None = None,
) -> tuple[Any, Metrics]:
    """Runs updates on batches drawn from a dataset, as one `scan`.

    Update t draws from `fold_in(key, state.step)`: a run that stops between two calls and resumes with the same `key`
    repeats the unbroken one.

    Args:
      update: (state, batch, key) -> (state, metrics), pure.
      state: a train state with a `step` [] int32 that `update` advances.
      dataset: transitions [N], on the device; shared by all seeds under `vmap`.
      key: PRNG key of the phase.
      num_updates: length of the scan.
      batch_size: B.
      draw: (dataset, key, batch_size) -> batch, where an algorithm has batches of its own; None for uniform rows.

    Returns:
      The state after `num_updates` updates, and the mean of every metric over them. Metrics that an update leaves
      out (NaN: a delayed actor) do not count.
    """

    draw = draw or sample_batch

    def one_update(state, _):
        sample_key, update_key = jax.random.split(jax.random.fold_in(key, state.step))
        return update(state, draw(dataset, sample_key, batch_size), update_key)

    state, metrics = jax.lax.scan(one_update, state, length=num_updates)
    return state, jax.tree.map(jnp.nanmean, metrics)


def measure(
    update: Callable,
    state: Any,
    dataset: Transition,
    key: Array,
    num_batches: int,
    batch_size: int,
    draw: Callable | None = None,
) -> Metrics:
    """What an update reports of a state as it is: mean metrics over batches, no step taken.

    Args: as `run_updates`; batch i draws from `fold_in(key, i)`.

    Returns:
      The mean of every metric.
    """

    draw = draw or sample_batch

    def one_batch(_, index):
        sample_key, update_key = jax.random.split(jax.random.fold_in(key, index))
        return None, update(state, draw(dataset, sample_key, batch_size), update_key)[1]

    _, metrics = jax.lax.scan(one_batch, None, jnp.arange(num_batches))
    return jax.tree.map(jnp.nanmean, metrics)
