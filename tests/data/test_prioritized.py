"""Replay by priorities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.data import replay
from o2o_jax.types import Rollout, Spec, Transition

SPEC = Spec(1, 1)
ROWS, CAPACITY, BATCH = 6, 4, 8


def rows(first, number):
    column = np.arange(first, first + number, dtype=np.float32)
    return Transition(column[:, None], column[:, None], column, column[:, None], np.zeros_like(column))


def step(reward):
    one = jax.tree.map(lambda column: column[0], rows(reward, 1))
    return Rollout(**vars(one), truncated=np.float32(0))


@pytest.fixture
def rule():
    # the state is what the rows of its batch are worth
    return replay.prioritized(CAPACITY, BATCH, lambda state, batch: state, fresh_share=0.75, fresh_rows=2)


def test_fresh_rows_begin_with_their_share(rule):
    buffer = rule.init(SPEC, ROWS)
    np.testing.assert_allclose(buffer.highest, 6 * 0.75 / (0.25 * 2))  # 9: two of them are as likely as 0.75 to 0.25
    for reward in (100, 101):
        buffer = rule.add(buffer, step(reward))
    np.testing.assert_array_equal(buffer.priority, [1] * 6 + [9, 9, 0, 0])
    sample = jax.jit(rule.sample)
    batches = [sample(buffer, rows(0, ROWS), jax.random.key(seed)) for seed in range(5)]
    for batch in batches:
        assert np.sum(np.asarray(batch.drawn.reward) >= 100) == 6  # 0.75 of eight parts, whatever the key
        np.testing.assert_array_equal(batch.drawn.reward, [p if p < 6 else 94 + p for p in np.asarray(batch.place)])
        assert np.all(np.asarray(batch.offline.reward) < 6)
        assert np.all(np.asarray(batch.online.reward) >= 100)


def test_updates_say_what_is_worth_drawing(rule):
    buffer = rule.add(rule.init(SPEC, ROWS), step(100))
    batch = jax.jit(rule.sample)(buffer, rows(0, ROWS), jax.random.key(0))
    places = np.unique(batch.place)
    fed = rule.feedback(buffer, batch, jnp.where(batch.place == 6, 20.0, 0.5))
    expected = np.where(np.isin(np.arange(10), places), 0.5, buffer.priority)
    expected[6] = 20.0
    np.testing.assert_allclose(fed.priority, expected)
    assert float(fed.highest) == 20.0  # with which the next row begins
    assert float(rule.add(fed, step(101)).priority[7]) == 20.0
    low = rule.feedback(buffer, batch, jnp.full(BATCH, 0.5))
    assert float(low.highest) == 9.0


def test_the_ring_comes_round(rule):
    buffer = rule.init(SPEC, ROWS)
    for reward in range(100, 105):
        buffer = rule.add(buffer, step(reward))
    np.testing.assert_array_equal(buffer.priority, [1] * 6 + [9] * 4)
    np.testing.assert_array_equal(buffer.ring.storage.reward, [104, 101, 102, 103])


def test_another_dataset_is_refused(rule):
    buffer = rule.add(rule.init(SPEC, ROWS), step(100))
    with pytest.raises(ValueError, match="priorities of 6 rows of a dataset, and this one has 5"):
        rule.sample(buffer, rows(0, 5), jax.random.key(0))
    with pytest.raises(ValueError, match="there is none"):
        rule.sample(buffer, None, jax.random.key(0))
