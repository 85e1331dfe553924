"""Measures that end a phase, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.ops.stopping import missing_share, no_longer_falls, no_longer_rises, settled

NAN = jnp.nan


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([4.0, 3.0, 2.0], False),
        ([4.0, 3.95, 3.93], True),  # 2 % of 4 are 0.08: 3.92 is the least that counts as no fall
        ([4.0, 3.9, 4.2], False),  # the lowest of the window counts, not the last
        ([4.0, 5.0, 6.0], True),  # a growing error comes no nearer to its floor
        ([0.0, 0.0, 0.0], True),
        ([NAN, 4.0, 4.0], False),
        ([4.0, 4.0, NAN], False),
    ],
)
def test_no_longer_falls(history, expected):
    assert bool(no_longer_falls(jnp.array(history), 0.02)) is expected


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([0.1, 0.3, 0.5], False),
        ([0.8, 0.81, 0.82], True),  # a rise of 0.02 counts as none
        ([0.8, 0.83, 0.8], False),  # the highest of the window counts, not the last
        ([0.5, 0.3, 0.1], True),
        ([0.0, 0.0, 0.0], True),  # no order to be found
        ([-0.3, -0.1, 0.0], False),
        ([NAN, NAN, NAN], True),  # a measure that says nothing settles nothing
    ],
)
def test_no_longer_rises(history, expected):
    assert bool(no_longer_rises(jnp.array(history), 0.021)) is expected


def test_what_only_fluctuates_is_done_sooner_or_later():
    # as where all episodes return the same: the oldest of six is the highest once in six checks
    series = np.random.default_rng(0).normal(0.0, 0.2, size=300)
    done = [bool(no_longer_rises(jnp.array(series[i : i + 6]), 0.0)) for i in range(200)]
    assert 200 / 12 < sum(done) < 200 / 3


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([1.0, 1.0, 1.0], True),
        ([1.0, 0.99, 0.98], True),  # a range of 0.02 beside 1
        ([1.0, 0.99, 0.97], False),
        ([0.97, 1.2, 0.97], False),  # out and home again is no rest
        ([-1.0, -1.01, -1.0], True),
        ([0.0, 0.0, 0.0], True),
        ([NAN, 1.0, 1.0], False),
    ],
)
def test_settled(history, expected):
    assert bool(settled(jnp.array(history), 0.021)) is expected


def test_missing_share_by_hand():
    # 200 → 210 in 1,000 updates is 0.01 an update; at a rate of 0.005 · 0.01 = 5e-5 that leads to 200 more, of 210
    np.testing.assert_allclose(missing_share(jnp.array([200.0, 205.0, 210.0]), 1_000, 5e-5), 200 / 210, rtol=1e-5)
    np.testing.assert_allclose(missing_share(jnp.array([-200.0, -210.0]), 1_000, 5e-5), 200 / 210, rtol=1e-5)


def test_missing_share_foretells_where_an_exponential_ends():
    # V(t) = 100 (1 − exp(−t / T)), T = 20,000: at t the share that is missing, of V(t), is 1 / (exp(t / T) − 1); from
    # the mean speed of the last 1,000 updates it is too large by a factor below exp(1,000 / T)
    time = 20_000.0
    value = lambda t: 100.0 * (1.0 - jnp.exp(-t / time))
    for t in (10_000.0, 60_000.0):
        history = jnp.array([value(t - 1_000), value(t)])
        true = 1.0 / (np.exp(t / time) - 1.0)
        assert true < float(missing_share(history, 1_000, 1 / time)) < true * np.exp(1_000 / time)


def test_a_value_of_zero_is_never_there():
    assert not bool(missing_share(jnp.array([1.0, 0.0]), 10, 1e-3) <= 0.05)
    assert not bool(missing_share(jnp.array([0.0, 0.0]), 10, 1e-3) <= 0.05)
    assert not bool(missing_share(jnp.array([NAN, 1.0]), 10, 1e-3) <= 0.05)
