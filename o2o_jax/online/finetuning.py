"""Constrained fine-tuning, as far as O2SAC and O2TD3 share it: its start, π_ref, the threshold, the actor's step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from o2o_jax.online import common, constrained
from o2o_jax.online.constrained import ConstrainedSettings
from o2o_jax.online.parts import Choice
from o2o_jax.ops.lagrangian import linear_threshold
from o2o_jax.training import clip_gradient, where
from o2o_jax.types import Array, Params

UNCAPPED = float(jnp.finfo(jnp.float32).max)  # of the threshold; a state's numbers are all finite


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
        log_lagrange=jnp.full_like(state.log_lagrange, constrained.lagrange_start(config)),
        step=jnp.zeros_like(state.step),
    )


def set_reference(state: Any, accept: Array) -> Any:
    """Makes the current actor π_ref where `accept` [] bool, and doubles the cap on the threshold."""
    doubled = jnp.minimum(2.0 * state.threshold_cap, UNCAPPED)
    return common.set_reference(state, accept).replace(threshold_cap=where(accept, doubled, state.threshold_cap))


def roll_back(
    optimizer: optax.GradientTransformation,
    lagrange_optimizer: optax.GradientTransformation,
    tightening: float,
    state: Any,
    reject: Array,
    divergence: Array,
) -> Any:
    """Makes π_ref the current actor again, on a shorter leash: k times λ, and τ at most a k-th of what led astray.

        π ← π_ref,   log λ ← log λ + log k,   τ_cap ← min( τ_cap, f / k )

    Adam begins anew for both. The critics stay, and so does the replay, whose failed episodes are what corrects them.

    Args:
      optimizer: the actor's.
      lagrange_optimizer: that of log λ.
      tightening: k ≥ 1.
      state: while fine-tuning.
      reject: [] bool, where to do so.
      divergence: [] f(π, π_ref) of the policy that is given up. NaN leaves the cap as it is, as does what sampling made
        negative.
    """
    log_lagrange = state.log_lagrange + jnp.log(tightening)
    state = common.roll_back(optimizer, state, reject)
    lowered = jnp.where(divergence > 0, jnp.minimum(state.threshold_cap, divergence / tightening), state.threshold_cap)
    lagrange_opt = where(reject, lagrange_optimizer.init(log_lagrange), state.opt.lagrange)
    return state.replace(
        log_lagrange=where(reject, log_lagrange, state.log_lagrange),
        opt=state.opt.replace(lagrange=lagrange_opt),
        threshold_cap=where(reject, lowered, state.threshold_cap),
    )


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


def clip_actor_gradient(config: ConstrainedSettings, gradient: Params) -> Params:
    """Bounds the norm of the actor's gradient in fine-tuning, where interval mode asks for it (D-31)."""
    reference = config.reference
    if reference is None or reference.update != "interval" or reference.interval_actor_grad_norm is None:
        return gradient
    return clip_gradient(gradient, reference.interval_actor_grad_norm)


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
