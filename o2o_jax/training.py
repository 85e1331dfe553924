"""The mechanics shared by every update: gradient steps, target networks, loops over updates."""

import numbers
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax.interfaces import Sample, Stop
from o2o_jax.types import Array, BatchT, Metrics, Params, Rollout, Transition, expect_key, expect_rows, expect_state

MEASURED_BATCHES = 40  # of a state as it is: 10,000 rows of 256 a batch
HELD_OUT_STREAM = 2**31 - 1  # of a phase's key; its updates draw from those of their own numbers
REPORT_STREAM = HELD_OUT_STREAM - 1  # likewise
ROWS_AT_ONCE = 4_096  # of a dataset, where networks look at all of it
DIVERGED = -1  # decision of a state whose measures are NaN or infinite


def gradient_step(
    optimizer: optax.GradientTransformation, gradient: Params, opt_state: Any, params: Params
) -> tuple[Params, Any]:
    """Applies one gradient, leaves [...] as those of `params`; returns the new parameters and optimiser state."""
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def clip_gradient(gradient: Params, norm: float) -> Params:
    """Bounds the norm of a gradient, leaves [...], over all of them, in units of the loss per unit of the parameters.

    An optimiser of its own would do it too, but change the optimiser's state that offline training has left.
    """
    clip = optax.clip_by_global_norm(norm)
    return clip.update(gradient, clip.init(gradient))[0]


def polyak_update(params: Params, target: Params, rate: float) -> Params:
    """Moves target parameters towards the current ones, leaf [...] by leaf: θ̄ ← (1 − ρ) θ̄ + ρ θ."""
    return jax.tree.map(lambda new, old: (1.0 - rate) * old + rate * new, params, target)


def where(condition: Array, accepted: Any, otherwise: Any) -> Any:
    """Chooses between two pytrees of one structure by a condition [] bool, so that seeds may choose differently."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), accepted, otherwise)


def sample_batch(dataset: BatchT, key: Array, batch_size: int) -> BatchT:
    """Draws rows of a dataset [N] uniformly with replacement: a batch [B] of the same kind."""
    rows = jax.random.randint(key, (batch_size,), 0, dataset.reward.shape[0])
    return jax.tree.map(lambda column: column[rows], dataset)


def compute_extras(function: Callable, columns: Any) -> Any:
    """Computes a function of every row of a dataset, once for a whole phase.

    Args:
      function: (columns of rows [...]) -> pytree of [..., ...], pure.
      columns: pytree of [N, ...].

    Returns:
      The function's values [N, ...], `ROWS_AT_ONCE` rows at a time, so that what lies between takes little memory.
    """
    return jax.lax.map(function, columns, batch_size=ROWS_AT_ONCE)


def mean_over_blocks(function: Callable, rows: Any, at_once: int) -> Any:
    """Computes a function that is a mean over rows, on a processor over blocks of them one after the other.

    Value and gradient of a loss are the same but for rounding; what lies between them is as large as a block, and stays
    in the processor's cache (`benchmarks/NOTES.md`). Accelerators take all rows at once.

    Args:
      function: (rows) -> pytree of means over these rows, pure.
      rows: pytree of [N, ...].
      at_once: the most rows of a block. Blocks are all of one size, at least half of that: a number of rows that can't
        be divided so is taken whole.

    Returns:
      The function's values.
    """
    size = jax.tree.leaves(rows)[0].shape[0]
    fitting = (n for n in range(1, size + 1) if size % n == 0 and at_once <= 2 * (size // n) <= 2 * at_once)
    count = next(fitting, 1)
    if count == 1:
        return function(rows)

    def in_turn(rows: Any) -> Any:
        blocks = jax.tree.map(lambda leaf: leaf.reshape(count, size // count, *leaf.shape[1:]), rows)
        total = jax.tree.map(jnp.zeros_like, jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], blocks)))
        total, _ = jax.lax.scan(
            lambda total, block: (jax.tree.map(jnp.add, total, function(block)), None), total, blocks
        )
        return jax.tree.map(lambda leaf: leaf / count, total)

    return jax.lax.platform_dependent(rows, cpu=in_turn, default=function)


def run_updates(
    update: Callable,
    state: Any,
    dataset: Transition,
    key: Array,
    num_updates: int,
    batch_size: int,
    sample: Sample | None = None,
) -> tuple[Any, Metrics]:
    """Runs updates on batches drawn from a dataset, as one `scan`.

    Update t draws from `fold_in(key, state.step)`: a run that stops between two calls and resumes with the same `key`
    repeats the unbroken one.

    Args:
      update: (state, batch, key) -> (state, metrics), pure.
      state: a train state with a `step` [] int32 that `update` advances.
      dataset: transitions [N], best on the device; shared by all seeds under `vmap`.
      key: PRNG key of the phase.
      num_updates: length of the scan.
      batch_size: B.
      sample: where an algorithm has batches of its own; None for uniform rows.

    Returns:
      The state after `num_updates` updates, and the mean [] of every metric over them. Metrics that an update leaves
      out (NaN: a delayed actor) do not count.

    Raises:
      ValueError: `num_updates` is no whole number of at least 0, or `batch_size` none of at least 1;
        or columns of `dataset` differ in length.
      TypeError: `update`, `dataset`, `key` or `state` is of another type.
    """
    if not callable(update):
        raise TypeError(f"update must be a function, got {type(update).__name__}: pass that of a phase, phase.update")
    expect_state(state)
    expect_rows(dataset)
    expect_key(key)
    for name, count, least in (("num_updates", num_updates, 0), ("batch_size", batch_size, 1)):
        if not isinstance(count, numbers.Integral) or count < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {count!r}")
    sample = sample or sample_batch
    dataset = jax.tree.map(jnp.asarray, dataset)  # rows of numpy arrays can't be drawn within the scan

    def one_update(state, _):
        sample_key, update_key = jax.random.split(jax.random.fold_in(key, state.step))
        return update(state, sample(dataset, sample_key, batch_size), update_key)

    state, metrics = jax.lax.scan(one_update, state, length=num_updates)
    return state, jax.tree.map(jnp.nanmean, metrics)


def measure(
    update: Callable,
    state: Any,
    dataset: Transition,
    key: Array,
    num_batches: int,
    batch_size: int,
    sample: Sample | None = None,
) -> Metrics:
    """Returns an update's mean metrics of a state as it is, over batches, without a step.

    The arguments are those of `run_updates`; batch i draws from `fold_in(key, i)`.

    Returns:
      The mean [] of every metric over the batches.
    """

    sample = sample or sample_batch

    def one_batch(_, index):
        sample_key, update_key = jax.random.split(jax.random.fold_in(key, index))
        return None, update(state, sample(dataset, sample_key, batch_size), update_key)[1]

    _, metrics = jax.lax.scan(one_batch, None, jnp.arange(num_batches))
    return jax.tree.map(jnp.nanmean, metrics)


@flax.struct.dataclass
class Record:
    """Record of a phase's checks so far, of one seed.

    Attributes:
      history: term -> [K + 1] at the last checks, oldest first; NaN where there was none yet.
      updates: [] int32, updates of the phase that the state has kept.
      decision: [] int32: 0 while the phase continues, `DIVERGED`, or the number of a reason of `interfaces.Stop`.
    """

    history: dict[str, Array]
    updates: Array
    decision: Array

    @classmethod
    def start(cls, stop: Stop) -> "Record":
        """Returns the record before the first check: NaN [K + 1] for every measure."""
        empty = jnp.full(stop.window_checks + 1, jnp.nan)
        zero = jnp.zeros((), jnp.int32)
        return cls({term: empty for term in stop.measures}, zero, zero)

    def check(self, stop: Stop, measures: Metrics, updates: int) -> "Record":
        """Adds one more check, and the decision on it.

        Args:
          stop: what is measured, and when to stop.
          measures: [] of each of `stop.measures`.
          updates: since the last check.

        Returns:
          The record; its decision is `DIVERGED` where one of `stop.terms` is NaN or infinite.
        """
        newest = {term: jnp.asarray(measures[term], jnp.float32) for term in stop.measures}
        history = {term: jnp.append(self.history[term][1:], value) for term, value in newest.items()}
        kept = self.updates + updates
        decision = jnp.where(kept >= stop.min_updates, stop.decide(history), 0)
        finite = jnp.isfinite(jnp.array([newest[term] for term in stop.terms])).all()
        return Record(history, kept, jnp.where(finite, decision, DIVERGED).astype(jnp.int32))


@flax.struct.dataclass
class PhaseState:
    """State of one seed amid a phase.

    Attributes:
      state: the train state; of a seed that has failed the last one whose numbers were finite.
      failed: [] bool, whether the seed has ended early, in this phase or before.
      record: of the phase, where it is checked by measures.
    """

    state: Any
    failed: Array
    record: Record | None = None

    @classmethod
    def start(cls, state: Any, stop: Stop | None = None) -> "PhaseState":
        """Returns a train state that nothing has happened to, of a phase with `stop`."""
        return cls(state, jnp.zeros((), bool), Record.start(stop) if stop else None)

    @property
    def step(self) -> Array:
        """[] int32, the train state's counter; it continues when the state itself has stopped."""
        return self.state.step

    @property
    def goes_on(self) -> Array:
        """[] bool, whether updates still change the state."""
        return ~self.failed if self.record is None else ~self.failed & (self.record.decision == 0)

    def skip_to(self, step: Array) -> "PhaseState":
        """Sets the counter to [] `step`, as if the updates that are left had been made."""
        return self.replace(state=self.state.replace(step=step))

    def settle(self, moved: "PhaseState", metrics: Metrics) -> tuple["PhaseState", Metrics]:
        """Keeps what updates have led to, unless the seed had stopped before or fails by them.

        A stopped seed is computed along with the others, since all are one program, and what comes of it is thrown
        away: nothing compiles again, and the others' numbers are those of each alone. Its counter continues, which all
        seeds share. A seed fails where a number of its state is NaN or infinite: it keeps the state before the updates.

        Args:
          moved: this state, updated.
          metrics: [] of these updates.

        Returns:
          The state after them, and the metrics, NaN of a seed that had stopped before.
        """
        finite = is_finite(moved.state)
        before = self.replace(failed=self.failed | (self.goes_on & ~finite))
        if self.record is not None:
            diverged = jnp.where(before.failed, DIVERGED, self.record.decision).astype(jnp.int32)
            before = before.replace(record=self.record.replace(decision=diverged))
        metrics = jax.tree.map(lambda metric: jnp.where(self.goes_on, metric, jnp.nan), metrics)
        return where(self.goes_on & finite, moved, before).skip_to(moved.step), metrics


def report_rows(stop: Stop, current: PhaseState, held_out: Rollout, key: Array) -> Any:
    """Returns the rows that the report of a phase's checks looks at, computed once; None without a report.

    The arguments are those of `check`; `held_out` [M] are whole episodes.
    """
    if stop.report is None:
        return None
    return stop.report.prepare(jax.random.fold_in(key, REPORT_STREAM), current.state, held_out)


def check(
    update: Callable,
    stop: Stop,
    current: PhaseState,
    held_out: Transition,
    key: Array,
    updates: int,
    batch_size: int,
    rows: Any = None,
) -> PhaseState:
    """Measures a state on held-out rows, the same ones with the same draws at every check of a phase.

    What differs between two checks then comes of the networks alone.

    Args:
      update: of the phase.
      stop: what to measure and when to stop.
      current: `updates` after its last check.
      held_out: transitions [M] that no batch of the phase is drawn from.
      key: PRNG key of the phase.
      updates: since the last check.
      batch_size: B.
      rows: of `report_rows`.

    Returns:
      The same state with one more check on record.
    """
    assert current.record is not None
    measures: Metrics = {}
    if stop.terms:
        key = jax.random.fold_in(key, HELD_OUT_STREAM)
        measures = measure(update, current.state, held_out, key, MEASURED_BATCHES, batch_size)
    if stop.report is not None:
        measures |= stop.report.measure(current.state, rows)
    return current.replace(record=current.record.check(stop, measures, updates))


def run_until_stop(
    update: Callable,
    stop: Stop,
    current: PhaseState,
    dataset: Transition,
    held_out: Transition,
    key: Array,
    num_updates: int,
    batch_size: int,
    rows: Any = None,
) -> tuple[PhaseState, Metrics]:
    """Runs updates up to the next check, and the check; a state that has stopped stays as it is.

    The arguments are those of `run_updates` and `check`.

    Returns:
      The state and its record, and the mean [] of every metric, as of `PhaseState.settle`.
    """
    state, metrics = run_updates(update, current.state, dataset, key, num_updates, batch_size)
    moved = check(update, stop, current.replace(state=state), held_out, key, num_updates, batch_size, rows)
    return current.settle(moved, metrics)


def is_finite(state: Any) -> Array:
    """Returns [] bool, whether all numbers of one seed's state are finite."""
    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    # one array: tests of their own for dozens of leaves are an eighth of a program's compilation
    return jnp.isfinite(jnp.concatenate([jnp.zeros(1), *leaves])).all()
