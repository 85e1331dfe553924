import numpy as np
import pytest
import scipy.stats

from o2o_jax.cli.statistics import bootstrap_interval, interquartile_mean


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
