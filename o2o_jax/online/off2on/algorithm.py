"""Off2On: the agents of an ensemble learn online as one soft actor-critic, from rows that are near to their policy."""

import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax import making, networks
from o2o_jax.critic import QFunction
from o2o_jax.data.replay.prioritized import PrioritizedBatch
from o2o_jax.data.transform import Transform
from o2o_jax.interfaces import Algorithm, Online, Requires, Schedule
from o2o_jax.losses import soft_actor_loss
from o2o_jax.offline import cql, cql_ensemble
from o2o_jax.offline.cql_ensemble.algorithm import all_critics, mixture
from o2o_jax.online import common, continued, rlpd
from o2o_jax.online.off2on import losses
from o2o_jax.online.off2on.config import Config
from o2o_jax.ops.bellman import td_target
from o2o_jax.ops.density_ratio import ratio_priority
from o2o_jax.ops.lagrangian import temperature_loss
from o2o_jax.policy import Handoff, Policy
from o2o_jax.training import gradient_step, polyak_update
from o2o_jax.types import Array, Metrics, Params, Spec, counter

REQUIRES = Requires(None, state=True, sources=("cql_ensemble",))


class Networks(NamedTuple):
    """Modules and optimisers: everything static that the updates need.

    Attributes:
      actor: of the mixture, observations [..., O] to a squashed normal over actions [..., A].
      critic: those of all agents at once, [..., O] and [..., A] to values [N E, ...].
      ratio: f of w(s, a), [..., O] and [..., A] to [...].
      actor_optimizer: of `State.actor`.
      critic_optimizer: of `State.critic`.
      alpha_optimizer: of `State.log_alpha`.
      ratio_optimizer: of `State.ratio`.
      spec: O and A.
    """

    actor: networks.MixtureActor
    critic: networks.Critics
    ratio: networks.Critic
    actor_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    alpha_optimizer: optax.GradientTransformation
    ratio_optimizer: optax.GradientTransformation
    spec: Spec


@flax.struct.dataclass
class OptStates:
    """One optimiser state per trained part.

    Attributes:
      actor: of `State.actor`.
      critic: of `State.critic`.
      alpha: of `State.log_alpha`.
      ratio: of `State.ratio`.
    """

    actor: Any
    critic: Any
    alpha: Any
    ratio: Any


@flax.struct.dataclass
class State:
    """Arrays only: vmaps over seeds, saves as it is.

    Attributes:
      actor: parameters of the mixture, of N actors.
      critic: parameters with a leading axis N E, one agent's critics after the other's.
      target_critic: the same for Q̄.
      log_alpha: [] log of the temperature α.
      ratio: parameters of w.
      opt: optimiser states.
      transform: of observations and rewards, constant.
      step: [] int32, updates so far.
    """

    actor: Params
    critic: Params
    target_critic: Params
    log_alpha: Array
    ratio: Params
    opt: OptStates
    transform: Transform
    step: Array = counter()


def make_networks(config: Config, spec: Spec) -> Networks:
    """Makes modules and optimisers for a configuration and the sizes of an environment."""
    update = config.update
    nets = cql.algorithm.make_networks(update, spec)
    return Networks(
        actor=mixture(nets, update),
        critic=nets.critic.clone(num_critics=update.num_agents * update.num_critics),
        ratio=networks.Critic(config.ratio.hidden, layer_init="fan_in"),
        actor_optimizer=optax.adam(config.actor_lr),
        critic_optimizer=optax.adam(config.critic_lr),
        alpha_optimizer=optax.adam(config.actor_lr),
        ratio_optimizer=optax.adam(config.ratio.lr),
        spec=spec,
    )


def init(nets: Networks, config: Config, key: Array, handoff: Handoff | None = None) -> State:
    """Makes the state before the first update: the agents of the ensemble, a network of w ≈ 1, fresh optimisers.

    Args:
      nets: of `make_networks`.
      config: settings.
      key: initialises what the handoff doesn't bring.
      handoff: of an ensemble of CQL agents, with its state; None for random networks.

    Raises:
      ValueError: see `continued.init`.

    Source: Lee et al. (arXiv:2107.00591), and its authors' code: targets are copies of the critics, and α begins anew.
    """
    method = cql_ensemble.make(config.update, nets.spec)._replace(name="off2on")
    agent_key, ratio_key = jax.random.split(key)
    start = continued.init(config, nets.spec, method, REQUIRES, agent_key, handoff)
    actor, critic = nets.actor.of(start.actor), all_critics(start.critic)
    observation, action = jnp.zeros((1, nets.spec.observation_dim)), jnp.zeros((1, nets.spec.action_dim))
    ratio = networks.near_constant(nets.ratio.init(ratio_key, observation, action), 1.0)
    log_alpha = jnp.log(jnp.asarray(config.update.alpha, jnp.float32))
    return State(
        actor=actor,
        critic=critic,
        target_critic=critic,
        log_alpha=log_alpha,
        ratio=ratio,
        opt=OptStates(
            actor=nets.actor_optimizer.init(actor),
            critic=nets.critic_optimizer.init(critic),
            alpha=nets.alpha_optimizer.init(log_alpha),
            ratio=nets.ratio_optimizer.init(ratio),
        ),
        transform=start.transform,
        step=jnp.zeros((), jnp.int32),
    )


def finetune(
    nets: Networks, config: Config, state: State, batch: PrioritizedBatch, key: Array
) -> tuple[State, Metrics]:
    """Steps temperature, actors, critics and w, all by gradients at the old parameters.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B] by priority, of the dataset, and fresh ones.
      key: draws the policy's actions at s and at s'.

    Returns:
      The state, and metrics.

    Source: Lee et al. (arXiv:2107.00591), and its authors' code.
    """
    drawn, offline, online = (state.transform(rows) for rows in (batch.drawn, batch.offline, batch.online))
    actor_key, target_key = jax.random.split(key)
    agents, alpha = config.update.num_agents, jnp.exp(state.log_alpha)

    def mean_of_lowest(params: Params, critic: networks.QNetwork, observation: Array, action: Array) -> Array:
        return jnp.mean(losses.agent_values(critic.apply(params, observation, action), agents), axis=0)

    (actor_loss, (_, log_prob, _)), actor_gradient = jax.value_and_grad(soft_actor_loss, has_aux=True)(
        state.actor, nets.actor, state.critic, nets.critic, drawn.observation, actor_key, alpha, mean_of_lowest
    )
    alpha_loss, alpha_gradient = jax.value_and_grad(temperature_loss)(
        state.log_alpha, log_prob, -float(nets.spec.action_dim)
    )
    next_distribution = nets.actor.apply(state.actor, drawn.next_observation)
    next_action, next_log_prob = next_distribution.sample_and_log_prob(target_key)
    next_q = nets.critic.apply(state.target_critic, drawn.next_observation, next_action)
    value = losses.agent_values(next_q, agents) - alpha * next_log_prob[None]  # [N, B]
    reward, terminated = (jnp.broadcast_to(column, value.shape) for column in (drawn.reward, drawn.terminated))
    target = td_target(reward, terminated, value, config.update.discount)
    (critic_loss, metrics), critic_gradient = jax.value_and_grad(losses.critic_loss, has_aux=True)(
        state.critic, nets.critic, drawn.observation, drawn.action, target
    )
    ratio_loss, ratio_gradient = jax.value_and_grad(losses.ratio_loss)(
        state.ratio, nets.ratio, (offline.observation, offline.action), (online.observation, online.action)
    )

    log_alpha, alpha_opt = gradient_step(nets.alpha_optimizer, alpha_gradient, state.opt.alpha, state.log_alpha)
    actor, actor_opt = gradient_step(nets.actor_optimizer, actor_gradient, state.opt.actor, state.actor)
    critic, critic_opt = gradient_step(nets.critic_optimizer, critic_gradient, state.opt.critic, state.critic)
    ratio_params, ratio_opt = gradient_step(nets.ratio_optimizer, ratio_gradient, state.opt.ratio, state.ratio)
    state = state.replace(
        actor=actor,
        critic=critic,
        target_critic=polyak_update(critic, state.target_critic, config.update.polyak),
        log_alpha=log_alpha,
        ratio=ratio_params,
        opt=OptStates(actor=actor_opt, critic=critic_opt, alpha=alpha_opt, ratio=ratio_opt),
        step=state.step + 1,
    )
    own = {
        "critic_loss": critic_loss,
        "actor_loss": actor_loss,
        "log_prob": jnp.mean(log_prob),
        "alpha": alpha,
        "alpha_loss": alpha_loss,
        "ratio_loss": ratio_loss,
    }
    return state, metrics | own


def priority(nets: Networks, config: Config, state: State, batch: PrioritizedBatch) -> Array:
    """Returns priorities [B] of the rows that were drawn by priority, by w of the state before their update.

    Source: Lee et al. (arXiv:2107.00591), and its authors' code.
    """
    drawn, offline = (
        losses.density_ratio(state.ratio, nets.ratio, rows.observation, rows.action)
        for rows in map(state.transform, (batch.drawn, batch.offline))
    )
    return ratio_priority(drawn, offline, config.ratio.temperature)


def policy(nets: Networks, state: State) -> Policy:
    """Returns the mixture with its normaliser: raw observations [..., O] to actions [..., A]."""
    return Policy(state.actor, state.transform.normalizer, nets.actor)


def act(nets: Networks, state: State, observation: Array, key: Array) -> Array:
    """Draws an action [A] in [-1, 1] of the mixture at a raw observation [O]."""
    return policy(nets, state).distribution(observation).sample(key)


def critic(nets: Networks, config: Config, state: State) -> QFunction:
    """Returns the critics of all agents, whose values contain the policy's entropy at the present temperature []."""
    return QFunction.of(state, nets.critic, config.update.discount, jnp.exp(state.log_alpha))


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets, interaction = make_networks(config, spec), config.interaction
    return Algorithm(
        name="off2on",
        init=functools.partial(init, nets, config),
        phases=(),
        policy=functools.partial(policy, nets),
        critic=functools.partial(critic, nets, config),
        requires=REQUIRES,
        online=Online(
            schedule=Schedule(
                updates=interaction.updates_per_env_step,
                warmup_env_steps=interaction.warmup_env_steps,
                num_envs=config.schedule.num_envs,
            ),
            begin=rlpd.algorithm.begin,
            act=common.memoryless(functools.partial(act, nets)),
            update=functools.partial(finetune, nets, config),
            replay=config.replay.rule(
                config.env_steps, config.update.batch_size, functools.partial(priority, nets, config)
            ),
        ),
    )
