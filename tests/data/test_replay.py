"""The ring of fresh transitions, and batches mixed from it and a dataset."""

import functools
import re
import typing

import hypothesis.strategies as some
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from o2o_jax.data import replay
from o2o_jax.data.replay.prefilled import loaded_rows
from o2o_jax.data.returns import RecordedReturns, ReturnsToGo
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.seeds import over_seeds, seed_axes
from o2o_jax.types import Annotated, Extras, Rollout, Spec, Transition
from tests import tiny

SPEC = Spec(observation_dim=2, action_dim=1)
DATASET_SIZE = 6
MODES = typing.get_args(replay.Mode)
insert = jax.jit(replay.insert)


@functools.partial(jax.jit, static_argnames=("batch_size", "mode"))
def sample(buffer, dataset, key, batch_size, mode):
    """A batch by the rule of a mode."""
    return replay.make(mode, 1, batch_size).sample(buffer, dataset, key)


def transitions(values):
    """Transitions [...] of whose numbers every one says which transition it is."""
    values = np.asarray(values, np.float32)
    pair = np.stack([values, values], axis=-1)
    return Transition(pair, values[..., None], values, pair + np.float32(0.5), values)


@functools.cache
def filled(capacity, count):
    """A ring after the insertion of 0, 1, …, count − 1."""
    buffer = replay.make_buffer(SPEC, capacity)
    for value in range(count):
        buffer = insert(buffer, transitions(value))
    return buffer


def dataset():
    """Six transitions, −1 to −6, so that none is mistaken for a fresh one."""
    return transitions(-1 - np.arange(DATASET_SIZE))


def test_an_empty_ring():
    buffer = replay.make_buffer(SPEC, 4)
    assert (int(buffer.position), int(buffer.size)) == (0, 0)
    assert jax.tree.map(jnp.shape, buffer.storage) == Transition((4, 2), (4, 1), (4,), (4, 2), (4,))


def rollout(length, count):
    """A rollout ring after steps 0, 1, …, count − 1, of which every third terminates and every fourth is cut off."""
    buffer = replay.rollout(length).init(SPEC)
    for value in range(count):
        step = transitions(value).replace(terminated=np.float32(value % 3 == 2))
        buffer = insert(buffer, Rollout(**vars(step), truncated=np.float32(value % 4 == 3)))
    return buffer


def test_a_rollout_that_has_come_round_lies_in_the_order_of_time():
    buffer = rollout(4, 8)
    assert (int(buffer.position), int(buffer.size)) == (0, 4)
    np.testing.assert_array_equal(buffer.storage.reward, [4, 5, 6, 7])
    np.testing.assert_array_equal(buffer.storage.terminated, [0, 1, 0, 0])
    np.testing.assert_array_equal(buffer.storage.truncated, [0, 0, 0, 1])
    np.testing.assert_array_equal(buffer.storage.next_observation[:, 0], [4.5, 5.5, 6.5, 7.5])


def test_a_ring_of_transitions_leaves_ends_of_episodes_out():
    buffer = insert(replay.make_buffer(SPEC, 4), Rollout(**vars(transitions(7)), truncated=np.float32(1)))
    jax.tree.map(np.testing.assert_array_equal, buffer, insert(replay.make_buffer(SPEC, 4), transitions(7)))
    assert type(buffer.storage) is Transition


@pytest.mark.parametrize(
    ("count", "truncated"),
    [(2, [0, 1, 0, 0]), (3, [0, 0, 0, 0]), (5, [1, 0, 0, 1]), (8, [0, 0, 0, 1])],  # the third step terminated
)
def test_cut_ends_the_episode_at_the_newest_step(count, truncated):
    buffer = rollout(4, count)
    after = jax.jit(replay.rollout(4).cut)(buffer)
    np.testing.assert_array_equal(after.storage.truncated, truncated)
    kept = buffer.storage.replace(truncated=after.storage.truncated)
    jax.tree.map(np.testing.assert_array_equal, after, buffer.replace(storage=kept))


@pytest.mark.parametrize("mode", MODES)
def test_cut_leaves_transitions_alone(mode):
    buffer = filled(4, 3)
    assert replay.make(mode, 4, 2).cut(buffer) is buffer


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_ring_needs_room(capacity):
    with pytest.raises(ValueError, match=f"room for at least 1 transition, got {capacity}"):
        replay.make_buffer(SPEC, capacity)


@pytest.mark.parametrize(
    ("count", "rewards", "position", "size"),
    [
        (1, [0], 1, 1),
        (3, [0, 1, 2], 0, 3),
        (4, [3, 1, 2], 1, 3),
        (8, [6, 7, 5], 2, 3),
    ],
)
def test_the_ring_overwrites_its_oldest_row(count, rewards, position, size):
    buffer = filled(3, count)
    rows = jax.tree.map(lambda column: np.asarray(column)[:size], buffer.storage)
    jax.tree.map(np.testing.assert_array_equal, rows, transitions(rewards))
    assert (int(buffer.position), int(buffer.size)) == (position, size)


def test_half_takes_exactly_half_from_each_source():
    batch = sample(filled(5, 7), dataset(), jax.random.key(0), 200, "half")
    np.testing.assert_array_equal(batch.reward[:100] < 0, True)
    assert set(np.asarray(batch.reward[:100])) == {-1, -2, -3, -4, -5, -6}
    assert set(np.asarray(batch.reward[100:])) == {2, 3, 4, 5, 6}  # 0 and 1 are overwritten


def test_half_of_an_odd_batch_is_rounded_down():
    batch = sample(filled(5, 7), dataset(), jax.random.key(0), 5, "half")
    assert int(jnp.sum(batch.reward < 0)) == 2


def test_half_draws_the_two_sources_apart():
    # both have six rows: with one stream of rows for both, a row's partner would be the row of the same number
    batch = sample(filled(6, 6), dataset(), jax.random.key(0), 200, "half")
    assert np.any(np.asarray(-1.0 - batch.reward[:100]) != np.asarray(batch.reward[100:]))


@pytest.mark.parametrize("mode", ["all", "part"])
def test_union_draws_every_row_alike(mode):
    # of 6 + 2 rows, 3 of 4 draws are offline: 6,000 of 8,000 with a deviation of 39; each row 1,000 with 30
    batch = sample(filled(5, 2), dataset(), jax.random.key(0), 8_000, mode)
    assert abs(int(jnp.sum(batch.reward < 0)) - 6_000) < 4 * 39
    rows, counts = np.unique(np.asarray(batch.reward), return_counts=True)
    assert rows.tolist() == [-6, -5, -4, -3, -2, -1, 0, 1]
    assert np.all(np.abs(counts - 1_000) < 4 * 30)


@pytest.mark.parametrize("mode", ["all", "part"])
def test_union_is_exact_at_the_border(mode, monkeypatch):
    # rows 0 … 5 are the dataset's, in order, 6 … 8 those of the ring, in order
    def every_row(key, shape, low, high):
        del key
        assert (shape, low, int(high)) == ((9,), 0, 9)
        return jnp.arange(9)

    monkeypatch.setattr(jax.random, "randint", every_row)
    rule = replay.make(mode, 5, 9)
    batch = rule.sample(filled(5, 3), jax.tree.map(jnp.asarray, dataset()), jax.random.key(0))
    np.testing.assert_array_equal(batch.reward, [-1, -2, -3, -4, -5, -6, 0, 1, 2])


def test_none_leaves_the_dataset_out():
    batch = sample(filled(5, 3), None, jax.random.key(0), 100, "none")
    assert set(np.asarray(batch.reward)) == {0, 1, 2}


AUTO = replay.auto(5, 40, warmup_env_steps=6)


def regimes(*regime):
    """A buffer like `filled(5, 7)` of a seed of each regime."""
    buffer = AUTO.init(SPEC)
    for value in range(7):
        buffer = jax.jit(AUTO.add)(buffer, transitions(value))
    return buffer.replace(regime=jnp.array(regime, jnp.int32))


@pytest.mark.parametrize(("regime", "mode"), [(1, "none"), (0, "half"), (-1, "all")])
def test_auto_draws_what_the_mode_of_its_regime_draws(regime, mode):
    expected = sample(filled(5, 7), dataset(), jax.random.key(0), 40, mode)
    batch = jax.jit(AUTO.sample)(regimes(regime).replace(regime=jnp.asarray(regime)), dataset(), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, batch, expected)
    shares = {"none": {0}, "half": {20}, "all": range(10, 33)}  # 6 of 11 rows: 22 of 40, with a deviation of 3
    assert int(jnp.sum(expected.reward < 0)) in shares[mode]


@pytest.mark.parametrize(("env_steps", "of_dataset"), [(6, 20), (7, 0)])
def test_auto_draws_half_while_a_better_policy_warms_up(env_steps, of_dataset):
    buffer = regimes(1).replace(regime=jnp.asarray(1), env_steps=jnp.asarray(env_steps))
    assert int(jnp.sum(jax.jit(AUTO.sample)(buffer, dataset(), jax.random.key(0)).reward < 0)) == of_dataset


def test_seeds_of_different_regimes_are_one_program():
    buffer = regimes(1, 0, -1)
    axes = jax.tree.map(lambda _: None, buffer).replace(regime=0)
    draw = jax.vmap(AUTO.sample, (axes, None, None))
    batch = jax.jit(draw)(buffer, jax.tree.map(jnp.asarray, dataset()), jax.random.key(0))
    for row, mode in enumerate(("none", "half", "all")):
        alone = sample(filled(5, 7), dataset(), jax.random.key(0), 40, mode)
        np.testing.assert_array_equal(batch.reward[row], alone.reward)


@pytest.mark.parametrize("mode", ["half", "all", "part"])
def test_a_mode_with_offline_data_needs_rows_of_its_kind(mode):
    rule = replay.make(mode, 5, 4)
    with pytest.raises(ValueError, match="^this replay rule draws from a dataset, and there is none: pass one, or set"):
        rule.sample(filled(5, 3), None, jax.random.key(0))
    annotated = Annotated.of(dataset(), Extras())
    with pytest.raises(ValueError, match="^this replay rule mixes Transition rows with Annotated rows: a method that"):
        rule.sample(filled(5, 3), annotated, jax.random.key(0))


def test_what_a_mode_draws_from():
    data = tiny.make_dataset([1.0, 5.0, 3.0])
    assert replay.make("none", 4, 2).choose(data) is None
    assert replay.rollout(4).choose(data) is None
    for mode in ("half", "all", "auto"):
        assert replay.make(mode, 4, 2).choose(data) is data
    part = replay.make("part", 4, 2, part_episodes=2).choose(data)
    np.testing.assert_array_equal(part.returns(), [5.0, 3.0])


@pytest.mark.parametrize("mode", ["half", "all", "none"])
def test_only_filled_rows_are_drawn_and_each_is_whole(mode):
    buffer = filled(8, 3)
    shifted = buffer.replace(storage=jax.tree.map(lambda column: column + 7.0, buffer.storage))  # what is empty is 7
    batch = sample(shifted.replace(size=buffer.size - 1), dataset(), jax.random.key(1), 200, mode)
    assert set(np.asarray(batch.reward)) - {-1, -2, -3, -4, -5, -6} == {7, 8}
    jax.tree.map(np.testing.assert_array_equal, batch, transitions(batch.reward))


def test_sizes_one():
    one = jax.tree.map(lambda column: column[:1], dataset())
    batch = sample(filled(1, 3), one, jax.random.key(0), 2, "half")
    np.testing.assert_array_equal(batch.reward, [-1, 2])


def two_seeds(capacity, size=0):
    buffer = replay.make_buffer(SPEC, capacity)
    storage = jax.tree.map(lambda column: np.stack([column, column]), buffer.storage)
    return buffer.replace(storage=storage, size=jnp.asarray(size, jnp.int32))


def test_seeds_insert_side_by_side_with_common_counters():
    buffers = two_seeds(3)
    assert seed_axes(buffers).position is None
    assert seed_axes(buffers).storage.reward == 0
    insert_both = over_seeds(replay.insert, seed_mesh(2, 1))
    for step in range(4):
        buffers = insert_both(buffers, transitions([step, 10 + step]))
    np.testing.assert_array_equal(buffers.storage.reward, [[3, 1, 2], [13, 11, 12]])
    assert buffers.position.shape == buffers.size.shape == ()
    assert (int(buffers.position), int(buffers.size)) == (1, 3)


def test_insertion_of_all_seeds_stays_a_slice():
    # with a position per seed it would be a scatter, which is expanded to a loop over the seeds
    insert_both = over_seeds(replay.insert, seed_mesh(2, 1), donate=(0,))
    text = insert_both.lower(two_seeds(3), transitions([0, 1])).compile().as_text()
    assert " dynamic-update-slice(" in text
    assert not re.findall(r" (?:scatter|while)\(", text)


@pytest.mark.parametrize("mode", ["half", "all"])
def test_seeds_share_one_dataset(mode):
    # the arguments apart, nothing in the program is as large as a copy of one of the dataset's columns
    size, batch_size = 1_000, 4
    draw = replay.make(mode, 5, batch_size).sample
    program = over_seeds(draw, seed_mesh(2, 1), shared=(1,))
    arguments = (two_seeds(5, size=5), transitions(np.ones(size)), jax.random.split(jax.random.key(0), 2))
    assert jax.eval_shape(program, *arguments).reward.shape == (2, batch_size)
    memory = program.lower(*arguments).compile().memory_analysis()
    assert memory.temp_size_in_bytes + memory.output_size_in_bytes < arguments[1].reward.nbytes


@given(
    mode=some.sampled_from(["none", "half", "all"]),
    count=some.integers(1, 9),
    batch_size=some.sampled_from([1, 5, 8]),
    seed=some.integers(0, 2**31),
)
def test_batches_are_of_rows_that_are_there_in_the_shares_of_their_rule(mode, count, batch_size, seed):
    buffer = filled(4, count)
    drawn = sample(buffer, None if mode == "none" else dataset(), jax.random.key(seed), batch_size, mode)
    rewards = np.asarray(drawn.reward).astype(int)
    there = {*range(max(0, count - 4), count), *range(-DATASET_SIZE, 0)}
    assert set(rewards.tolist()) <= there
    jax.tree.map(np.testing.assert_array_equal, drawn, transitions(rewards))  # rows stay whole
    offline = {"none": 0, "half": batch_size // 2}
    if mode in offline:
        assert np.sum(rewards < 0) == offline[mode]


def with_returns(capacity, mode="none", batch_size=40, failure_reward=None):
    """A rule with returns to go of γ = 0.5."""
    recorded = RecordedReturns(0.5, failure_reward=failure_reward)
    return replay.with_returns(replay.make(mode, capacity, batch_size), recorded)


@functools.partial(jax.jit, static_argnums=0)
def added(capacity, failure_reward, rollout):
    """A buffer after steps, one after the other; a failure reward of NaN is that of no step."""
    rule = with_returns(capacity, failure_reward=failure_reward)
    return jax.lax.scan(lambda buffer, step: (rule.add(buffer, step), None), rule.init(SPEC), rollout)[0]


@jax.jit
def recorded(rollout):
    """Returns to go of a whole rollout by the rule of `with_returns`, whose failure reward is 0."""
    return RecordedReturns(0.5, failure_reward=0.0).of(rollout)


def steps(rewards, ended):
    """A rollout of such rewards, cut off by time where an episode ends."""
    rewards = jnp.asarray(rewards, jnp.float32)
    rows = transitions(np.asarray(rewards)).replace(terminated=jnp.zeros_like(rewards))
    return Rollout(**vars(rows), truncated=jnp.asarray(ended, jnp.float32))


def floors(buffer, capacity):
    """Returns to go as batches have them, by the reward of the row."""
    batch = jax.jit(with_returns(capacity).sample)(buffer, None, jax.random.key(0))
    return dict(zip(np.asarray(batch.reward).tolist(), np.asarray(batch.extras.shared.value).tolist(), strict=True))


@pytest.mark.parametrize(
    ("capacity", "ended", "expected"),
    [
        # 1 + 0.5 · 3.5, 2 + 0.5 · 3, 3; the second episode is under way, or done: 4 + 0.5 · 5
        (6, [0, 0, 1, 0, 0], {1: 2.75, 2: 3.5, 3: 3, 4: -np.inf, 5: -np.inf}),
        (6, [0, 0, 1, 0, 1], {1: 2.75, 2: 3.5, 3: 3, 4: 6.5, 5: 5}),
        # the ring has come round: what is left of the first episode stays, and an episode may be longer than the ring
        (4, [0, 0, 1, 0, 1], {2: 3.5, 3: 3, 4: 6.5, 5: 5}),
        (3, [0, 0, 0, 0, 1], {3: 3 + 2 + 1.25, 4: 6.5, 5: 5}),
    ],
)
def test_returns_to_go_of_fresh_rows_by_hand(capacity, ended, expected):
    buffer = added(capacity, np.nan, steps([1, 2, 3, 4, 5], ended))
    assert floors(buffer, capacity) == expected


def test_an_episode_that_was_lost_never_has_returns():
    rule = with_returns(6)
    buffer = jax.jit(rule.cut)(added(6, np.nan, steps([1, 2, 3], [0, 1, 0])))
    buffer = jax.jit(rule.add)(buffer, jax.tree.map(lambda column: column[0], steps([4], [1])))
    assert floors(buffer, 6) == {1: 2, 2: 2, 3: -np.inf, 4: 4}


def test_a_fresh_episode_of_nothing_but_failure_never_ends():
    # 0 for ever is worth 0 / 0.5: of the rewards 0, 0 and 0, 1 only the second pair sums to something else
    buffer = added(6, 7.0, steps([7, 7, 1, 7], [0, 1, 0, 1]))
    np.testing.assert_allclose(buffer.returns[:4], [14.0, 14.0, 1.0 + 3.5, 7.0])


@given(
    rewards=some.lists(some.floats(-9.0, 9.0, width=16), min_size=12, max_size=12),
    ended=some.lists(some.booleans(), min_size=12, max_size=12),
    capacity=some.sampled_from([5, 12]),
)
def test_returns_added_step_by_step_are_those_of_whole_episodes(rewards, ended, capacity):
    rollout = steps(rewards, ended)
    buffer, expected = added(capacity, 0.0, rollout), recorded(rollout)
    rows = np.arange(12 - capacity, 12)
    known = rows < (12 - ended[::-1].index(True) if any(ended) else 0)
    under_way = (buffer.ring.position - 1 - rows) % capacity < buffer.steps
    np.testing.assert_array_equal(under_way, ~known)
    found = np.asarray(buffer.returns)[rows % capacity]
    np.testing.assert_allclose(found[known], np.asarray(expected)[rows][known], rtol=1e-4, atol=1e-4)


def test_rows_of_both_sources_have_their_returns():
    rows = Annotated.of(dataset(), Extras(shared=ReturnsToGo(dataset().reward * 10.0)))
    rule = with_returns(6, "half")
    batch = jax.jit(rule.sample)(added(6, np.nan, steps([1, 2], [0, 1])), rows, jax.random.key(0))
    value = batch.extras.shared.value
    np.testing.assert_array_equal(value[:20], 10.0 * batch.reward[:20])
    np.testing.assert_array_equal(value[20:], 2.0)  # 1 + 0.5 · 2 and 2
    assert rule.choose("data") == "data"
    assert with_returns(6, "none").choose("data") is None


def test_a_buffer_that_begins_with_some_rows_of_the_dataset():
    buffer, keys = filled(4, 2), jax.random.split(jax.random.key(0), 200)
    loaded = set(-1.0 - loaded_rows(DATASET_SIZE, 2))
    assert len(loaded) == 2
    rewards = {}
    for half in (False, True):
        rule = replay.prefilled(4, 5, 2, half)
        draw = jax.jit(jax.vmap(rule.sample, (None, None, 0)))
        rewards[half] = np.asarray(draw(buffer, dataset(), keys).reward)
    # of the buffer alone: two rows of the dataset and the two fresh ones, all alike
    values, counts = np.unique(rewards[False], return_counts=True)
    assert set(values) == loaded | {0.0, 1.0}
    np.testing.assert_allclose(counts / 1000, 0.25, atol=0.05)
    # half of a batch from all of the dataset, the other, larger, of the buffer
    assert set(np.unique(rewards[True][:, :2])) == set(-1.0 - np.arange(DATASET_SIZE))
    assert set(np.unique(rewards[True][:, 2:])) == loaded | {0.0, 1.0}


def test_a_buffer_that_begins_with_a_small_dataset_has_all_of_it():
    assert sorted(loaded_rows(3, 10)) == [0, 1, 2]
