"""Re-evaluation and alignment, as far as O2SAC and O2TD3 share them: phases, extras, targets, critics' steps."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax import networks
from o2o_jax.data.returns import ReturnsToGo
from o2o_jax.interfaces import Phase, Prepare, Stop, Update
from o2o_jax.losses import td_loss
from o2o_jax.online import constrained, early_stopping, parts
from o2o_jax.online.constrained import ConstrainedSettings
from o2o_jax.ops.advantage import discounted_returns
from o2o_jax.policy import Handoff
from o2o_jax.training import compute_extras, gradient_step, polyak_update
from o2o_jax.types import Annotated, Array, Extras, Metrics, Params, Rollout, Transition


class CriticSettings(Protocol):
    """Settings that say what critics are like, and what they learn from."""

    @property
    def networks(self) -> parts.ActorCritic:
        """Networks."""

    @property
    def update(self) -> parts.Update:
        """Updates of all phases."""


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
            show=early_stopping.COMPLETENESS,
            measure_start=True,
            summary=functools.partial(early_stopping.alignment_summary, config),
        ),
    )
    return tuple(phase for phase in phases if phase.updates)


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


def return_target(
    config: ConstrainedSettings,
    state: Any,
    batch: Transition,
    target: Array,
    last_value: Callable[[Array], Array],
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
        target_critic=polyak_update(params, state.target_critic, constrained.reevaluate_rate(config)),
        opt=state.opt.replace(critic=opt),
        step=state.step + 1,
    )
    return state, metrics


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
