"""Code that O2SAC and O2TD3 share: checks of settings, early stopping, the start of fine-tuning, the threshold."""

import dataclasses
import functools
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax import networks
from o2o_jax.data.returns import ReturnsToGo
from o2o_jax.diagnosis import RETURN_TERMS, DiagnosisConfig, KnownReturns, against_returns, known_returns, trust
from o2o_jax.interfaces import Phase, Prepare, Report, Requires, Stop, Update
from o2o_jax.losses import td_loss
from o2o_jax.online import common, parts
from o2o_jax.online.parts import Choice
from o2o_jax.ops import stopping
from o2o_jax.ops.advantage import discounted_returns
from o2o_jax.ops.lagrangian import linear_threshold
from o2o_jax.policy import Handoff
from o2o_jax.settings import get
from o2o_jax.training import compute_extras, gradient_step, polyak_update, where
from o2o_jax.types import Annotated, Array, Extras, Metrics, Params, Rollout, Transition

UNCAPPED = float(jnp.finfo(jnp.float32).max)  # of the threshold; a state's numbers are all finite
REPORTED_STATES = 2_000  # steps that critics are compared with returns at; ranks cost its square
COMPLETENESS = ("overestimated", "distance")  # how far alignment has come; they cost no environment step
EVALUATED_AS_ONLINE = ("td3_bc", "awac")  # offline methods that constrain the policy alone (Appendix B)
# Values by path that the schedule "fast" sets for both
FAST: Mapping[str, Any] = types.MappingProxyType(
    {
        "reevaluate.updates": 8_000,
        "reevaluate.polyak": 0.05,
        "reevaluate.return_updates": 4_000,
        "align.updates": 4_000,
        "update.actor_lr": 3e-4,
        "align.actor_lr": 1e-4,
        "early_stopping.critic_report": True,
        "start.carry_actor_moments": False,
        "start.actor_ramp_updates": 1_000,
        "roll_back.enabled": True,
        "env_steps": 20_000,
    }
)
# Parts that both read online only
ONLINE_PARTS = frozenset({"interaction", "replay", "start", "constraint", "reference", "roll_back", "finetune"})
# Paths of what a method shares with its control for a task: rewards, depths, lengths, evaluation
OF_TASK = (
    "networks.critic_hidden", "update.reward_scale", "update.reward_shift", "env_steps", "interaction.warmup_env_steps",
    "evaluation",
)  # fmt: skip
# Values by path of a control that trains without offline data
FROM_SCRATCH: Mapping[str, Any] = {
    "networks.critic_source": "random",
    "update.actor_lr": 3e-4,
    "replay.mode": "none",
    "replay.buffer_size": 1_000_000,
    "interaction.random_env_steps": 5_000,
    "interaction.warmup_env_steps": 5_000,
    "env_steps": 1_000_000,
    "evaluation.every_env_steps": 5_000,
}


class CriticSettings(Protocol):
    """Settings that say what critics are like, and what they learn from."""

    @property
    def networks(self) -> parts.ActorCritic:
        """Networks."""

    @property
    def update(self) -> parts.Update:
        """Updates of all phases."""


class ConstrainedSettings(Protocol):
    """Settings that O2SAC and O2TD3 share: what the functions here read of a `Config`."""

    @property
    def env_steps(self) -> int:
        """Length of fine-tuning."""

    @property
    def evaluation(self) -> parts.Evaluation:
        """Evaluations."""

    @property
    def networks(self) -> parts.ActorCritic:
        """Networks."""

    @property
    def update(self) -> parts.Update:
        """Updates of all phases."""

    @property
    def reevaluate(self) -> parts.Reevaluation:
        """Re-evaluation."""

    @property
    def align(self) -> parts.Alignment:
        """Alignment."""

    @property
    def early_stopping(self) -> parts.EarlyStopping:
        """Early stopping of both."""

    @property
    def interaction(self) -> parts.Interaction:
        """Environment steps and updates."""

    @property
    def replay(self) -> parts.Replay:
        """Replay."""

    @property
    def start(self) -> parts.Start:
        """Actor at the first environment step."""

    @property
    def constraint(self) -> parts.Constraint | None:
        """Constraint to π_ref; None for none."""

    @property
    def reference(self) -> parts.ConstrainedReference | None:
        """π_ref; None for none, where there is no constraint either."""

    @property
    def roll_back(self) -> parts.RollBack:
        """The way back to it."""


def check(config: ConstrainedSettings) -> None:
    """Refuses settings whose parts contradict each other.

    Raises:
      ValueError: they do; the message has their paths.
    """
    reevaluate, settings, reference = config.reevaluate, config.early_stopping, config.reference
    if reevaluate.critic_bias == "returns" and config.networks.critic_source == "offline":
        raise ValueError(
            "reevaluate.critic_bias=returns is for random critics: with networks.critic_source=offline set it to zero"
        )
    if settings.mode == "measures" and settings.min_updates < reevaluate.return_updates:
        raise ValueError(
            f"early_stopping.min_updates must be at least reevaluate.return_updates, {reevaluate.return_updates}, got "
            f"{settings.min_updates}"
        )
    if config.constraint is not None and reference is None:
        raise ValueError("constraint is one to π_ref: with reference=none set constraint=none too")
    if config.roll_back.enabled and reference is None:
        raise ValueError("roll_back.enabled goes back to π_ref: with reference=none set it to false")
    choices = {"start.actor": config.start.actor} | ({"reference.init": reference.init} if reference else {})
    for path, choice in choices.items():
        if not config.evaluation.episodes and choice == "best_of":
            raise ValueError(
                f"{path}=best_of needs evaluations: with evaluation.episodes=0 set it to aligned or offline"
            )
    if reference is not None:
        reference.check(config.evaluation, config.roll_back)
    config.replay.check_batch_size(config.update.batch_size)


def align_rate(config: ConstrainedSettings) -> float:
    """Returns the learning rate of the actor while aligning."""
    return config.update.actor_lr if config.align.actor_lr is None else config.align.actor_lr


def reevaluate_rate(config: ConstrainedSettings) -> float:
    """Returns the share of the critics copied into their targets per update of re-evaluation."""
    return config.update.polyak if config.reevaluate.polyak is None else config.reevaluate.polyak


def lagrange_start(config: ConstrainedSettings) -> Array:
    """Returns [] log λ at the first environment step; 0 without a constraint."""
    return jnp.log(jnp.asarray(config.constraint.lagrange_init if config.constraint else 1.0, jnp.float32))


def lagrange_optimizer(config: ConstrainedSettings) -> optax.GradientTransformation:
    """Returns that of log λ, which Adam moves by at most its learning rate per environment step."""
    return optax.adam(config.constraint.lagrange_lr(config.env_steps) if config.constraint else 0.0)


def requires(config: ConstrainedSettings, head: str) -> Requires:
    """Returns what a method with these settings, whose actor has that head, asks of the offline policy."""
    return Requires(head, state=config.networks.critic_source == "offline")


def warnings(config: ConstrainedSettings, source: str) -> list[str]:
    """Returns warnings where other phases are left out than Appendix B allows, a line each.

    What it advises to leave out, by the offline method:

    - TD3+BC and AWAC constrain the policy alone and evaluate it as online methods do, so that their critics may be
      kept and re-evaluation left out, never alignment: `networks.critic_source=offline`, `reevaluate.updates=0`.
    - CQL, whose critics are aligned with its policy but pessimistic, may go to constrained fine-tuning alone:
      `networks.critic_source=offline`, `reevaluate.updates=0`, `align.updates=0`.
    - All others need every phase.
    """
    if config.constraint is None:
        return []  # a control, which leaves the idea out on purpose
    offline_critics, reevaluations = config.networks.critic_source == "offline", config.reevaluate.updates
    found = []
    if not reevaluations and not offline_critics:
        found.append("critics start at random and nothing re-evaluates the policy: set reevaluate.updates")
    elif not reevaluations and source == "cql" and config.align.updates:
        found.append(
            "the critics of cql are pessimistic, and alignment keeps them so: re-evaluate them, or leave alignment out "
            "too and fine-tune under the constraint alone (Appendix B)"
        )
    elif not reevaluations and source not in (*EVALUATED_AS_ONLINE, "cql"):
        found.append(
            f"{source} evaluates its policy unlike online methods: its critics need re-evaluation (Appendix B)"
        )
    horizon, wanted = reevaluate_rate(config) * reevaluations, 3.0 / (1.0 - config.update.discount)
    if reevaluations and not offline_critics and horizon < wanted:
        found.append(
            f"re-evaluation looks {horizon:.3g} steps ahead where 3/(1−γ) asks for {wanted:.3g}: set "
            "reevaluate.updates or reevaluate.polyak"
        )
    if not config.align.updates and not (source == "cql" and offline_critics):
        found.append("critics that are not aligned lead the policy away from where it is: set align.updates")
    return found


def stops(config: ConstrainedSettings, policy: Callable, critic: Callable) -> dict[str, Stop]:
    """Returns early stopping and measures of each phase, by its name.

    Args:
      config: settings.
      policy: (state) -> `policy.Policy`, while re-evaluating π_off.
      critic: (state) -> `critic.QFunction`.

    Returns:
      Nothing where the counts are fixed and no report is asked for.
    """
    settings = config.early_stopping
    common_stop = functools.partial(
        Stop,
        check_every_updates=settings.check_every_updates,
        window_checks=settings.window_checks,
        min_updates=settings.min_updates,
    )
    report = Report(
        (*RETURN_TERMS, "horizon"),
        functools.partial(_known_returns, policy, critic),
        functools.partial(_critic_report, config, critic),
        functools.partial(reevaluation_summary, config),
    )
    if settings.mode == "updates":
        if not (settings.critic_report and config.reevaluate.updates):
            return {}
        return {"reevaluate": common_stop((), lambda history: jnp.zeros((), jnp.int32), (), report=report)}
    return {
        "reevaluate": common_stop(
            ("critic_loss", "q"),
            functools.partial(reevaluation_decision, config),
            ("the residual is at its floor, the value at its place, and the ranking no longer rises",),
            report=report,
        ),
        "align": common_stop(
            COMPLETENESS,
            functools.partial(alignment_decision, config),
            ("few probes are overestimated and the policy is near the offline one", "nothing moves any more"),
        ),
    }


def reevaluation_decision(config: ConstrainedSettings, history: dict[str, Array]) -> Array:
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
    settings = config.early_stopping
    updates = settings.check_every_updates * settings.window_checks
    rate = reevaluate_rate(config) * (1.0 - config.update.discount)
    at_floor = stopping.no_longer_falls(history["critic_loss"], settings.residual)
    in_place = stopping.missing_share(history["q"], updates, rate) <= settings.missing_value
    ordered = stopping.no_longer_rises(history["correlation"], settings.correlation)
    return (at_floor & in_place & ordered).astype(jnp.int32)


def _known_returns(policy: Callable, critic: Callable, key: Array, state: Any, held_out: Rollout) -> KnownReturns:
    """Steps with their returns, in units of critics whose temperature and rewards re-evaluation leaves alone."""
    return known_returns(DiagnosisConfig(states=REPORTED_STATES), key, held_out, policy(state), critic(state))


def _critic_report(config: ConstrainedSettings, critic: Callable, state: Any, known: KnownReturns) -> Metrics:
    """`diagnosis.against_returns` of the critics as they are, and `horizon`, the ρ n steps that they look ahead."""
    metrics = against_returns(critic(state)(known.observation, known.action), known.returns)
    return metrics | {"horizon": reevaluate_rate(config) * state.step}


def reevaluation_summary(config: ConstrainedSettings, metrics: Mapping[str, float]) -> str:
    """Returns a line on whether the critics that re-evaluation ends with can be trusted; "" for a control."""
    if config.constraint is None:
        return ""
    if not math.isfinite(metrics["recorded"]):
        return "no recorded return counts, all episodes were cut off too early: the critic is compared with nothing"
    trusted, words = trust(*(metrics[name] for name in ("value", "recorded", "spread", "correlation")))
    advice = "" if trusted else ": set reevaluate.updates or reevaluate.polyak"
    return f"the critic {words}; it looks {metrics['horizon']:.3g} steps ahead{advice}"


def alignment_decision(config: ConstrainedSettings, history: dict[str, Array]) -> Array:
    """Decides whether alignment is complete, 1, or at least moves no more, 2: [] int32, 0 to continue.

    Both measures count in either case. At the start the distance is 0 and the share high; then the actor runs after
    overestimated actions, and both fall together as the critics are corrected.

    Args:
      config: settings.
      history: `overestimated` [K + 1], the share of probes with Q(s, a) > Q(s, ȧ), and `distance` [K + 1], the mean
        squared distance of the modes of π_on and π_off, on held-out states.
    """
    share, distance, settings = history["overestimated"], history["distance"], config.early_stopping
    complete = (share[-1] <= settings.overestimated) & (distance[-1] <= settings.distance)
    still = stopping.settled(share, settings.settled) & stopping.settled(distance, settings.settled)
    return jnp.where(complete, 1, jnp.where(still, 2, 0))


def alignment_summary(config: ConstrainedSettings, first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """Returns a line on how far alignment has come, by means over seeds.

    Args:
      config: settings.
      first: `overestimated` [S] before the first update.
      last: `overestimated` and `distance` [S] at the end.
    """
    share, distance = (last[name].mean() for name in COMPLETENESS)
    complete = share <= config.early_stopping.overestimated and distance <= config.early_stopping.distance
    return (
        f"alignment: {share:.1%} of probes are valued above the policy's own action, "
        f"{first[COMPLETENESS[0]].mean():.1%} before; mean squared distance to the offline policy {distance:.4f}"
        + ("" if complete else ": not complete, set align.updates or start.actor=offline")
    )


def settings_of_task(config: ConstrainedSettings) -> dict[str, Any]:
    """Returns the settings for a task, by path, that a method shares with its control."""
    return {path: get(config, path) for path in OF_TASK}


def switched_off(config: ConstrainedSettings) -> dict[str, Any]:
    """Returns the parts that leave the idea of the paper out of a method, in the place of those of `config`."""
    return {
        "reevaluate": dataclasses.replace(config.reevaluate, updates=0),
        "align": dataclasses.replace(config.align, updates=0),
        "start": dataclasses.replace(config.start, actor="offline"),
        "constraint": None,
        "reference": None,
    }


def clip_actor_gradient(config: ConstrainedSettings, gradient: Params) -> Params:
    """Bounds the norm of the actor's gradient in fine-tuning, where interval mode asks for it (D-31)."""
    reference = config.reference
    if reference is None or reference.update != "interval" or reference.interval_actor_grad_norm is None:
        return gradient
    clip = optax.clip_by_global_norm(reference.interval_actor_grad_norm)
    return clip.update(gradient, clip.init(gradient))[0]


def actor_step(
    config: ConstrainedSettings, optimizer: optax.GradientTransformation, gradient: Params, state: Any
) -> tuple[Params, Any]:
    """One gradient step of the actor in fine-tuning, clipped and shortened where settings say so.

        θ ← θ + min((n + 1) / N, 1) · Adam(g),   n = Adam's steps since its moments were fresh

    N is `start.actor_ramp_updates`. Fresh moments make Adam's first steps as long as its later ones: before critics
    have seen anything online, and where a policy has just been rolled back.

    Args:
      config: settings.
      optimizer: the actor's.
      gradient: shaped like the actor's parameters.
      state: with `actor` and `opt.actor`, before the step.

    Returns:
      The actor's parameters and optimiser state after the step.
    """
    updates, opt = optimizer.update(clip_actor_gradient(config, gradient), state.opt.actor, state.actor)
    if config.start.actor_ramp_updates:
        share = jnp.minimum(optax.tree_utils.tree_get(opt, "count") / config.start.actor_ramp_updates, 1.0)
        updates = jax.tree.map(lambda update: share * update, updates)
    return optax.apply_updates(state.actor, updates), opt


def threshold(config: ConstrainedSettings, step: Array, cap: Array) -> Array:
    """τ at the environment step of update `step` [] of fine-tuning, in units of the divergence (section H.3).

    Never above `cap` [], which a policy that was rolled back has left.
    """
    constraint, reference, interaction = config.constraint, config.reference, config.interaction
    assert constraint is not None
    assert reference is not None
    env_steps = interaction.schedule.warmup_env_steps + step // interaction.updates_per_env_step
    end = constraint.threshold_end / (reference.interval_threshold_divisor if reference.update == "interval" else 1.0)
    ramp = constraint.threshold_ramp * max(config.env_steps, 1)
    bound = linear_threshold(env_steps, min(constraint.threshold_start, end), end, ramp)
    return jnp.minimum(bound, cap)


def moves_lagrange(config: ConstrainedSettings, step: Array) -> Array:
    """Returns whether update `step` [] moves λ: once per environment step, at any number of updates (section C.6)."""
    return step % config.interaction.updates_per_env_step == 0


def offline_state(config: CriticSettings, handoff: Handoff | None, critic: Params) -> Any:
    """Returns the state that offline training left, for those who continue from its critics.

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
            "networks.critic_source=offline continues from the critics of offline training, and this policy comes "
            "without any: start from a method that trains critics, or set networks.critic_source=random"
        )
    state, source = handoff.state, handoff.source
    found, wanted = networks.critic_settings(state.critic), networks.critic_settings(critic)
    names = {"hidden": "critic_hidden", "layer_norm": "layer_norm", "num_critics": "num_critics"}
    differing = [
        f"networks.{field}={_as_text(found[name])}" for name, field in names.items() if found[name] != wanted[name]
    ]
    if differing:
        settings = ", ".join(differing)
        raise ValueError(f"the critics of {source} do not fit: set {settings}, or networks.critic_source=random")
    if jax.tree.map(jnp.shape, state.critic) != jax.tree.map(jnp.shape, critic):
        raise ValueError(f"the critics of {source} do not fit: they are of other observations or actions")
    scale, shift = state.transform.reward_scale, state.transform.reward_shift
    if (scale, shift) != (config.update.reward_scale, config.update.reward_shift):
        raise ValueError(
            f"the critics of {source} were trained on other rewards: set update.reward_scale={scale} and "
            f"update.reward_shift={shift}, or networks.critic_source=random"
        )
    return state


def _as_text(value: Any) -> str:
    """A setting as the command line takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


@flax.struct.dataclass
class Evaluated:
    """A seed's own extras for re-evaluation.

    Attributes:
      next_policy: what π_off does at s' [N, ...].
      bonus: [N] what its values add to the data's returns; None where they add nothing, or returns aren't asked for.
    """

    next_policy: Any
    bonus: Array | None = None


def make_phases(
    config: ConstrainedSettings,
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
            config.reevaluate.updates,
            config.update.batch_size,
            prepare_evaluation,
            stop=stops.get("reevaluate"),
        ),
        Phase(
            "align",
            align,
            config.align.updates,
            config.update.batch_size,
            prepare_alignment,
            stop=stops.get("align"),
            show=COMPLETENESS,
            measure_start=True,
            summary=functools.partial(alignment_summary, config),
        ),
    )
    return tuple(phase for phase in phases if phase.updates)


def prepare_alignment(anchor: Callable, state: Any, dataset: Rollout) -> tuple[Any, Extras]:
    """Computes once for every row what alignment would compute again in every batch.

    Args:
      anchor: (state, normalised observations [..., O]) -> what alignment asks of π_off and the target critics at s,
        which it leaves alone.
      state: before the phase, or amid it: nothing that the phase moves is read.
      dataset: raw transitions [N].

    Returns:
      The state, and a seed's own extras [N, ...]: `anchor`'s values.
    """
    return state, Extras(
        own=compute_extras(lambda raw: anchor(state, state.transform.normalizer(raw)), dataset.observation)
    )


def prepare_evaluation(
    config: ConstrainedSettings,
    offline: Callable,
    state: Any,
    dataset: Rollout,
    next_bonus: Callable | None = None,
) -> tuple[Any, Extras]:
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
      The state, and extras [N, ...]: an `Evaluated` of the seed's own, and where returns are mixed in, the data's
      `ReturnsToGo`, shared by all seeds.
    """
    next_policy = compute_extras(lambda raw: offline(state, state.transform.normalizer(raw)), dataset.next_observation)
    if not config.reevaluate.return_updates and config.reevaluate.critic_bias == "zero":
        return state, Extras(own=Evaluated(next_policy))
    returns, bonus = ReturnsToGo.of(state.transform(dataset).reward, dataset, config.update.discount), None
    if next_bonus is not None:
        reward = config.update.discount * (1.0 - dataset.terminated) * next_bonus(state, next_policy)
        bonus = discounted_returns(reward, dataset.ended, config.update.discount)
    if config.reevaluate.critic_bias == "returns":
        shift = jnp.where(state.step == 0, returns.level(0.0 if bonus is None else bonus), 0.0)
        critic, target_critic = (networks.shift_output(params, shift) for params in (state.critic, state.target_critic))
        state = state.replace(critic=critic, target_critic=target_critic)
    if not config.reevaluate.return_updates:
        return state, Extras(own=Evaluated(next_policy))
    return state, Extras(shared=returns, own=Evaluated(next_policy, bonus))


def return_target(
    config: ConstrainedSettings, state: Any, batch: Transition, target: Array, last_value: Callable[[Array], Array]
) -> Array:
    """Mixes the data's returns into the targets of the first updates of re-evaluation.

        y = (1 − β) y_TD + β ( G + w V(s_e') ),   β = max(1 − n / N, 0)

    What bootstrapping has to add afterwards is the difference of policy and data in place of the whole value.

    Args:
      config: N is `reevaluate.return_updates`.
      state: whose `step` is n.
      batch: with the extras of `prepare_evaluation`.
      target: [B] y_TD, return units.
      last_value: V, normalised observations [B, O] to values [B] by the target critics, without what `bonus`
        holds at that state.

    Returns:
      [B] targets; `target` itself where N is 0.

    Raises:
      ValueError: while tracing, if N > 0 and the batch has no extras.

    Source: this package; relatives are Jelley et al. (arXiv:2406.13376) and Nakamoto et al. (arXiv:2303.05479).
    """
    mixed_updates = config.reevaluate.return_updates
    if not mixed_updates:
        return target
    if not isinstance(batch, Annotated):
        raise ValueError(
            "reevaluate.return_updates asks for returns, which single transitions don't have: annotate the dataset "
            "first"
        )
    returns, bonus = batch.extras.shared, batch.extras.own.bonus

    def mixed(target: Array) -> Array:
        weight = 1.0 - state.step / mixed_updates
        recorded = returns.bootstrapped(lambda observation: last_value(state.transform.normalizer(observation)))
        recorded += 0.0 if bonus is None else bonus
        return (1.0 - weight) * target + weight * recorded

    # a branch, which later updates don't pay for
    return jax.lax.stop_gradient(jax.lax.cond(state.step < mixed_updates, mixed, lambda target: target, target))


def chosen(choice: Choice, accept: Any) -> Array:
    """Returns [...] bool, where it is the aligned policy; `accept` [...] says where that one scored better."""
    return {"best_of": jnp.asarray(accept), "aligned": jnp.ones_like(accept), "offline": jnp.zeros_like(accept)}[choice]


def aligned_reference(config: ConstrainedSettings, accept: Any) -> Array:
    """Returns [...] bool, where the first π_ref is the aligned policy, as `reference.init` says."""
    return chosen(config.reference.init if config.reference else "offline", accept)


def begin_finetuning(
    config: ConstrainedSettings, optimizer: optax.GradientTransformation, state: Any, accept: Array
) -> Any:
    """Chooses who goes online and who is the first reference, makes the aligned critics the targets, and sets λ.

    Args:
      config: `start.actor` and `reference.init` say how to choose.
      optimizer: the actor's; an actor that alignment's gradients did not lead to starts with fresh moments.
      state: after alignment: `actor` is π_on, `reference` is π_off.
      accept: [] bool, whether π_on scored better than π_off.

    Returns:
      The state at update 0 of fine-tuning.

    Source: section 4.3 and the authors' code for `reference.init`; `start.actor=best_of` departs from both (D-06a).
    """
    aligned, offline = state.actor, state.reference
    aligned_starts = chosen(config.start.actor, accept)
    return state.replace(
        actor=where(aligned_starts, aligned, offline),
        reference=where(aligned_reference(config, accept), aligned, offline),
        # critics that came from offline training bring their own targets
        target_critic=state.critic if config.align.updates else state.target_critic,
        opt=state.opt.replace(
            actor=where(aligned_starts & config.start.carry_actor_moments, state.opt.actor, optimizer.init(offline))
        ),
        log_lagrange=jnp.full_like(state.log_lagrange, lagrange_start(config)),
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
    config: ConstrainedSettings,
    critic: networks.Critic,
    optimizer: optax.GradientTransformation,
    state: Any,
    batch: Transition,
    target: Array,
) -> tuple[Any, Metrics]:
    """The end of an update of re-evaluation: a `critic_step`, and targets that follow at `reevaluate_rate`.

    Args:
      config: settings; the others are those of `critic_step`.

    Returns:
      The state with critics and targets moved, and metrics.
    """
    params, opt, metrics = critic_step(critic, optimizer, state, batch, target)
    state = state.replace(
        critic=params,
        target_critic=polyak_update(params, state.target_critic, reevaluate_rate(config)),
        opt=state.opt.replace(critic=opt),
        step=state.step + 1,
    )
    return state, metrics
