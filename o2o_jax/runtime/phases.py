"""Phases on a dataset alone: offline training, re-evaluation, alignment, cloning. Impure."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from o2o_jax.interfaces import Phase
from o2o_jax.runtime import interrupt
from o2o_jax.runtime.events import Event, Events
from o2o_jax.runtime.log import progress
from o2o_jax.runtime.seeds import over_seeds, place, replicate
from o2o_jax.training import (
    MEASURED_BATCHES,
    PhaseState,
    Record,
    check,
    measure,
    report_rows,
    run_until_stop,
    run_updates,
)
from o2o_jax.types import Annotated, Array, Extras, Metrics, Transition

_Data = tuple[Transition, Any]  # rows of a phase, and held-out ones
_Extras = tuple[Extras | None, Extras | None]  # on both


def start_states(init: Callable, mesh: Mesh, *arguments: Any, shared: Sequence[int] = ()) -> Any:
    """Initial states of all seeds, placed on the mesh.

    Args:
      init: pure, of one seed, such as (key, normalizer) -> state.
      mesh: devices.
      *arguments: of `init`, stacked [S].
      shared: positions of arguments without a seed axis.
    """
    return place(over_seeds(init, mesh, shared)(*jax.device_get(arguments)), mesh)


def run_phase(
    phase: Phase,
    state: PhaseState,
    dataset: Transition,
    keys: Array,
    mesh: Mesh,
    first_step: int = 0,
    checkpoint_every: int = 0,
    held_out: Transition | None = None,
) -> Events[PhaseState]:
    """Runs a phase of all seeds, or what is left of it, in compiled chunks, each of which is an event.

    How much is left follows from the state's own counter: `state.step − first_step` updates are done. A state of an
    event resumes as if it had never stopped, and a state from beyond the phase comes back as it is.

    With `phase.stop` a phase ends when all seeds have stopped, and a chunk is what lies between two checks. The counter
    is that of the phase's end afterwards, however many updates it took.

    A seed that diverges ends with its state before the chunk in which it did, and the others go on; its metrics are NaN
    from then on.

    Args:
      phase: pure, of one seed. Events have the log `<name>`: every chunk's mean metrics, where `step` counts the
        phase's updates; with `stop` also `<name>_measures`: at every check the measures, the `updates` that a seed has
        kept, and its `decision`.
      state: of all seeds [S], whose train state has a counter `step` [] that updates advance. Consumed: its memory is
        reused.
      dataset: transitions [N], shared by all seeds; a `Rollout` where the phase prepares it.
      keys: [S] PRNG keys of the phase; a resumed phase gets the same ones.
      mesh: devices.
      first_step: `state.step` where the phase begins.
      checkpoint_every: updates between events that ask to be saved; 0 for the end alone.
      held_out: transitions [M] for the checks, none of them in `dataset`; a `Rollout` where rows are prepared or
        `stop` has a report.

    Returns:
      Events, which lead to the state after the phase.

    Raises:
      ValueError: `stop` without `held_out`; the state is from before the phase, or all seeds have diverged.
      Interrupted: a signal has come, after an event that asks to be saved.
    """
    done = _done(phase, state, first_step, held_out)
    # the row of step 0 too is written again
    yield Event(phase.name, done, cut={file: done or -1 for file in (phase.name, f"{phase.name}_measures")})
    if done >= phase.updates:
        return state
    chunk, checkpoint_every = _intervals(phase, checkpoint_every)
    state, inputs = _begin(phase, state, replicate((dataset, held_out), mesh), keys, mesh)
    if not done:
        state, rows = _measure_start(phase, state, inputs, mesh)
        yield Event(phase.name, 0, rows)

    @functools.cache  # one program per length; all chunks but the last are alike where `chunk` divides the phase
    def program(length: int) -> Callable:
        return over_seeds(functools.partial(_chunk, phase, length), mesh, shared=(0,), donate=(4,))

    with progress(phase.name, phase.updates, initial=done) as bar:
        while done < phase.updates:
            stops = (_next_multiple(done, every) for every in (chunk, checkpoint_every) if every)
            length = min(phase.updates, *stops) - done
            state, metrics = program(length)(*inputs, state)
            done += length
            metrics, failed = jax.device_get((metrics, state.failed))
            bar.update(length)
            rows = {phase.name: metrics} if metrics else {}
            if failed.all():
                yield Event(phase.name, done, rows)
                raise _diverged(phase, done, len(failed))
            bar.set_postfix(_shown(phase, metrics, failed), refresh=False)
            if state.record is not None:
                measures = _measures(state.record)
                rows[f"{phase.name}_measures"] = measures
            at, ended = done, done == phase.updates
            if state.record is not None and measures["decision"].all():
                done, ended = phase.updates, True
                state = state.skip_to(jax.device_put(np.int32(first_step + done), state.step.sharding))
            stopping = interrupt.requested() and not ended
            due = ended or stopping or bool(checkpoint_every and at % checkpoint_every == 0)
            yield Event(phase.name, at, rows, state, save=due, ended=ended)
            if stopping:
                interrupt.end()
    return state


def _done(phase: Phase, state: PhaseState, first_step: int, held_out: Transition | None) -> int:
    """Returns the updates of a phase that a state has behind it; raises the error of a phase that cannot run."""
    if phase.stop is not None and held_out is None:
        raise ValueError(f"the phase {phase.name} can't stop by measures without held-out rows")
    if phase.stop is not None and phase.sample is not None:
        raise ValueError(f"the phase {phase.name} can't stop by measures: they are made of rows drawn uniformly")
    done = int(state.step) - first_step
    if done < 0:
        raise ValueError(
            f"the phase {phase.name} begins at step {first_step}, but the state is at step {int(state.step)}"
        )
    return done


def _intervals(phase: Phase, checkpoint_every: int) -> tuple[int, int]:
    """Returns the updates of a compiled chunk, and those between checkpoints."""
    if phase.stop is None:
        return _even_chunk(phase.chunk, phase.updates, checkpoint_every), checkpoint_every
    chunk = phase.stop.check_every_updates
    # checkpoints at checks, the last one not beyond the interval that was asked for
    return chunk, checkpoint_every and max(chunk, checkpoint_every // chunk * chunk)


def _begin(phase: Phase, state: PhaseState, data: _Data, keys: Array, mesh: Mesh) -> tuple[PhaseState, tuple[Any, ...]]:
    """Prepares the rows and what the report looks at; returns the state, and what every program of the phase reads."""
    extras: _Extras = (None, None)
    if phase.prepare is not None:
        prepare_all = functools.partial(_prepare, phase.prepare)
        state, extras = over_seeds(prepare_all, mesh, shared=(1,), donate=(0,))(state, data)
    reported: Any = None
    stop = phase.stop
    if stop is not None and stop.report is not None:

        def look(state: PhaseState, data: _Data, key: Array) -> Any:
            return report_rows(stop, state, data[1], key)

        reported = over_seeds(look, mesh, shared=(1,))(state, data, keys)
    return state, (data, extras, reported, keys)


def _measure_start(
    phase: Phase, state: PhaseState, inputs: tuple[Any, ...], mesh: Mesh
) -> tuple[PhaseState, dict[str, Any]]:
    """Measures a state before its first update; returns it, with the first check on record, and rows of the logs."""
    rows = {}
    if phase.measure_start:
        measure_all = over_seeds(functools.partial(_start, phase), mesh, shared=(0,))
        rows[phase.name] = jax.device_get(measure_all(*inputs, state))
    if phase.stop is not None:
        check_all = over_seeds(functools.partial(_first_check, phase), mesh, shared=(0,), donate=(4,))
        state = check_all(*inputs, state)
        assert state.record is not None
        rows[f"{phase.name}_measures"] = _measures(state.record)
    return state, rows


def _start(phase: Phase, data: _Data, extras: _Extras, reported: Any, key: Array, state: PhaseState) -> Metrics:
    """Metrics of the state as it comes, of one seed."""
    del reported
    rows = _annotated(data, extras)[0]
    return measure(phase.update, state.state, rows, key, MEASURED_BATCHES, phase.batch_size, phase.sample)


def _first_check(
    phase: Phase, data: _Data, extras: _Extras, reported: Any, key: Array, state: PhaseState
) -> PhaseState:
    """The check before the first update, of one seed."""
    assert phase.stop is not None
    held_out = _annotated(data, extras)[1]
    return check(phase.update, phase.stop, state, held_out, key, 0, phase.batch_size, reported)


def _chunk(
    phase: Phase, length: int, data: _Data, extras: _Extras, reported: Any, key: Array, state: PhaseState
) -> tuple[PhaseState, Metrics]:
    """`length` updates of one seed: state and mean metrics."""
    if phase.stop is None:
        return advance(phase, state, data[0], extras[0], key, length)
    rows, held_out = _annotated(data, extras)
    return run_until_stop(phase.update, phase.stop, state, rows, held_out, key, length, phase.batch_size, reported)


def _shown(phase: Phase, metrics: Metrics, failed: np.ndarray) -> dict[str, str]:
    """Returns what the progress bar shows; `failed` [S] bool says whose states have."""
    shown = {name: f"{np.nanmean(metrics[name]):.3g}" for name in phase.show}
    if failed.any():
        shown["diverged"] = f"{failed.sum()} of {len(failed)} seeds"
    return shown


def _diverged(phase: Phase, done: int, num_seeds: int) -> ValueError:
    """Returns the error of a phase in which no seed is left."""
    return ValueError(
        f"{phase.name} diverged: after {done} updates the networks of all {num_seeds} seeds are NaN or infinite; lower "
        "the learning rates, or look for outliers in the dataset's rewards"
    )


def advance(
    phase: Phase, state: PhaseState, dataset: Transition, extras: Extras | None, key: Array, num_updates: int
) -> tuple[PhaseState, Metrics]:
    """Updates of a phase without checks, of one seed: what `run_phase` compiles.

    Args:
      phase: whose update and sample to use.
      state: before the updates.
      dataset: transitions [N].
      extras: of `phase.prepare`, or None.
      key: PRNG key of the phase.
      num_updates: how many.

    Returns:
      The state and mean metrics, as of `PhaseState.settle`.
    """
    (rows,) = _annotated((dataset,), (extras,))
    moved, metrics = run_updates(phase.update, state.state, rows, key, num_updates, phase.batch_size, phase.sample)
    return state.settle(state.replace(state=moved), metrics)


def _prepare(prepare: Callable, state: PhaseState, data: _Data) -> tuple[PhaseState, _Extras]:
    """The prepared state, and extras of the rows of the phase and of held-out ones."""
    train_state, extras = prepare(state.state, data[0])
    held_out_extras = None if data[1] is None else prepare(train_state, data[1])[1]
    return state.replace(state=train_state), (extras, held_out_extras)


def _measures(record: Record) -> dict[str, np.ndarray]:
    """The newest check of all seeds: its terms, the updates that each seed has kept, and its decision; [S] each."""
    newest = {term: history[:, -1] for term, history in record.history.items()}
    return jax.device_get(newest | {"updates": record.updates, "decision": record.decision})


def _annotated(data: tuple[Any, ...], extras: tuple[Extras | None, ...]) -> list[Any]:
    return [rows if extra is None else Annotated.of(rows, extra) for rows, extra in zip(data, extras, strict=True)]


def _even_chunk(chunk: int, updates: int, checkpoint_every: int) -> int:
    """The longest chunk up to `chunk` that divides the phase and its checkpoints, if it isn't far shorter."""
    common = math.gcd(updates, checkpoint_every)
    longest = max(length for length in range(1, chunk + 1) if common % length == 0)
    return longest if 4 * longest >= min(chunk, updates) else chunk


def _next_multiple(done: int, interval: int) -> int:
    return (done // interval + 1) * interval
