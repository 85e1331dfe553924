"""Gradient steps, target networks, loops over updates."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o2o_jax.interfaces import Report, Stop
from o2o_jax.training import (
    DIVERGED,
    PhaseState,
    Record,
    check,
    clip_gradient,
    gradient_step,
    is_finite,
    mean_over_blocks,
    measure,
    polyak_update,
    report_rows,
    run_until_stop,
    run_updates,
    sample_batch,
    where,
)
from o2o_jax.types import Rollout, Transition


def dataset(size):
    row = jnp.arange(float(size))
    return Transition(row[:, None], row[:, None], row, row[:, None], jnp.zeros(size))


def test_clipped_gradient_by_hand():
    # of norm √(3² + 4²) = 5: a tenth of it, or all
    gradient = {"w": jnp.array([3.0, 0.0]), "b": jnp.array(4.0)}
    jax.tree.map(np.testing.assert_allclose, clip_gradient(gradient, 0.5), {"w": np.array([0.3, 0.0]), "b": 0.4})
    jax.tree.map(np.testing.assert_array_equal, clip_gradient(gradient, 5.5), gradient)


def test_gradient_step_by_hand():
    # 1 − 0.1 · 5 and 2 − 0.1 · (−5)
    optimizer = optax.sgd(0.1)
    params = {"w": jnp.array([1.0, 2.0])}
    params, _ = gradient_step(optimizer, {"w": jnp.array([5.0, -5.0])}, optimizer.init(params), params)
    np.testing.assert_allclose(params["w"], [0.5, 2.5])


def test_gradient_step_carries_the_optimiser_s_state():
    optimizer = optax.sgd(0.1, momentum=0.5)
    params = jnp.array(0.0)
    state = optimizer.init(params)
    for _ in range(2):
        params, state = gradient_step(optimizer, jnp.array(1.0), state, params)
    np.testing.assert_allclose(params, -0.1 * 1.0 - 0.1 * 1.5)


@pytest.mark.parametrize(
    ("at_once", "calls_of"),
    [(12, 12), (100, 12), (6, 6), (5, 4), (1, 1)],  # 12 rows: whole, or the largest of equal blocks that fit
)
def test_mean_over_blocks_by_hand(at_once, calls_of):
    sizes = []

    def loss(weight, rows):
        sizes.append(len(rows["x"]))
        error = weight * rows["x"] - rows["y"]
        return jnp.mean(jnp.square(error)), jnp.mean(error)

    def step(weight, rows):
        return mean_over_blocks(lambda block: jax.value_and_grad(loss, has_aux=True)(weight, block), rows, at_once)

    x = jnp.arange(12.0)
    (value, error), gradient = jax.jit(step)(2.0, {"x": x, "y": x + 1.0})
    # errors x − 1: squares 1 + Σ_{0…10} k², mean 4.5; gradient 2 mean x (x − 1) = 2 (506 − 66) / 12
    np.testing.assert_allclose((value, error, gradient), (386 / 12, 4.5, 880 / 12), rtol=1e-6)
    assert calls_of in sizes  # the other branch, of accelerators, is traced with all rows
    assert set(sizes) <= {calls_of, 12}


def test_rows_that_cannot_be_shared_evenly_are_taken_whole():
    sizes = []
    mean = mean_over_blocks(lambda rows: (sizes.append(len(rows)), jnp.mean(rows))[1], jnp.arange(7.0), 4)
    np.testing.assert_allclose(mean, 3.0, rtol=1e-6)
    assert sizes == [7]


@pytest.mark.parametrize(("platform", "in_turn"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_accelerators_take_all_rows_at_once(platform, in_turn):
    mean = jax.jit(lambda rows: mean_over_blocks(jnp.mean, rows, 4))
    program = mean.trace(jnp.arange(12.0)).lower(lowering_platforms=(platform,)).as_text()
    assert ("while" in program) == in_turn


def test_polyak_update_by_hand():
    # 0.75 · 4 + 0.25 · 8 = 5; rate 1 copies
    params, target = {"w": jnp.array([8.0])}, {"w": jnp.array([4.0])}
    np.testing.assert_allclose(polyak_update(params, target, 0.25)["w"], [5.0])
    np.testing.assert_allclose(polyak_update(params, target, 1.0)["w"], [8.0])


def test_where_chooses_whole_trees_and_per_seed():
    accepted, otherwise = {"w": jnp.ones((2, 3))}, {"w": jnp.zeros((2, 3))}
    np.testing.assert_array_equal(where(jnp.asarray(True), accepted, otherwise)["w"], accepted["w"])
    chosen = jax.vmap(where)(jnp.array([True, False]), accepted, otherwise)["w"]
    np.testing.assert_array_equal(chosen, [[1.0] * 3, [0.0] * 3])


@pytest.mark.parametrize(
    ("state", "finite"),
    [
        ({"a": jnp.ones((2, 3)), "b": jnp.zeros(()), "step": jnp.array(7)}, True),
        ({"a": jnp.ones((2, 3)), "b": jnp.array(jnp.nan)}, False),
        ({"a": jnp.ones((2, 3)).at[1, 2].set(-jnp.inf), "b": jnp.zeros(())}, False),
        ({"a": jnp.array([jnp.inf, -jnp.inf])}, False),
        ({"step": jnp.array(7)}, True),
        ({}, True),
    ],
)
def test_a_state_is_finite_if_every_number_is(state, finite):
    assert bool(is_finite(state)) is finite


def test_sample_batch_draws_whole_rows_of_the_whole_dataset():
    batch = sample_batch(dataset(10), jax.random.key(0), 1_000)
    np.testing.assert_array_equal(batch.observation[:, 0], batch.reward)
    np.testing.assert_array_equal(batch.next_observation, batch.action)
    counts = np.bincount(np.asarray(batch.reward, int), minlength=10)
    assert len(counts) == 10
    assert counts.min() > 50  # 100 each on average, with a deviation of 9.5


@flax.struct.dataclass
class Trace:
    """A state that remembers what every update got."""

    step: jax.Array
    rewards: jax.Array
    draws: jax.Array


def start(length=8):
    return Trace(jnp.zeros((), jnp.int32), jnp.zeros((length, 4)), jnp.zeros(length))


def remember(state, batch, key):
    rewards = state.rewards.at[state.step].set(batch.reward)
    draws = state.draws.at[state.step].set(jax.random.uniform(key))
    metric = jnp.where(state.step % 2 == 0, jnp.nan, state.step.astype(jnp.float32))
    state = state.replace(step=state.step + 1, rewards=rewards, draws=draws)
    return state, {"every": state.step.astype(jnp.float32), "delayed": metric}


@pytest.mark.parametrize(
    ("updates", "size", "words"),
    [(-1, 4, "num_updates .* at least 0, got -1"), (2.5, 4, "num_updates .* got 2.5"), (2, 0, "batch_size .* got 0")],
)
def test_counts_that_are_none_are_refused(updates, size, words):
    with pytest.raises(ValueError, match=words):
        run_updates(remember, start(), dataset(10), jax.random.key(0), num_updates=updates, batch_size=size)


def test_run_updates_gives_each_update_a_batch_and_a_key_of_its_own():
    state, _ = run_updates(remember, start(), dataset(1_000), jax.random.key(0), num_updates=8, batch_size=4)
    assert state.step == 8
    assert len(np.unique(state.draws)) == 8
    assert len(np.unique(state.rewards)) > 28


def test_run_updates_repeats_the_unbroken_run_when_resumed():
    arguments = {"dataset": dataset(1_000), "key": jax.random.key(0), "batch_size": 4}
    whole, _ = run_updates(remember, start(), num_updates=8, **arguments)
    part, _ = run_updates(remember, start(), num_updates=3, **arguments)
    part, _ = run_updates(remember, part, num_updates=5, **arguments)
    jax.tree.map(np.testing.assert_array_equal, whole, part)


def test_batches_can_be_drawn_otherwise():
    def first_rows(dataset, key, batch_size):
        return jax.tree.map(lambda column: column[:batch_size], dataset)

    arguments = {"dataset": dataset(1_000), "key": jax.random.key(0), "batch_size": 4, "sample": first_rows}
    state, _ = run_updates(remember, start(), num_updates=8, **arguments)
    np.testing.assert_array_equal(state.rewards, np.tile(np.arange(4.0), (8, 1)))
    report = lambda state, batch, key: (state, {"reward": jnp.mean(batch.reward)})
    assert measure(report, start(), num_batches=2, **arguments)["reward"] == 1.5


def test_run_updates_averages_metrics_and_leaves_skipped_ones_out():
    # steps 0 … 7: `every` is 1 … 8; `delayed` is NaN at even steps, else 1, 3, 5, 7
    _, metrics = run_updates(remember, start(), dataset(10), jax.random.key(0), num_updates=8, batch_size=4)
    np.testing.assert_allclose([metrics["every"], metrics["delayed"]], [4.5, 4.0])


def test_measure_takes_no_step():
    # what the first update reports, `every` 1, whatever the number of batches; each batch is another
    def report(state, batch, key):
        state, metrics = remember(state, batch, key)
        return state, metrics | {"reward": jnp.mean(batch.reward)}

    arguments = {"state": start(), "dataset": dataset(1_000), "key": jax.random.key(0), "batch_size": 4}
    one, many = (measure(report, num_batches=count, **arguments) for count in (1, 200))
    assert one["every"] == many["every"] == 1
    assert one["reward"] != many["reward"]
    np.testing.assert_allclose(many["reward"], 499.5, atol=50)  # 800 rows uniform in 0 … 999: ± 10


STOP = Stop(
    terms=("every",),
    decide=lambda history: jnp.where(history["every"][0] >= 3.0, 2, 0),
    reasons=("never", "three some checks ago"),
    check_every_updates=2,
    window_checks=2,
    min_updates=4,
)


def test_a_record_keeps_the_window_s_checks_and_waits_for_its_updates():
    record, decisions = Record.start(STOP), []
    for i, value in enumerate([3.0, 4.0, 5.0, 6.0, 7.0]):
        record = record.check(STOP, {"every": value, "other": 0.0}, 2 if i else 0)
        decisions.append(int(record.decision))
    # the oldest of three values is 3 at the third check, after 4 updates; it is NaN before
    assert decisions == [0, 0, 2, 2, 2]
    np.testing.assert_array_equal(record.history["every"], [5, 6, 7])
    assert int(record.updates) == 8
    late = Record.start(STOP).check(STOP, {"every": 9.0}, 3)
    assert int(late.decision) == 0
    np.testing.assert_array_equal(late.history["every"], [np.nan, np.nan, 9])


def test_a_record_of_what_diverged_says_so():
    for value in (jnp.nan, jnp.inf):
        assert int(Record.start(STOP).check(STOP, {"every": jnp.asarray(value)}, 2).decision) == DIVERGED


REPORT = Report(
    terms=("ahead", "unknown"),
    prepare=lambda key, state, held_out: held_out.reward[-1] + 0.0 * state.step,
    measure=lambda state, rows: {"ahead": rows + state.step, "unknown": jnp.nan, "other": 0.0},
)


@pytest.mark.parametrize("terms", [(), ("every",)])
def test_a_check_has_its_report_s_terms_and_no_decision_on_their_nan(terms):
    # rows: the last reward, 9; the report is that and the updates made: 9 + 0 and 9 + 2
    stop = dataclasses.replace(STOP, terms=terms, decide=lambda history: 0, reasons=(), report=REPORT)
    assert stop.measures == (*terms, "ahead", "unknown")
    held_out = Rollout(**vars(dataset(10)), truncated=jnp.zeros(10))
    current, key = PhaseState.start(start(), stop), jax.random.key(0)
    rows = report_rows(stop, current, held_out, key)
    current = check(remember, stop, current, held_out, key, 0, 4, rows)
    current, _ = run_until_stop(remember, stop, current, dataset(10), held_out, key, 2, 4, rows)
    np.testing.assert_array_equal(current.record.history["ahead"], [np.nan, 9.0, 11.0])
    assert np.isnan(current.record.history["unknown"]).all()
    assert (int(current.record.decision), int(current.record.updates)) == (0, 2)
    assert report_rows(STOP, current, held_out, key) is None


def test_a_check_takes_the_same_rows_and_draws_every_time():
    def report(state, batch, key):
        return state, {"every": jnp.mean(batch.reward) + jax.random.uniform(key) + state.step}

    found = []
    for step in (0, 7):
        current = PhaseState.start(start().replace(step=jnp.asarray(step)), STOP)
        current = check(report, STOP, current, dataset(1_000), jax.random.key(0), 2, 4)
        found.append(float(current.record.history["every"][-1]) - step)
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_state_with_a_decision_stays_while_its_counter_goes_on():
    # the measure is the number of the update that would come next: 1 at the first check, then 3, 5, 7, 9
    arguments = (dataset(10), dataset(10), jax.random.key(0), 2, 4)
    current = check(remember, STOP, PhaseState.start(start(20), STOP), dataset(10), arguments[2], 0, 4)
    trail, metrics = [], []
    for _ in range(5):
        current, metric = run_until_stop(remember, STOP, current, *arguments)
        trail.append(current)
        metrics.append(float(metric["every"]))
    assert [int(w.record.decision) for w in trail] == [0, 0, 2, 2, 2]  # 3 is the oldest of 3, 5, 7
    assert [int(w.record.updates) for w in trail] == [2, 4, 6, 6, 6]
    assert [int(w.step) for w in trail] == [2, 4, 6, 8, 10]
    np.testing.assert_array_equal(metrics, [1.5, 3.5, 5.5, np.nan, np.nan])
    jax.tree.map(np.testing.assert_array_equal, trail[-1].skip_to(trail[2].step), trail[2])
    alone, _ = run_updates(remember, start(20), dataset(10), arguments[2], 6, 4)
    jax.tree.map(np.testing.assert_array_equal, trail[2].state, alone)
