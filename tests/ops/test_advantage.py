"""Returns, generalised and auxiliary advantages, the clipped surrogate."""

import math

import hypothesis.strategies as some
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from o2o_jax.ops import advantage as ops
from o2o_jax.ops.distributions import Gaussian, normal_divergence


def floats(*values):
    return jnp.array(values, jnp.float32)


def gae(reward, value, next_value, terminated, ended, discount=0.5, gae_lambda=0.5):
    columns = (floats(*column) for column in (reward, value, next_value, terminated, ended))
    return ops.generalized_advantage(*columns, discount, gae_lambda)


def test_linear_recurrence_by_hand():
    # forwards from 10: 1 + 0.5 · 10, 2 + 0 · 6, 3 + 0.1 · 2.   backwards: 3 + 0.1 · 10, 2 + 0 · 4, 1 + 0.5 · 2
    value, decay = floats(1, 2, 3), floats(0.5, 0, 0.1)
    np.testing.assert_allclose(ops.linear_recurrence(value, decay, 10.0), [6.0, 2.0, 3.2])
    np.testing.assert_allclose(ops.linear_recurrence(value, decay, 10.0, reverse=True), [2.0, 2.0, 4.0])


def test_discounted_returns_by_hand():
    # two episodes: 1 + 0.5 · 2 = 2, 2;   3 + 0.5 · (4 + 0.5 · 5) = 6.25, 6.5, 5
    returns = ops.discounted_returns(floats(1, 2, 3, 4, 5), floats(0, 1, 0, 0, 1), 0.5)
    np.testing.assert_allclose(returns, [2.0, 2.0, 6.25, 6.5, 5.0])


def test_steps_to_end_by_hand():
    # the third episode's recording stopped: the last row ends it all the same
    last, steps = ops.steps_to_end(floats(0, 1, 1, 0, 0))
    np.testing.assert_array_equal(last, [1, 1, 2, 4, 4])
    np.testing.assert_array_equal(steps, [2, 1, 1, 2, 1])


def test_generalized_advantage_by_hand():
    # δ = 1 + 0.5 · 4 − 2 = 1,  1 + 0.5 · 6 − 4 = 0,  1 + 0.5 · 8 − 6 = −1;   γλ = 0.25: −1,  0 − 0.25,  1 − 0.0625
    found = gae([1, 1, 1], [2, 4, 6], [4, 6, 8], [0, 0, 0], [0, 0, 0])
    np.testing.assert_allclose(found, [0.9375, -0.25, -1.0])


def test_a_time_limit_bootstraps_and_a_termination_does_not():
    # the middle step ends an episode in both cases, so that nothing of the third comes into the first two.
    # time limit: δ = 1, 0, −1 as above: 1 + 0.25 · 0, 0, −1.   termination: δ₂ = 1 − 4 = −3: 1 − 0.75, −3, −1
    columns = ([1, 1, 1], [2, 4, 6], [4, 6, 8])
    np.testing.assert_allclose(gae(*columns, [0, 0, 0], [0, 1, 0]), [1.0, 0.0, -1.0])
    np.testing.assert_allclose(gae(*columns, [0, 1, 0], [0, 1, 0]), [0.25, -3.0, -1.0])


def random_rollout(length=40):
    keys = jax.random.split(jax.random.key(0), 4)
    reward, value = jax.random.normal(keys[0], (length,)), jax.random.normal(keys[1], (length + 1,))
    terminated = jax.random.bernoulli(keys[2], 0.1, (length,)).astype(jnp.float32)
    truncated = jax.random.bernoulli(keys[3], 0.1, (length,)).astype(jnp.float32)
    return reward, value[:-1], value[1:], terminated, jnp.maximum(terminated, truncated)


def test_with_lambda_one_it_is_the_return_less_the_value():
    # beyond a time limit, and beyond the rollout's end, the return continues with V(s')
    reward, value, next_value, terminated, ended = random_rollout()
    expected, following = np.zeros(40), float(next_value[-1])
    for t in reversed(range(40)):
        following = float(next_value[t]) if ended[t] else following
        following = float(reward[t]) + 0.9 * (1.0 - float(terminated[t])) * following
        expected[t] = following
    found = ops.generalized_advantage(reward, value, next_value, terminated, ended, 0.9, 1.0)
    np.testing.assert_allclose(found + value, expected, rtol=1e-4, atol=1e-5)


def test_with_lambda_zero_it_is_the_temporal_difference():
    reward, value, next_value, terminated, ended = random_rollout()
    found = ops.generalized_advantage(reward, value, next_value, terminated, ended, 0.9, 0.0)
    np.testing.assert_allclose(found, reward + 0.9 * (1.0 - terminated) * next_value - value, rtol=1e-5, atol=1e-6)


def test_no_gradient_flows_through_an_advantage():
    reward, value, next_value, terminated, ended = random_rollout()
    gradient = jax.grad(
        lambda value: jnp.sum(ops.generalized_advantage(reward, value, next_value, terminated, ended, 0.9, 0.9))
    )(value)
    np.testing.assert_array_equal(gradient, 0.0)


def sampled_reference(mean=0.3, std=0.5, samples=40_000, action_dim=3):
    """Z of `reference_advantage` for unclipped actions of the reference policy itself."""
    policy = Gaussian(jnp.full((samples, action_dim), mean), jnp.full(action_dim, math.log(std)))
    action = mean + std * jax.random.normal(jax.random.key(0), (samples, action_dim))
    return ops.reference_advantage(policy.log_prob(action), -policy.entropy())


@pytest.mark.parametrize("std", [0.05, 0.5, 2.0])
def test_the_reference_advantage_is_zero_on_average_under_its_own_policy(std):
    # z = Σ (1 − ε²) / 2, of variance 1/2 per dimension: 40,000 samples of three have a standard error of 0.006
    z = sampled_reference(std=std)
    assert abs(float(jnp.mean(z))) < 0.025
    np.testing.assert_allclose(jnp.std(z), math.sqrt(1.5), rtol=0.03)


def test_the_reference_advantage_is_half_a_nat_per_dimension_at_most():
    policy = Gaussian(jnp.full((1, 3), 0.3), jnp.log(floats(0.1, 0.5, 2.0)))
    at_mean = ops.reference_advantage(policy.log_prob(jnp.full((1, 3), 0.3)), -policy.entropy())
    np.testing.assert_allclose(at_mean, [1.5], rtol=1e-5)
    # one standard deviation away it is 0 (section H.5)
    away = ops.reference_advantage(policy.log_prob(0.3 + floats(0.1, -0.5, 2.0)[None]), -policy.entropy())
    np.testing.assert_allclose(away, [0.0], atol=1e-5)


def normal(mean, std):
    return Gaussian(floats(*mean)[None], jnp.log(floats(*std)))


def gain_of_reference_advantage(moved, acted, reference, baseline):
    """E_π[z] of a policy π = (μ, log σ) of one dimension, by quadrature; z is a constant of the policy that acted."""
    action = jnp.linspace(-4.0, 4.0, 4_001)[:, None]
    moved, acted, reference = (Gaussian(jnp.full((4_001, 1), p[0]), p[1][None]) for p in (moved, acted, reference))
    constant = acted.log_prob(action) if baseline == "policy" else -reference.entropy()
    z = ops.reference_advantage(reference.log_prob(action), constant)
    return jnp.sum(jnp.exp(moved.log_prob(action)) * z) * 8.0 / 4_000


def test_gradient_of_the_reference_advantage():
    # d/dμ and d/d log σ of E_π[log π_ref] at π = π_ref = N(0.3, 0.5²): 0 and −σ²/σ_ref² = −1; of a baseline that is no
    # function of a: nothing. Against log π_old they are 0 and 0
    home = floats(0.3, math.log(0.5))
    gradient = jax.grad(gain_of_reference_advantage)
    np.testing.assert_allclose(gradient(home, home, home, "entropy"), [0.0, -1.0], atol=1e-3)
    np.testing.assert_allclose(gradient(home, home, home, "policy"), [0.0, 0.0], atol=1e-6)
    # and away from it those of −KL(π, π_ref): −(μ − μ_ref)/σ_ref² = −0.4 and 1 − σ²/σ_ref² = 0.64
    away = floats(0.4, math.log(0.3))
    expected = jax.grad(lambda p: -normal_divergence(Gaussian(p[:1][None], p[1:]), normal((0.3,), (0.5,)))[0])(away)
    np.testing.assert_allclose(expected, [-0.4, 0.64], rtol=1e-5)
    np.testing.assert_allclose(gradient(away, away, home, "policy"), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("weight", "divergence", "expected"),
    [
        (2.0, 0.30, 3.0),  # above 1.5 · 0.15
        (2.0, 0.20, 2.0),  # in between
        (2.0, 0.12, 2.0),
        (3.0, 0.05, 2.0),  # below 0.15 / 1.5
        (2.0, math.nan, 2.0),
        (9.0, 0.30, 10.0),  # bounded on both sides
        (0.12, 0.0, 0.1),
    ],
)
def test_adapted_weight_by_hand(weight, divergence, expected):
    found = ops.adapted_weight(jnp.asarray(weight), jnp.asarray(divergence), 0.15)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_auxiliary_advantage_by_hand():
    # of one dimension: softplus(x + 4) − 4 is log(1 + e⁴) − 4 = 0.018150 at 0, log 2 − 4 at −4, and never below −4
    found = ops.auxiliary_advantage(floats(0, -4, -1e3), 1, 2.0)
    np.testing.assert_allclose(found, [2 * 0.01815, 2 * (math.log(2) - 4), -8.0], rtol=1e-4)
    # of three: α/3 [softplus(z + 12) − 12], which at z = 1.5, the most that there is, is 1: one deviation of A
    np.testing.assert_allclose(ops.auxiliary_advantage(floats(1.5), 3, 2.0), [1.0], atol=1e-4)


def test_the_softplus_hardly_bends_what_the_reference_policy_does():
    z = sampled_reference()
    assert abs(float(jnp.mean(ops.auxiliary_advantage(z, 3, 2.0)))) < 0.02


def test_combined_advantage_by_hand():
    # A = 1, 3 with deviation √2 (of samples); A_α = 2, −2, β = 0.5: (1 + 0.5 √2 · 2) / 1.5, (3 − √2) / 1.5
    found = ops.combined_advantage(floats(1, 3), floats(2, -2), floats(0.5)[0])
    root = math.sqrt(2)
    np.testing.assert_allclose(found, [[(1 + root) / 1.5], [(3 - root) / 1.5]], rtol=1e-6)
    # the square broadcast pairs every sample with every auxiliary advantage
    square = ops.combined_advantage(floats(1, 3), floats(2, -2), floats(0.5)[0], "outer")
    expected = np.array([[1 + root, 1 - root], [3 + root, 3 - root]]) / 1.5
    np.testing.assert_allclose(square, expected, rtol=1e-5)


def test_a_weight_of_zero_leaves_the_advantage():
    advantage = floats(1, 3, -2)
    np.testing.assert_allclose(ops.combined_advantage(advantage, floats(9, 9, 9), 0.0)[:, 0], advantage)


def test_normalized_by_hand():
    # mean 2, deviation √2
    np.testing.assert_allclose(ops.normalized(floats(1, 3)), [-1 / math.sqrt(2), 1 / math.sqrt(2)], rtol=1e-4)
    square = ops.normalized(jax.random.normal(jax.random.key(0), (5, 5)))
    np.testing.assert_allclose([jnp.mean(square), jnp.std(square, ddof=1)], [0.0, 1.0], atol=1e-4)


def surrogate(ratio, *advantages):
    """Returns the loss of one sample with some advantages."""
    advantages = floats(*advantages)
    positive, negative = (jnp.mean(part(advantages, 0.0))[None] for part in (jnp.maximum, jnp.minimum))
    return ops.clipped_surrogate(floats(ratio), positive, negative, 0.2)[0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.1, 2.0, 2.2),
        (1.5, 2.0, 2.4),  # gains stop at 1.2
        (0.5, 2.0, 1.0),  # what went wrong is not bounded
        (1.1, -2.0, -2.2),
        (1.5, -2.0, -3.0),
        (0.5, -2.0, -1.6),  # nor does it pay to make a bad action rarer than 0.8
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, expected):
    np.testing.assert_allclose(surrogate(ratio, advantage), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [(1.0, 2.0, 2.0), (1.5, 2.0, 0.0), (0.5, 2.0, 2.0), (1.0, -2.0, -2.0), (1.5, -2.0, -2.0), (0.5, -2.0, 0.0)],
)
def test_gradient_of_the_clipped_surrogate(ratio, advantage, slope):
    np.testing.assert_allclose(jax.grad(surrogate)(ratio, advantage), slope)


@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.0, 1.15, 1.7])
def test_several_advantages_of_a_sample_count_as_their_mean_surrogate(ratio):
    advantages = [2.0, -1.0, 0.5, -3.0]
    expected = np.mean([surrogate(ratio, advantage) for advantage in advantages])
    np.testing.assert_allclose(surrogate(ratio, *advantages), expected, rtol=1e-6)


def test_constants_of_the_surrogate_get_no_gradient():
    ones = jnp.ones(3)
    for argument in (1, 2):
        gradient = jax.grad(lambda *a: jnp.sum(ops.clipped_surrogate(*a, 0.2)), argument)(ones, ones, -ones)
        np.testing.assert_array_equal(gradient, 0.0)


def test_shapes_must_agree():
    with pytest.raises(AssertionError):
        ops.combined_advantage(jnp.ones((4, 1)), jnp.ones(4), 1.0)  # the broadcast of D-32
    with pytest.raises(AssertionError):
        ops.generalized_advantage(jnp.ones(4), jnp.ones(4), jnp.ones(4), jnp.ones(4), jnp.ones(3), 0.9, 0.9)


def test_steps_from_start_by_hand():
    # episodes of rows 0, 1–3 and 4–5, whose last one is still under way
    first, before = ops.steps_from_start(floats(1, 0, 0, 1, 0, 0))
    np.testing.assert_array_equal(first, [0, 1, 1, 1, 4, 4])
    np.testing.assert_array_equal(before, [0, 0, 1, 2, 0, 1])


NUMBERS = some.floats(-100.0, 100.0, width=32)
GOES_ON, TERMINATES, IS_CUT = range(3)
STEPS = some.lists(
    some.tuples(NUMBERS, NUMBERS, NUMBERS, some.sampled_from([GOES_ON, TERMINATES, IS_CUT])), min_size=6, max_size=6
)


@given(steps=STEPS, discount=some.floats(0.1, 0.99), gae_lambda=some.floats(0.0, 1.0))
def test_generalized_advantage_is_the_weighted_sum_of_the_episode_s_own_errors(steps, discount, gae_lambda):
    reward, value, next_value, kind = map(np.array, zip(*steps, strict=True))
    delta = reward + discount * (kind != TERMINATES) * next_value - value
    last = [next((e for e in range(t, 6) if kind[e] != GOES_ON), 5) for t in range(6)]
    expected = [sum((discount * gae_lambda) ** (k - t) * delta[k] for k in range(t, last[t] + 1)) for t in range(6)]
    found = gae(reward, value, next_value, kind == TERMINATES, kind != GOES_ON, discount, gae_lambda)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@given(ratio=some.floats(0.0, 10.0, width=32), advantage=NUMBERS, clip=some.floats(0.05, 0.9))
def test_the_clipped_surrogate_never_promises_more_than_the_plain_one(ratio, advantage, clip):
    found = float(ops.clipped_surrogate(*floats([ratio], [max(advantage, 0.0)], [min(advantage, 0.0)]), clip)[0])
    plain = np.float32(ratio) * np.float32(advantage)
    assert found <= plain + 1e-4 * abs(plain)
    if abs(ratio - 1.0) < 0.99 * clip:
        np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-30)
