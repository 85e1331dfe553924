"""The queue of whole episodes: what is drawn of it while fresh ones come and old ones leave."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.data import replay
from o2o_jax.data.dataset import Dataset
from o2o_jax.ops.advantage import discounted_returns, steps_to_end
from o2o_jax.types import Annotated, Extras, Rollout, Spec, Transition

SPEC = Spec(observation_dim=1, action_dim=1)
CONTEXT, DRAWS = 2, 4_000


def rollout(rewards, ended):
    """Steps of whose numbers every one says which it is: the observation is the reward."""
    rewards, ended = jnp.asarray(rewards, jnp.float32), jnp.asarray(ended, jnp.float32)
    rows = rewards[..., None]
    return Rollout(rows, -rows, rewards, rows, jnp.zeros_like(ended), truncated=ended)


def dataset():
    """Episodes (1, 2) and (30) in the order of their returns, 3 and 30, annotated."""
    rows = rollout([1, 2, 30], [0, 1, 1])
    to_go, (_, remaining) = discounted_returns(rows.reward, rows.ended, 1.0), steps_to_end(rows.ended)
    extras = Extras(shared={"return_to_go": to_go, "remaining": remaining})
    return Annotated.of(rows, replay.queue_extras(extras, rows))


@functools.cache
def rule(capacity=16, max_episodes=3):
    """A rule whose draws and writes are compiled."""
    made = replay.episodes(capacity, DRAWS, CONTEXT, max_episodes)
    return made._replace(add=jax.jit(made.add), sample=jax.jit(made.sample), cut=jax.jit(made.cut))


def drawn(rule, buffer):
    """Shares of histories that each step begins, and the steps and returns to go of these histories."""
    batch = rule.sample(buffer, dataset(), jax.random.key(0))
    assert batch.valid.shape == (DRAWS, CONTEXT)
    lengths = np.asarray(batch.valid.sum(axis=1), int)
    first = np.take_along_axis(np.asarray(batch.observation[..., 0]), CONTEXT - lengths[:, None], axis=1)[:, 0]
    shares, seen = {}, {}
    for value in np.unique(first):
        those = np.flatnonzero(first == value)
        shares[float(value)] = len(those) / DRAWS
        rows = [tuple(np.asarray(column)[i, CONTEXT - lengths[i]:].tolist()) for i in those
                for column in (batch.observation[..., 0], batch.return_to_go)]  # fmt: skip
        (steps,), (to_go,) = set(rows[::2]), set(rows[1::2])
        seen[float(value)] = (steps, to_go)
        np.testing.assert_array_equal(batch.action[those], -batch.observation[those])
    return shares, seen


def played(rule, rewards, ended):
    buffer = rule.init(SPEC)
    steps = rollout(rewards, ended)
    for row in range(len(rewards)):
        buffer = rule.add(buffer, jax.tree.map(lambda column, row=row: column[row], steps))
    return buffer


def expect_uniform(shares, steps):
    assert sorted(shares) == sorted(steps)
    np.testing.assert_allclose(list(shares.values()), 1.0 / len(steps), atol=0.04)  # 4 σ of 4,000 draws


def test_the_dataset_alone_before_the_first_episode_has_ended():
    # the two steps under way, 5 and 6, are of no episode yet
    shares, seen = drawn(rule(), played(rule(), [5, 6], [0, 0]))
    expect_uniform(shares, [1, 2, 30])
    assert seen == {1.0: ((1.0, 2.0), (3.0, 2.0)), 2.0: ((2.0,), (2.0,)), 30.0: ((30.0,), (30.0,))}


def test_fresh_episodes_by_what_they_did_receive():
    # 5 + 6 + 7 = 18 in all, 13 from the second step on, 7 from the third; 8 is under way
    shares, seen = drawn(rule(), played(rule(), [5, 6, 7, 8], [0, 0, 1, 0]))
    expect_uniform(shares, [1, 2, 30, 5, 6, 7])
    assert (seen[5.0], seen[6.0]) == (((5.0, 6.0), (18.0, 13.0)), ((6.0, 7.0), (13.0, 7.0)))
    assert seen[7.0] == ((7.0,), (7.0,))


@pytest.mark.parametrize(
    ("episodes", "kept"),
    [(1, [1, 2, 30, 5, 6]), (2, [30, 5, 6, 7]), (3, [5, 6, 7, 8]), (4, [7, 8, 9])],  # of three at most
)
def test_the_oldest_leaves_first_and_of_the_dataset_the_worst(episodes, kept):
    rewards, ended = [5, 6, 7, 8, 9], [0, 1, 1, 1, 1]
    steps = episodes + 1
    shares, _ = drawn(rule(), played(rule(), rewards[:steps], ended[:steps]))
    expect_uniform(shares, kept)


def test_a_ring_that_has_come_round_still_holds_whole_histories():
    # of four rows: 5 and 6 were overwritten by 9 and 10. What is left of (6, 7, 8) still has its returns to go
    small = rule(capacity=4, max_episodes=5)
    shares, seen = drawn(small, played(small, [5, 6, 7, 8, 9, 10], [1, 0, 0, 1, 0, 1]))
    expect_uniform(shares, [1, 2, 30, 7, 8, 9, 10])
    assert (seen[7.0], seen[8.0]) == (((7.0, 8.0), (15.0, 8.0)), ((8.0,), (8.0,)))
    assert seen[9.0] == ((9.0, 10.0), (19.0, 10.0))
    across = played(small, [5, 6, 7, 8, 9], [1, 1, 1, 0, 1])  # row 3, then row 0
    assert drawn(small, across)[1][8.0] == ((8.0, 9.0), (17.0, 9.0))


def test_an_episode_that_was_lost_counts_as_far_as_it_came():
    buffer = rule().cut(played(rule(), [5, 6], [0, 0]))
    shares, seen = drawn(rule(), buffer)
    expect_uniform(shares, [1, 2, 30, 5, 6])
    assert seen[5.0] == ((5.0, 6.0), (11.0, 6.0))
    # and where none was under way there is none to count
    again = rule().cut(buffer)
    jax.tree.map(np.testing.assert_array_equal, again, buffer)


def test_seeds_whose_episodes_end_at_different_times():
    steps = [rollout([5, 6], ended) for ended in ([1, 0], [0, 1])]
    buffers = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), rule().init(SPEC))
    for row in range(2):
        now = jax.tree.map(lambda *columns, row=row: jnp.stack([column[row] for column in columns]), *steps)
        buffers = jax.vmap(rule().add)(buffers, now)
    alone = [played(rule(), [5, 6], ended) for ended in ([1, 0], [0, 1])]
    for seed in range(2):
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda leaf, s=seed: leaf[s], buffers), alone[seed])


def test_the_dataset_s_best_come_in_the_order_of_their_returns():
    # returns 3, 1, 2, 0 of one, two, one, one steps: the best three are 1, 2, 3
    rewards = np.array([3, 0.5, 0.5, 2, 0], np.float32)
    rows = rewards[:, None]
    data = Dataset(Transition(rows, rows, rewards, rows, np.zeros(5, np.float32)), np.array([1, 3, 4, 5]), "test")
    chosen = rule().choose(data)
    np.testing.assert_array_equal(chosen.returns(), [1, 2, 3])
    np.testing.assert_array_equal(chosen.transitions.reward, [0.5, 0.5, 2, 3])
    np.testing.assert_array_equal(chosen.episode_ends, [2, 3, 4])


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"^a queue of episodes begins with those of a dataset.*: pass one$"):
        replay.episodes(16, 1, CONTEXT, 3).sample(rule().init(SPEC), None, jax.random.key(0))
