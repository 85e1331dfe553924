"""O2SAC: optimistic re-evaluation, value alignment and constrained fine-tuning of a squashed-Gaussian policy."""

import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax import making, networks
from o2o_jax.critic import QFunction
from o2o_jax.data.transform import Transform
from o2o_jax.interfaces import Algorithm, Online, Reference
from o2o_jax.losses import lowest_value, soft_actor_loss
from o2o_jax.online import common, constrained, early_stopping, finetuning, reconstruction
from o2o_jax.online.o2sac import losses
from o2o_jax.online.o2sac.config import Config
from o2o_jax.ops.bellman import td_target
from o2o_jax.ops.distributions import TanhGaussian, normal_divergence
from o2o_jax.ops.lagrangian import lagrange_loss, temperature_loss
from o2o_jax.policy import Handoff, Policy
from o2o_jax.training import gradient_step, polyak_update, where
from o2o_jax.types import Array, Metrics, Params, Spec, Transition, counter, extras_of


class Networks(NamedTuple):
    """Modules and optimisers: everything static that the updates need."""

    actor: networks.Actor
    critic: networks.Critic
    actor_optimizer: optax.GradientTransformation
    align_optimizer: optax.GradientTransformation  # the actor's while aligning
    critic_optimizer: optax.GradientTransformation
    alpha_optimizer: optax.GradientTransformation
    lagrange_optimizer: optax.GradientTransformation
    spec: Spec


@flax.struct.dataclass
class OptStates:
    """One optimiser state per trained part; they carry over from phase to phase (D-13)."""

    actor: Any
    critic: Any
    alpha: Any
    lagrange: Any


@flax.struct.dataclass
class State:
    """Arrays only: vmaps over seeds, saves as it is.

    Attributes:
      actor: π; until alignment begins, π_off.
      reference: π_ref; π_off until `begin_finetuning`, then whatever `set_reference` accepted last.
      critic: parameters with a leading axis E.
      target_critic: the same for Q̄.
      log_alpha: [] log of the temperature α.
      log_lagrange: [] log λ, so that λ > 0.
      threshold_cap: [] that τ may not exceed; lowered by `roll_back`.
      opt: optimiser states.
      transform: of observations and rewards, constant.
      step: [] int32, updates so far; begins anew with fine-tuning.
    """

    actor: Params
    reference: Params
    critic: Params
    target_critic: Params
    log_alpha: Array
    log_lagrange: Array
    threshold_cap: Array
    opt: OptStates
    transform: Transform
    step: Array = counter()


def make_networks(config: Config, spec: Spec) -> Networks:
    """Modules and optimisers for a configuration and the sizes of an environment."""
    sizes = config.networks
    return Networks(
        actor=networks.TanhGaussianActor(spec.action_dim, sizes.hidden, layer_norm=sizes.actor_layer_norm),
        critic=networks.Critics(sizes.critic_hidden, sizes.layer_norm, sizes.num_critics),
        actor_optimizer=optax.adam(config.update.actor_lr),
        align_optimizer=optax.adam(constrained.align_rate(config)),
        critic_optimizer=optax.adam(config.update.critic_lr),
        alpha_optimizer=optax.adam(config.finetune.alpha_lr),
        lagrange_optimizer=constrained.lagrange_optimizer(config),
        spec=spec,
    )


def init(nets: Networks, config: Config, key: Array, handoff: Handoff | None = None) -> State:
    """The state before re-evaluation: the offline policy, and critics that know nothing of it.

    Args:
      nets: of `make_networks`.
      config: settings.
      key: initialises what the handoff doesn't bring.
      handoff: with a tanh-Gaussian policy; None starts from a random one.

    Returns:
      A `State`.

    Raises:
      ValueError: if the policy's head or sizes differ, or critics are asked for that the handoff doesn't have.
    """
    actor_key, critic_key = jax.random.split(key)
    observation, action = jnp.zeros((1, nets.spec.observation_dim)), jnp.zeros((1, nets.spec.action_dim))
    actor = common.offline_actor(handoff, nets.actor.init(actor_key, observation), nets.actor.head)
    critic = target_critic = nets.critic.init(critic_key, observation, action)
    log_alpha = jnp.log(jnp.asarray(config.update.alpha, jnp.float32))
    if config.networks.critic_source == "offline":
        offline = reconstruction.offline_state(config, handoff, critic)
        critic, target_critic = offline.critic, offline.target_critic
        if not config.reevaluate.updates + config.align.updates:  # these take place at a fixed temperature
            log_alpha = getattr(offline, "log_alpha", log_alpha)
    log_lagrange = jnp.zeros(())  # where `begin_finetuning` puts the multiplier's start
    return State(
        actor=actor,
        reference=actor,
        critic=critic,
        target_critic=target_critic,
        log_alpha=log_alpha,
        log_lagrange=log_lagrange,
        threshold_cap=jnp.asarray(finetuning.UNCAPPED, jnp.float32),
        opt=OptStates(
            actor=nets.actor_optimizer.init(actor),
            critic=nets.critic_optimizer.init(critic),
            alpha=nets.alpha_optimizer.init(log_alpha),
            lagrange=nets.lagrange_optimizer.init(log_lagrange),
        ),
        transform=common.initial_transform(config.update, handoff, nets.spec.observation_dim),
        step=jnp.zeros((), jnp.int32),
    )


def _offline(nets: Networks, state: State, observation: Array) -> TanhGaussian:
    return nets.actor.apply(state.reference, observation)


def _entropy_bonus(state: State, offline: TanhGaussian) -> Array:
    """−α log π_off(a|s), return units, of one action a drawn in each state; the same draws for every seed."""
    return -jnp.exp(state.log_alpha) * offline.sample_and_log_prob(jax.random.key(0))[1]


def _sampled_value(nets: Networks, state: State, key: Array, observation: Array) -> Array:
    """Q̄min(s, a), a ~ π_off(s), [B] at normalised observations [B, O]; without the entropy, counted by the extras."""
    return lowest_value(state.target_critic, nets.critic, observation, _offline(nets, state, observation).sample(key))


def _anchor(nets: Networks, state: State, observation: Array) -> losses.Anchor:
    return losses.Anchor.of(state.reference, nets.actor, state.target_critic, nets.critic, observation)


def reevaluate(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """One update of optimistic policy evaluation: fitted Q-evaluation of π_off, Eq. (3).

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B], with the extras of `reconstruction.prepare_evaluation` or without.
      key: draws the next actions.

    Returns:
      The state with critics and targets moved, and metrics.
    """
    batch = state.transform(batch)
    alpha = jnp.exp(state.log_alpha)
    extras = extras_of(batch, lambda: reconstruction.Evaluated(_offline(nets, state, batch.next_observation)))

    next_action, next_log_prob = extras.next_policy.sample_and_log_prob(key)
    next_q = lowest_value(state.target_critic, nets.critic, batch.next_observation, next_action)
    next_value = next_q - alpha * next_log_prob
    target = td_target(batch.reward, batch.terminated, next_value, config.update.discount)
    target = reconstruction.return_target(
        config, state, batch, target, functools.partial(_sampled_value, nets, state, jax.random.fold_in(key, 1))
    )
    return reconstruction.evaluation_step(config, nets.critic, nets.critic_optimizer, state, batch, target)


def align(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """One update of value alignment: Eq. (2) for the actor, Eq. (13) for the critic.

    The actor searches for overestimated actions; the critics learn that none is worth more than the offline policy's
    own. The targets stay those of re-evaluation. Both gradients are taken at the parameters before the update (D-11).

    The arguments are those of `reevaluate`; `key` draws the probes and the actor's own actions.

    Returns:
      The state with actor and critics moved, and metrics; `overestimated` and `distance` say how complete alignment is.
    """
    batch = state.transform(batch)
    alpha = jnp.exp(state.log_alpha)
    probe_key, actor_key = jax.random.split(key)
    anchor = extras_of(batch, lambda: _anchor(nets, state, batch.observation))
    current = nets.actor.apply(state.actor, batch.observation)
    probe = current.sample(probe_key)
    critic_gradient, metrics = jax.grad(losses.align_loss, has_aux=True)(
        state.critic,
        nets.critic,
        state.target_critic,
        anchor,
        batch.observation,
        probe,
        alpha,
        config.align.log_prob_min,
    )
    held_to = None
    if config.align.lagrange:
        price = config.align.lagrange * jnp.mean(jnp.abs(anchor.q_mode))
        held_to = anchor.offline, price, losses.Divergence(config.align.divergence)
    (actor_loss, log_prob, _), actor_gradient = _actor_gradient(
        nets, state, batch.observation, actor_key, alpha, held_to
    )
    actor, actor_opt = gradient_step(nets.align_optimizer, actor_gradient, state.opt.actor, state.actor)
    critic, critic_opt = gradient_step(nets.critic_optimizer, critic_gradient, state.opt.critic, state.critic)
    metrics |= {
        "actor_loss": actor_loss,
        "log_prob": jnp.mean(log_prob),
        "distance": jnp.mean(jnp.square(current.mode() - anchor.offline.mode())),
    }
    state = state.replace(
        actor=actor,
        critic=critic,
        opt=state.opt.replace(actor=actor_opt, critic=critic_opt),
        step=state.step + 1,
    )
    return state, metrics


def _actor_gradient(
    nets: Networks,
    state: State,
    observation: Array,
    key: Array,
    alpha: Array,
    held_to: tuple[TanhGaussian, Array, losses.Divergence] | None,
) -> tuple[tuple[Array, Array, Array], Params]:
    """Loss [], log-densities [B] and divergences [B] of the actor at observations [B, O], and its gradient.

    `held_to` is a policy at these observations, the price [] of leaving it and how far that is measured; without it
    divergences are 0.
    """
    arguments = (state.actor, nets.actor, state.critic, nets.critic)
    if held_to is None:
        (loss, (_, log_prob, _)), gradient = jax.value_and_grad(soft_actor_loss, has_aux=True)(
            *arguments, observation, key, alpha
        )
        return (loss, log_prob, jnp.zeros_like(log_prob)), gradient
    policy, price, measure = held_to
    (loss, (log_prob, divergence)), gradient = jax.value_and_grad(losses.constrained_actor_loss, has_aux=True)(
        *arguments, policy, observation, key, alpha, price, measure
    )
    return (loss, log_prob, divergence), gradient


def finetune(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """One update of constrained fine-tuning: Eq. (36) to (39), (4), (49); all gradients at the old parameters.

    Without `config.constraint` this is soft actor-critic.

    The arguments are those of `reevaluate`; `key` draws the actions at s and s'.

    Returns:
      The state with everything but the reference moved, and metrics.
    """
    batch = state.transform(batch)
    alpha, lagrange = jnp.exp(state.log_alpha), jnp.exp(state.log_lagrange)
    actor_key, target_key = jax.random.split(key)

    held_to = None
    if config.constraint:
        measure = losses.Divergence(config.constraint.divergence, config.constraint.reference_log_prob_min)
        held_to = nets.actor.apply(state.reference, batch.observation), lagrange, measure
    (actor_loss, log_prob, divergence), actor_gradient = _actor_gradient(
        nets, state, batch.observation, actor_key, alpha, held_to
    )
    next_policy = nets.actor.apply(state.actor, batch.next_observation)
    next_action, next_log_prob = next_policy.sample_and_log_prob(target_key)
    cost = alpha * next_log_prob
    if config.constraint:
        next_reference = nets.actor.apply(state.reference, batch.next_observation)
        if measure.kind == "exact":
            cost += lagrange * normal_divergence(next_policy, next_reference)
        else:
            log_prob_min = measure.log_prob_min
            cost += lagrange * losses.divergence(next_log_prob, next_action, next_reference, log_prob_min)
    next_q = lowest_value(state.target_critic, nets.critic, batch.next_observation, next_action)
    target = td_target(batch.reward, batch.terminated, next_q - cost, config.update.discount)

    alpha_loss, alpha_gradient = jax.value_and_grad(temperature_loss)(
        state.log_alpha, log_prob, -float(nets.spec.action_dim)
    )
    log_alpha, alpha_opt = gradient_step(nets.alpha_optimizer, alpha_gradient, state.opt.alpha, state.log_alpha)
    actor, actor_opt = finetuning.actor_step(config, nets.actor_optimizer, actor_gradient, state)
    critic, critic_opt, metrics = reconstruction.critic_step(nets.critic, nets.critic_optimizer, state, batch, target)
    metrics |= {"actor_loss": actor_loss, "log_prob": jnp.mean(log_prob), "alpha": alpha, "alpha_loss": alpha_loss}

    log_lagrange, lagrange_opt = state.log_lagrange, state.opt.lagrange
    if config.constraint:
        bound = finetuning.threshold(config, state.step, state.threshold_cap)
        loss, gradient = jax.value_and_grad(lagrange_loss)(log_lagrange, divergence, bound, config.constraint.asymmetry)
        moved = gradient_step(nets.lagrange_optimizer, gradient, lagrange_opt, log_lagrange)
        log_lagrange, lagrange_opt = where(
            finetuning.moves_lagrange(config, state.step), moved, (log_lagrange, lagrange_opt)
        )
        metrics |= {
            "lagrange": lagrange,
            "lagrange_loss": loss,
            "divergence": jnp.mean(divergence),
            "threshold": bound,
        }

    state = state.replace(
        actor=actor,
        critic=critic,
        target_critic=polyak_update(critic, state.target_critic, config.update.polyak),
        log_alpha=log_alpha,
        log_lagrange=log_lagrange,
        opt=OptStates(actor=actor_opt, critic=critic_opt, alpha=alpha_opt, lagrange=lagrange_opt),
        step=state.step + 1,
    )
    return state, metrics


def act(nets: Networks, state: State, observation: Array, key: Array) -> Array:
    """A sampled action [A] in [-1, 1] at a raw observation [O]: the policy's entropy is the exploration."""
    return policy(nets, state).distribution(observation).sample(key)


def policy(nets: Networks, state: State) -> Policy:
    """The current actor with its normaliser."""
    return Policy(state.actor, state.transform.normalizer, nets.actor)


def critic(nets: Networks, config: Config, state: State) -> QFunction:
    """The current critics, whose values contain the policy's entropy from the next step on.

    Those of the offline methods contain none, and without re-evaluation none comes in before fine-tuning.
    """
    kept = config.networks.critic_source == "offline" and not config.reevaluate.updates
    return QFunction.of(state, nets.critic, config.update.discount, jnp.zeros(()) if kept else jnp.exp(state.log_alpha))


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets = make_networks(config, spec)
    own_policy = functools.partial(policy, nets)

    def bind(function):
        return functools.partial(function, nets, config)

    return Algorithm(
        name="o2sac",
        init=bind(init),
        phases=reconstruction.make_phases(
            config,
            bind(reevaluate),
            bind(align),
            functools.partial(
                reconstruction.prepare_evaluation,
                config,
                functools.partial(_offline, nets),
                next_bonus=_entropy_bonus,
            ),
            functools.partial(reconstruction.prepare_alignment, functools.partial(_anchor, nets)),
            early_stopping.stops(config, own_policy, bind(critic)),
        ),
        policy=own_policy,
        critic=bind(critic),
        requires=constrained.requires(config, nets.actor.head),
        online=Online(
            schedule=config.interaction.rule(config.schedule.num_envs),
            begin=functools.partial(finetuning.begin_finetuning, config, nets.actor_optimizer),
            act=common.memoryless(functools.partial(act, nets)),
            update=bind(finetune),
            replay=config.replay.rule(config.env_steps, config.update.batch_size),
            reference=None
            if config.reference is None
            else Reference(
                accept=finetuning.set_reference,
                roll_back=functools.partial(
                    finetuning.roll_back, nets.actor_optimizer, nets.lagrange_optimizer, config.roll_back.tightening
                ),
                policy=functools.partial(common.reference_policy, own_policy),
            ),
        ),
    )
