import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from o2o_jax.cli.statistics import (
    area,
    bootstrap_interval,
    interquartile_mean,
    probability_of_improvement,
    steps_to,
    stratified_interval,
)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 11])
def test_interquartile_mean_is_scipys(size):
    values = np.random.default_rng(size).normal(size=size)
    np.testing.assert_allclose(interquartile_mean(values), scipy.stats.trim_mean(values, 0.25, axis=None))


def test_interquartile_mean_by_hand():
    # of eight values two go at either end: (3 + 4 + 5 + 6) / 4
    assert interquartile_mean([100, 4, 3, -50, 5, 6, 2, 8]) == 4.5


def test_bootstrap_interval_is_scipys():
    values = np.random.default_rng(0).normal(50, 10, size=12)
    expected = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    np.testing.assert_allclose(bootstrap_interval(values), expected.confidence_interval, atol=0.2)


def test_bootstrap_interval_by_hand():
    # Two seeds, 0 and 8: means 0, 4, 8 come with probabilities 1/4, 1/2, 1/4.
    assert bootstrap_interval([0, 8]) == (0, 8)
    assert bootstrap_interval([0, 8], confidence=0.4) == (4, 4)
    assert bootstrap_interval([3.0]) == (3, 3)
    assert np.isnan(bootstrap_interval([])).all()


def test_bootstrap_interval_says_the_same_twice():
    assert bootstrap_interval(np.arange(7)) == bootstrap_interval(np.arange(7))


def test_bootstrap_interval_covers():
    # 95 % intervals of 20 seeds cover the true mean, here 0, in about 93 % of experiments
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.normal(size=20), resamples=1_000) for _ in range(300)]
    assert 0.88 < np.mean([low < 0 < high for low, high in intervals]) < 0.98


@pytest.mark.parametrize(("values", "confidence"), [([1.0], 1.0), ([1.0], 0.0), ([[1.0]], 0.95)])
def test_bad_arguments(values, confidence):
    with pytest.raises(ValueError, match="confidence must lie|one axis"):
        bootstrap_interval(values, confidence)


def test_stratified_interval_draws_within_tasks():
    # of two tasks with one seed each nothing is drawn; drawn from all of them together it would be 0 to 10
    assert stratified_interval([[0.0], [10.0]], np.mean) == (5.0, 5.0)
    # one task of 0 and 8, another of 4 alone: means of 4/3, 4, 20/3
    low, high = stratified_interval([[0.0, 8.0], [4.0]], np.mean)
    np.testing.assert_allclose((low, high), (4 / 3, 20 / 3))
    assert np.isnan(stratified_interval([[], []])).all()


def test_interval_of_the_interquartile_mean_contains_it():
    scores = np.random.default_rng(0).normal(50, 10, (6, 5))
    low, high = stratified_interval(scores)
    assert low < interquartile_mean(scores) < high


def test_probability_of_improvement_by_hand():
    assert probability_of_improvement([[1, 3]], [[2, 3]]) == pytest.approx((0 + 0 + 1 + 0.5) / 4)
    assert probability_of_improvement([[1], [5]], [[2], [2]]) == 0.5  # of one task always, of the other never
    assert probability_of_improvement([[1], []], [[0], [2]]) == 1.0  # a task without scores of both doesn't count
    assert np.isnan(probability_of_improvement([[]], [[1]]))


@given(st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=4), min_size=2, max_size=4))
def test_either_of_two_improves_on_the_other(scores):
    ours, theirs = scores, scores[1:] + scores[:1]
    assert probability_of_improvement(ours, theirs) + probability_of_improvement(theirs, ours) == pytest.approx(1.0)
    assert probability_of_improvement(ours, ours) == 0.5


def test_area_and_steps_by_hand():
    assert area([0, 10, 30], [0.0, 10.0, 10.0]) == pytest.approx((50 + 200) / 30)
    assert area([5], [7.0]) == 7.0
    assert np.isnan(area([], []))
    assert np.isnan(area([0, 1], [np.nan, 1.0]))
    assert steps_to([0, 10, 20], [1.0, 5.0, 3.0], 5.0) == 10.0
    assert np.isnan(steps_to([0, 10], [1.0, np.nan], 2.0))
