import math

import hypothesis.strategies as some
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from o2o_jax.ops.distributions import (
    LOG_PROB_LIMIT,
    MODE_LIMIT,
    Deterministic,
    Gaussian,
    TanhGaussian,
    moment_matched,
    normal_divergence,
    normal_log_prob,
)
from tests.golden_numbers import replayed_draws


def exact_squashed_log_prob(unsquashed, mean, std):
    """Log N(u; m, σ) − log(1 − tanh² u) in double precision, with 1 − tanh² u = 1 / cosh² u."""
    normal = -0.5 * ((unsquashed - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2.0 * np.pi)
    return normal + 2.0 * (np.logaddexp(unsquashed, -unsquashed) - np.log(2.0))


def test_normal_log_prob_by_hand():
    # at the mean: −log σ − ½ log 2π; one σ away ½ less
    expected = -math.log(2.0) - 0.5 * math.log(2.0 * math.pi)
    values = normal_log_prob(jnp.array([1.0, 3.0]), jnp.ones(2), jnp.full(2, math.log(2.0)))
    np.testing.assert_allclose(values, [expected, expected - 0.5], rtol=1e-6)


@pytest.mark.parametrize("unsquashed", [-10.0, -3.0, -0.1, 0.0, 0.5, 4.0, 10.0])
def test_sampled_density_obeys_the_change_of_variables(unsquashed):
    mean, std = 0.3, 0.7
    noise = np.full((1, 1), (unsquashed - mean) / std, np.float32)
    with replayed_draws([noise]):
        distribution = TanhGaussian(jnp.full((1, 1), mean), jnp.full((1, 1), math.log(std)))
        action, log_prob = distribution.sample_and_log_prob(jax.random.key(0))
    np.testing.assert_allclose(action, [[math.tanh(unsquashed)]], rtol=1e-5)
    np.testing.assert_allclose(log_prob, [exact_squashed_log_prob(unsquashed, mean, std)], rtol=1e-5)


def test_density_of_a_given_action_obeys_the_change_of_variables():
    actions = np.array([-0.99, -0.5, 0.0, 0.2, 0.999])
    distribution = TanhGaussian(jnp.full((5, 1), 0.3), jnp.full((5, 1), math.log(0.7)))
    expected = exact_squashed_log_prob(np.arctanh(actions), 0.3, 0.7)
    np.testing.assert_allclose(distribution.log_prob(jnp.asarray(actions)[:, None]), expected, rtol=1e-4)


def test_density_of_a_sample_is_that_of_the_given_action():
    distribution = TanhGaussian(jnp.zeros((100, 3)), jnp.full((100, 3), -1.0))
    action, log_prob = distribution.sample_and_log_prob(jax.random.key(0))
    np.testing.assert_allclose(distribution.log_prob(action), log_prob, rtol=1e-3, atol=1e-3)


def test_density_integrates_to_one():
    grid = np.linspace(-1.0, 1.0, 20_001)
    middle = (grid[1:] + grid[:-1]) / 2.0
    distribution = TanhGaussian(jnp.full((len(middle), 1), 0.5), jnp.full((len(middle), 1), math.log(0.6)))
    density = np.exp(distribution.log_prob(jnp.asarray(middle, jnp.float32)[:, None]))
    np.testing.assert_allclose(np.sum(density) * 1e-4, 1.0, rtol=1e-3)


def test_density_sums_over_dimensions():
    mean, log_std = jnp.array([[0.1, -0.4]]), jnp.array([[-1.0, 0.2]])
    action = jnp.array([[0.3, 0.6]])
    parts = [TanhGaussian(mean[:, i : i + 1], log_std[:, i : i + 1]).log_prob(action[:, i : i + 1]) for i in range(2)]
    np.testing.assert_allclose(TanhGaussian(mean, log_std).log_prob(action), parts[0] + parts[1], rtol=1e-5)


def test_actions_at_the_edge_have_a_finite_density():
    distribution = TanhGaussian(jnp.zeros((2, 1)), jnp.zeros((2, 1)))
    edge = distribution.log_prob(jnp.array([[1.0], [-1.0]]))
    np.testing.assert_allclose(edge, distribution.log_prob(jnp.array([[LOG_PROB_LIMIT], [-LOG_PROB_LIMIT]])))
    assert jnp.all(jnp.isfinite(edge))


def test_density_far_out_is_finite_and_has_finite_gradients():
    def log_prob(mean):
        return jnp.sum(TanhGaussian(mean, jnp.full((2, 1), -20.0)).sample_and_log_prob(jax.random.key(0))[1])

    value, gradient = jax.value_and_grad(log_prob)(jnp.array([[50.0], [-50.0]]))
    assert jnp.isfinite(value)
    assert jnp.all(jnp.isfinite(gradient))


def test_squashed_mode_is_kept_off_the_edge():
    distribution = TanhGaussian(jnp.array([[0.5, 20.0, -20.0]]), jnp.zeros((1, 3)))
    np.testing.assert_allclose(distribution.mode(), [[math.tanh(0.5), MODE_LIMIT, -MODE_LIMIT]], rtol=1e-6)


def test_squashed_samples_are_reparameterised():
    # a = tanh(m + σ ε): da/dm = 1 − a², da/d log σ = (1 − a²) σ ε
    def action(mean, log_std):
        return TanhGaussian(mean, log_std).sample(jax.random.key(0))[0, 0]

    with replayed_draws([np.full((1, 1), 0.5, np.float32)]):
        gradients = jax.grad(action, argnums=(0, 1))(jnp.full((1, 1), 0.2), jnp.full((1, 1), math.log(2.0)))
    slope = 1.0 - math.tanh(0.2 + 2.0 * 0.5) ** 2
    np.testing.assert_allclose(gradients[0], [[slope]], rtol=1e-5)
    np.testing.assert_allclose(gradients[1], [[slope * 2.0 * 0.5]], rtol=1e-5)


def test_squashed_samples_have_the_stated_spread():
    distribution = TanhGaussian(jnp.full((20_000, 1), 0.3), jnp.full((20_000, 1), math.log(0.5)))
    unsquashed = jnp.arctanh(distribution.sample(jax.random.key(0)))
    np.testing.assert_allclose([jnp.mean(unsquashed), jnp.std(unsquashed)], [0.3, 0.5], atol=0.02)


def test_gaussian_log_prob_by_hand():
    # two dimensions, σ = 1 and 2, both one σ from the mean: −2 · ½ − log 2 − log 2π
    distribution = Gaussian(jnp.zeros((3, 2)), jnp.array([0.0, math.log(2.0)]))
    action = jnp.broadcast_to(jnp.array([1.0, -2.0]), (3, 2))
    np.testing.assert_allclose(distribution.log_prob(action), np.full(3, -1.0 - math.log(4.0 * math.pi)), rtol=1e-6)


def test_gaussian_actions_are_clipped():
    distribution = Gaussian(jnp.array([[0.5, 3.0, -3.0]]), jnp.full(3, -20.0))
    np.testing.assert_allclose(distribution.mode(), [[0.5, 1.0, -1.0]])
    np.testing.assert_allclose(distribution.sample(jax.random.key(0)), [[0.5, 1.0, -1.0]], rtol=1e-6)


def test_a_clipped_sample_comes_with_its_own_density():
    # 0.9 + σ ε is beyond 1 for most: N(0.9, 1) at 1 is −½ 0.01 − ½ log 2π
    distribution = Gaussian(jnp.full((50, 1), 0.9), jnp.zeros(1))
    action, log_prob = distribution.sample_and_log_prob(jax.random.key(0))
    np.testing.assert_array_equal(action, distribution.sample(jax.random.key(0)))
    np.testing.assert_allclose(log_prob[action[:, 0] == 1.0], -0.005 - 0.5 * math.log(2.0 * math.pi), rtol=1e-5)
    assert 5 < jnp.sum(action == 1.0) < 45


@pytest.mark.parametrize("deviations", [-1.5, 0.0, 2.0])
def test_density_so_many_deviations_off_the_mean(deviations):
    mean, log_std = jnp.array([[0.1, -0.2]]), jnp.array([[-1.0, -0.5]])
    far = mean + deviations * jnp.exp(log_std)
    for distribution, action in ((Gaussian(mean, log_std), far), (TanhGaussian(mean, log_std), jnp.tanh(far))):
        np.testing.assert_allclose(distribution.log_prob_at(deviations), distribution.log_prob(action), rtol=1e-5)


def test_gaussian_samples_have_the_stated_spread():
    distribution = Gaussian(jnp.zeros((20_000, 2)), jnp.log(jnp.array([0.1, 0.2])))
    samples = distribution.sample(jax.random.key(0))
    np.testing.assert_allclose(jnp.std(samples, axis=0), [0.1, 0.2], rtol=0.03)


def test_deterministic_samples_its_mode():
    distribution = Deterministic(jnp.array([[0.5, -0.5]]))
    np.testing.assert_array_equal(distribution.mode(), distribution.sample(jax.random.key(0)))


def test_gaussian_entropy():
    # ½ log(2πe σ²) per dimension: 1.418939 for σ = 1, and log 2 more for σ = 2
    distribution = Gaussian(jnp.zeros((4, 2)), jnp.array([0.0, math.log(2.0)]))
    np.testing.assert_allclose(distribution.entropy(), np.full(4, 2 * 1.418939 + math.log(2.0)), rtol=1e-6)


def normal(mean, std):
    """A normal distribution of means and deviations of one action each."""
    return Gaussian(jnp.asarray(mean, jnp.float32)[None], jnp.log(jnp.asarray(std, jnp.float32)))


def test_normal_divergence_by_hand():
    # log(0.4 / 0.2) + (0.2² + 0.4²) / (2 · 0.4²) − ½ = 0.693147 + 0.625 − 0.5; the second dimension is the same in both
    found = normal_divergence(normal((0.5, 0.3), (0.2, 0.7)), normal((0.1, 0.3), (0.4, 0.7)))
    np.testing.assert_allclose(found, [0.818147], rtol=1e-5)
    # the other way round: −0.693147 + (0.4² + 0.4²) / (2 · 0.2²) − ½ = 2.806853
    found = normal_divergence(normal((0.1, 0.3), (0.4, 0.7)), normal((0.5, 0.3), (0.2, 0.7)))
    np.testing.assert_allclose(found, [2.806853], rtol=1e-5)


def test_a_distribution_diverges_from_itself_by_exactly_nothing_and_from_others_by_something():
    keys = jax.random.split(jax.random.key(0), 4)
    policy, reference = (
        Gaussian(jax.random.normal(mean, (20, 3)), jax.random.normal(log_std, (20, 3)))
        for mean, log_std in (keys[:2], keys[2:])
    )
    np.testing.assert_array_equal(normal_divergence(policy, policy), 0.0)
    assert float(normal_divergence(policy, reference).min()) > 0.0


def test_divergence_of_squashed_distributions_is_the_mean_log_ratio_of_samples():
    # tanh cancels; 20,000 samples of a ratio whose standard deviation is about 1: ±0.03 is four standard errors
    first = TanhGaussian(jnp.full((20_000, 2), 0.4), jnp.full((20_000, 2), -0.7))
    second = TanhGaussian(jnp.full((20_000, 2), 0.1), jnp.full((20_000, 2), -0.5))
    action, log_prob = first.sample_and_log_prob(jax.random.key(0))
    sampled = jnp.mean(log_prob - second.log_prob(action))
    np.testing.assert_allclose(normal_divergence(first, second)[0], sampled, atol=0.03)


def test_divergence_leads_home():
    # d KL / dμ = (μ − μ') / σ'² = 0.5 / 0.25; d KL / d log σ = σ² / σ'² − 1 = 3
    def divergence(mean, log_std):
        return jnp.sum(normal_divergence(Gaussian(mean, log_std), normal((0.0,), (0.5,))))

    gradients = jax.grad(divergence, argnums=(0, 1))(jnp.full((1, 1), 0.5), jnp.zeros(1))
    np.testing.assert_allclose(jnp.concatenate([g.ravel() for g in gradients]), [2.0, 3.0], rtol=1e-5)


PARAMETERS = some.floats(-10.0, 10.0, width=32)
LOG_STDS = some.floats(-5.0, 2.0, width=32)


@given(means=some.tuples(PARAMETERS, PARAMETERS), log_stds=some.tuples(LOG_STDS, LOG_STDS))
def test_divergence_is_never_negative_and_nothing_between_equals(means, log_stds):
    pair = [Gaussian(jnp.array([mean]), jnp.array([log_std])) for mean, log_std in zip(means, log_stds, strict=True)]
    assert float(normal_divergence(*pair)) >= -1e-6
    assert float(normal_divergence(pair[0], pair[0])) == 0.0


@given(mean=PARAMETERS, log_std=some.floats(-20.0, 2.0, width=32), action=some.floats(-1.0, 1.0, width=32))
def test_every_action_has_a_finite_density_under_every_squashed_normal(mean, log_std, action):
    found, gradient = jax.value_and_grad(
        lambda parameters: TanhGaussian(parameters[:1], parameters[1:]).log_prob(jnp.array([action]))
    )(jnp.array([mean, log_std]))
    assert np.isfinite(found)
    assert np.all(np.isfinite(gradient))


def test_moment_matched_by_hand():
    # means 1 and 3, σ 1 and 2: μ = 2, σ² = (1 + 4) / 2 + ((−1)² + 1²) / 2 = 3.5
    mixture = moment_matched(TanhGaussian(jnp.array([[1.0], [3.0]]), jnp.log(jnp.array([[1.0], [2.0]]))), -20.0, 2.0)
    np.testing.assert_allclose(mixture.mean, [2.0])
    np.testing.assert_allclose(mixture.log_std, 0.5 * np.log([3.5]), rtol=1e-6)


def test_moment_matched_of_equal_members_is_each_of_them():
    # σ² = mean_k(μ_k² + σ_k²) − μ², as printed, would be 0 or less here in 32 bits, and its gradient infinite
    members = TanhGaussian(jnp.full((5, 1), 3.0), jnp.full((5, 1), -12.0))
    log_std, gradient = jax.value_and_grad(
        lambda mean: moment_matched(members.replace(mean=mean), -20.0, 2.0).log_std.sum()
    )(members.mean)
    np.testing.assert_allclose(log_std, -12.0, rtol=1e-6)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)
