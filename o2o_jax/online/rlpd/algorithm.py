"""RLPD: soft actor-critic from scratch on half of the data, with a large ensemble and many updates per step."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax import making, networks
from o2o_jax.critic import QFunction
from o2o_jax.data.transform import Transform
from o2o_jax.interfaces import Algorithm, Online, Requires
from o2o_jax.losses import draw_critics, mean_value, next_value, soft_actor_loss
from o2o_jax.online import common
from o2o_jax.online.rlpd import losses
from o2o_jax.online.rlpd.config import Config
from o2o_jax.ops.bellman import td_target
from o2o_jax.policy import Handoff, Policy
from o2o_jax.training import gradient_step, polyak_update
from o2o_jax.types import Array, Metrics, Params, Spec, Transition, counter

ACTOR_METRICS = ("actor_loss", "log_prob", "alpha_loss")


class Networks(NamedTuple):
    """Modules and optimisers: everything static that the updates need."""

    actor: networks.TanhGaussianActor
    critic: networks.Critics
    drawn_critics: networks.Critics  # as many as a target takes
    actor_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    alpha_optimizer: optax.GradientTransformation
    spec: Spec


@flax.struct.dataclass
class OptStates:
    """One optimiser state per trained part."""

    actor: Any
    critic: Any
    alpha: Any


@flax.struct.dataclass
class State:
    """Arrays only: vmaps over seeds, saves as it is.

    Attributes:
      actor: π.
      critic: parameters with a leading axis E.
      target_critic: the same for Q̄.
      log_alpha: [] log of the temperature α.
      opt: optimiser states.
      transform: of observations and rewards, constant.
      step: [] int32, updates of the critics so far.
    """

    actor: Params
    critic: Params
    target_critic: Params
    log_alpha: Array
    opt: OptStates
    transform: Transform
    step: Array = counter()


def make_networks(config: Config, spec: Spec) -> Networks:
    """Modules and optimisers for a configuration and the sizes of an environment."""
    sizes, rates = config.networks, config.update

    def critics(number: int) -> networks.Critics:
        return networks.Critics(sizes.critic_hidden, layer_norm=True, num_critics=number, layer_init="xavier")

    return Networks(
        actor=networks.TanhGaussianActor(spec.action_dim, sizes.hidden, layer_init="xavier"),
        critic=critics(sizes.num_critics),
        drawn_critics=critics(sizes.num_target_critics),
        actor_optimizer=optax.adam(rates.actor_lr),
        critic_optimizer=optax.adam(rates.critic_lr),
        alpha_optimizer=optax.adam(rates.alpha_lr),
        spec=spec,
    )


def init(nets: Networks, config: Config, key: Array, handoff: Handoff | None = None) -> State:
    """The state before the first update: random networks.

    Args:
      nets: of `make_networks`.
      config: settings.
      key: initialises the networks.
      handoff: any policy, of which the normaliser alone is taken; None leaves observations as they are.

    Returns:
      A `State`.
    """
    actor_key, critic_key = jax.random.split(key)
    observation, action = jnp.zeros((1, nets.spec.observation_dim)), jnp.zeros((1, nets.spec.action_dim))
    actor = nets.actor.init(actor_key, observation)
    critic = nets.critic.init(critic_key, observation, action)
    log_alpha = jnp.log(jnp.asarray(config.update.alpha, jnp.float32))
    return State(
        actor=actor,
        critic=critic,
        target_critic=critic,
        log_alpha=log_alpha,
        opt=OptStates(
            actor=nets.actor_optimizer.init(actor),
            critic=nets.critic_optimizer.init(critic),
            alpha=nets.alpha_optimizer.init(log_alpha),
        ),
        transform=common.initial_transform(config.update, handoff, nets.spec.observation_dim),
        step=jnp.zeros((), jnp.int32),
    )


def begin(state: State, accept: Array) -> State:
    """Counts updates from the first environment step; no policy is to be accepted."""
    del accept
    return state.replace(step=jnp.zeros_like(state.step))


def finetune(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """One update of the critics, and with the last one of an environment step one of actor and temperature.

    These see the critics just stepped, and the same batch.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B].
      key: draws the critics of the target, and the actions at s' and s.

    Returns:
      The state, and metrics; those of actor and temperature are NaN where they were not updated.
    """
    batch = state.transform(batch)
    target_key, actor_key = jax.random.split(key)
    state, metrics = critic_step(nets, config, state, batch, target_key)
    state = state.replace(step=state.step + 1)
    state, actor_metrics = jax.lax.cond(
        state.step % config.interaction.updates_per_env_step == 0,
        functools.partial(actor_step, nets, value=mean_value, target_entropy=-0.5 * nets.spec.action_dim),
        lambda state, *_: (state, {name: jnp.full((), jnp.nan) for name in ACTOR_METRICS}),
        state,
        batch.observation,
        actor_key,
    )
    return state, metrics | actor_metrics


def critic_step(nets: Networks, config: Any, state: Any, batch: Transition, key: Array) -> tuple[Any, Metrics]:
    """One gradient step of the critics, and targets that follow.

    Args:
      nets: of `make_networks`, or of a method with these critics.
      config: settings, of which `update` and `networks` are read.
      state: before the step: `State`, or one with its fields.
      batch: transformed transitions [B].
      key: draws the critics of the target, and the actions at s'.

    Returns:
      The state with critics and targets moved, and metrics.
    """
    target = critic_target(nets, config, state, batch, key)
    (loss, metrics), gradient = jax.value_and_grad(losses.critic_loss, has_aux=True)(
        state.critic, nets.critic, batch.observation, batch.action, target
    )
    critic, critic_opt = gradient_step(nets.critic_optimizer, gradient, state.opt.critic, state.critic)
    metrics |= {"critic_loss": loss, "alpha": jnp.exp(state.log_alpha)}
    state = state.replace(
        critic=critic,
        target_critic=polyak_update(critic, state.target_critic, config.update.polyak),
        opt=state.opt.replace(critic=critic_opt),
    )
    return state, metrics


def critic_target(nets: Networks, config: Any, state: Any, batch: Transition, key: Array) -> Array:
    """Computes the target of all critics from the lowest of a few target critics, drawn for the whole batch.

        y = r + γ (1 − d) max_k ( min_{i∈Z} Q̄_i(s', a'_k) − α log π(a'_k|s') ),   a'_k ~ π(·|s'),   Z ⊂ {1 … E}

    Of `update.target_actions` actions the best counts; without `update.backup_entropy` the entropy is left out.

    The arguments are those of `critic_step`.

    Returns:
      [B] constant.

    Source: Ball et al. (arXiv:2302.02948), Algorithm 1.
    """
    subset_key, action_key = jax.random.split(key)
    drawn = draw_critics(state.target_critic, subset_key, config.networks.num_target_critics)
    value = next_value(
        drawn,
        nets.drawn_critics,
        nets.actor.apply(state.actor, batch.next_observation),
        batch.next_observation,
        action_key,
        config.update.target_actions,
        jnp.exp(state.log_alpha) if config.update.backup_entropy else None,
    )
    return td_target(batch.reward, batch.terminated, value, config.update.discount)


def actor_step(
    nets: Networks, state: Any, observation: Array, key: Array, value: Callable, target_entropy: float
) -> tuple[Any, Metrics]:
    """Steps actor and temperature, both from the actor and the temperature before.

    Args:
      nets: of `make_networks`, or of a method with these networks.
      state: before the step: `State`, or one with its fields.
      observation: [B, O] normalised.
      key: draws the actions.
      value: of an action by the critics, as of `losses.soft_actor_loss`.
      target_entropy: H̄, nats.

    Returns:
      The state with both moved, and `ACTOR_METRICS`.
    """
    (loss, (_, log_prob, _)), gradient = jax.value_and_grad(soft_actor_loss, has_aux=True)(
        state.actor, nets.actor, state.critic, nets.critic, observation, key, jnp.exp(state.log_alpha), value
    )
    actor, actor_opt = gradient_step(nets.actor_optimizer, gradient, state.opt.actor, state.actor)
    alpha_loss, gradient = jax.value_and_grad(losses.temperature_loss)(state.log_alpha, log_prob, target_entropy)
    log_alpha, alpha_opt = gradient_step(nets.alpha_optimizer, gradient, state.opt.alpha, state.log_alpha)
    opt = state.opt.replace(actor=actor_opt, alpha=alpha_opt)
    metrics = dict(zip(ACTOR_METRICS, (loss, jnp.mean(log_prob), alpha_loss), strict=True))
    return state.replace(actor=actor, log_alpha=log_alpha, opt=opt), metrics


def act(nets: Networks, state: State, observation: Array, key: Array) -> Array:
    """A sampled action [A] in [-1, 1] at a raw observation [O]: the policy's entropy is the exploration."""
    return policy(nets, state).distribution(observation).sample(key)


def policy(nets: Networks, state: State) -> Policy:
    """The current actor with its normaliser."""
    return Policy(state.actor, state.transform.normalizer, nets.actor)


def critic(nets: Networks, config: Any, state: Any) -> QFunction:
    """The current critics, the lowest of all, whose values contain the policy's entropy where targets do."""
    alpha = jnp.exp(state.log_alpha) if config.update.backup_entropy else 0.0
    return QFunction.of(state, nets.critic, config.update.discount, alpha)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets = make_networks(config, spec)
    return Algorithm(
        name="rlpd",
        init=functools.partial(init, nets, config),
        phases=(),
        policy=functools.partial(policy, nets),
        critic=functools.partial(critic, nets, config),
        requires=Requires(None),
        online=Online(
            schedule=config.interaction.schedule,
            begin=begin,
            act=common.memoryless(functools.partial(act, nets)),
            update=functools.partial(finetune, nets, config),
            replay=config.replay.rule(config.env_steps, config.update.batch_size),
        ),
    )
