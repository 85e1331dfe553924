import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.ops.mismatch import neighbour_distance, overestimation, proposition_values, rank_correlation, ranks


def test_ranks_by_hand():
    # 1 < 3 = 3 < 7: the two in the middle share (2 + 3) / 2
    np.testing.assert_array_equal(ranks(jnp.array([3.0, 7.0, 1.0, 3.0])), [2.5, 4.0, 1.0, 2.5])
    np.testing.assert_array_equal(ranks(jnp.array([[5.0, 6.0], [6.0, 5.0]])), [[1, 2], [2, 1]])


def test_rank_correlation_by_hand():
    # ranks (1, 2, 3) and (1, 3, 2), centred (−1, 0, 1) and (−1, 1, 0): 1 / (√2 √2)
    x, y = jnp.array([0.1, 0.2, 9.0]), jnp.array([-5.0, 4.0, 3.0])
    np.testing.assert_allclose(rank_correlation(x, y), 0.5, rtol=1e-6)


@pytest.mark.parametrize(("function", "expected"), [(jnp.exp, 1.0), (lambda x: -(x**3), -1.0), (jnp.zeros_like, 0.0)])
def test_rank_correlation_sees_the_order_alone(function, expected):
    x = jax.random.normal(jax.random.key(0), (3, 20))
    np.testing.assert_allclose(rank_correlation(x, function(x)), np.full(3, expected), atol=1e-6)


def test_overestimation_by_hand():
    # above: 3 − 2 = 1 and 5 − 2 = 3 at the first state, none at the second: share 2 / 6, mean gap 2
    q = jnp.array([[3.0, 5.0, 2.0], [0.0, -1.0, 1.0]])
    share, gap = overestimation(q, jnp.array([2.0, 1.0]))
    np.testing.assert_allclose([share, gap], [1 / 3, 2.0], rtol=1e-6)


def test_nothing_is_overestimated_where_the_own_action_is_best():
    q = jax.random.normal(jax.random.key(0), (50, 8))
    share, gap = overestimation(q, jnp.max(q, axis=1))
    assert (share, gap) == (0.0, 0.0)


def test_proposition_values_by_hand():
    # α = 0.5, cap of each probe: 4 − 0.5 (0 − (−2)) = 3 and 4 − 0.5 (0 − (−4)) = 2.   Q_fqe = (2, 6): only the first is
    # low.   V_fqe = 2 + 0.5 · 2 = 3.   V_align = ((2 + 1) + (2 + 2)) / 2 = 3.5.   V_ȧ = 4 − 0
    values = proposition_values(
        q_fqe=jnp.array([[2.0, 6.0]]),
        q_align=jnp.array([[2.0, 2.0]]),
        q_mode=jnp.array([4.0]),
        log_prob=jnp.array([[-2.0, -4.0]]),
        log_prob_mode=jnp.array([0.0]),
        alpha=jnp.asarray(0.5),
    )
    np.testing.assert_allclose(jnp.stack(values)[:, 0], [3.0, 3.5, 4.0])


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_the_capped_critic_lies_within_the_upper_bound_everywhere(alpha):
    # Q_align = min(cap, Q_fqe), Eq. (12): the proposition's own construction
    keys = jax.random.split(jax.random.key(1), 4)
    q_fqe, log_prob = jax.random.normal(keys[0], (40, 16)), jax.random.normal(keys[1], (40, 16))
    q_mode, log_prob_mode = jax.random.normal(keys[2], (40,)), jax.random.normal(keys[3], (40,))
    cap = q_mode[:, None] - alpha * (log_prob_mode[:, None] - log_prob)
    q_align = jnp.minimum(cap, q_fqe)
    v_fqe, v_align, v_mode = proposition_values(q_fqe, q_align, q_mode, log_prob, log_prob_mode, jnp.asarray(alpha))
    assert jnp.all(v_fqe <= v_align + 1e-5)  # calibrated probes are worth V_ȧ each, which no low one exceeds
    assert jnp.all(v_align <= v_mode + 1e-5)


def test_a_state_whose_probes_are_all_capped_has_no_lower_bound():
    one = jnp.ones((1, 2))
    v_fqe, *_ = proposition_values(5 * one, one, jnp.ones(1), one, jnp.ones(1), jnp.zeros(()))
    assert v_fqe[0] == -jnp.inf


def test_neighbour_distance_by_hand():
    # the two nearest of three states show (0, 0) and (0.3, 0.4); the third, which shows the action itself, is far off
    data_state, data_action = jnp.array([[0.0], [1.0], [50.0]]), jnp.array([[0.0, 0.0], [0.3, 0.4], [1.0, 1.0]])
    state, action = jnp.array([[0.4]]), jnp.array([[1.0, 1.0]])
    # √(((1 − 0.3)² + (1 − 0.4)²) / 2)
    expected = np.sqrt((0.49 + 0.36) / 2)
    np.testing.assert_allclose(neighbour_distance(state, action, data_state, data_action, 2), [expected], rtol=1e-6)
    np.testing.assert_allclose(neighbour_distance(state, action, data_state, data_action, 3), [0.0], atol=1e-6)
    several = jnp.stack([action, data_action[:1]], axis=1)
    distances = neighbour_distance(state, several, data_state, data_action, 2)
    np.testing.assert_allclose(distances, [[expected, 0.0]], rtol=1e-6)


def test_neighbour_distance_does_not_depend_on_how_many_states_go_at_once():
    keys = jax.random.split(jax.random.key(2), 4)
    state, data_state = jax.random.normal(keys[0], (7, 3)), jax.random.normal(keys[1], (30, 3))
    action, data_action = jax.random.normal(keys[2], (7, 2)), jax.random.normal(keys[3], (30, 2))
    together = neighbour_distance(state, action, data_state, data_action, 5)
    one_by_one = neighbour_distance(state, action, data_state, data_action, 5, batch_size=1)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-6)
    state, action, data_state, data_action = (np.asarray(x) for x in (state, action, data_state, data_action))
    expected = [
        min(np.sqrt(np.mean((data_action[j] - a) ** 2)) for j in np.argsort(np.sum((data_state - s) ** 2, axis=1))[:5])
        for s, a in zip(state, action, strict=True)
    ]
    np.testing.assert_allclose(together, expected, rtol=1e-5)
