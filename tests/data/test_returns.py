import hypothesis.strategies as some
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given

from o2o_jax.data.returns import RecordedReturns, ReturnsToGo
from o2o_jax.types import Rollout

REWARD = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
ROLLOUT = Rollout(  # an episode of three steps that terminates, and one of two that time cuts off
    observation=jnp.zeros((5, 1)),
    action=jnp.zeros((5, 1)),
    reward=REWARD,
    next_observation=jnp.arange(1.0, 6.0)[:, None],
    terminated=jnp.array([0.0, 0.0, 1.0, 0.0, 0.0]),
    truncated=jnp.array([0.0, 0.0, 0.0, 0.0, 1.0]),
)


def test_returns_to_go_by_hand():
    # γ = 0.5: 1 + 0.5 · 3.5, 2 + 0.5 · 3, 3; then 4 + 0.5 · 5, 5. A termination has no tail, two steps ahead weigh 0.25
    returns = ReturnsToGo.of(REWARD, ROLLOUT, 0.5)
    np.testing.assert_allclose(returns.value, [2.75, 3.5, 3.0, 6.5, 5.0])
    np.testing.assert_allclose(returns.tail.weight, [0.0, 0.0, 0.0, 0.25, 0.5])
    np.testing.assert_array_equal(returns.tail.observation[:, 0], [3.0, 3.0, 3.0, 5.0, 5.0])


def test_the_level_satisfies_its_equation():
    # mean G = 20.75 / 5 = 4.15, mean w = 0.15: b = 4.15 / 0.85, and with a bonus of 1 everywhere 5.15 / 0.85
    returns = ReturnsToGo.of(REWARD, ROLLOUT, 0.5)
    np.testing.assert_allclose(returns.level(), 4.15 / 0.85, rtol=1e-6)
    np.testing.assert_allclose(returns.level(jnp.ones(5)), 5.15 / 0.85, rtol=1e-6)
    level = returns.level()
    np.testing.assert_allclose(jnp.mean(returns.value + returns.tail.weight * level), level, rtol=1e-6)


def test_a_constant_reward_without_an_end_has_the_level_of_a_perpetuity():
    # r / (1 − γ), wherever the recording was cut
    rollout = ROLLOUT.replace(terminated=jnp.zeros(5), truncated=jnp.array([0.0, 1.0, 0.0, 0.0, 1.0]))
    np.testing.assert_allclose(ReturnsToGo.of(jnp.full(5, 3.0), rollout, 0.9).level(), 30.0, rtol=1e-5)


def test_returns_go_on_with_a_value_where_they_have_a_tail():
    # V(s_e') is the last observation times 10: 3 and 5 become 30 and 50, of which the termination counts nothing
    returns = ReturnsToGo.of(REWARD, ROLLOUT, 0.5)
    np.testing.assert_allclose(returns.bootstrapped(lambda s: 10.0 * s[:, 0]), [2.75, 3.5, 3.0, 6.5 + 12.5, 5.0 + 25.0])
    without = ReturnsToGo(returns.value)
    np.testing.assert_array_equal(without.bootstrapped(lambda s: 10.0 * s[:, 0]), returns.value)
    np.testing.assert_allclose(without.level(), 4.15, rtol=1e-6)


def test_recorded_returns_by_hand():
    # γ = 0.5, r = 2 raw − 3 = −1, 1, 3, 5, 7: −1 + 0.5 · 2.5, 1 + 0.5 · 3, 3; time cuts the second off: 5 + 0.5 · 7, 7
    found = RecordedReturns(0.5, 2.0, -3.0).of(ROLLOUT)
    np.testing.assert_allclose(found, [0.25, 2.5, 3.0, 8.5, 7.0])


def test_an_episode_of_nothing_but_failure_never_ends():
    # γ = 0.5, r = 10 raw − 5: failure for ever is −5 / 0.5; the goal amid an episode: −5 + 0.5 · 2.5, 5 − 0.5 · 5, −5
    rollout = ROLLOUT.replace(reward=jnp.array([0.0, 1.0, 0.0, 0.0, 0.0]))
    found = RecordedReturns(0.5, 10.0, -5.0, failure_reward=0.0).of(rollout)
    np.testing.assert_allclose(found, [-3.75, 2.5, -5.0, -10.0, -10.0])
    # without a reward of failure there is none
    np.testing.assert_allclose(RecordedReturns(0.5, 10.0, -5.0).of(rollout), [-3.75, 2.5, -5.0, -7.5, -5.0])


def test_no_gradient_flows_through_the_value_at_the_end():
    returns = ReturnsToGo.of(REWARD, ROLLOUT, 0.5)
    gradient = jax.grad(lambda scale: jnp.sum(returns.bootstrapped(lambda s: scale * s[:, 0])))(1.0)
    np.testing.assert_array_equal(gradient, 0.0)


@given(
    reward=some.lists(some.floats(-10.0, 10.0, width=32), min_size=6, max_size=6),
    cut=some.lists(some.booleans(), min_size=5, max_size=5),
    discount=some.floats(0.1, 0.99),
)
def test_cuts_change_nothing_where_the_value_beyond_them_is_the_true_one(reward, cut, discount):
    # one episode of six steps that terminates; its observations are the numbers of the steps
    whole = np.zeros(7)
    for t in reversed(range(6)):
        whole[t] = reward[t] + discount * whole[t + 1]
    rows = jnp.arange(6.0)[:, None]
    rollout = Rollout(
        observation=rows,
        action=rows,
        reward=jnp.array(reward),
        next_observation=rows + 1.0,
        terminated=jnp.zeros(6).at[5].set(1.0),
        truncated=jnp.array([*cut, False], jnp.float32),
    )
    returns = ReturnsToGo.of(rollout.reward, rollout, discount)
    true_value = jnp.asarray(whole, jnp.float32)
    found = returns.bootstrapped(lambda observation: true_value[observation[:, 0].astype(int)])
    np.testing.assert_allclose(found, whole[:6], rtol=1e-4, atol=1e-4)
