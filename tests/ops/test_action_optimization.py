import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.ops.action_optimization import ascend, best_actions, drawn_action

SLOPE = jnp.array([2.0, -1.0])


def test_the_most_valuable_are_kept_by_hand():
    action = jnp.array([[[0.1], [0.2], [0.3]]])
    np.testing.assert_allclose(best_actions(action, jnp.array([[1.0, 3.0, 2.0]]), 2), [[[0.2], [0.3]]])


def test_more_than_there_are_cannot_be_kept():
    with pytest.raises(ValueError, match="Set count between 1 and the 3"):
        best_actions(jnp.zeros((1, 3, 1)), jnp.zeros((1, 3)), 4)


def test_linear_values_move_actions_by_steps_times_slope():
    # 10 · 0.01 · (2, −1) = (0.2, −0.1);  Q = 2 · 0.3 + 1 · 0.1 = 0.7
    action, value = ascend(lambda a: a @ SLOPE, jnp.array([[0.1, 0.0]]), 10, 0.01)
    np.testing.assert_allclose(action, [[0.3, -0.1]], rtol=1e-6)
    np.testing.assert_allclose(value, [0.7], rtol=1e-6)


def test_actions_stay_in_their_box():
    action, _ = ascend(lambda a: a @ SLOPE, jnp.array([[0.1, 0.0]]), 3, 10.0)
    np.testing.assert_allclose(action, [[1.0, -1.0]])


def test_a_step_too_far_is_not_taken():
    # Q = −a²: from 0.5 a step of 1.5 · (−1) leads to −1, which is worse; from 0.1, 0.1 − 1.5 · 0.2 = −0.2 is, too
    start = jnp.array([[0.5], [0.1]])
    action, value = ascend(lambda a: -jnp.sum(a**2, axis=-1), start, 1, 1.5)
    np.testing.assert_allclose(action, start)
    np.testing.assert_allclose(value, [-0.25, -0.01], rtol=1e-6)


def test_no_steps_return_the_start():
    action, value = ascend(lambda a: a @ SLOPE, jnp.array([[0.5, 0.5]]), 0, 1.0)
    np.testing.assert_allclose(action, [[0.5, 0.5]])
    np.testing.assert_allclose(value, [0.5])


def test_no_gradient_flows_through_the_optimiser():
    def moved(slope):
        action, value = ascend(lambda a: a @ slope, jnp.array([[0.1, 0.0]]), 2, 0.01)
        return jnp.sum(action) + jnp.sum(value)

    np.testing.assert_array_equal(jax.grad(moved)(SLOPE), [0.0, 0.0])


def test_draws_follow_the_softmax_of_values():
    # P = (1, 3) / 4; of 4,000 draws 3,000 ± 27 · 4 are the second
    action = jnp.tile(jnp.array([[[0.0], [1.0]]]), (4_000, 1, 1))
    q = jnp.tile(jnp.log(jnp.array([[1.0, 3.0]])), (4_000, 1))
    np.testing.assert_allclose(jnp.mean(drawn_action(action, q, jax.random.key(0))), 0.75, atol=0.03)
