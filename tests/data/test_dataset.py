import hypothesis.strategies as some
import numpy as np
import pytest
from hypothesis import given

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


def test_episodes_are_set_aside_evenly():
    # of six episodes two: the middle of the first three and of the last three
    rest, heldout = make(np.arange(6.0), np.arange(1, 7)).hold_out(2)
    np.testing.assert_array_equal(heldout.transitions.reward, [1, 4])
    np.testing.assert_array_equal(rest.transitions.reward, [0, 2, 3, 5])
    np.testing.assert_array_equal(rest.episode_ends, [1, 2, 3, 4])
    rest, heldout = make().hold_out(2)  # the first and the last of three
    np.testing.assert_array_equal(heldout.transitions.reward, [1, 2, 4, 5])
    np.testing.assert_array_equal(heldout.episode_ends, [2, 4])
    assert rest.size == 1


@pytest.mark.parametrize("count", [0, 3])
def test_not_all_episodes_can_be_set_aside(count):
    with pytest.raises(ValueError, match=f"test has 3 episodes, of which {count} cannot be set aside"):
        make().hold_out(count)


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


# Six rows: an episode that terminates, one that is truncated, and the beginning of a third.
ARRAYS = {
    "observations": np.repeat(np.array([0.0, 1, 10, 11, 20, 21])[:, None], 2, axis=1),
    "actions": np.full((6, 1), 0.5),
    "rewards": np.arange(6),
    "terminations": np.array([0, 1, 0, 0, 0, 0], bool),
    "truncations": np.array([0, 0, 0, 1, 0, 0]),
}
NEXT = np.repeat(np.array([1.0, 2, 11, 12, 21, 22])[:, None], 2, axis=1)


class TestFromArrays:
    def test_every_row_stays_where_next_observations_are_given(self):
        dataset = Dataset.from_arrays(**ARRAYS, next_observations=NEXT, name="mine", env_id="Toy-v5")
        rows = dataset.transitions
        np.testing.assert_array_equal(rows.next_observation, NEXT)
        np.testing.assert_array_equal(rows.terminated, [0, 1, 0, 0, 0, 0])
        np.testing.assert_array_equal(dataset.episode_ends, [2, 4, 6])
        assert all(column.dtype == np.float32 for column in vars(rows).values())
        assert (dataset.spec, dataset.name, dataset.env_id) == (SPEC, "mine", "Toy-v5")

    def test_rows_without_a_next_observation_are_dropped(self):
        # Row 3 is truncated and row 5 the last: their s' isn't there. Row 1 terminates: no target reads its s'.
        dataset = Dataset.from_arrays(**ARRAYS)
        np.testing.assert_array_equal(dataset.transitions.reward, [0, 1, 2, 4])
        np.testing.assert_array_equal(dataset.transitions.next_observation[:, 0], [1, 1, 11, 21])
        np.testing.assert_array_equal(dataset.episode_ends, [2, 3, 4])

    def test_lists_will_do(self):
        dataset = Dataset.from_arrays([[0.0], [1.0], [2.0]], [[0.1]] * 3, [1, 2, 3], [0, 0, 1], [0, 0, 0])
        np.testing.assert_array_equal(dataset.transitions.next_observation[:, 0], [1, 2, 2])
        np.testing.assert_allclose(dataset.returns(), [6])

    def test_given_arrays_stay_as_they_are(self):
        before = {key: column.copy() for key, column in ARRAYS.items()}
        Dataset.from_arrays(**ARRAYS)
        for key, column in before.items():
            np.testing.assert_array_equal(ARRAYS[key], column)

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            (
                dict(observations=np.zeros((6, 2, 2))),
                r"have shape \(6, 2, 2\), expected \(rows, numbers\): join",
            ),
            (dict(actions=np.zeros(6)), r"actions have shape \(6,\), expected \(rows, numbers\)"),
            (dict(rewards=np.zeros((6, 1))), r"rewards have shape \(6, 1\), expected \(rows,\): reshape"),
            (dict(rewards=np.zeros(5)), "columns differ in length: .*'rewards': 5"),
            (dict(next_observations=np.zeros((7, 2))), "columns differ in length: .*'next_observations': 7"),
            (dict(next_observations=np.zeros((6, 3))), "observations differ in size: .*'next_observations': 3"),
            (dict(observations=np.zeros((6, 2), np.uint8)), "observations are of type uint8, expected floating point"),
            (dict(actions=np.zeros(6, np.int64)), "of type int64.* discrete actions are not supported"),
            (dict(terminations=None), r"terminations have shape \(\), expected \(rows,\)"),
            (dict(terminations=np.full(6, 0.5)), "terminations must be True or False, or 1 or 0, in every row"),
            (dict(terminations=np.zeros(6), truncations=np.zeros(6)), "which row follows which: add next_observations"),
            (dict(observations=_with(np.nan, (5, 1), (6, 2))), "1 of 6 rows of observation, first in row 5"),
            (dict(rewards=np.array([0, 1, np.inf, 3, 4, 5])), "1 of 6 rows of reward, first in row 2"),
            (dict(rewards=np.array([0, 1, 1e300, 3, 4, 5])), "1 of 6 rows of reward, first in row 2"),
            (
                dict(actions=np.full((6, 1), 2.0)),
                r"outside \[-1, 1\], the farthest 2 from 0: rescale them to 2 ",
            ),
            ({key: column[:0] for key, column in ARRAYS.items()}, "mine is empty"),
            (dict(terminations=np.zeros(6), truncations=np.ones(6)), "no next observation is known, since every row"),
        ],
    )
    def test_what_it_refuses_is_explained(self, columns, message):
        with pytest.raises(ValueError, match=message) as error:
            Dataset.from_arrays(**(ARRAYS | columns), name="mine")
        assert "\n" not in str(error.value)

    def test_unmarked_rows_are_fine_with_their_next_observations(self):
        columns = ARRAYS | dict(terminations=np.zeros(6), truncations=np.zeros(6))
        np.testing.assert_array_equal(Dataset.from_arrays(**columns, next_observations=NEXT).episode_ends, [6])


LENGTHS = some.lists(some.integers(1, 4), min_size=2, max_size=9)


@given(lengths=LENGTHS, data=some.data())
def test_setting_episodes_aside_splits_them_whole(lengths, data):
    count = data.draw(some.integers(1, len(lengths) - 1))
    ends = np.cumsum(lengths)
    rows = np.arange(ends[-1], dtype=np.float32)  # each says which it is
    dataset = Dataset(Transition(rows[:, None], rows[:, None], rows, rows[:, None], np.zeros_like(rows)), ends, "test")
    parts = dataset.hold_out(count)
    assert [len(part.episode_ends) for part in parts] == [len(lengths) - count, count]
    episodes = [
        tuple(part.transitions.reward[begin:end].astype(int))
        for part in parts
        for begin, end in zip([0, *part.episode_ends], part.episode_ends, strict=False)
    ]
    whole = [tuple(range(end - length, end)) for end, length in zip(ends, lengths, strict=True)]
    assert sorted(episodes) == whole
    for part in parts:
        assert np.all(np.diff(part.transitions.reward) > 0)


@given(lengths=LENGTHS, data=some.data())
def test_rows_without_next_observations_lead_to_the_next_of_their_episode(lengths, data):
    terminates = np.array(data.draw(some.lists(some.booleans(), min_size=len(lengths), max_size=len(lengths))))
    size, last = sum(lengths), np.cumsum(lengths) - 1
    rows, ends = np.arange(size, dtype=np.float32), np.zeros(size, bool)
    ends[last] = True
    terminations = np.zeros(size, bool)
    terminations[last] = terminates
    kept = [row for row in range(size) if not ends[row] or terminations[row]]
    columns = (rows[:, None], np.zeros((size, 1), np.float32), rows, terminations, ends & ~terminations)
    if not kept:
        with pytest.raises(ValueError, match="since every row is the last of an episode that was cut"):
            Dataset.from_arrays(*columns)
        return
    found = Dataset.from_arrays(*columns)
    np.testing.assert_array_equal(found.transitions.reward, kept)
    following = [row if terminations[row] else row + 1 for row in kept]
    np.testing.assert_array_equal(found.transitions.next_observation[:, 0], following)
    np.testing.assert_array_equal(found.transitions.terminated, terminations[kept])
