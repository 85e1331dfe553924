"""A readiness report on problems whose answers are known."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import diagnosis
from o2o_jax.critic import QFunction
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.diagnosis import ADVICE, DiagnosisConfig, Value, diagnose, gap_interval, recorded_returns, regime
from o2o_jax.ops.distributions import Deterministic, TanhGaussian
from o2o_jax.policy import Policy
from o2o_jax.runtime import seeds
from o2o_jax.types import Rollout, Spec
from tests import tiny

DISCOUNT = 0.5
CONFIG = DiagnosisConfig(states=200, probes=16, support=64, neighbours=4, max_tail=0.2)


class Quadratic:
    """An ensemble of two critics: Q(s, a) = bias + slope · a₀ − curvature ‖a − best‖²."""

    def apply(self, params, observation, action):
        value = params["bias"] + params["slope"] * action[..., 0] + 0.0 * observation[..., 0]
        value -= params["curvature"] * jnp.sum(jnp.square(action - params["best"]), axis=-1)
        return jnp.stack([value, value + 1.0])  # the lower one counts


@dataclasses.dataclass(frozen=True)
class Constant:
    """An actor that acts alike everywhere."""

    head: str = "deterministic"
    log_std: float = -1.0

    def apply(self, params, observation):
        mean = jnp.broadcast_to(params, (*observation.shape[:-1], 1))
        if self.head == "deterministic":
            return Deterministic(mean)
        return TanhGaussian(jnp.arctanh(mean), jnp.full_like(mean, self.log_std))


QUADRATIC = Quadratic()


def critic(bias=0.0, slope=0.0, curvature=0.0, best=0.0, alpha=0.0, discount=DISCOUNT, **transform):
    params = {name: jnp.asarray(value) for name, value in
              {"bias": bias, "slope": slope, "curvature": curvature, "best": best}.items()}  # fmt: skip
    return QFunction(params, Transform(Normalizer.identity(2), **transform), jnp.asarray(alpha), QUADRATIC, discount)


def policy(action=0.0, **actor):
    return Policy(jnp.asarray(action), Normalizer.identity(2), Constant(**actor))


def episodes(count=6, length=8, reward=1.0, terminated=0.0, action=0.0):
    """Episodes of equal rewards that all terminate, or are all cut off."""
    size = count * length
    last = (jnp.arange(size) % length == length - 1).astype(jnp.float32)
    observation = jax.random.normal(jax.random.key(5), (size, 2))
    return Rollout(
        observation=observation,
        action=jnp.full((size, 1), action),
        reward=jnp.full(size, reward),
        next_observation=observation + 0.1,
        terminated=terminated * last,
        truncated=(1.0 - terminated) * last,
    )


diagnose_compiled = jax.jit(functools.partial(diagnose, config=CONFIG))  # once for all that looks alike


def run(heldout, policy, **networks):
    support = tiny.random_batch(Spec(observation_dim=2, action_dim=1), size=64)
    return diagnose_compiled(jax.random.key(0), heldout, support, policy, **networks)


def test_returns_of_cut_off_episodes_count_only_far_from_their_end():
    # G_t = Σ_{i<k} 0.5^i = 2 (1 − 0.5^k), k steps before the end; max_tail 0.2 is met from k = 3 on: 0.5³ = 0.125
    returns, counts = recorded_returns(CONFIG, jax.random.key(0), episodes(1, 4), policy(), critic())
    np.testing.assert_allclose(returns, [1.875, 1.75, 1.5, 1.0])
    assert counts.tolist() == [True, True, False, False]
    _, counts = recorded_returns(CONFIG, jax.random.key(0), episodes(1, 4, terminated=1.0), policy(), critic())
    assert counts.all()  # nothing comes after an absorbing state


def test_returns_are_in_the_units_of_the_critic():
    # r → 10 r − 5 = 5: ten halves of the above
    returns, _ = recorded_returns(
        CONFIG, jax.random.key(0), episodes(1, 2), policy(), critic(reward_scale=10.0, reward_shift=-5.0)
    )
    np.testing.assert_allclose(returns, [7.5, 5.0])


def test_returns_of_soft_critics_are_credited_with_the_entropy_of_later_steps():
    soft, stochastic = critic(alpha=2.0), policy(head="tanh_gaussian", log_std=-2.0)
    config = dataclasses.replace(CONFIG, value_actions=20_000)
    returns, _ = recorded_returns(config, jax.random.key(0), episodes(1, 2), stochastic, soft)
    # near 0 tanh is the identity: H ≈ log σ + ½ log 2πe.   G_0 = 1 + 0.5 (1 + 2 H), and G_1 has no later step
    entropy = -2.0 + 0.5 * np.log(2 * np.pi * np.e)
    np.testing.assert_allclose(returns, [1.0 + 0.5 * (1.0 + 2.0 * entropy), 1.0], atol=0.05)


def test_a_critic_that_is_right_has_no_mismatch_and_a_pessimistic_one_has_its_size():
    # all episodes terminate at their only step: G = 1
    heldout = episodes(length=1, terminated=1.0)
    result = run(heldout, policy(), offline=critic(bias=-3.0), reevaluated=critic(bias=1.0))
    right, pessimistic = result.reevaluated, result.offline
    np.testing.assert_allclose([right.value, right.recorded, right.bias, right.error], [1.0, 1.0, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose([pessimistic.bias, pessimistic.error, result.shift], [-4.0, 4.0, -4.0], rtol=1e-6)
    assert result.aligned is None
    assert result.alignment is None


def test_where_no_return_counts_there_is_no_mismatch_to_speak_of():
    result = run(episodes(length=2), policy(), offline=critic())  # cut off after two steps: γ² = 0.25 > 0.2
    report = result.offline
    for number in (report.value, report.recorded, report.bias, report.error, report.correlation):
        assert jnp.isnan(number)
    assert report.overestimated == 0.0  # what needs no return is there
    assert result.value is None  # and what needs a re-evaluated critic isn't


def test_critics_of_other_units_are_not_compared_with_each_other():
    result = run(episodes(), policy(), offline=critic(reward_scale=2.0), reevaluated=critic())
    assert result.shift is None


@pytest.mark.parametrize("head", ["deterministic", "tanh_gaussian"])
def test_a_critic_that_prefers_one_side_rates_half_of_the_probes_above_the_policy(head):
    report = run(episodes(), policy(head=head), offline=critic(slope=1.0)).offline
    assert report.overestimated == pytest.approx(0.5, abs=0.05)
    assert report.gap > 0.05
    assert report.alignment == pytest.approx(0.0, abs=0.1)  # no order among probes at equal distance on both sides


@pytest.mark.parametrize("head", ["deterministic", "tanh_gaussian"])
def test_a_critic_whose_best_action_is_the_policy_s_is_aligned(head):
    report = run(episodes(), policy(head=head), aligned=critic(curvature=1.0)).aligned
    assert (report.overestimated, report.gap) == (0.0, 0.0)
    if head == "deterministic":  # both fall with the distance from ȧ; the density of tanh's samples nearly does
        np.testing.assert_allclose(report.alignment, 1.0, atol=1e-5)


def test_alignment_by_hand():
    # Q_fqe = a: half of the probes above; Q_align = −a² keeps ȧ = 0 at 0 and all else below
    result = run(
        episodes(), policy(), reevaluated=critic(slope=1.0), aligned=critic(curvature=1.0), aligned_policy=policy(0.1)
    )
    found = result.alignment
    np.testing.assert_allclose([found.overestimated, found.retained], [0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(found.distance, 0.01, rtol=1e-5)
    assert (found.upper, found.upper_violation) == (1.0, 0.0)  # −E a² ≤ 0
    assert found.lower == 1.0  # E[a | a ≤ 0] ≈ −0.16 lies below −E a² ≈ −0.04


def test_alignment_that_went_wrong_is_seen():
    result = run(episodes(), policy(), reevaluated=critic(bias=1.0), aligned=critic(bias=3.0), aligned_policy=policy())
    found = result.alignment
    # all worth 1 before, 3 after: V_fqe = 1 ≤ 3, which exceeds V_ȧ = 1 by 2
    np.testing.assert_allclose([found.lower, found.upper, found.both], [1.0, 0.0, 0.0])
    np.testing.assert_allclose([found.retained, found.upper_violation, found.lower_violation], [2.0, 2.0, 0.0])


def test_identical_critics_differ_in_nothing():
    q = critic(bias=2.0, curvature=1.0)
    result = run(episodes(), policy(), offline=q, reevaluated=q, aligned=q, aligned_policy=policy())
    jax.tree.map(np.testing.assert_array_equal, result.offline, result.reevaluated)
    jax.tree.map(np.testing.assert_array_equal, result.offline, result.aligned)
    assert result.shift == result.alignment.retained == 0.0


def test_the_policy_s_value_against_terminated_episodes_by_hand():
    # two steps of reward 1, then absorbing: G_0 = 1.5.   V = Q(s, ȧ = 0.5) = 2 + 0.5; Q(s, a = 0) = 2.
    # gap = 2.5 − 1.5 = 1.   advantage: 0.5 (1 + 0.5) = 0.75
    heldout = episodes(length=2, terminated=1.0)
    value = run(heldout, policy(0.5), reevaluated=critic(bias=2.0, slope=1.0)).value
    np.testing.assert_allclose([value.policy, value.data, value.gap, value.advantage], [2.5, 1.5, 1.0, 0.75], rtol=1e-6)
    np.testing.assert_allclose([value.gap_error, value.advantage_error], [0.0, 0.0], atol=1e-6)
    low, high = gap_interval(value)
    np.testing.assert_allclose([low, high], [0.75, 1.0], rtol=1e-5)


def test_what_a_cut_off_episode_lacks_is_the_critic_s_word():
    # G_0 = 1 + 0.5 + 0.25 V = 1.5 + 0.25 · 2
    value = run(episodes(length=2), policy(), reevaluated=critic(bias=2.0)).value
    np.testing.assert_allclose([value.policy, value.data, value.gap, value.advantage], [2.0, 2.0, 0.0, 0.0], atol=1e-6)


def test_one_episode_has_no_standard_error():
    value = run(episodes(count=1), policy(), reevaluated=critic(bias=2.0)).value
    assert value.gap_error == value.advantage_error == jnp.inf
    low, high = gap_interval(value)
    assert (low, high) == (-jnp.inf, jnp.inf)
    assert regime(float(low), float(high), 0.0) == "like"


def test_entropy_of_a_soft_critic_cancels_between_policy_and_data():
    # the policy acts as the data does, with entropy; a critic that is right about it sees no gap
    stochastic = policy(head="tanh_gaussian", log_std=-2.0)
    heldout = episodes(count=40, length=1, terminated=1.0)
    value = run(heldout, stochastic, reevaluated=critic(bias=1.0, alpha=3.0)).value
    assert float(value.policy) == pytest.approx(float(value.data), abs=0.3)
    assert abs(value.gap) < 0.05


def test_coverage_is_small_where_the_policy_acts_as_the_data_does():
    support = episodes(count=8, action=0.3)
    acts_alike = jax.jit(lambda key, policy: diagnose(key, episodes(action=0.3), support, policy, config=CONFIG))
    found = acts_alike(jax.random.key(0), policy(0.3)).coverage
    assert found.policy.shape == (CONFIG.states,)
    np.testing.assert_allclose(found.policy, 0.0, atol=1e-6)
    found = acts_alike(jax.random.key(0), policy(-0.3)).coverage
    np.testing.assert_allclose(found.policy, 0.6, rtol=1e-5)
    np.testing.assert_allclose(found.data, 0.0, atol=1e-6)


def test_seeds_side_by_side_are_seeds_alone():
    heldout, support = episodes(), episodes(count=2)
    policies = Policy(jnp.array([0.0, 0.4]), *(jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), policy().normalizer),),
                      Constant())  # fmt: skip
    critics = jax.tree.map(lambda *leaves: jnp.stack(leaves), critic(bias=1.0), critic(slope=2.0))

    def one(key, policy, critic):
        return diagnose(key, heldout, support, policy, offline=critic, reevaluated=critic, config=CONFIG)

    keys = seeds.keys(range(2), "diagnose")
    together = jax.jit(jax.vmap(one))(keys, policies, critics)
    alone = jax.jit(one)(keys[1], seeds.take(policies, 1), seeds.take(critics, 1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5), together, alone)


@pytest.mark.parametrize(
    ("value", "recorded", "spread", "correlation", "trusted"),
    [
        (74.0, 237.0, 100.0, 0.06, False),  # too low, and in no order
        (200.0, 237.0, 100.0, 0.06, False),
        (74.0, 237.0, 100.0, 0.9, False),
        (200.0, 237.0, 100.0, 0.85, True),
        (118.5, 237.0, 100.0, 0.5, True),  # on the bounds
        (400.0, 237.0, 100.0, 0.85, True),  # a better policy is rightly worth more
        (480.0, 500.0, 20.0, 0.1, True),  # returns that are all alike have no order
        (-39.0, -95.0, 30.0, 0.9, False),  # bootstrapped 39 of 95 steps that cost 1
        (-60.0, -95.0, 30.0, 0.9, True),
        (-4.0, 1.0, 10.0, 0.9, True),  # 5 of a spread of 10
        (-5.0, 1.0, 10.0, 0.9, False),
        (np.nan, 237.0, 100.0, np.nan, False),
    ],
)
def test_when_a_critic_can_be_trusted(value, recorded, spread, correlation, trusted):
    found, words = diagnosis.trust(value, recorded, spread, correlation)
    assert found is trusted
    assert words.startswith("can be trusted: it is worth" if trusted else "is not to be trusted: it is worth")


def test_against_returns_by_hand():
    # errors 1, −1, 3, 1; returns 1 … 4: deviation √1.25; ranks 2, 1, 4, 3 against 1 … 4: 1 − 6 · 4 / (4 · 15)
    found = diagnosis.against_returns(jnp.array([2.0, 1.0, 6.0, 5.0]), jnp.array([1.0, 2.0, 3.0, 4.0]))
    expected = {"value": 3.5, "recorded": 2.5, "error": np.sqrt(3.0), "spread": np.sqrt(1.25), "correlation": 0.6}
    assert set(found) == set(diagnosis.RETURN_TERMS)
    for name, number in expected.items():
        np.testing.assert_allclose(found[name], number, rtol=1e-6, err_msg=name)
    unknown = diagnosis.against_returns(jnp.ones(3), jnp.full(3, jnp.nan))
    assert all(np.isnan(number) for number in unknown.values())


def test_the_band_of_returns_by_hand():
    # 150 − 100 ∓ 1.96 · 20 · √(1/8 + 1/2)
    error = 1.96 * 20 * np.sqrt(0.625)
    low, high = diagnosis.returns_interval(150.0, 8, np.array([80.0, 120.0]))
    np.testing.assert_allclose([low, high], [50.0 - error, 50.0 + error])
    assert diagnosis.regime_of(low, high, 100.0) == "better"  # 19 is more than 5 % of 100
    assert diagnosis.regime_of(low, high, -1000.0) == "like"
    assert diagnosis.regime_of(np.nan, high, 100.0) is None
    # one episode says nothing of the scatter
    assert np.isnan(diagnosis.returns_interval(150.0, 8, np.array([80.0]))).all()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.1, 9.0, "better"),
        (1.0, 9.0, "like"),  # on the margin is within it
        (-0.5, 0.5, "like"),
        (-9.0, 9.0, "like"),  # too wide a band says nothing
        (-9.0, -1.0, "like"),
        (-9.0, -1.1, "worse"),
    ],
)
def test_regime(low, high, expected):
    assert regime(low, high, 1.0) == expected
    assert expected in ADVICE


@pytest.mark.parametrize(
    ("low", "high", "margin"), [(1.0, 0.0, 0.0), (0.0, 1.0, -1.0), (np.nan, 1.0, 0.0), (0.0, 1.0, np.nan)]
)
def test_a_band_that_is_none_is_refused(low, high, margin):
    with pytest.raises(ValueError, match="expected low <= high and margin >= 0"):
        regime(low, high, margin)


def test_the_band_spans_both_estimates():
    # 1 ∓ 1.96 · 0.5 and 3 ∓ 1.96 · 0.25
    value = Value(*(jnp.asarray(x) for x in (0.0, 0.0, 1.0, 0.5, 3.0, 0.25)))
    np.testing.assert_allclose(gap_interval(value), [0.02, 3.49], rtol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"states": 0}, {"probes": 1}, {"support": 0}, {"max_tail": 1.0}, {"neighbours": 0}]
)
def test_bad_settings_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        diagnosis.DiagnosisConfig(**settings)
