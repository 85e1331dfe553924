"""Parts that O2SAC and O2TD3 share: settings, early stopping, the start of fine-tuning, the threshold."""

import dataclasses
import functools
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax import networks
from o2o_jax.data import replay
from o2o_jax.data.returns import ReturnsToGo
from o2o_jax.diagnosis import RETURN_TERMS, DiagnosisConfig, KnownReturns, against_returns, known_returns, trust
from o2o_jax.interfaces import Phase, Prepare, Replay, Report, Requires, Schedule, Stop, Update
from o2o_jax.losses import td_loss
from o2o_jax.online import common
from o2o_jax.online.common import OnlineConfig
from o2o_jax.ops import stopping
from o2o_jax.ops.advantage import discounted_returns
from o2o_jax.ops.lagrangian import linear_threshold
from o2o_jax.policy import Handoff
from o2o_jax.training import gradient_step, note_rows, polyak_update, where
from o2o_jax.types import Annotated, Array, Metrics, Notes, Params, Rollout, Transition

Choice = Literal["best_of", "aligned", "offline"]
UNCAPPED = float(jnp.finfo(jnp.float32).max)  # of the threshold; a state's numbers are all finite
REPORTED_STATES = 2_000  # steps that critics are compared with returns at; ranks cost its square
COMPLETENESS = ("overestimated", "distance")  # how far alignment has come; they cost no environment step
EVALUATED_AS_ONLINE = ("td3_bc", "awac")  # offline methods that constrain the policy alone (Appendix B)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstrainedConfig(OnlineConfig):
    """Settings common to the off-policy algorithms. Defaults: the authors', for MuJoCo medium data.

    `stop=measures` ends re-evaluation and alignment, seed by seed, by measures on held-out episodes of the dataset;
    `reevaluate_updates` and `align_updates` are then the most that a phase may take. The thresholds are this package's:
    see `reevaluation_verdict` and `alignment_verdict`. `stop=updates` takes the fixed counts, and all of the dataset.

    What the paper advises to leave out (Appendix B), by the offline method:

    - TD3+BC and AWAC constrain the policy alone and evaluate it as online methods do, so that their critics may be
      kept and re-evaluation left out, never alignment: `critic_source=offline`, `reevaluate_updates=0`.
    - CQL, whose critics are aligned with its policy but pessimistic, may go to constrained fine-tuning alone:
      `critic_source=offline`, `reevaluate_updates=0`, `align_updates=0`.
    - All others need every phase.

    Offline critics have two hidden layers (TD3+BC) or three (CQL, AWAC) and no LayerNorm: `layer_norm=false`. They
    don't depend on the head, and so stay where the policy was cloned. Both they and their targets are taken over, the
    targets being what alignment is anchored to; Adam begins anew. `Config.remarks` says what contradicts the advice.
    """

    online_fields: ClassVar[frozenset[str]] = OnlineConfig.online_fields | {
        "updates_per_env_step", "warmup_env_steps", "random_env_steps", "overlap", "replay", "part_episodes",
        "auto_replay_warmup_env_steps",
        "buffer_size", "start_actor", "reference_init", "interval_threshold_divisor", "interval_actor_grad_norm",
        "constrain", "lagrange_travel", "asymmetry", "threshold_start", "threshold_end", "threshold_ramp",
        "carry_actor_moments", "actor_ramp_updates",
    }  # fmt: skip

    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {
            "reevaluate_updates": 8_000,
            "reevaluate_polyak": 0.05,
            "return_updates": 4_000,
            "align_updates": 4_000,
            "actor_lr": 3e-4,
            "align_actor_lr": 1e-4,
            "critic_report": True,
            "carry_actor_moments": False,
            "actor_ramp_updates": 1_000,
            "roll_back": True,
            "env_steps": 20_000,
        }
    )

    # Networks
    layer_norm: bool = True  # in the critics
    num_critics: int = 2
    # Updates
    polyak: float = 0.005  # share of the critic copied into its target per update
    reevaluate_polyak: float | None = None  # share copied per update while re-evaluating; None: polyak
    # critics start at the level of the data's returns, rather than at zero
    critic_bias: Literal["zero", "returns"] = "zero"
    return_updates: int = 0  # of re-evaluation, over which targets go from the data's returns to bootstrapped ones
    align_updates: int = 500_000  # 0 leaves the phase out
    align_actor_lr: float | None = None  # while aligning; None: actor_lr
    align_lagrange: float = 0.0  # price of leaving π_off while aligning, in units of mean |Q| per unit of divergence
    critic_source: Literal["random", "offline"] = "random"  # "offline": those that offline training left
    # When re-evaluation and alignment are done
    stop: Literal["updates", "measures"] = "updates"
    critic_report: bool = False  # compares critics with held-out returns while re-evaluating; stop=measures always does
    held_out_share: float = 0.05  # of the dataset's episodes; no batch of the two phases draws from them
    stop_check_every_updates: int = 1_000
    stop_window_checks: int = 5  # how far back "no longer" looks
    stop_min_updates: int = 5_000
    stop_residual: float = 0.02  # re-evaluation: relative fall of the squared error in the window that counts as none
    stop_missing_value: float = 0.05  # re-evaluation: share of the value that may still be missing
    stop_correlation: float = 0.02  # re-evaluation: rise of the rank correlation in the window that counts as none
    stop_overestimated: float = 0.08  # alignment: share of probes worth more than the policy's own action
    stop_distance: float = 0.01  # alignment: mean squared distance of π_on to π_off: σ² of O2TD3's exploration
    stop_settled: float = 0.02  # alignment: relative range of both in the window that counts as standing still
    # Fine-tuning
    updates_per_env_step: int = 1
    warmup_env_steps: int = 1_000  # without updates; the policy itself acts
    random_env_steps: int = 0  # uniform actions before that, for agents without a policy
    overlap: bool = False  # environments step while updates are computed: every action is a round of updates older
    # Table 6; "auto", seed by seed: none where the policy is better than its data, half where like it, all where worse
    replay: Literal["half", "all", "part", "none", "auto"] = "half"
    part_episodes: int = 50  # best episodes that "part" preloads
    auto_replay_warmup_env_steps: int = 5_000  # "auto": half until then, where the policy is better than its data
    buffer_size: int = 2_000_000  # transitions per seed, never more than env_steps
    start_actor: Choice = "best_of"  # who acts online first; the paper: "aligned"
    reference_init: Choice = "best_of"  # first π_ref; the paper's text: "aligned"
    interval_threshold_divisor: float = 4.0  # interval mode: divides threshold_end
    interval_actor_grad_norm: float | None = None  # interval mode: clips the actor's gradient
    carry_actor_moments: bool = True  # Adam's, of alignment, where the aligned actor goes online; False: fresh ones
    actor_ramp_updates: int = 0  # of the actor, over which its steps grow to their full size while moments are fresh
    # Constraint
    constrain: bool = True
    lagrange_init: float = 1.0  # λ at the start
    lagrange_travel: float = 5.0  # nats: learning rate of log λ times env_steps; the authors': 5e-5 · 100,000
    asymmetry: float = 0.7  # weight of violated constraints, Eq. 49
    threshold_start: float = 0.125  # τ at the first environment step
    threshold_end: float = 2.0  # τ at the end of its ramp
    threshold_ramp: float = 1.0  # share of env_steps that τ rises over; the authors': 100,000 of 100,000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.polyak <= 1:
            raise ValueError(f"polyak must lie in (0, 1], got {self.polyak}")
        if not 0 < self.reevaluate_rate <= 1:
            raise ValueError(f"reevaluate_polyak must lie in (0, 1] or be none, got {self.reevaluate_polyak}")
        if not 0.5 <= self.asymmetry < 1:
            raise ValueError(f"asymmetry must lie in [0.5, 1), got {self.asymmetry}")
        self._positive("num_critics", "updates_per_env_step", "buffer_size", "part_episodes", "lagrange_init")
        self._positive("interval_threshold_divisor", "threshold_ramp")
        if self.align_actor_lr is not None:
            self._positive("align_actor_lr")
        if self.interval_actor_grad_norm is not None:
            self._positive("interval_actor_grad_norm")
        self._not_negative(
            "align_updates", "warmup_env_steps", "random_env_steps", "lagrange_travel", "threshold_start"
        )
        self._not_negative("align_lagrange", "return_updates", "actor_ramp_updates")
        self._not_negative("auto_replay_warmup_env_steps", "stop_correlation")
        self._positive("stop_check_every_updates", "stop_window_checks", "stop_missing_value")
        self._not_negative("stop_min_updates", "stop_residual", "stop_overestimated", "stop_distance", "stop_settled")
        self._inside(0, 1, "held_out_share")
        if self.critic_bias == "returns" and (self.critic_source == "offline" or not self.reevaluate_updates):
            raise ValueError("critic_bias=returns is for random critics that are re-evaluated: set it to zero")
        if 0 < self.reevaluate_updates < self.return_updates:
            raise ValueError(
                f"return_updates must be at most reevaluate_updates, {self.reevaluate_updates}, "
                f"got {self.return_updates}"
            )
        if self.stop == "measures" and self.stop_min_updates < self.return_updates:
            raise ValueError(
                f"stop_min_updates must be at least return_updates, {self.return_updates}, got {self.stop_min_updates}"
            )
        for name in ("start_actor", "reference_init"):
            if not self.eval_episodes and getattr(self, name) == "best_of":
                raise ValueError(f"{name}=best_of needs evaluations: with eval_episodes=0 set it to aligned or offline")
        if not self.threshold_end >= self.threshold_start:
            raise ValueError(f"threshold_end must not lie below threshold_start, got {self.threshold_end}")
        if self.replay in ("half", "auto") and self.batch_size % 2:
            raise ValueError(f"replay={self.replay} needs an even batch_size, got {self.batch_size}")

    @property
    def align_rate(self) -> float:
        """Learning rate of the actor while aligning."""
        return self.actor_lr if self.align_actor_lr is None else self.align_actor_lr

    @property
    def reevaluate_rate(self) -> float:
        """Share of the critics copied into their targets per update of re-evaluation."""
        return self.polyak if self.reevaluate_polyak is None else self.reevaluate_polyak

    @property
    def schedule(self) -> Schedule:
        """One environment step, then `updates_per_env_step` updates on fresh batches."""
        return Schedule(
            updates=self.updates_per_env_step,
            warmup_env_steps=max(self.warmup_env_steps, self.random_env_steps),
            random_env_steps=self.random_env_steps,
            overlap=self.overlap,
        )

    @property
    def replay_rule(self) -> Replay:
        """Replay rule of fine-tuning."""
        capacity = max(1, min(self.buffer_size, self.env_steps))
        return replay.make(
            self.replay, capacity, self.batch_size, self.part_episodes, self.auto_replay_warmup_env_steps
        )

    @property
    def lagrange_lr(self) -> float:
        """Learning rate of log λ, which Adam moves by at most that much per environment step."""
        return self.lagrange_travel / max(self.env_steps, 1)

    @property
    def interval(self) -> bool:
        """True where π_ref is copied on a schedule rather than chosen by evaluation."""
        return self.reference_update == "interval"

    def aligned_reference(self, accept: Any) -> Any:
        """Returns [...] bool, where the first π_ref is the aligned policy, as `reference_init` says."""
        return chosen(self.reference_init, accept)

    def requires(self, head: str) -> Requires:
        """Returns what a method with these settings, whose actor has that head, asks of the offline policy."""
        return Requires(head, state=self.critic_source == "offline")

    def remarks(self, source: str) -> list[str]:
        """Returns warnings where other phases are left out than Appendix B allows, a line each."""
        if not self.constrain:
            return []  # a control, which leaves the idea out on purpose
        offline_critics = self.critic_source == "offline"
        remarks = []
        if not self.reevaluate_updates and not offline_critics:
            remarks.append("critics start at random and nothing re-evaluates the policy: set reevaluate_updates")
        elif not self.reevaluate_updates and source == "cql" and self.align_updates:
            remarks.append(
                "the critics of cql are pessimistic, and alignment keeps them so: re-evaluate them, or leave "
                "alignment out too and fine-tune under the constraint alone (Appendix B)"
            )
        elif not self.reevaluate_updates and source not in (*EVALUATED_AS_ONLINE, "cql"):
            remarks.append(
                f"{source} evaluates its policy unlike online methods: its critics need re-evaluation (Appendix B)"
            )
        horizon, wanted = self.reevaluate_rate * self.reevaluate_updates, 3.0 / (1.0 - self.discount)
        if self.reevaluate_updates and not offline_critics and horizon < wanted:
            remarks.append(
                f"re-evaluation looks {horizon:.3g} steps ahead where 3/(1−γ) asks for {wanted:.3g}: set "
                "reevaluate_updates or reevaluate_polyak"
            )
        if not self.align_updates and not (source == "cql" and offline_critics):
            remarks.append("critics that are not aligned lead the policy away from where it is: set align_updates")
        return remarks

    def stops(self, policy: Callable, critic: Callable) -> dict[str, Stop]:
        """Returns early stopping and measures of each phase, by its name.

        Args:
          policy: (state) -> `policy.Policy`, while re-evaluating π_off.
          critic: (state) -> `critic.QFunction`.

        Returns:
          Nothing where the counts are fixed and no report is asked for.
        """
        common = functools.partial(
            Stop,
            check_every_updates=self.stop_check_every_updates,
            window_checks=self.stop_window_checks,
            min_updates=self.stop_min_updates,
        )
        report = Report(
            (*RETURN_TERMS, "horizon"),
            functools.partial(_known_returns, policy, critic),
            functools.partial(_critic_report, self, critic),
            functools.partial(reevaluation_remark, self),
        )
        if self.stop == "updates":
            if not (self.critic_report and self.reevaluate_updates):
                return {}
            return {"reevaluate": common((), lambda history: jnp.zeros((), jnp.int32), (), report=report)}
        return {
            "reevaluate": common(
                ("critic_loss", "q"),
                functools.partial(reevaluation_verdict, self),
                ("the residual is at its floor, the value at its place, and the ranking no longer rises",),
                report=report,
            ),
            "align": common(
                COMPLETENESS,
                functools.partial(alignment_verdict, self),
                ("few probes are overestimated and the policy is near the offline one", "nothing moves any more"),
            ),
        }


def reevaluation_verdict(config: ConstrainedConfig, history: dict[str, Array]) -> Array:
    """Decides whether fitted Q-evaluation has arrived: [] int32, 0 or 1 for the one reason.

    Three measures, since none will do alone. The squared Bellman error is small wherever critics agree with their own
    targets, at any level; the level moves for as long as values are missing, yet says nothing of the error; neither
    says whether states are in their right order, which is what the actor's gradient follows.

    Args:
      config: settings.
      history: `critic_loss` [K + 1], the squared Bellman error of all critics, and `q` [K + 1], their mean value, on
        held-out rows; `correlation` [K + 1], their rank correlation with recorded returns, NaN where none counts,
        which settles nothing. That it no longer rises is enough, at any level: where all episodes return the same,
        there is no order to be found.
    """
    updates = config.stop_check_every_updates * config.stop_window_checks
    rate = config.reevaluate_rate * (1.0 - config.discount)
    at_floor = stopping.no_longer_falls(history["critic_loss"], config.stop_residual)
    in_place = stopping.missing_share(history["q"], updates, rate) <= config.stop_missing_value
    ordered = stopping.no_longer_rises(history["correlation"], config.stop_correlation)
    return (at_floor & in_place & ordered).astype(jnp.int32)


def _known_returns(policy: Callable, critic: Callable, key: Array, state: Any, held_out: Rollout) -> KnownReturns:
    """Steps with their returns, in units of critics whose temperature and rewards re-evaluation leaves alone."""
    return known_returns(DiagnosisConfig(states=REPORTED_STATES), key, held_out, policy(state), critic(state))


def _critic_report(config: ConstrainedConfig, critic: Callable, state: Any, known: KnownReturns) -> Metrics:
    """`diagnosis.against_returns` of the critics as they are, and `horizon`, the ρ n steps that they look ahead."""
    metrics = against_returns(critic(state)(known.observation, known.action), known.returns)
    return metrics | {"horizon": config.reevaluate_rate * state.step}


def reevaluation_remark(config: ConstrainedConfig, metrics: Mapping[str, float]) -> str:
    """Returns a line on whether the critics that re-evaluation ends with can be trusted; "" for a control."""
    if not config.constrain:
        return ""
    if not math.isfinite(metrics["recorded"]):
        return "no recorded return counts, all episodes were cut off too early: the critic is compared with nothing"
    trusted, verdict = trust(*(metrics[name] for name in ("value", "recorded", "spread", "correlation")))
    advice = "" if trusted else ": set reevaluate_updates or reevaluate_polyak"
    return f"the critic {verdict}; it looks {metrics['horizon']:.3g} steps ahead{advice}"


def alignment_verdict(config: ConstrainedConfig, history: dict[str, Array]) -> Array:
    """Decides whether alignment is complete, 1, or at least moves no more, 2: [] int32, 0 to go on.

    Both measures count in either case. At the start the distance is 0 and the share high; then the actor runs after
    overestimated actions, and both fall together as the critics are corrected.

    Args:
      config: settings.
      history: `overestimated` [K + 1], the share of probes with Q(s, a) > Q(s, ȧ), and `distance` [K + 1], the mean
        squared distance of the modes of π_on and π_off, on held-out states.
    """
    share, distance = history["overestimated"], history["distance"]
    complete = (share[-1] <= config.stop_overestimated) & (distance[-1] <= config.stop_distance)
    still = stopping.settled(share, config.stop_settled) & stopping.settled(distance, config.stop_settled)
    return jnp.where(complete, 1, jnp.where(still, 2, 0))


def alignment_remark(config: ConstrainedConfig, first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """Returns a line on how far alignment has come, by means over seeds.

    Args:
      config: settings.
      first: `overestimated` [S] before the first update.
      last: `overestimated` and `distance` [S] at the end.
    """
    share, distance = (last[name].mean() for name in COMPLETENESS)
    complete = share <= config.stop_overestimated and distance <= config.stop_distance
    return (
        f"alignment: {share:.1%} of probes are valued above the policy's own action, "
        f"{first[COMPLETENESS[0]].mean():.1%} before; mean squared distance to the offline policy {distance:.4f}"
        + ("" if complete else ": not complete, set align_updates or start_actor=offline")
    )


def settings_of_task(config: ConstrainedConfig) -> dict[str, Any]:
    """Returns the settings for a task that a method shares with its control: rewards, depths, lengths, evaluation."""
    names = ("critic_hidden", "reward_scale", "reward_shift", "env_steps", "warmup_env_steps")
    return {name: getattr(config, name) for name in (*names, "eval_every_env_steps", "eval_episodes")}


def clip_actor_gradient(config: ConstrainedConfig, gradient: Params) -> Params:
    """Bounds the norm of the actor's gradient in fine-tuning, where interval mode asks for it (D-31)."""
    if not config.interval or config.interval_actor_grad_norm is None:
        return gradient
    clip = optax.clip_by_global_norm(config.interval_actor_grad_norm)
    return clip.update(gradient, clip.init(gradient))[0]


def actor_step(
    config: ConstrainedConfig, optimizer: optax.GradientTransformation, gradient: Params, state: Any
) -> tuple[Params, Any]:
    """One gradient step of the actor in fine-tuning, clipped and shortened where settings say so.

        θ ← θ + min((n + 1) / N, 1) · Adam(g),   n = Adam's steps since its moments were fresh, N = `actor_ramp_updates`

    Fresh moments make Adam's first steps as long as its later ones: before critics have seen anything online, and where
    a policy has just been rolled back.

    Args:
      config: settings.
      optimizer: the actor's.
      gradient: shaped like the actor's parameters.
      state: with `actor` and `opt.actor`, before the step.

    Returns:
      The actor's parameters and optimiser state after the step.
    """
    updates, opt = optimizer.update(clip_actor_gradient(config, gradient), state.opt.actor, state.actor)
    if config.actor_ramp_updates:
        share = jnp.minimum(optax.tree_utils.tree_get(opt, "count") / config.actor_ramp_updates, 1.0)
        updates = jax.tree.map(lambda update: share * update, updates)
    return optax.apply_updates(state.actor, updates), opt


def threshold(config: ConstrainedConfig, step: Array, cap: Array) -> Array:
    """τ at the environment step of update `step` [] of fine-tuning, in units of the divergence (section H.3).

    Never above `cap` [], which a policy that was rolled back has left.
    """
    env_steps = config.schedule.warmup_env_steps + step // config.updates_per_env_step
    end = config.threshold_end / (config.interval_threshold_divisor if config.interval else 1.0)
    ramp = config.threshold_ramp * max(config.env_steps, 1)
    bound = linear_threshold(env_steps, min(config.threshold_start, end), end, ramp)
    return jnp.minimum(bound, cap)


def moves_lagrange(config: ConstrainedConfig, step: Array) -> Array:
    """Returns whether update `step` [] moves λ: once per environment step, at any number of updates (section C.6)."""
    return step % config.updates_per_env_step == 0


def offline_state(config: ConstrainedConfig, handoff: Handoff | None, critic: Params) -> Any:
    """Returns the state that offline training left, for those who go on from its critics.

    Args:
      config: settings, of which the rewards' must be those of offline training.
      handoff: with a `state` that has `critic`, `target_critic` and `transform`.
      critic: parameters of this algorithm's own critics: what the offline ones must look like.

    Returns:
      The offline algorithm's state.

    Raises:
      ValueError: there is no offline state, its critics have other shapes, or they were trained on other rewards.
    """
    if handoff is None or not hasattr(handoff.state, "critic"):
        raise ValueError(
            "critic_source=offline goes on from the critics of offline training, and this policy comes without any: "
            "start from a method that trains critics, or set critic_source=random"
        )
    state, source = handoff.state, handoff.source
    found, wanted = networks.critic_settings(state.critic), networks.critic_settings(critic)
    names = {"hidden": "critic_hidden", "layer_norm": "layer_norm", "num_critics": "num_critics"}
    differing = [f"{field}={_as_text(found[name])}" for name, field in names.items() if found[name] != wanted[name]]
    if differing:
        settings = ", ".join(differing)
        raise ValueError(f"the critics of {source} do not fit: set {settings}, or critic_source=random")
    if jax.tree.map(jnp.shape, state.critic) != jax.tree.map(jnp.shape, critic):
        raise ValueError(f"the critics of {source} do not fit: they are of other observations or actions")
    scale, shift = state.transform.reward_scale, state.transform.reward_shift
    if (scale, shift) != (config.reward_scale, config.reward_shift):
        raise ValueError(
            f"the critics of {source} were trained on other rewards: set reward_scale={scale} and "
            f"reward_shift={shift}, or critic_source=random"
        )
    return state


def _as_text(value: Any) -> str:
    """A setting as the command line takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


@flax.struct.dataclass
class Evaluated:
    """A seed's own notes for re-evaluation.

    Attributes:
      next_policy: what π_off does at s' [N, ...].
      bonus: [N] what its values add to the data's returns; None where they add nothing, or returns aren't asked for.
    """

    next_policy: Any
    bonus: Array | None = None


def make_phases(
    config: ConstrainedConfig,
    reevaluate: Update,
    align: Update,
    prepare_evaluation: Prepare,
    prepare_alignment: Prepare,
    stops: Mapping[str, Stop],
) -> tuple[Phase, ...]:
    """Returns the phases before the first environment step, without those that the settings leave out."""
    phases = (
        Phase(
            "reevaluate",
            reevaluate,
            config.reevaluate_updates,
            config.batch_size,
            prepare_evaluation,
            stop=stops.get("reevaluate"),
        ),
        Phase(
            "align",
            align,
            config.align_updates,
            config.batch_size,
            prepare_alignment,
            stop=stops.get("align"),
            show=COMPLETENESS,
            measure_start=True,
            remark=functools.partial(alignment_remark, config),
        ),
    )
    return tuple(phase for phase in phases if phase.updates)


def prepare_alignment(anchor: Callable, state: Any, dataset: Rollout) -> tuple[Any, Notes]:
    """Computes once for every row what alignment would compute again in every batch.

    Args:
      anchor: (state, normalised observations [..., O]) -> what alignment asks of π_off and the target critics at s,
        which it leaves alone.
      state: before the phase, or amid it: nothing that the phase moves is read.
      dataset: raw transitions [N].

    Returns:
      The state, and a seed's own notes [N, ...]: `anchor`'s values.
    """
    return state, Notes(own=note_rows(lambda raw: anchor(state, state.transform.normalizer(raw)), dataset.observation))


def prepare_evaluation(
    config: ConstrainedConfig,
    offline: Callable,
    state: Any,
    dataset: Rollout,
    next_bonus: Callable | None = None,
) -> tuple[Any, Notes]:
    """Computes once for every row what re-evaluation would compute again in every batch: what π_off does there.

    Where settings say so, also the data's returns, and before the first update they become the level that critics and
    targets start from: b = mean G / (1 − mean w), in place of about 0.

    Args:
      config: settings.
      offline: (state, normalised observations [..., O]) -> what re-evaluation asks of π_off at s'.
      state: before the phase, or amid it: nothing that the phase moves is read.
      dataset: raw transitions [N]; whole episodes where returns are asked for.
      next_bonus: (state, `offline`'s values [N, ...]) -> [N], return units: what values at s' hold beside Q; None for
        nothing.

    Returns:
      The state, and notes [N, ...]: an `Evaluated` of the seed's own, and where returns are mixed in, the data's
      `ReturnsToGo`, shared by all seeds.
    """
    next_policy = note_rows(lambda raw: offline(state, state.transform.normalizer(raw)), dataset.next_observation)
    if not config.return_updates and config.critic_bias == "zero":
        return state, Notes(own=Evaluated(next_policy))
    returns, bonus = ReturnsToGo.of(state.transform(dataset).reward, dataset, config.discount), None
    if next_bonus is not None:
        reward = config.discount * (1.0 - dataset.terminated) * next_bonus(state, next_policy)
        bonus = discounted_returns(reward, dataset.ended, config.discount)
    if config.critic_bias == "returns":
        shift = jnp.where(state.step == 0, returns.level(0.0 if bonus is None else bonus), 0.0)
        critic, target_critic = (networks.shift_output(params, shift) for params in (state.critic, state.target_critic))
        state = state.replace(critic=critic, target_critic=target_critic)
    if not config.return_updates:
        return state, Notes(own=Evaluated(next_policy))
    return state, Notes(shared=returns, own=Evaluated(next_policy, bonus))


def return_target(
    config: ConstrainedConfig, state: Any, batch: Transition, target: Array, last_value: Callable[[Array], Array]
) -> Array:
    """Mixes the data's returns into the targets of the first updates of re-evaluation.

        y = (1 − β) y_TD + β ( G + w V(s_e') ),   β = max(1 − n / N, 0)

    What bootstrapping has to add afterwards is the difference of policy and data in place of the whole value.

    Args:
      config: N is `return_updates`.
      state: whose `step` is n.
      batch: with the notes of `prepare_evaluation`.
      target: [B] y_TD, return units.
      last_value: V, normalised observations [B, O] to values [B] by the target critics, without what the notes' `bonus`
        holds at that state.

    Returns:
      [B] targets; `target` itself where N is 0.

    Raises:
      ValueError: while tracing, if N > 0 and the batch has no notes.

    Source: this package; relatives are Jelley et al. (arXiv:2406.13376) and Nakamoto et al. (arXiv:2303.05479).
    """
    if not config.return_updates:
        return target
    if not isinstance(batch, Annotated):
        raise ValueError(
            "return_updates asks for returns, which single transitions don't have: annotate the dataset first"
        )
    returns, bonus = batch.notes.shared, batch.notes.own.bonus

    def mixed(target: Array) -> Array:
        weight = 1.0 - state.step / config.return_updates
        recorded = returns.bootstrapped(lambda observation: last_value(state.transform.normalizer(observation)))
        recorded += 0.0 if bonus is None else bonus
        return (1.0 - weight) * target + weight * recorded

    # a branch, which later updates don't pay for
    return jax.lax.stop_gradient(jax.lax.cond(state.step < config.return_updates, mixed, lambda target: target, target))


def chosen(choice: Choice, accept: Any) -> Array:
    """Returns [...] bool, where it is the aligned policy; `accept` [...] says where that one scored better."""
    return {"best_of": jnp.asarray(accept), "aligned": jnp.ones_like(accept), "offline": jnp.zeros_like(accept)}[choice]


def begin_finetuning(
    config: ConstrainedConfig, optimizer: optax.GradientTransformation, state: Any, accept: Array
) -> Any:
    """Chooses who goes online and who is the first reference, and makes the aligned critics the targets.

    Args:
      config: `start_actor` and `reference_init` say how to choose.
      optimizer: the actor's; an actor that alignment's gradients did not lead to starts with fresh moments.
      state: after alignment: `actor` is π_on, `reference` is π_off.
      accept: [] bool, whether π_on scored better than π_off.

    Returns:
      The state at update 0 of fine-tuning.

    Source: section 4.3 and the authors' code for `reference_init`; `start_actor=best_of` departs from both (D-06a).
    """
    aligned, offline = state.actor, state.reference
    aligned_starts = chosen(config.start_actor, accept)
    return state.replace(
        actor=where(aligned_starts, aligned, offline),
        reference=where(chosen(config.reference_init, accept), aligned, offline),
        # critics that came from offline training bring their own targets
        target_critic=state.critic if config.align_updates else state.target_critic,
        opt=state.opt.replace(
            actor=where(aligned_starts & config.carry_actor_moments, state.opt.actor, optimizer.init(offline))
        ),
        step=jnp.zeros_like(state.step),
    )


def set_reference(state: Any, accept: Array) -> Any:
    """Makes the current actor π_ref where `accept` [] bool, and doubles the cap on the threshold."""
    doubled = jnp.minimum(2.0 * state.threshold_cap, UNCAPPED)
    return common.set_reference(state, accept).replace(threshold_cap=where(accept, doubled, state.threshold_cap))


def roll_back(
    optimizer: optax.GradientTransformation,
    lagrange_optimizer: optax.GradientTransformation,
    state: Any,
    reject: Array,
    divergence: Array,
) -> Any:
    """Makes π_ref the current actor again, on a shorter leash: twice λ, and τ at most half of what led astray.

        π ← π_ref,   log λ ← log λ + log 2,   τ_cap ← min( τ_cap, f / 2 )

    Adam begins anew for both. The critics stay, and so does the replay, whose failed episodes are what corrects them.

    Args:
      optimizer: the actor's.
      lagrange_optimizer: that of log λ.
      state: while fine-tuning.
      reject: [] bool, where to do so.
      divergence: [] f(π, π_ref) of the policy that is given up. NaN leaves the cap as it is, as does what sampling made
        negative.
    """
    log_lagrange = state.log_lagrange + jnp.log(2.0)
    state = common.roll_back(optimizer, state, reject)
    lowered = jnp.where(divergence > 0, jnp.minimum(state.threshold_cap, 0.5 * divergence), state.threshold_cap)
    lagrange_opt = where(reject, lagrange_optimizer.init(log_lagrange), state.opt.lagrange)
    return state.replace(
        log_lagrange=where(reject, log_lagrange, state.log_lagrange),
        opt=state.opt.replace(lagrange=lagrange_opt),
        threshold_cap=where(reject, lowered, state.threshold_cap),
    )


def critic_step(
    critic: networks.Critic, optimizer: optax.GradientTransformation, state: Any, batch: Transition, target: Array
) -> tuple[Params, Any, Metrics]:
    """One gradient step of the critics on `losses.td_loss`.

    Args:
      critic: ensemble network.
      optimizer: of its parameters.
      state: with `critic` and `opt.critic`, before the step.
      batch: [B] transformed transitions.
      target: [B] regression targets, return units, constant.

    Returns:
      The critics' parameters and optimiser state after the step, and the loss's terms.
    """
    (loss, metrics), gradient = jax.value_and_grad(td_loss, has_aux=True)(
        state.critic, critic, batch.observation, batch.action, target
    )
    params, opt = gradient_step(optimizer, gradient, state.opt.critic, state.critic)
    return params, opt, metrics | {"critic_loss": loss}


def evaluation_step(
    config: ConstrainedConfig,
    critic: networks.Critic,
    optimizer: optax.GradientTransformation,
    state: Any,
    batch: Transition,
    target: Array,
) -> tuple[Any, Metrics]:
    """The end of an update of re-evaluation: a `critic_step`, and targets that follow at `reevaluate_rate`.

    Args: as `critic_step`, and
      config: settings.

    Returns:
      The state with critics and targets moved, and metrics.
    """
    params, opt, metrics = critic_step(critic, optimizer, state, batch, target)
    state = state.replace(
        critic=params,
        target_critic=polyak_update(params, state.target_critic, config.reevaluate_rate),
        opt=state.opt.replace(critic=opt),
        step=state.step + 1,
    )
    return state, metrics
