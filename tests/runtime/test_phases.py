"""Phases on a dataset: resuming, chunks, CSV rows, divergence."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.interfaces import Phase, Stop
from o2o_jax.runtime import log, phases, seeds
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.events import finish
from o2o_jax.training import PhaseState, run_updates
from o2o_jax.types import Extras, Rollout, Transition, counter
from tests import tiny

ROWS = jnp.arange(50.0)
DATASET = Transition(ROWS[:, None], ROWS[:, None], ROWS, ROWS[:, None], jnp.zeros(50))
ROLLOUT = Rollout(**vars(DATASET), truncated=(ROWS % 10 == 9).astype(jnp.float32))


@flax.struct.dataclass
class State:
    total: jax.Array
    step: jax.Array = counter()


def init(key):
    return State(jax.random.uniform(key), jnp.zeros((), jnp.int32))


def update(state, batch, key):
    total = 0.9 * state.total + jnp.mean(batch.reward) + jax.random.uniform(key)
    return State(total, state.step + 1), {"step_seen": state.step.astype(jnp.float32), "total": total}


def ignored(state, done):
    pass


@pytest.fixture(params=[1, 2])
def mesh(request):
    return seed_mesh(2, request.param)


def run(mesh, folder, state=None, updates=10, function=update, dataset=DATASET, checkpoint=ignored, **arguments):
    """Runs the phase; `checkpoint` gets every state that asks to be saved, and its updates."""
    keys = seeds.keys(range(2), "test")
    state = phases.start_states(init, mesh, keys) if state is None else state
    fields = {name: arguments.pop(name) for name in Phase._fields if name in arguments}
    phase = Phase("phase", function, updates, 4, **fields)
    events = phases.run_phase(phase, unfailed(state, mesh), dataset, keys, mesh, **arguments)
    return follow(events, folder, lambda state, step: checkpoint(state.state, step)).state


def unfailed(state, mesh):
    return PhaseState(state, seeds.place(np.zeros(len(jax.tree.leaves(state)[0]), bool), mesh))


def follow(events, folder, checkpoint):
    def take(event):
        metric_log.take(event)
        if event.save:
            checkpoint(event.run, int(event.run.step))

    with log.MetricLog(folder) as metric_log:
        return finish(events, take)


def test_rows_are_means_over_chunks_and_count_updates(tmp_path, mesh):
    run(mesh, tmp_path, chunk=5)
    columns = log.read(tmp_path, "phase")
    assert columns["step"].tolist() == [5, 5, 10, 10]
    assert columns["seed"].tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(columns["step_seen"], [2, 2, 7, 7])  # (0 + … + 4) / 5, (5 + … + 9) / 5
    assert columns["total"][0] != columns["total"][1]


def test_the_log_can_begin_with_the_state_as_it_comes(tmp_path, mesh):
    measured = run(mesh, tmp_path / "measured", chunk=5, measure_start=True)
    run(mesh, tmp_path / "measured", seeds.place(phases.start_states(init, mesh, seeds.keys(range(2), "test")), mesh),
        chunk=5, measure_start=True)  # stopped before its first checkpoint: begins again  # fmt: skip
    columns = log.read(tmp_path / "measured", "phase")
    assert columns["step"].tolist() == [0, 0, 5, 5, 10, 10]
    np.testing.assert_allclose(columns["step_seen"], [0, 0, 2, 2, 7, 7])
    np.testing.assert_allclose(measured.total, run(mesh, tmp_path / "plain", chunk=5).total, rtol=1e-6)


def test_chunks_do_not_change_the_result(tmp_path, mesh):
    whole = run(mesh, tmp_path / "whole")
    parts = run(mesh, tmp_path / "parts", chunk=3)  # 3 does not divide 10; 2 is the largest divisor
    assert np.unique(log.read(tmp_path / "parts", "phase")["step"]).tolist() == [2, 4, 6, 8, 10]
    np.testing.assert_allclose(whole.total, parts.total, rtol=1e-6)
    assert int(whole.step) == 10


def test_resumed_phase_repeats_the_unbroken_one(tmp_path, mesh):
    saved = {}

    def save(state, done):
        saved[done] = jax.device_get(state)

    arguments = {"chunk": 2, "checkpoint_every": 4}
    whole = run(mesh, tmp_path / "whole", checkpoint=save, **arguments)
    assert list(saved) == [4, 8, 10]
    run(mesh, tmp_path / "parts", updates=6, chunk=2)  # stopped after it logged more than it saved
    parts = run(mesh, tmp_path / "parts", seeds.place(saved[4], mesh), **arguments)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    columns = [log.read(tmp_path / name, "phase") for name in ("whole", "parts")]
    assert columns[0]["step"].tolist() == columns[1]["step"].tolist()
    jax.tree.map(np.testing.assert_array_equal, *columns)


def test_phases_share_the_counter(tmp_path, mesh):
    state = run(mesh, tmp_path / "first", updates=4)
    state = run(mesh, tmp_path / "second", state, updates=6, first_step=4, chunk=3)
    assert int(state.step) == 10
    assert np.unique(log.read(tmp_path / "second", "phase")["step"]).tolist() == [3, 6]


def test_a_phase_that_is_over_returns_its_state(tmp_path, mesh):
    state = run(mesh, tmp_path, updates=4)
    calls = []
    assert run(mesh, tmp_path, state, updates=3, checkpoint=lambda *call: calls.append(call)) is state
    assert calls == []


def test_a_state_from_before_the_phase_is_an_error(tmp_path, mesh):
    with pytest.raises(ValueError, match="phase begins at step 4, but the state is at step 0"):
        run(mesh, tmp_path, first_step=4)


@pytest.mark.parametrize(
    ("chunk", "updates", "every", "expected"),
    [
        (1_000, 1_000_000, 50_000, 1_000),
        (1_000, 10, 5, 5),
        (1_000, 1_600, 0, 800),
        (1_000, 100_003, 0, 1_000),  # a prime: one shorter chunk at the end instead of many short ones
    ],
)
def test_chunk_divides_where_it_can(chunk, updates, every, expected):
    assert phases._even_chunk(chunk, updates, every) == expected


def broken_update(state, batch, key):
    state, metrics = update(state, batch, key)
    return state.replace(total=jnp.full((), jnp.nan)), metrics


def test_all_seeds_diverged_stops(tmp_path, mesh):
    saved = []
    with pytest.raises(
        ValueError, match="phase diverged: after 5 updates the networks of all 2 seeds are NaN"
    ) as error:
        run(mesh, tmp_path, function=broken_update, chunk=5, checkpoint=lambda *call: saved.append(call))
    assert "\n" not in str(error.value)
    assert saved == []
    assert log.read(tmp_path, "phase")["step"].tolist() == [5, 5]


@flax.struct.dataclass
class Frail:
    total: jax.Array
    breaks: jax.Array  # [] bool, whether update 7 makes NaN of it
    step: jax.Array = counter()


def wear(state, batch, key):
    moved, metrics = update(State(state.total, state.step), batch, key)
    total = jnp.where(state.breaks & (state.step == 7), jnp.nan, moved.total)
    return Frail(total, state.breaks, moved.step), metrics


def frail(mesh, breaks):
    keys = seeds.keys(range(2), "test")
    return phases.start_states(
        lambda key, breaks: Frail(init(key).total, breaks, init(key).step), mesh, keys, np.array(breaks)
    )


def test_a_seed_that_diverges_ends_with_its_last_good_state(tmp_path, mesh):
    whole = run(mesh, tmp_path / "whole", frail(mesh, [False, False]), 15, wear, chunk=5)
    five = run(mesh, tmp_path / "five", frail(mesh, [False, False]), 5, wear, chunk=5)
    saved = []
    broken = run(
        mesh,
        tmp_path / "broken",
        frail(mesh, [True, False]),
        15,
        wear,
        chunk=5,
        checkpoint_every=5,
        checkpoint=lambda state, step: saved.append(jax.device_get(state.total)),
    )
    np.testing.assert_array_equal(broken.total, [five.total[0], whole.total[1]])
    np.testing.assert_array_equal([total[0] for total in saved], five.total[0])  # never a number that isn't finite
    logged = [log.read(tmp_path / name, "phase")["total"].reshape(3, 2) for name in ("whole", "broken")]
    np.testing.assert_array_equal(logged[1][:, 1], logged[0][:, 1])
    np.testing.assert_array_equal(logged[1][0], logged[0][0])
    assert np.isnan(logged[1][2, 0])


def test_a_seed_that_has_failed_stays_so(tmp_path, mesh):
    state = PhaseState(frail(mesh, [False, False]), seeds.place(np.array([True, False]), mesh))
    keys = seeds.keys(range(2), "test")
    before = float(state.state.total[0])
    end = finish(phases.run_phase(Phase("phase", wear, 10, 4, chunk=5), state, DATASET, keys, mesh))
    assert float(end.state.total[0]) == before
    np.testing.assert_array_equal(end.failed, [True, False])
    assert int(end.step) == 10


def test_seed_alone_is_as_among_others(tmp_path):
    both = run(seed_mesh(2, 1), tmp_path / "both")
    mesh = seed_mesh(1, 1)
    keys = seeds.keys([1], "test")
    state = phases.start_states(init, mesh, keys)
    with log.MetricLog(tmp_path / "alone") as metric_log:
        phase = Phase("phase", update, 10, 4)
        alone = finish(phases.run_phase(phase, unfailed(state, mesh), DATASET, keys, mesh), metric_log.take).state
    np.testing.assert_allclose(alone.total[0], both.total[1], rtol=1e-6)


def test_what_a_state_began_from_survives_the_phase(tmp_path, mesh):
    # the phase consumes its state, never the arrays that the state was made of
    given = np.arange(2.0 * 3).reshape(2, 3).astype(np.float32)
    keys = seeds.keys(range(2), "test")
    state = phases.start_states(lambda key, held: State((held, 2 * held), jnp.zeros((), jnp.int32)), mesh, keys, given)

    def grow(state, batch, key):
        return State((state.total[0], state.total[1] + 1), state.step + 1), {"first": state.total[0][0]}

    state = run(mesh, tmp_path, state, function=grow, chunk=5)
    np.testing.assert_array_equal(given, np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(state.total[0], given)
    np.testing.assert_array_equal(state.total[1], 2 * given + 10)


@flax.struct.dataclass
class Prepared:
    """A state with a part that the phase leaves alone."""

    constant: jax.Array
    rows: jax.Array
    step: jax.Array = counter()


def prepare(state, dataset):
    """Extras of both kinds: how many ends come before a row, and the row's reward times the seed's constant."""
    ends = jnp.cumsum(dataset.ended) - dataset.ended
    state = state.replace(rows=jnp.asarray(dataset.reward.shape[0], jnp.float32))
    return state, Extras(shared={"ends": ends}, own=state.constant * dataset.reward)


def check_extras(state, batch, key):
    """Metrics that are 0 where every row came with its own extras."""
    errors = {
        "ends": jnp.abs(batch.extras.shared["ends"] - batch.reward // 10).max(),
        "own": jnp.abs(batch.extras.own - state.constant * batch.reward).max(),
        "rows": jnp.abs(state.rows - 50),
    }
    return state.replace(step=state.step + 1), errors


def test_batches_of_a_prepared_phase_bring_their_extras(tmp_path, mesh):
    keys = seeds.keys(range(2), "test")
    state = phases.start_states(
        lambda key: Prepared(jax.random.uniform(key), jnp.zeros(()), jnp.zeros((), jnp.int32)), mesh, keys
    )
    assert state.constant[0] != state.constant[1]
    state = run(mesh, tmp_path, state, 5, check_extras, ROLLOUT, prepare=prepare)
    state = run(mesh, tmp_path, state, 10, check_extras, ROLLOUT, prepare=prepare)  # resumed
    columns = log.read(tmp_path, "phase")
    assert columns["step"].tolist() == [5, 5, 10, 10]
    for term in ("ends", "own", "rows"):
        np.testing.assert_allclose(columns[term], 0.0, atol=1e-6, err_msg=term)


def test_extras_of_the_data_alone_are_kept_once(mesh):
    keys = seeds.keys(range(2), "test")
    state = phases.start_states(
        lambda key: Prepared(jax.random.uniform(key), jnp.zeros(()), jnp.zeros((), jnp.int32)), mesh, keys
    )
    _, extras = seeds.over_seeds(prepare, mesh, shared=(1,))(state, seeds.replicate(ROLLOUT, mesh))
    assert (extras.shared["ends"].shape, extras.own.shape) == ((50,), (2, 50))


def test_batches_can_be_drawn_otherwise(tmp_path, mesh):
    def last_rows(dataset, key, batch_size):
        return jax.tree.map(lambda column: column[-batch_size:], dataset)

    def report(state, batch, key):
        return state.replace(step=state.step + 1), {"reward": jnp.mean(batch.reward)}

    run(mesh, tmp_path, chunk=5, function=report, sample=last_rows, measure_start=True)
    np.testing.assert_allclose(log.read(tmp_path, "phase")["reward"], 47.5)  # of rows 46 to 49, at the start too


def test_batches_drawn_otherwise_have_no_measures(tmp_path):
    with pytest.raises(ValueError, match="^the phase phase can't stop by measures: they are made of rows drawn uni"):
        run_until_stop(seed_mesh(2, 1), tmp_path, sample=lambda dataset, key, batch_size: dataset)


# On held-out rows, all of reward 24.5, `total` is 0.9 of the state's own, and 24.5 and a uniform number more. From 0
# and from 120 the state follows it to about 250: the second seed is first at 180.
HELD_OUT = DATASET.replace(reward=jnp.full(50, 24.5))
STOP = Stop(
    terms=("total",),
    decide=lambda history: (history["total"][-1] >= 180.0).astype(jnp.int32),
    reasons=("high enough",),
    check_every_updates=2,
    window_checks=1,
)


def start_early_stopping(mesh, seed_list=(0, 1), stop=STOP):
    def init_early_stopping(key, total):
        return PhaseState.start(State(total, jnp.zeros((), jnp.int32)), stop)

    totals = np.array([0.0, 120.0], np.float32)[list(seed_list)]
    return phases.start_states(init_early_stopping, mesh, seeds.keys(seed_list, "test"), totals)


def run_until_stop(mesh, folder, state=None, seed_list=(0, 1), updates=40, stop=STOP, checkpoint=ignored, **arguments):
    state = start_early_stopping(mesh, seed_list, stop) if state is None else state
    keys = seeds.keys(seed_list, "test")
    fields = {name: arguments.pop(name) for name in Phase._fields if name in arguments}
    phase = Phase("phase", update, updates, 4, stop=stop, **fields)
    return follow(
        phases.run_phase(phase, state, DATASET, keys, mesh, held_out=HELD_OUT, **arguments), folder, checkpoint
    )


def test_every_seed_stops_at_its_own_time(tmp_path, mesh):
    state = run_until_stop(mesh, tmp_path)
    kept = np.asarray(state.record.updates)
    assert 0 < kept[1] < kept[0] < 40
    assert np.asarray(state.record.decision).tolist() == [1, 1]
    assert int(state.step) == 40  # the phase is over for what counts by it
    measures, metrics = log.read(tmp_path, "phase_measures"), log.read(tmp_path, "phase")
    last = int(kept[0])
    assert measures["step"].tolist() == np.repeat(np.arange(0, last + 1, 2), 2).tolist()
    assert metrics["step"].tolist() == measures["step"][2:].tolist()
    for seed in range(2):
        of_seed = measures["seed"] == seed
        steps, total = measures["step"][of_seed], measures["total"][of_seed]
        np.testing.assert_array_equal(measures["updates"][of_seed], np.minimum(steps, kept[seed]))
        np.testing.assert_array_equal(measures["decision"][of_seed], steps >= kept[seed])
        np.testing.assert_array_equal(total >= 180.0, steps >= kept[seed])
        np.testing.assert_array_equal(np.isnan(metrics["total"][metrics["seed"] == seed]), steps[1:] > kept[seed])
        np.testing.assert_allclose(state.record.history["total"][seed, -1], total[-1], rtol=1e-6)
        # a stopped seed is what as many updates make of it
        key = seeds.keys([seed], "test")[0]
        begun = State(jnp.float32(120.0 * seed), jnp.zeros((), jnp.int32))
        plain, _ = run_updates(update, begun, DATASET, key, int(kept[seed]), 4)
        np.testing.assert_allclose(state.state.total[seed], plain.total, rtol=1e-6)


def test_a_seed_stops_alone_as_among_others(tmp_path):
    both = run_until_stop(seed_mesh(2, 1), tmp_path / "both")
    for seed in range(2):
        alone = run_until_stop(seed_mesh(1, 1), tmp_path / str(seed), seed_list=[seed])
        compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6)
        jax.tree.map(compare, seeds.take(both, seed), seeds.take(alone, 0))


def test_a_phase_that_stops_by_measures_goes_on_where_it_stopped(tmp_path, mesh):
    saved = {}

    def save(state, done):
        saved[done] = jax.device_get(state)

    arguments = {"checkpoint": save, "checkpoint_every": 5}  # at the check before: every 4 updates
    whole = run_until_stop(mesh, tmp_path / "whole", **arguments)
    steps = list(saved)
    assert steps[:2] == [4, 8]
    assert steps[-1] == 40  # where the phase ends, whatever it took
    # one at which the second seed had stopped and the first had not
    middle = next(done for done in steps if saved[done].record.decision.tolist() == [0, 1])
    run_until_stop(mesh, tmp_path / "parts", updates=middle + 2)  # logged more than it saved
    parts = run_until_stop(mesh, tmp_path / "parts", seeds.place(saved[middle], mesh), **arguments)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    for phase in ("phase", "phase_measures"):
        jax.tree.map(np.testing.assert_array_equal, *(log.read(tmp_path / name, phase) for name in ("whole", "parts")))
    again = run_until_stop(mesh, tmp_path / "parts", parts)
    assert again is parts


def test_updates_without_a_decision_end_with_the_phase(tmp_path):
    never = Stop(("total",), lambda history: jnp.zeros((), jnp.int32), (), check_every_updates=3, window_checks=1)
    state = run_until_stop(seed_mesh(2, 1), tmp_path, updates=8, stop=never, measure_start=True)
    assert np.asarray(state.record.updates).tolist() == [8, 8]
    assert log.read(tmp_path, "phase")["step"].tolist() == np.repeat([0, 3, 6, 8], 2).tolist()
    assert log.read(tmp_path, "phase_measures")["step"].tolist() == np.repeat([0, 3, 6, 8], 2).tolist()


def test_stopping_seeds_compiles_nothing_again(tmp_path):
    mesh = seed_mesh(2, 1)
    state = start_early_stopping(mesh)
    with tiny.compilations() as compiled:
        run_until_stop(mesh, tmp_path, state)
    assert len(compiled) == 2  # the first check, and what lies between two


def test_a_phase_can_not_stop_by_measures_without_rows_for_them(tmp_path):
    mesh = seed_mesh(2, 1)
    with pytest.raises(ValueError, match="the phase phase can't stop by measures without held-out rows"):
        run(mesh, tmp_path, start_early_stopping(mesh), stop=STOP)
