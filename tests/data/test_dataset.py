import numpy as np
import pytest

from o2o_jax.data.dataset import Dataset, validate
from o2o_jax.types import Spec, Transition

SPEC = Spec(observation_dim=2, action_dim=1)


def make(rewards=(1.0, 2.0, 3.0, 4.0, 5.0), ends=(2, 3, 5), **columns):
    rows = len(rewards)
    values = {
        "observation": np.arange(2 * rows, dtype=np.float32).reshape(rows, 2),
        "action": np.full((rows, 1), 0.5, np.float32),
        "reward": np.array(rewards, np.float32),
        "next_observation": np.arange(2, 2 * rows + 2, dtype=np.float32).reshape(rows, 2),
        "terminated": np.zeros(rows, np.float32),
    }
    return Dataset(Transition(**(values | columns)), np.array(ends), name="test")


def test_returns_by_hand():
    np.testing.assert_allclose(make().returns(), [1 + 2, 3, 4 + 5])


def test_a_rollout_marks_ends_that_are_no_terminations():
    # episodes end after rows 1, 2 and 4, of which the second terminates
    dataset = make(terminated=np.array([0, 0, 1, 0, 0], np.float32))
    rollout = dataset.rollout()
    np.testing.assert_array_equal(rollout.truncated, [0, 1, 0, 0, 1])
    np.testing.assert_array_equal(rollout.ended, [0, 1, 1, 0, 1])
    for name, column in vars(dataset.transitions).items():
        assert getattr(rollout, name) is column


def test_best_episodes_keep_their_order_and_rows():
    # Returns 3, 3, 9. The best two: the last one, and of the equal ones the first.
    best = make().best_episodes(2)
    np.testing.assert_array_equal(best.transitions.reward, [1, 2, 4, 5])
    np.testing.assert_array_equal(best.transitions.observation[:, 0], [0, 2, 6, 8])
    np.testing.assert_array_equal(best.episode_ends, [2, 4])


def test_best_episodes_are_all_where_there_are_fewer():
    assert make().best_episodes(50).size == 5
    with pytest.raises(ValueError, match="at least 1, got 0"):
        make().best_episodes(0)


def test_normalizer_by_hand():
    normalizer = make().normalizer()
    np.testing.assert_allclose(normalizer.mean, [4, 5])
    np.testing.assert_allclose(normalizer.std, np.full(2, 8**0.5 + 1e-3), rtol=1e-6)  # of 0, 2, 4, 6, 8


def test_normalizer_sums_in_float64():
    observation = np.repeat([[1e4 - 1.0, 0.0], [1e4 + 1.0, 0.0]], 50_000, axis=0).astype(np.float32)
    rows = len(observation)
    columns = {"action": np.zeros((rows, 1)), "observation": observation, "next_observation": observation}
    dataset = make(np.zeros(rows), [rows], **columns, terminated=np.zeros(rows))
    np.testing.assert_allclose(dataset.normalizer().std, [1.001, 0.001], rtol=1e-6)


def test_on_device():
    rows = make().on_device()
    assert rows.reward.shape == (5,)
    assert all(column.dtype == np.float32 for column in vars(rows).values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(rewards=(), ends=()), "is empty"),
        (dict(ends=(2, 2, 5)), "episode 1 is empty"),
        (dict(ends=(2, 4)), "number of rows, 5"),
        (dict(action=np.zeros((4, 1))), "columns differ in length"),
    ],
)
def test_malformed_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def _with(value, row, shape):
    column = np.zeros(shape, np.float32)
    column[row] = value
    return column


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (dict(observation=np.zeros((5, 3))), r"observation has shape \(5, 3\), expected \(5, 2\)"),
        (dict(action=np.zeros((5, 2))), r"action has shape \(5, 2\), expected \(5, 1\)"),
        (dict(reward=np.zeros((5, 1))), "reward has shape"),
        (dict(observation=_with(np.nan, (3, 1), (5, 2))), "1 of 5 rows of observation, first in row 3"),
        (dict(next_observation=_with(np.inf, 2, (5, 2))), "1 of 5 rows of next_observation, first in row 2"),
        (dict(reward=_with(-np.inf, slice(1, 3), 5)), "2 of 5 rows of reward, first in row 1"),
        (dict(action=_with(np.nan, 4, (5, 1))), "1 of 5 rows of action"),
        (dict(action=_with(-1.5, 4, (5, 1))), r"outside \[-1, 1\], the farthest 1.5 from 0: rescale"),
    ],
)
def test_unsuitable_is_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        validate(make(**columns), SPEC)


def test_actions_beyond_one_by_rounding_are_clipped():
    dataset = validate(make(action=np.full((5, 1), 1 + 5e-7, np.float32)), SPEC)
    np.testing.assert_array_equal(dataset.transitions.action, np.ones((5, 1)))
