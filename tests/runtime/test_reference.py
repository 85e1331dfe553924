"""Comparing policies by the returns of training's own episodes: statistics and verdicts, by hand."""

import numpy as np
import pytest

from o2o_jax.runtime.reference import Returns, Tally


def tally(*returns):
    """Of seeds with these returns each."""
    return empty(len(returns)).add(returns)


def empty(num_seeds):
    zeros = np.zeros(num_seeds, np.float32)
    return Tally(zeros, zeros, zeros)


def start(num_seeds=1):
    return Returns(empty(num_seeds), empty(num_seeds))


def test_a_tally_by_hand():
    # 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14, error √(14 / (3 · 2))
    found = tally([1.0, 2.0, 6.0], [], [5.0])
    np.testing.assert_array_equal(found.count, [3, 0, 1])
    np.testing.assert_array_equal(found.mean, [3, 0, 5])
    np.testing.assert_array_equal(found.squares, [14, 0, 0])
    np.testing.assert_allclose(found.error(), [np.sqrt(14 / 6), np.inf, np.inf])


def test_episodes_may_come_one_after_the_other():
    values = np.random.default_rng(0).normal(3_000.0, 50.0, 9).tolist()
    whole, parts = tally(values, values[:4]), empty(2)
    for part in (slice(0, 2), slice(2, 2), slice(2, 3), slice(3, 9)):
        parts = parts.add([values[part], values[:4][part]])
    np.testing.assert_array_equal(parts.count, [9, 4])
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(parts.squares, whole.squares, rtol=1e-4)
    np.testing.assert_allclose(parts.error()[0], np.std(values, ddof=1) / 3, rtol=1e-4)


def after(*windows, standard_errors=1.0, min_episodes=2):
    """Verdicts on windows of one seed's episodes, one after the other, and what is left."""
    returns, verdicts = start(), []
    for window in windows:
        returns = returns.replace(recent=returns.recent.add([window]))
        accept, returns = returns.consider(min_episodes, standard_errors)
        verdicts.append(bool(accept[0]))
    return verdicts, returns


def test_the_first_comparison_measures_the_start():
    verdicts, returns = after([1.0, 3.0])
    assert verdicts == [False]
    assert (float(returns.reference.mean[0]), float(returns.recent.count[0])) == (2.0, 0.0)


@pytest.mark.parametrize(
    ("recent", "accepted"),
    # reference 1, 3: mean 2, error 1; recent error 1 as well, so that √2 is what must be exceeded: 3.41
    [([2.3, 4.3], False), ([2.5, 4.5], True), ([1.0, 3.0], False), ([-9.0, -7.0], False)],
)
def test_better_must_be_beyond_the_error_of_both(recent, accepted):
    verdicts, returns = after([1.0, 3.0], recent)
    assert verdicts == [False, accepted]
    np.testing.assert_allclose(returns.reference.mean, [np.mean(recent) if accepted else 2.0], rtol=1e-6)
    assert float(returns.recent.count[0]) == 0  # the comparison is over either way


def test_more_standard_errors_ask_for_more():
    assert after([1.0, 3.0], [2.5, 4.5], standard_errors=2.0)[0] == [False, False]
    assert after([1.0, 3.0], [1.1, 3.1], standard_errors=0.0)[0] == [False, True]


def test_equal_returns_without_spread_are_not_better():
    assert after([2.0, 2.0], [2.0, 2.0], [2.1, 2.1])[0] == [False, False, True]


def test_a_comparison_waits_for_its_episodes():
    verdicts, returns = after([1.0], [3.0], [], [9.0], [9.5], [20.0], min_episodes=2)
    assert verdicts == [False, False, False, False, True, False]
    assert (float(returns.reference.mean[0]), float(returns.recent.mean[0])) == (9.25, 20.0)


def test_an_accepted_mean_is_the_next_one_s_bar():
    assert after([1.0, 1.1], [5.0, 5.1], [4.0, 4.1], [6.0, 6.1])[0] == [False, True, False, True]


def test_seeds_are_compared_apart():
    returns = start(3)
    returns = returns.replace(recent=returns.recent.add([[1.0, 1.1], [1.0, 1.1], []]))
    accept, returns = returns.consider(2, 1.0)
    assert accept.tolist() == [False, False, False]
    returns = returns.replace(recent=returns.recent.add([[5.0, 5.1], [0.0, 0.1], [7.0]]))
    metrics = returns.metrics(accept)
    assert {name: value.shape for name, value in metrics.items()} == dict.fromkeys(metrics, (3,))
    accept, returns = returns.consider(2, 1.0)
    assert accept.tolist() == [True, False, False]
    np.testing.assert_allclose(returns.reference.mean, [5.05, 1.05, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(returns.recent.count, [0, 0, 1])
