"""Forecast of the switch from offline to online training, from dataset and networks alone.

Nothing here takes an environment step. `diagnose` is a pure function of one seed; `regime` and `ADVICE` turn its
numbers into words.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.critic import QFunction
from o2o_jax.ops.advantage import discounted_returns, steps_to_end
from o2o_jax.ops.mismatch import neighbour_distance, overestimation, proposition_values, rank_correlation
from o2o_jax.ops.smoothing import smoothed_action
from o2o_jax.policy import Policy, own_log_prob
from o2o_jax.settings import Settings, setting
from o2o_jax.types import Array, Metrics, Rollout, Transition, expect, expect_key

Regime = Literal["better", "like", "worse"]
REGIMES: dict[Regime, int] = {"worse": -1, "like": 0, "better": 1}  # as arrays hold them
CONFIDENCE = 1.96  # standard errors on either side: 95 % of a normal distribution
MARGIN = 0.05  # of the data's value: differences up to that count as none
# When a re-evaluated critic can be trusted; no source gives it. On Hopper, where returns were 226, critics worth 57
# that ordered states at −0.27 lost good policies online, and those worth 193, at 0.85, improved them. The level is low,
# since a policy that is worse than its data is rightly worth less than what was recorded.
TRUSTED_CORRELATION = 0.5
TRUSTED_LEVEL = 0.5  # of the recorded returns
TELLING_SPREAD = 0.1  # of the recorded returns' level: where they differ by less, their order says nothing
ROWS_AT_ONCE = 2_048  # of those that networks see at a time: bounds the memory, not the result


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiagnosisConfig(Settings):
    """Settings of the measurements. No source fixes any of them but the probes of deterministic policies.

    Raises:
      ValueError: a count below 1, fewer than 2 probes, noise below 0, or `max_tail` outside (0, 1).
    """

    states: int = setting(
        1_000, "held-out states that probes, returns and distances are taken at", unit="states", source="this package"
    )
    probes: int = setting(32, "probes per state", unit="actions", source="this package")
    value_actions: int = setting(
        4, "actions per state that the policy's value is the mean of", unit="actions", source="this package"
    )
    max_tail: float = setting(
        0.05, "returns count where γ^k is no more, k steps before the episode was cut off", source="this package"
    )
    probe_std: float = setting(
        0.2,
        "standard deviation of probes around a deterministic policy's action",
        unit="action units",
        source="section G.2",
    )
    probe_clip: float = setting(0.5, "bound of that noise", unit="action units", source="section G.2")
    support: int = setting(
        20_000, "rows of the dataset that actions are compared with", unit="transitions", source="this package"
    )
    neighbours: int = setting(
        10, "nearest of these states, whose actions are compared", unit="states", source="this package"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("states", "value_actions", "support", "neighbours")
        self._not_negative("probe_std", "probe_clip")
        if self.probes < 2:
            raise ValueError(f"probes must be at least 2, so that they have an order, got {self.probes}")
        self._inside(0, 1, "max_tail")


@flax.struct.dataclass
class CriticReport:
    """One critic against the recorded returns, and against the policy. [] each, in the units of its own rewards.

    Attributes:
      value: mean Q(s, a) of the held-out steps that count.
      recorded: mean discounted return from these steps on. NaN, as all that compares with it, where none counts.
      bias: mean of Q(s, a) − G.
      error: root mean square of it.
      spread: standard deviation of G.
      correlation: rank correlation of Q(s, a) and G over these steps.
      overestimated: share of probes with Q(s, a) > Q(s, ȧ).
      gap: mean of Q(s, a) − Q(s, ȧ) over those.
      alignment: rank correlation of log π(a|s) with Q(s, a) over the probes of a state, mean over states; of
        −‖a − ȧ‖² in place of log π for a deterministic policy.
      samples: of the figure.
    """

    value: Array
    recorded: Array
    bias: Array
    error: Array
    spread: Array
    correlation: Array
    overestimated: Array
    gap: Array
    alignment: Array
    samples: "Samples"


@flax.struct.dataclass
class KnownReturns:
    """Steps of held-out episodes whose returns to go are known, which critics are compared with.

    Attributes:
      observation: [N, O] raw.
      action: [N, A] that was taken.
      returns: [N] discounted return from the step on, in a critic's own units; NaN throughout where none counts.
    """

    observation: Array
    action: Array
    returns: Array


@flax.struct.dataclass
class Samples:
    """Single numbers behind the means of a `CriticReport`.

    Attributes:
      q: [N] Q(s, a) of held-out steps.
      returns: [N] their discounted returns G.
      excess: [N] Q(s, a) − Q(s, ȧ) of one probe in each of N states.
    """

    q: Array
    returns: Array
    excess: Array


@flax.struct.dataclass
class Alignment:
    """Effects of alignment beside the aligned critic's own report. [] each.

    Attributes:
      overestimated: share of the aligned actor's own probes with Q(s, a) > Q(s, ȧ), which it seeks out.
      distance: mean squared distance of its action from ȧ, per dimension.
      retained: mean of Q_align(s, ȧ) − Q_fqe(s, ȧ), which alignment is to keep at 0.
      lower: share of states with V_fqe ≤ V_align.
      upper: share of states with V_align ≤ V_ȧ.
      both: share of states with both.
      lower_violation: mean of V_fqe − V_align where it is positive, return units; 0 where it never is.
      upper_violation: mean of V_align − V_ȧ, likewise.
    """

    overestimated: Array
    distance: Array
    retained: Array
    lower: Array
    upper: Array
    both: Array
    lower_violation: Array
    upper_violation: Array


@flax.struct.dataclass
class Coverage:
    """Distances to the nearest action that the dataset shows in the most similar states.

    Attributes:
      policy: [N] of the policy's action ȧ.
      data: [N] of the action that was taken there, which is held out too: the scale to compare with.
    """

    policy: Array
    data: Array


@flax.struct.dataclass
class Value:
    """The policy's value at the start of the held-out episodes against what was recorded from there. [] each.

    Attributes:
      policy: mean V(s_0) of the re-evaluated critic, with its entropy bonus if it has one.
      data: mean discounted return of the episodes, credited with the same bonus; where an episode was cut off the
        re-evaluated critic says what was still to come.
      gap: mean of their difference.
      gap_error: its standard error over episodes; infinite of a single one.
      advantage: mean of Σ_t γ^t E_{a~π}[ Q(s_t, a) − Q(s_t, a_t) ], the same gap if the critic were consistent on
        these episodes: both differ by its discounted temporal-difference errors.
      advantage_error: its standard error.
    """

    policy: Array
    data: Array
    gap: Array
    gap_error: Array
    advantage: Array
    advantage_error: Array


@flax.struct.dataclass
class Diagnosis:
    """All that is known of one seed before it goes online; parts whose networks weren't given are None.

    Attributes:
      offline: the critic of offline training.
      reevaluated: the critic after re-evaluation, before alignment.
      aligned: the critic after alignment.
      shift: [] mean of Q_offline(s, ȧ) − Q_fqe(s, ȧ); None where they are in different units.
      alignment: what alignment did.
      coverage: of the policy's actions by the dataset.
      value: policy against data.
    """

    offline: CriticReport | None
    reevaluated: CriticReport | None
    aligned: CriticReport | None
    shift: Array | None
    alignment: Alignment | None
    coverage: Coverage
    value: Value | None


def diagnose(
    key: Array,
    heldout: Rollout,
    support: Transition,
    policy: Policy,
    offline: QFunction | None = None,
    reevaluated: QFunction | None = None,
    aligned: QFunction | None = None,
    aligned_policy: Policy | None = None,
    config: DiagnosisConfig | None = None,
) -> Diagnosis:
    """Measures how policy, critics and dataset agree.

    Args:
      key: draws states and probes.
      heldout: whole raw episodes [T], one after the other.
      support: raw transitions [M] that actions are compared with, without those of `heldout`.
      policy: π_off, the policy that goes online, before alignment.
      offline: the critic of offline training.
      reevaluated: the critic that re-evaluation left.
      aligned: the critic that alignment left.
      aligned_policy: π_on, the actor that alignment left; needed for what `Alignment` reports.
      config: how much is measured.

    Returns:
      The diagnosis, of one seed.

    Raises:
      TypeError: key, data or policy is of another type.

    Source: section 3, Proposition 4.3; each measure says its own in `ops.mismatch`.
    """
    expect_key(key)
    expect(heldout, Rollout, "heldout", "pass the rollout() of a Dataset")
    expect(support, Transition, "support", "pass o2o_jax.Transition(…) of arrays, or on_device() of a Dataset")
    expect(policy, Policy, "policy", "pass that of a handoff, or algorithm.policy(state)")
    config = config or DiagnosisConfig()
    row_key, probe_key, critic_key, aligned_key, support_key, value_key = jax.random.split(key, 6)
    rows = jax.random.randint(row_key, (config.states,), 0, heldout.reward.shape[0])
    observation, taken = heldout.observation[rows], heldout.action[rows]
    mode = policy.distribution(observation).mode()  # [N, A]
    probes = probe_actions(config, policy, observation, probe_key)  # [N, K, A]

    def report(critic: QFunction | None) -> CriticReport | None:
        if critic is None:
            return None
        return _critic_report(config, critic_key, heldout, policy, critic, observation, mode, probes)

    shift = alignment = value = None
    if offline and reevaluated and offline.same_units(reevaluated):
        shift = jnp.mean(offline(observation, mode) - reevaluated(observation, mode))
    if reevaluated and aligned and aligned_policy:
        own_probes = probe_actions(config, aligned_policy, observation, aligned_key)
        alignment = _alignment(policy, reevaluated, aligned, aligned_policy, observation, mode, probes, own_probes)
    if reevaluated:
        value = policy_against_data(config, value_key, heldout, policy, reevaluated)
    return Diagnosis(
        offline=report(offline),
        reevaluated=report(reevaluated),
        aligned=report(aligned),
        shift=shift,
        alignment=alignment,
        coverage=_coverage(config, support_key, support, policy, observation, mode, taken),
        value=value,
    )


def probe_actions(config: DiagnosisConfig, policy: Policy, observation: Array, key: Array) -> Array:
    """Draws actions [N, K, A] that an update would try at raw observations [N, O].

    Samples of a stochastic policy. Around a deterministic one's action, with the smoothing noise of TD3 (section G.2).
    """
    distribution = _repeated(policy, observation, config.probes)
    if policy.head != "deterministic":
        return distribution.sample(key)
    mode = distribution.mode()
    return smoothed_action(mode, jax.random.normal(key, mode.shape), config.probe_std, config.probe_clip)


def log_likelihood(policy: Policy, observation: Array, action: Array) -> Array:
    """Computes log π(a|s) [N, K], nats, of actions [N, K, A] at raw observations [N, O].

    A deterministic policy has no density: −‖a − ȧ‖² orders actions in its place, the distance that O2TD3 constrains.
    """
    distribution = policy.distribution(observation[:, None])
    if policy.head == "deterministic":
        return -jnp.sum(jnp.square(action - distribution.mode()), axis=-1)
    return distribution.log_prob(action)


def recorded_returns(
    config: DiagnosisConfig, key: Array, rollout: Rollout, policy: Policy, critic: QFunction
) -> tuple[Array, Array]:
    """Returns what a critic's values estimate, as far as the data tells: discounted returns in the critic's own units.

        G_t = r_t + Σ_{i > t} γ^{i−t} ( r_i + α H(π(·|s_i)) )

    The entropy is there for critics that contain it; it is that of the policy at the data's own states.

    Args:
      config: `max_tail`.
      key: draws the actions that entropies are the mean of.
      rollout: whole raw episodes [T].
      policy: π.
      critic: whose rewards, discount and temperature count.

    Returns:
      [T] returns, and [T] bool where they count: the episode terminated, or was cut off so far ahead that what is
      missing weighs γ^k ≤ `max_tail`.
    """
    bonus = _entropy_bonus(config, key, policy, critic, rollout.observation)
    returns = discounted_returns(critic.transform(rollout).reward + bonus, rollout.ended, critic.discount) - bonus
    return returns, _tail_weight(rollout, critic.discount) <= config.max_tail


def known_returns(
    config: DiagnosisConfig, key: Array, rollout: Rollout, policy: Policy, critic: QFunction
) -> KnownReturns:
    """Draws steps among those whose recorded return counts, uniformly with replacement.

    Args:
      config: `states`, N, and what `recorded_returns` reads.
      key: draws the steps, and the actions that entropies are the mean of.
      rollout: whole raw episodes [T].
      policy: π.
      critic: whose rewards, discount and temperature count; its parameters don't.

    Returns:
      N steps; of any row, with NaN for a return, where none counts.
    """
    entropy_key, row_key = jax.random.split(key)
    returns, counts = recorded_returns(config, entropy_key, rollout, policy, critic)
    any_counts = jnp.any(counts)
    weights = jnp.where(any_counts, counts, True)
    rows = jax.random.choice(row_key, len(counts), (config.states,), p=weights / jnp.sum(weights))
    return KnownReturns(rollout.observation[rows], rollout.action[rows], jnp.where(any_counts, returns[rows], jnp.nan))


RETURN_TERMS = ("value", "recorded", "error", "spread", "correlation")  # of `against_returns`


def against_returns(q: Array, returns: Array) -> Metrics:
    """Compares a critic's values [N] with the returns [N] of the same steps, in return units.

    Returns:
      `value`, mean Q; `recorded`, mean G; `error`, root mean square of Q − G; `spread`, standard deviation of G;
      `correlation`, rank correlation of both (Spearman). [] each, all NaN where the returns are.
    """
    known = jnp.isfinite(returns).all()
    return {
        "value": jnp.where(known, jnp.mean(q), jnp.nan),
        "recorded": jnp.mean(returns),
        "error": jnp.sqrt(jnp.mean(jnp.square(q - returns))),
        "spread": jnp.std(returns),
        "correlation": jnp.where(known, rank_correlation(q, returns), jnp.nan),
    }


def trust(value: float, recorded: float, spread: float, correlation: float) -> tuple[bool, str]:
    """Judges a re-evaluated critic: whether it can be trusted with a policy, and a clause that says so and why.

    It can where its level lacks at most `1 − TRUSTED_LEVEL` of the returns', or of their spread where that is larger,
    and it orders the steps at `TRUSTED_CORRELATION` or better, unless all returns are about alike.

    The arguments are those of `against_returns`; none of them NaN.
    """
    scale = max(abs(recorded), spread)
    lacking = (recorded - value) * (1.0 if recorded >= 0 else -1.0)
    telling = spread >= TELLING_SPREAD * abs(recorded)
    trusted = lacking <= (1.0 - TRUSTED_LEVEL) * scale and (not telling or correlation >= TRUSTED_CORRELATION)
    order = f"orders them at {correlation:.2f}" if telling else "they are too alike to be ordered"
    verdict = "can be trusted" if trusted else "is not to be trusted"
    return trusted, f"{verdict}: it is worth {value:.3g} where returns are {recorded:.3g} and {order}"


def policy_against_data(
    config: DiagnosisConfig, key: Array, rollout: Rollout, policy: Policy, critic: QFunction
) -> Value:
    """Compares the policy's value at the episodes' starts with what was recorded from there, by two estimates.

        V(s_0) − G_0,   G_0 = Σ_t γ^t ( r_t + α H(π(·|s_t)) ) + γ^L (1 − d) V(s_L)
        Σ_t γ^t E_{a~π}[ Q(s_t, a) − Q(s_t, a_t) ]

    with V(s) = E_{a~π} Q(s, a) + α H(π(·|s)). They are equal where Q = r + γ (1 − d) V(s') on the episodes.

    Args:
      config: `value_actions`.
      key: draws the policy's actions.
      rollout: whole raw episodes [T].
      policy: π, which `critic` evaluates.
      critic: the re-evaluated one.

    Returns:
      Means over episodes, with standard errors.

    Source: the second is the performance difference of Kakade and Langford (2002), Lemma 6.1, over the data's own
    steps.
    """
    entropy_key, next_entropy_key, value_key, next_value_key = jax.random.split(key, 4)
    bonus = _entropy_bonus(config, entropy_key, policy, critic, rollout.observation)
    next_bonus = _entropy_bonus(config, next_entropy_key, policy, critic, rollout.next_observation)
    expected_q = _expected_q(config, value_key, policy, critic, rollout.observation)
    next_value = _expected_q(config, next_value_key, policy, critic, rollout.next_observation) + next_bonus
    q = _by_rows(lambda row: critic(*row), rollout.observation, rollout.action)

    last, _ = steps_to_end(rollout.ended)
    tail = _tail_weight(rollout, critic.discount) * next_value[last]
    returns = discounted_returns(critic.transform(rollout).reward + bonus, rollout.ended, critic.discount) + tail
    advantage = discounted_returns(expected_q - q, rollout.ended, critic.discount)
    value = expected_q + bonus

    starts = jnp.concatenate([jnp.ones(1), rollout.ended[:-1]])
    gap, gap_error = _mean_and_error(value - returns, starts)
    advantage, advantage_error = _mean_and_error(advantage, starts)
    return Value(
        policy=_mean_and_error(value, starts)[0],
        data=_mean_and_error(returns, starts)[0],
        gap=gap,
        gap_error=gap_error,
        advantage=advantage,
        advantage_error=advantage_error,
    )


def gap_interval(value: Value) -> tuple[Array, Array]:
    """Returns the lower and the upper end, [] each, of a band around the gap, in return units.

        min and max over both estimates of  estimate ∓ 1.96 · standard error

    Where the re-evaluated critic is inconsistent on the held-out episodes its two estimates lie apart, and the band is
    as wide as that. It knows nothing of an error that they share.
    """
    ends = [
        estimate + side * CONFIDENCE * error
        for estimate, error in ((value.gap, value.gap_error), (value.advantage, value.advantage_error))
        for side in (-1.0, 1.0)
    ]
    return jnp.min(jnp.stack(ends), axis=0), jnp.max(jnp.stack(ends), axis=0)


def regime(low: float, high: float, margin: float) -> Regime:
    """Returns the regime: the policy beside the data that it came from.

        better where low > margin,   worse where high < −margin,   like otherwise

    Args:
      low: lower end of a band around J(π) − J(data), in any unit.
      high: its upper end.
      margin: differences up to that count as none, ≥ 0.

    Raises:
      ValueError: `margin` below 0, the ends exchanged, or NaN among them.

    Source: The Three Regimes of Offline-to-Online Reinforcement Learning (arXiv:2510.01460), which calls them Superior,
    Inferior and Comparable. The band and the margin are this package's.
    """
    if not (margin >= 0 and low <= high):
        raise ValueError(f"expected low <= high and margin >= 0, got {low}, {high} and {margin}")
    if low > margin:
        return "better"
    return "worse" if high < -margin else "like"


def returns_interval(policy: float, episodes: int, data: np.ndarray) -> tuple[float, float]:
    """Returns the ends of a band around the difference of undiscounted returns, policy less data.

        m − m_D ∓ 1.96 σ_D √( 1/E + 1/n )

    as if the policy's returns scattered as the data's do: E of its episodes are too few to tell.

    Args:
      policy: m, mean return of the policy.
      episodes: E that it is the mean of.
      data: [n] returns of the dataset's episodes, as far as they were recorded.

    Returns:
      The lower and the upper end, return units; NaN for both where one episode says nothing of the scatter.
    """
    if len(data) < 2:
        return float("nan"), float("nan")
    gap = policy - float(np.mean(data))
    error = CONFIDENCE * float(np.std(data)) * float(np.sqrt(1.0 / episodes + 1.0 / len(data)))
    return gap - error, gap + error


def regime_of(low: float, high: float, data: float, margin: float = MARGIN) -> Regime | None:
    """Returns `regime` with the margin as a share of the data's value; None where a number is NaN.

    Args:
      low: lower end of a band around J(π) − J(data).
      high: its upper end.
      data: J(data), in the same unit.
      margin: share of |J(data)|, ≥ 0.

    Raises:
      ValueError: see `regime`.
    """
    width = margin * abs(data)
    return None if np.isnan([low, high, width]).any() else regime(low, high, width)


@dataclasses.dataclass(frozen=True)
class Advice:
    """Settings of the off-policy online algorithms for a regime.

    Attributes:
      keep: what fine-tuning is to preserve. The paper's principle.
      replay: of the replay, with the reason.
      warmup: of the steps before the first update, likewise.
      constraint: of the thresholds τ, likewise.
      overrides: replay and warm-up as fields of a Config; the thresholds to change depend on the task.
    """

    keep: str
    replay: str
    warmup: str
    constraint: str
    overrides: dict[str, Any]


ADVICE: dict[Regime, Advice] = {
    "better": Advice(
        keep="the policy: it is worth more than the data",
        replay="part, the best episodes only; none if they too score below the policy",
        warmup="5,000 steps by the policy itself before the first update: they replace the data",
        constraint="the published thresholds: the reference is what there is to keep",
        overrides={"replay.mode": "part", "interaction.warmup_env_steps": 5_000},
    ),
    "like": Advice(
        keep="policy or data: neither is better",
        replay="half of every batch from the dataset",
        warmup="the published number of steps",
        constraint="the published thresholds",
        overrides={"replay.mode": "half"},
    ),
    "worse": Advice(
        keep="the data: it is worth more than the policy",
        replay="half of every batch from the dataset, however long the run",
        warmup="none: steps of this policy add little to the data",
        constraint="looser, the published thresholds times 4: near this reference there is less to gain; or go online "
        "from a clone of the best episodes instead (experiments.offline --algorithm=bc --set=best_fraction=0.1)",
        overrides={"replay.mode": "half", "interaction.warmup_env_steps": 0},
    ),
}


def _critic_report(
    config: DiagnosisConfig,
    key: Array,
    heldout: Rollout,
    policy: Policy,
    critic: QFunction,
    observation: Array,
    mode: Array,
    probes: Array,
) -> CriticReport:
    known = known_returns(config, key, heldout, policy, critic)
    q = critic(known.observation, known.action)
    q_mode, q_probes = critic(observation, mode), _values_of(critic, observation, probes)
    overestimated, gap = overestimation(q_probes, q_mode)
    return CriticReport(
        **against_returns(q, known.returns),
        bias=jnp.mean(q - known.returns),
        overestimated=overestimated,
        gap=gap,
        alignment=jnp.mean(rank_correlation(log_likelihood(policy, observation, probes), q_probes)),
        samples=Samples(q, known.returns, q_probes[:, 0] - q_mode),
    )


def _alignment(
    policy: Policy,
    reevaluated: QFunction,
    aligned: QFunction,
    aligned_policy: Policy,
    observation: Array,
    mode: Array,
    probes: Array,
    own_probes: Array,
) -> Alignment:
    q_mode, aligned_mode = reevaluated(observation, mode), aligned(observation, mode)
    v_fqe, v_align, v_mode = proposition_values(
        _values_of(reevaluated, observation, probes),
        _values_of(aligned, observation, probes),
        q_mode,
        log_likelihood(policy, observation, probes),
        log_likelihood(policy, observation, mode[:, None])[:, 0],
        reevaluated.alpha,
    )
    lower, upper = v_fqe <= v_align, v_align <= v_mode
    return Alignment(
        overestimated=overestimation(_values_of(aligned, observation, own_probes), aligned_mode)[0],
        distance=jnp.mean(jnp.square(aligned_policy.distribution(observation).mode() - mode)),
        retained=jnp.mean(aligned_mode - q_mode),
        lower=jnp.mean(lower),
        upper=jnp.mean(upper),
        both=jnp.mean(lower & upper),
        # an excess over one bound is what `overestimation` measures of a single probe
        lower_violation=overestimation(v_fqe[:, None], v_align)[1],
        upper_violation=overestimation(v_align[:, None], v_mode)[1],
    )


def _coverage(
    config: DiagnosisConfig,
    key: Array,
    support: Transition,
    policy: Policy,
    observation: Array,
    mode: Array,
    taken: Array,
) -> Coverage:
    size = support.reward.shape[0]
    rows = jnp.arange(size) if size <= config.support else jax.random.randint(key, (config.support,), 0, size)
    distance = neighbour_distance(
        policy.normalizer(observation),
        jnp.stack([mode, taken], axis=1),
        policy.normalizer(support.observation[rows]),
        support.action[rows],
        min(config.neighbours, size),
    )
    return Coverage(policy=distance[:, 0], data=distance[:, 1])


def _values_of(critic: QFunction, observation: Array, action: Array) -> Array:
    """[N, K] values of actions [N, K, A] at raw observations [N, O]."""
    return critic(jnp.broadcast_to(observation[:, None], (*action.shape[:-1], observation.shape[-1])), action)


def _entropy_bonus(config: DiagnosisConfig, key: Array, policy: Policy, critic: QFunction, observation: Array) -> Array:
    """[T] α H(π(·|s)) by samples, return units; nothing for a policy without a density."""
    if policy.head == "deterministic":
        return jnp.zeros(len(observation))

    def one_state(row: tuple[Array, Array]) -> Array:
        return -critic.alpha * jnp.mean(own_log_prob(_repeated(policy, row[0], config.value_actions), row[1]))

    return _by_rows(one_state, observation, jax.random.split(key, len(observation)))


def _expected_q(config: DiagnosisConfig, key: Array, policy: Policy, critic: QFunction, observation: Array) -> Array:
    """[T] E_{a~π} Q(s, a) by samples; one is enough where the policy is deterministic."""
    samples = 1 if policy.head == "deterministic" else config.value_actions

    def one_state(row: tuple[Array, Array]) -> Array:
        action = _repeated(policy, row[0], samples).sample(row[1])  # [K, A]
        return jnp.mean(_values_of(critic, row[0][None], action[None]))

    return _by_rows(one_state, observation, jax.random.split(key, len(observation)))


def _repeated(policy: Policy, observation: Array, count: int) -> Any:
    """The policy's distribution at a raw observation [..., O], `count` times over: over actions [..., K, A]."""
    shape = (*observation.shape[:-1], count, observation.shape[-1])
    return policy.distribution(jnp.broadcast_to(observation[..., None, :], shape))


def _by_rows(function: Callable, *columns: Array) -> Array:
    """[T] a function of one row, for the rows of columns [T, ...], some at a time."""
    return jax.lax.map(function, columns, batch_size=ROWS_AT_ONCE)


def _tail_weight(rollout: Rollout, discount: float) -> Array:
    """[T] γ^k where the episode was cut off k steps on, 0 where it terminated."""
    last, steps = steps_to_end(rollout.ended)
    return (1.0 - rollout.terminated[last]) * discount**steps


def _mean_and_error(values: Array, starts: Array) -> tuple[Array, Array]:
    """Mean [] of the values [T] of rows that start an episode, and its standard error [] over these episodes."""
    count = jnp.sum(starts)
    mean = jnp.sum(starts * values) / count
    variance = jnp.sum(starts * jnp.square(values - mean)) / jnp.maximum(count - 1.0, 1.0)
    return mean, jnp.where(count > 1, jnp.sqrt(variance / count), jnp.inf)
