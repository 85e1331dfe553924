"""O2TD3: optimistic re-evaluation, value alignment and constrained fine-tuning of a deterministic policy."""

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
from o2o_jax.losses import lowest_value
from o2o_jax.online import common, constrained, early_stopping, finetuning, reconstruction
from o2o_jax.online.o2td3 import losses
from o2o_jax.online.o2td3.config import Config, Constraint
from o2o_jax.ops.bellman import td_target
from o2o_jax.ops.lagrangian import lagrange_loss
from o2o_jax.ops.smoothing import smoothed_action
from o2o_jax.policy import Handoff, Policy
from o2o_jax.training import gradient_step, polyak_update, where
from o2o_jax.types import Array, Metrics, Params, Spec, Transition, counter, extras_of


class Networks(NamedTuple):
    """Modules and optimisers: everything static that the updates need."""

    actor: networks.Actor
    critic: networks.Critic  # all critics at once
    first_critic: networks.Critic  # one of them: the actor's gradient asks no other
    actor_optimizer: optax.GradientTransformation
    align_optimizer: optax.GradientTransformation  # the actor's while aligning
    critic_optimizer: optax.GradientTransformation
    lagrange_optimizer: optax.GradientTransformation
    spec: Spec


@flax.struct.dataclass
class OptStates:
    """One optimiser state per trained part; they carry over from phase to phase (D-13)."""

    actor: Any
    critic: Any
    lagrange: Any


@flax.struct.dataclass
class State:
    """Arrays only: vmaps over seeds, saves as it is.

    Attributes:
      actor: π; until alignment begins, π_off.
      target_actor: π̄, which chooses the next actions of the critics' targets while fine-tuning.
      reference: π_ref; π_off until `begin_finetuning`, then whatever `set_reference` accepted last.
      critic: parameters with a leading axis E.
      target_critic: the same for Q̄.
      log_lagrange: [] log λ, so that λ > 0.
      threshold_cap: [] that τ may not exceed; lowered by `roll_back`.
      opt: optimiser states.
      transform: of observations and rewards, constant.
      step: [] int32, updates so far; begins anew with fine-tuning.
    """

    actor: Params
    target_actor: Params
    reference: Params
    critic: Params
    target_critic: Params
    log_lagrange: Array
    threshold_cap: Array
    opt: OptStates
    transform: Transform
    step: Array = counter()


def make_networks(config: Config, spec: Spec) -> Networks:
    """Modules and optimisers for a configuration and the sizes of an environment."""
    sizes = config.networks
    return Networks(
        actor=networks.DeterministicActor(spec.action_dim, sizes.hidden),
        critic=networks.Critics(sizes.critic_hidden, sizes.layer_norm, sizes.num_critics),
        first_critic=networks.Critic(sizes.critic_hidden, sizes.layer_norm),
        actor_optimizer=optax.adam(config.update.actor_lr),
        align_optimizer=optax.adam(constrained.align_rate(config)),
        critic_optimizer=optax.adam(config.update.critic_lr),
        lagrange_optimizer=constrained.lagrange_optimizer(config),
        spec=spec,
    )


def init(nets: Networks, config: Config, key: Array, handoff: Handoff | None = None) -> State:
    """The state before re-evaluation: the offline policy, and critics that know nothing of it.

    Args:
      nets: of `make_networks`.
      config: settings.
      key: initialises what the handoff doesn't bring.
      handoff: with a deterministic policy; None starts from a random one.

    Returns:
      A `State`.

    Raises:
      ValueError: if the policy's head or sizes differ, or critics are asked for that the handoff doesn't have.
    """
    actor_key, critic_key = jax.random.split(key)
    observation, action = jnp.zeros((1, nets.spec.observation_dim)), jnp.zeros((1, nets.spec.action_dim))
    actor = common.offline_actor(handoff, nets.actor.init(actor_key, observation), nets.actor.head)
    critic = target_critic = nets.critic.init(critic_key, observation, action)
    target_actor = actor
    if config.networks.critic_source == "offline":
        offline = reconstruction.offline_state(config, handoff, critic)
        critic, target_critic = offline.critic, offline.target_critic
        target_actor = getattr(offline, "target_actor", actor)
    log_lagrange = jnp.zeros(())  # where `begin_finetuning` puts the multiplier's start
    return State(
        actor=actor,
        target_actor=target_actor,
        reference=actor,
        critic=critic,
        target_critic=target_critic,
        log_lagrange=log_lagrange,
        threshold_cap=jnp.asarray(finetuning.UNCAPPED, jnp.float32),
        opt=OptStates(
            actor=nets.actor_optimizer.init(actor),
            critic=nets.critic_optimizer.init(critic),
            lagrange=nets.lagrange_optimizer.init(log_lagrange),
        ),
        transform=common.initial_transform(config.update, handoff, nets.spec.observation_dim),
        step=jnp.zeros((), jnp.int32),
    )


def _offline(nets: Networks, state: State, observation: Array) -> Array:
    return nets.actor.apply(state.reference, observation).mode()


def _anchor(nets: Networks, state: State, observation: Array) -> losses.Anchor:
    return losses.Anchor.of(state.reference, nets.actor, state.target_critic, nets.critic, observation)


def reevaluate(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """One update of optimistic policy evaluation: fitted Q-evaluation of π_off with smoothing noise, Eq. (6).

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B], with the extras of `reconstruction.prepare_evaluation` or without.
      key: draws the smoothing noise.

    Returns:
      The state with critics and targets moved, and metrics.
    """
    batch = state.transform(batch)
    extras = extras_of(batch, lambda: reconstruction.Evaluated(_offline(nets, state, batch.next_observation)))
    next_value = _smoothed_value(nets, config, state, batch.next_observation, extras.next_policy, key)
    target = td_target(batch.reward, batch.terminated, next_value, config.update.discount)
    target = reconstruction.return_target(config, state, batch, target, functools.partial(_mode_value, nets, state))
    return reconstruction.evaluation_step(config, nets.critic, nets.critic_optimizer, state, batch, target)


def align(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """One update of value alignment: Eq. (16) for the critics, Eq. (5) for the actor, every time.

    The actor searches for overestimated actions; the critics learn that none is worth more than the offline policy's
    own. The targets stay those of re-evaluation. Both gradients are taken at the parameters before the update.

    The arguments are those of `reevaluate`; `key` draws the noise of the probes.

    Returns:
      The state with actor and critics moved, and metrics; `overestimated` and `distance` say how complete alignment is.
    """
    batch = state.transform(batch)
    anchor = extras_of(batch, lambda: _anchor(nets, state, batch.observation))
    current_action = nets.actor.apply(state.actor, batch.observation).mode()
    noise = jax.random.normal(key, current_action.shape)
    probe = smoothed_action(current_action, noise, config.smoothing.std, config.smoothing.clip)
    gradient, metrics = jax.grad(losses.align_loss, has_aux=True)(
        state.critic,
        nets.critic,
        state.target_critic,
        anchor,
        batch.observation,
        probe,
        config.align.decay,
        config.smoothing.std,
    )
    critic, critic_opt = gradient_step(nets.critic_optimizer, gradient, state.opt.critic, state.critic)
    arguments = (state.actor, nets.actor, _first(state.critic), nets.first_critic)
    if config.align.lagrange:
        (actor_loss, _), gradient = jax.value_and_grad(losses.constrained_actor_loss, has_aux=True)(
            *arguments, anchor.mode_action, batch.observation, jnp.asarray(config.align.lagrange), normalize=True
        )
    else:
        (actor_loss, _), gradient = jax.value_and_grad(losses.actor_loss, has_aux=True)(*arguments, batch.observation)
    actor, actor_opt = gradient_step(nets.align_optimizer, gradient, state.opt.actor, state.actor)
    metrics |= {"actor_loss": actor_loss, "distance": jnp.mean(jnp.square(current_action - anchor.mode_action))}
    state = state.replace(
        actor=actor,
        critic=critic,
        opt=state.opt.replace(actor=actor_opt, critic=critic_opt),
        step=state.step + 1,
    )
    return state, metrics


def begin_finetuning(nets: Networks, config: Config, state: State, accept: Array) -> State:
    """Chooses actor and reference (`finetuning.begin_finetuning`), and makes the actor its own target."""
    state = finetuning.begin_finetuning(config, nets.actor_optimizer, state, accept)
    return state.replace(target_actor=state.actor) if config.align.updates else state


def roll_back(nets: Networks, config: Config, state: State, reject: Array, divergence: Array) -> State:
    """Goes back to π_ref (`finetuning.roll_back`), and makes the actor its own target where `reject` [] bool."""
    optimizers = nets.actor_optimizer, nets.lagrange_optimizer
    state = finetuning.roll_back(*optimizers, config.roll_back.tightening, state, reject, divergence)
    return state.replace(target_actor=where(reject, state.actor, state.target_actor))


def finetune(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """One update of constrained fine-tuning: Eq. (45) to (47), (49).

    The critics move every time; actor, multiplier and all targets every `policy_delay`-th time, at the critics just
    stepped. Without `config.constraint` this is TD3.

    The arguments are those of `reevaluate`; `key` draws the smoothing noise.

    Returns:
      The state, and metrics; those of the actor are NaN where it was not updated.
    """
    batch = state.transform(batch)
    lagrange = jnp.exp(state.log_lagrange) if config.constraint else jnp.zeros(())
    next_action = nets.actor.apply(state.target_actor, batch.next_observation).mode()
    next_value = _smoothed_value(nets, config, state, batch.next_observation, next_action, key)
    if config.constraint:
        next_value -= lagrange * _target_penalty(nets, config.constraint, state, batch.next_observation)
    target = td_target(batch.reward, batch.terminated, next_value, config.update.discount)
    critic, critic_opt, metrics = reconstruction.critic_step(nets.critic, nets.critic_optimizer, state, batch, target)
    state = state.replace(critic=critic, opt=state.opt.replace(critic=critic_opt), step=state.step + 1)
    # the lagrange multiplier moves with the actor: the first time in every environment step that has one
    state, actor_metrics = jax.lax.cond(
        state.step % config.finetune.policy_delay == 0,
        functools.partial(_actor_step, nets, config),
        lambda state, observation: (state, _skipped(config)),
        state,
        batch.observation,
    )
    metrics |= actor_metrics
    if config.constraint:
        metrics |= {
            "lagrange": lagrange,
            "threshold": finetuning.threshold(config, state.step - 1, state.threshold_cap),
        }
    return state, metrics


def _actor_step(nets: Networks, config: Config, state: State, observation: Array) -> tuple[State, Metrics]:
    """Steps actor, multiplier and all targets, at the critics just stepped."""
    lagrange = jnp.exp(state.log_lagrange) if config.constraint else jnp.zeros(())
    # without a constraint the actor is at no distance from itself, which costs no other network
    reference = state.reference if config.constraint else state.actor
    reference_action = nets.actor.apply(reference, observation).mode()
    (loss, divergence), gradient = jax.value_and_grad(losses.constrained_actor_loss, has_aux=True)(
        state.actor,
        nets.actor,
        _first(state.critic),
        nets.first_critic,
        reference_action,
        observation,
        lagrange,
        config.finetune.normalize_actor_q,
    )
    actor, actor_opt = finetuning.actor_step(config, nets.actor_optimizer, gradient, state)
    opt = state.opt.replace(actor=actor_opt)
    metrics = {"actor_loss": loss}

    log_lagrange = state.log_lagrange
    if config.constraint:
        bound = finetuning.threshold(config, state.step - 1, state.threshold_cap)
        lambda_loss, gradient = jax.value_and_grad(lagrange_loss)(
            log_lagrange, divergence, bound, config.constraint.asymmetry
        )
        moved = gradient_step(nets.lagrange_optimizer, gradient, opt.lagrange, log_lagrange)
        first = (state.step - 1) % config.interaction.updates_per_env_step < config.finetune.policy_delay
        log_lagrange, lagrange_opt = where(first, moved, (log_lagrange, opt.lagrange))
        opt = opt.replace(lagrange=lagrange_opt)
        metrics |= {"lagrange_loss": lambda_loss, "divergence": jnp.mean(divergence)}

    state = state.replace(
        actor=actor,
        target_actor=polyak_update(actor, state.target_actor, config.update.polyak),
        target_critic=polyak_update(state.critic, state.target_critic, config.update.polyak),
        log_lagrange=log_lagrange,
        opt=opt,
    )
    return state, metrics


def _skipped(config: Config) -> Metrics:
    names = ["actor_loss"] + (["lagrange_loss", "divergence"] if config.constraint else [])
    return {name: jnp.full((), jnp.nan) for name in names}


def _smoothed_value(
    nets: Networks, config: Config, state: State, next_observation: Array, next_action: Array, key: Array
) -> Array:
    noise = jax.random.normal(key, next_action.shape)
    noisy_action = smoothed_action(next_action, noise, config.smoothing.std, config.smoothing.clip)
    return lowest_value(state.target_critic, nets.critic, next_observation, noisy_action)


def _mode_value(nets: Networks, state: State, observation: Array) -> Array:
    """Q̄min(s, π_off(s)), [B] at normalised observations [B, O]."""
    return lowest_value(state.target_critic, nets.critic, observation, _offline(nets, state, observation))


def _target_penalty(nets: Networks, constraint: Constraint, state: State, next_observation: Array) -> Array:
    """f̄' of Eq. (47), [B]: the mean over the batch as in the authors' code, or per state as printed (D-26)."""
    action = nets.actor.apply(state.actor, next_observation).mode()
    reference_action = nets.actor.apply(state.reference, next_observation).mode()
    per_sample = jnp.mean(jnp.square(action - reference_action), axis=-1)
    if constraint.target_penalty == "per_sample":
        return per_sample
    return jnp.full_like(per_sample, jnp.mean(per_sample))


def _first(critic: Params) -> Params:
    """Parameters of the first critic, without the axis E."""
    return jax.tree.map(lambda leaf: leaf[0], critic)


def act(nets: Networks, config: Config, state: State, observation: Array, key: Array) -> Array:
    """The policy's action [A] at a raw observation [O], with exploration noise, clipped to [-1, 1]."""
    action = policy(nets, state).distribution(observation).mode()
    return jnp.clip(action + config.finetune.exploration_std * jax.random.normal(key, action.shape), -1.0, 1.0)


def policy(nets: Networks, state: State) -> Policy:
    """The current actor with its normaliser."""
    return Policy(state.actor, state.transform.normalizer, nets.actor)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets = make_networks(config, spec)
    own_policy = functools.partial(policy, nets)
    critic = functools.partial(QFunction.of, network=nets.critic, discount=config.update.discount)

    def bind(function):
        return functools.partial(function, nets, config)

    return Algorithm(
        name="o2td3",
        init=bind(init),
        phases=reconstruction.make_phases(
            config,
            bind(reevaluate),
            bind(align),
            functools.partial(reconstruction.prepare_evaluation, config, functools.partial(_offline, nets)),
            functools.partial(reconstruction.prepare_alignment, functools.partial(_anchor, nets)),
            early_stopping.stops(config, own_policy, critic),
        ),
        policy=own_policy,
        critic=critic,
        requires=constrained.requires(config, nets.actor.head),
        online=Online(
            schedule=config.interaction.rule(config.schedule.num_envs),
            begin=bind(begin_finetuning),
            act=common.memoryless(bind(act)),
            update=bind(finetune),
            replay=config.replay.rule(config.env_steps, config.update.batch_size),
            reference=None
            if config.reference is None
            else Reference(
                accept=finetuning.set_reference,
                roll_back=functools.partial(roll_back, nets, config),
                policy=functools.partial(common.reference_policy, own_policy),
            ),
        ),
    )
