"""Histories gathered from rows that follow one another."""

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.data import history
from o2o_jax.data.transform import Normalizer
from o2o_jax.types import History, Transition

ROWS = jnp.arange(6.0)
COLUMNS = History(ROWS[:, None], -ROWS[:, None], 10.0 * ROWS, jnp.ones(6))


def test_gather_by_hand():
    # three steps up to row 4, two up to row 1; four places each
    found = history.gather(COLUMNS, jnp.array([4, 1]), jnp.array([3, 2]), 4)
    np.testing.assert_array_equal(found.valid, [[0, 1, 1, 1], [0, 0, 1, 1]])
    np.testing.assert_array_equal(found.observation[..., 0], [[0, 2, 3, 4], [0, 0, 0, 1]])
    np.testing.assert_array_equal(found.action[..., 0], [[0, -2, -3, -4], [0, 0, 0, -1]])
    np.testing.assert_array_equal(found.return_to_go, [[0, 20, 30, 40], [0, 0, 0, 10]])


def test_gather_of_one_row():
    found = history.gather(COLUMNS, jnp.asarray(5), jnp.asarray(1), 2)
    assert found.observation.shape == (2, 1)
    np.testing.assert_array_equal(found.return_to_go, [0, 50])


def test_following_by_hand():
    # from row 2 on three steps are left, of which two fit; from row 5 on one; across the seam rows 5 and 0
    found = history.following(COLUMNS, jnp.array([2, 5, 5]), jnp.array([3, 1, 2]), 2)
    np.testing.assert_array_equal(found.valid, [[1, 1], [0, 1], [1, 1]])
    np.testing.assert_array_equal(found.observation[..., 0], [[2, 3], [0, 5], [5, 0]])
    np.testing.assert_array_equal(found.return_to_go, [[20, 30], [0, 50], [50, 0]])


def test_columns_and_actions():
    rows = Transition(ROWS[:, None], -ROWS[:, None], ROWS, ROWS[:, None], jnp.zeros(6))
    jax.tree.map(np.testing.assert_array_equal, history.columns(rows, 10.0 * ROWS), COLUMNS)
    changed = history.with_action(COLUMNS, jnp.array([7.0]))
    np.testing.assert_array_equal(changed.action[:, 0], [0, -1, -2, -3, -4, 7])


def test_a_network_sees_observations_normalised_and_returns_scaled():
    # (4 − 1) / 2 and 0.1 · 40; actions and padding as they are
    normalizer = Normalizer(jnp.array([1.0]), jnp.array([2.0]))
    found = history.normalize(history.gather(COLUMNS, jnp.asarray(4), jnp.asarray(1), 1), normalizer, 0.1)
    np.testing.assert_allclose([found.observation[0, 0], found.action[0, 0]], [1.5, -4.0])
    np.testing.assert_allclose([found.return_to_go[0], found.valid[0]], [4.0, 1.0])
