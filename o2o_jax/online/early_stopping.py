"""Early stopping of re-evaluation and alignment for O2SAC and O2TD3, and lines on how far they came."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from o2o_jax.diagnosis import RETURN_TERMS, DiagnosisConfig, KnownReturns, against_returns, known_returns, trust
from o2o_jax.interfaces import Report, Stop
from o2o_jax.online import constrained
from o2o_jax.online.constrained import ConstrainedSettings
from o2o_jax.ops import stopping
from o2o_jax.types import Array, Metrics, Rollout

REPORTED_STATES = 2_000  # steps that critics are compared with returns at; ranks cost its square
COMPLETENESS = ("overestimated", "distance")  # how far alignment has come; they cost no environment step


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
    rate = constrained.reevaluate_rate(config) * (1.0 - config.update.discount)
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
    return metrics | {"horizon": constrained.reevaluate_rate(config) * state.step}


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
