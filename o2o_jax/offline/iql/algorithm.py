"""IQL: values that are expectiles over the data's actions, and an actor that imitates the better ones."""

import functools
from typing import Any, NamedTuple, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax import making, networks
from o2o_jax.critic import QFunction
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.interfaces import Algorithm, Phase
from o2o_jax.losses import lowest_value, td_loss, weighted_likelihood_loss
from o2o_jax.offline.iql import losses
from o2o_jax.offline.iql.config import Config
from o2o_jax.ops.bellman import td_target
from o2o_jax.ops.regression import advantage_weight
from o2o_jax.policy import Policy
from o2o_jax.training import gradient_step, polyak_update
from o2o_jax.types import Array, Metrics, Params, Spec, Transition, counter


class Networks(NamedTuple):
    """Modules and optimisers: everything static that the updates need.

    Attributes:
      actor: of π, observations [..., O] to a normal over actions [..., A].
      critic: both critics at once, [..., O] and [..., A] to values [2, ...].
      value: of V, [..., O] to values [...].
      actor_optimizer: of `State.actor`.
      critic_optimizer: of `State.critic`.
      value_optimizer: of `State.value`.
      spec: O and A.
    """

    actor: networks.Actor
    critic: networks.Critic
    value: networks.Value
    actor_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    value_optimizer: optax.GradientTransformation
    spec: Spec


@flax.struct.dataclass
class OptStates:
    """One optimiser state per trained part. The actor's counts its updates, by which its learning rate falls.

    Attributes:
      actor: of `State.actor`.
      critic: of `State.critic`.
      value: of `State.value`.
    """

    actor: Any
    critic: Any
    value: Any


@flax.struct.dataclass
class State:
    """Arrays only: vmaps over seeds, saves as it is.

    Attributes:
      actor: parameters of π.
      critic: parameters with a leading axis E = 2.
      target_critic: the same for Q̄.
      value: parameters of V.
      opt: optimiser states.
      transform: of observations and rewards, constant.
      step: [] int32, updates so far.
    """

    actor: Params
    critic: Params
    target_critic: Params
    value: Params
    opt: OptStates
    transform: Transform
    step: Array = counter()


StateT = TypeVar("StateT", bound=State)  # or that of a method that adds to it


def make_networks(config: Config, spec: Spec) -> Networks:
    """Makes modules and optimisers for a configuration and the sizes of an environment."""
    return Networks(
        actor=networks.GaussianActor(spec.action_dim, config.hidden),
        critic=networks.Critics(config.critic_hidden, layer_norm=False, num_critics=2),
        value=networks.Value(config.critic_hidden),
        # a schedule over offline updates alone: a method that continues from `opt.actor` online brings its own
        actor_optimizer=optax.adam(optax.cosine_decay_schedule(config.actor_lr, config.updates)),
        critic_optimizer=optax.adam(config.critic_lr),
        value_optimizer=optax.adam(config.value_lr),
        spec=spec,
    )


def init(nets: Networks, config: Config, key: Array, normalizer: Normalizer) -> State:
    """Makes the state before the first update: random networks, target critics equal to the critics.

    Args:
      nets: of `make_networks`.
      config: settings.
      key: initialises the networks.
      normalizer: of the dataset's observations [..., O].

    Returns:
      The state of one seed, its `step` [] at 0.
    """
    actor_key, critic_key, value_key = jax.random.split(key, 3)
    observation, action = jnp.zeros((1, nets.spec.observation_dim)), jnp.zeros((1, nets.spec.action_dim))
    actor = nets.actor.init(actor_key, observation)
    critic = nets.critic.init(critic_key, observation, action)
    value = nets.value.init(value_key, observation)
    return State(
        actor=actor,
        critic=critic,
        target_critic=critic,
        value=value,
        opt=OptStates(
            actor=nets.actor_optimizer.init(actor),
            critic=nets.critic_optimizer.init(critic),
            value=nets.value_optimizer.init(value),
        ),
        transform=Transform(normalizer, config.reward_scale, config.reward_shift),
        step=jnp.zeros((), jnp.int32),
    )


def update(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """Updates the values, the critics and the actor; all gradients at the old parameters.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B].
      key: unused: no action is sampled, which is the idea of the method.

    Returns:
      The state with `step` advanced, and metrics, [] each.
    """
    del key
    batch = state.transform(batch)
    state, advantage, metrics = update_values(nets, config, state, batch)
    state, actor_metrics = imitate(nets, config, state, batch.observation, batch.action, advantage)
    return state, metrics | actor_metrics


def update_values(nets: Networks, config: Config, state: StateT, batch: Transition) -> tuple[StateT, Array, Metrics]:
    """Updates the values and the critics, with their targets; all gradients at the old parameters.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: transformed transitions [B].

    Returns:
      The state with `step` advanced, the advantages [B] of the batch's actions at the old parameters, and metrics.
    """
    q = lowest_value(state.target_critic, nets.critic, batch.observation, batch.action)
    (value_loss, v), value_gradient = jax.value_and_grad(losses.value_loss, has_aux=True)(
        state.value, nets.value, batch.observation, q, config.expectile
    )
    next_value = nets.value.apply(state.value, batch.next_observation)
    target = td_target(batch.reward, batch.terminated, next_value, config.discount)
    (critic_loss, metrics), critic_gradient = jax.value_and_grad(td_loss, has_aux=True)(
        state.critic, nets.critic, batch.observation, batch.action, target
    )
    value, value_opt = gradient_step(nets.value_optimizer, value_gradient, state.opt.value, state.value)
    critic, critic_opt = gradient_step(nets.critic_optimizer, critic_gradient, state.opt.critic, state.critic)
    state = state.replace(
        critic=critic,
        target_critic=polyak_update(critic, state.target_critic, config.polyak),
        value=value,
        opt=state.opt.replace(critic=critic_opt, value=value_opt),
        step=state.step + 1,
    )
    return state, q - v, metrics | {"critic_loss": critic_loss, "value_loss": value_loss, "value": jnp.mean(v)}


def imitate(
    nets: Networks, config: Config, state: StateT, observation: Array, action: Array, advantage: Array
) -> tuple[StateT, Metrics]:
    """Steps the actor towards actions, Eq. (7), each by its advantage.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the step.
      observation: [B, O] normalised.
      action: [B, A] constant.
      advantage: [B] of these actions, return units, constant.

    Returns:
      The state, and metrics, [] each.
    """
    weight = advantage_weight(advantage, config.inverse_temperature)
    (loss, metrics), gradient = jax.value_and_grad(weighted_likelihood_loss, has_aux=True)(
        state.actor, nets.actor, observation, action, weight
    )
    actor, opt = gradient_step(nets.actor_optimizer, gradient, state.opt.actor, state.actor)
    return state.replace(actor=actor, opt=state.opt.replace(actor=opt)), metrics | {"actor_loss": loss}


def policy(nets: Networks, state: State) -> Policy:
    """Returns the current actor with its normaliser: raw observations [..., O] to actions [..., A]."""
    return Policy(state.actor, state.transform.normalizer, nets.actor)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets = make_networks(config, spec)
    return Algorithm(
        name="iql",
        init=functools.partial(init, nets, config),
        phases=(Phase("offline", functools.partial(update, nets, config), config.updates, config.batch_size),),
        policy=functools.partial(policy, nets),
        critic=functools.partial(QFunction.of, network=nets.critic, discount=config.discount),
    )
