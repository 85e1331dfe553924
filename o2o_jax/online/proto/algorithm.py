"""PROTO: soft actor-critic on offline critics, each policy held to a copy of itself that follows slowly."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from o2o_jax import making
from o2o_jax.interfaces import Algorithm
from o2o_jax.losses import draw_critics, lowest_value
from o2o_jax.online import common, o2sac, reconstruction, rlpd
from o2o_jax.online.o2sac import State
from o2o_jax.online.proto import losses
from o2o_jax.online.proto.config import Config
from o2o_jax.online.rlpd.algorithm import Networks
from o2o_jax.online.rlpd.losses import temperature_loss
from o2o_jax.online.wsrl.algorithm import make_networks
from o2o_jax.ops.bellman import td_target
from o2o_jax.ops.lagrangian import linear_threshold
from o2o_jax.policy import Handoff
from o2o_jax.training import gradient_step, polyak_update
from o2o_jax.types import Array, Metrics, Spec, Transition


def init(start: Algorithm, config: Config, key: Array, handoff: Handoff | None = None) -> State:
    """Makes the state before the first environment step: policy and critics of offline training, π_k the same policy.

    Args:
      start: O2SAC, with the networks of these settings; its state's `reference` is π_k.
      config: settings.
      key: initialises what the handoff doesn't bring.
      handoff: with a tanh-Gaussian policy and the critics of offline training; None for random networks.

    Returns:
      A `State`. The critics keep Adam's moments; those of actor and temperature begin anew.

    Raises:
      ValueError: as O2SAC, if the policy's head or sizes differ, or there are no such critics.
    """
    state = start.init(key, handoff)
    state = state.replace(log_alpha=jnp.log(jnp.asarray(config.update.alpha, jnp.float32)))
    return with_moments_of_critics(config, state, handoff)


def with_moments_of_critics(config: Any, state: Any, handoff: Handoff | None) -> Any:
    """Returns a state whose critics, where they are those of offline training, keep Adam's moments [...] too."""
    if handoff is None or config.networks.critic_source == "random":
        return state
    return state.replace(opt=common.carried(state.opt, handoff.state.opt, ("critic",)))


def weight(config: Any, step: Array) -> Array:
    """Returns c at update `step` [] of fine-tuning: c₀ max(1 − t / T, 0), t environment steps, T `fall_env_steps`.

    Source: Li et al. (arXiv:2305.15669), and the authors' code, which takes c₀ / T off after every environment step.
    """
    proximity, env_steps = config.proximity, step // config.interaction.updates_per_env_step
    return linear_threshold(env_steps, proximity.weight, 0.0, proximity.fall_env_steps)


def finetune(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """Steps the critics, then actor and temperature by the critics just stepped; π_k follows the actor.

    Args:
      nets: of `wsrl.algorithm.make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B].
      key: draws the critics of the target, and the actions at s' and s.

    Returns:
      The state with everything but the transform moved, and metrics.

    Source: Li et al. (arXiv:2305.15669), and its authors' code, whose order this is.
    """
    batch = state.transform(batch)
    target_key, actor_key = jax.random.split(key)
    alpha, price = jnp.exp(state.log_alpha), weight(config, state.step)
    target = critic_target(nets, config, state, batch, target_key)
    critic, critic_opt, metrics = reconstruction.critic_step(nets.critic, nets.critic_optimizer, state, batch, target)

    followed = nets.actor.apply(state.reference, batch.observation)
    (actor_loss, (log_prob, log_ratio)), gradient = jax.value_and_grad(losses.actor_loss, has_aux=True)(
        state.actor, nets.actor, critic, nets.critic, followed, batch.observation, actor_key, alpha, price
    )
    actor, actor_opt = gradient_step(nets.actor_optimizer, gradient, state.opt.actor, state.actor)
    alpha_loss, gradient = jax.value_and_grad(temperature_loss)(state.log_alpha, log_prob, -0.5 * nets.spec.action_dim)
    log_alpha, alpha_opt = gradient_step(nets.alpha_optimizer, gradient, state.opt.alpha, state.log_alpha)
    state = state.replace(
        actor=actor,
        reference=polyak_update(actor, state.reference, config.proximity.polyak),
        critic=critic,
        target_critic=polyak_update(critic, state.target_critic, config.update.polyak),
        log_alpha=log_alpha,
        opt=state.opt.replace(actor=actor_opt, critic=critic_opt, alpha=alpha_opt),
        step=state.step + 1,
    )
    return state, metrics | {
        "actor_loss": actor_loss,
        "log_prob": jnp.mean(log_prob),
        "divergence": jnp.mean(log_ratio),
        "weight": price,
        "alpha": alpha,
        "alpha_loss": alpha_loss,
    }


def critic_target(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> Array:
    """Computes the target of all critics from the lowest of a few target critics, drawn for the whole batch.

        y = r + γ (1 − d) ( min_{i∈Z} Q̄_i(s', a') − α log π(a'|s') − c [ log π(a'|s') − log π_k(a'|s') ] )

    a' is a sample of π. Without `update.backup_entropy` nothing is taken off Q̄. The arguments are those of `finetune`,
    the batch transformed.

    Returns:
      [B] constant.

    Source: Li et al. (arXiv:2305.15669), the authors' code.
    """
    subset_key, action_key = jax.random.split(key)
    drawn = draw_critics(state.target_critic, subset_key, config.networks.num_target_critics)
    action, log_prob = nets.actor.apply(state.actor, batch.next_observation).sample_and_log_prob(action_key)
    value = lowest_value(drawn, nets.drawn_critics, batch.next_observation, action)
    if config.update.backup_entropy:
        followed = nets.actor.apply(state.reference, batch.next_observation)
        price = weight(config, state.step)
        value -= losses.regularization(log_prob, followed.log_prob(action), jnp.exp(state.log_alpha), price)
    return td_target(batch.reward, batch.terminated, value, config.update.discount)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    start = o2sac.make(config.of_o2sac(), spec)
    assert start.online is not None
    nets = make_networks(config, spec)
    return start._replace(
        name="proto",
        init=functools.partial(init, start, config),
        critic=functools.partial(rlpd.algorithm.critic, nets, config),
        online=start.online._replace(
            begin=rlpd.algorithm.begin,
            update=functools.partial(finetune, nets, config),
            replay=config.replay.rule(config.env_steps, config.update.batch_size),
        ),
    )
