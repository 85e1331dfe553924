"""Comparing policies by returns, of evaluations and of training's own episodes: statistics and decisions, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from o2o_jax.online.parts import RollBack
from o2o_jax.runtime.reference import Comparison, Returns, Standing, Tally


def tally(*returns):
    """Returns the tally of seeds with these returns each."""
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
    """Decisions on windows of one seed's episodes, one after the other, and what is left."""
    returns, decisions = start(), []
    for window in windows:
        returns = returns.replace(recent=returns.recent.add([window]))
        accept, returns = returns.consider(min_episodes, standard_errors)
        decisions.append(bool(accept[0]))
    return decisions, returns


def test_the_first_comparison_measures_the_start():
    decisions, returns = after([1.0, 3.0])
    assert decisions == [False]
    assert (float(returns.reference.mean[0]), float(returns.recent.count[0])) == (2.0, 0.0)


@pytest.mark.parametrize(
    ("recent", "accepted"),
    # reference 1, 3: mean 2, error 1; recent error 1 as well, so that √2 is what must be exceeded: 3.41
    [([2.3, 4.3], False), ([2.5, 4.5], True), ([1.0, 3.0], False), ([-9.0, -7.0], False)],
)
def test_better_must_be_beyond_the_error_of_both(recent, accepted):
    decisions, returns = after([1.0, 3.0], recent)
    assert decisions == [False, accepted]
    np.testing.assert_allclose(returns.reference.mean, [np.mean(recent) if accepted else 2.0], rtol=1e-6)
    assert float(returns.recent.count[0]) == 0  # the comparison is over either way


def test_more_standard_errors_ask_for_more():
    assert after([1.0, 3.0], [2.5, 4.5], standard_errors=2.0)[0] == [False, False]
    assert after([1.0, 3.0], [1.1, 3.1], standard_errors=0.0)[0] == [False, True]


def test_equal_returns_without_spread_are_not_better():
    assert after([2.0, 2.0], [2.0, 2.0], [2.1, 2.1])[0] == [False, False, True]


def test_a_comparison_waits_for_its_episodes():
    decisions, returns = after([1.0], [3.0], [], [9.0], [9.5], [20.0], min_episodes=2)
    assert decisions == [False, False, False, False, True, False]
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


def rule(**settings):
    return SimpleNamespace(roll_back=RollBack(**settings))


def test_returns_from_the_same_starts_are_compared_in_pairs():
    # d = 3, 5: mean 4, error √2 / √2 = 1, although returns of 0 and 100 spread far more
    compared = Comparison.paired([[3.0, 105.0]], [[0.0, 100.0]])
    np.testing.assert_array_equal([compared.difference, compared.error, compared.reference], [[4.0], [1.0], [50.0]])
    assert compared.better(3.9).all()
    assert not compared.better(4.0).any()  # equal is not better


def test_the_same_policy_is_no_better_than_itself():
    # π_ref's returns are kept in single precision
    returns = np.random.default_rng(0).uniform(2_000.0, 3_000.0, (3, 5))
    compared = Comparison.paired(returns, returns.astype(np.float32))
    assert not compared.better(0.0).any()
    assert not compared.worse(0.0, 0.0).any()


@pytest.mark.parametrize(
    ("candidate", "worse"),
    # π_ref returns 98, 102: at least 2 % of 100 must be missing, and two standard errors
    [
        ([97.0, 101.0], False),  # m = −1, e = 0: beyond all noise, but little
        ([96.0, 100.0], False),  # m = −2: 2 % exactly
        ([95.0, 99.0], True),  # m = −3, e = 0
        ([93.0, 102.0], False),  # d = −5, 0: m = −2.5, e = 2.5: within the noise
        ([88.0, 98.0], True),  # d = −10, −4: m = −7, e = 3
        ([99.0, 103.0], False),
        ([np.nan, 102.0], True),  # a broken policy
    ],
)
def test_worse_takes_both(candidate, worse):
    assert Comparison.paired([candidate], [[98.0, 102.0]]).worse(2.0, 0.02).tolist() == [worse]


def test_below_zero_the_share_is_of_the_size():
    # 2 % of 100 below −100: −102
    compared = [Comparison.paired([[c, c]], [[-100.0, -100.0]]).worse(2.0, 0.02)[0] for c in (-101.9, -102.1)]
    assert compared == [False, True]


def test_a_reference_without_returns_is_beaten_by_any_number():
    compared = Comparison.paired([[1.0, 2.0], [np.nan, 2.0]], [[np.nan, 3.0], [np.nan, 3.0]])
    assert compared.better(1.0).tolist() == [True, False]
    assert not compared.worse(2.0, 0.02).any()


def judged(*looks, reference=10.0, accept=False, **settings):
    """Decisions (reject, roll_back) on one seed's looks, None where nothing was compared; π_ref returns `reference`."""
    standing = Standing(np.full((1, 2), reference, np.float32), np.zeros(1, np.int32))
    decisions = []
    for look in looks:
        compared = Comparison.paired([[look or 0.0] * 2], standing.returns)._replace(made=np.array([look is not None]))
        decision, standing = standing.judge(rule(**settings), compared, np.array([accept]))
        decisions.append((bool(decision.reject[0]), bool(decision.roll_back[0])))
    return decisions


GOOD, BAD, BACK = (False, False), (True, False), (True, True)


@pytest.mark.parametrize(
    ("looks", "decisions"),
    [
        ([5.0, 5.0], [BAD, BACK]),
        ([5.0, 10.0, 5.0], [BAD, GOOD, BAD]),  # a good look ends the row
        ([5.0, None, 5.0], [BAD, GOOD, BACK]),  # none doesn't
        ([5.0, 5.0, 5.0, 5.0], [BAD, BACK, BAD, BACK]),  # a new row begins
        ([np.nan, np.nan], [BAD, BACK]),
    ],
)
def test_two_rejections_in_a_row(looks, decisions):
    assert judged(*looks) == decisions


def test_how_many_rejections_in_a_row_is_a_setting():
    assert judged(5.0, 5.0, 5.0, evaluations=3) == [BAD, BAD, BACK]
    assert judged(5.0, evaluations=1) == [BACK]


def test_an_accepted_policy_leaves_its_returns():
    standing = Standing(np.zeros((2, 2), np.float32), np.zeros(2, np.int32))
    standing = standing.evaluated(np.array([True, False]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    np.testing.assert_array_equal(standing.returns, [[1, 2], [0, 0]])
    assert standing.returns.dtype == np.float32


def test_training_episodes_are_judged_by_the_same_rule():
    # reference 10, 12: mean 11, error 1. 1, 3: m = −9 < −2 √2.   8, 10: m = −2 > −2.83.   One episode: nothing yet
    returns = start().replace(reference=tally([10.0, 12.0]))
    standing = Standing(None, np.zeros(1, np.int32))
    decisions = []
    for window in ([1.0, 3.0], [8.0, 10.0], [1.0, 3.0], [1.0], [3.0]):
        returns = returns.replace(recent=returns.recent.add([window]))
        compared = returns.compare(2)
        accept, returns = returns.consider(2, 1.0)
        decision, standing = standing.judge(rule(), compared, accept)
        decisions.append((bool(decision.reject[0]), bool(decision.roll_back[0])))
    assert decisions == [BAD, GOOD, BAD, GOOD, BACK]
