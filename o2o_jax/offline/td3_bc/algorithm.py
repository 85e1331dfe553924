"""TD3+BC: twin delayed critics, and an actor that also clones the data."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax import making, networks
from o2o_jax.critic import QFunction
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.interfaces import Algorithm, Phase, Prepare
from o2o_jax.losses import lowest_value, td_loss
from o2o_jax.offline.td3_bc import losses
from o2o_jax.offline.td3_bc.config import Config
from o2o_jax.ops.bellman import td_target
from o2o_jax.ops.smoothing import smoothed_action
from o2o_jax.policy import Policy
from o2o_jax.training import gradient_step, polyak_update
from o2o_jax.types import Array, Metrics, Params, Spec, Transition, counter

TwinDelayed = Any  # settings of a method that is built on this one: `Config`, or another with its names but for alpha


class Networks(NamedTuple):
    """Modules and optimisers: everything static that the updates need.

    Attributes:
      actor: of π, observations [..., O] to a point mass over actions [..., A].
      critic: both critics at once, [..., O] and [..., A] to values [2, ...].
      first_critic: one of them, to values [...]: the actor's gradient asks no other.
      actor_optimizer: of `State.actor`.
      critic_optimizer: of `State.critic`.
      spec: O and A.
    """

    actor: networks.Actor
    critic: networks.Critic
    first_critic: networks.Critic
    actor_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    spec: Spec


@flax.struct.dataclass
class OptStates:
    """One optimiser state per trained part.

    Attributes:
      actor: of `State.actor`.
      critic: of `State.critic`.
    """

    actor: Any
    critic: Any


@flax.struct.dataclass
class State:
    """Arrays only: vmaps over seeds, saves as it is.

    Attributes:
      actor: parameters of π.
      target_actor: the same for π̄.
      critic: parameters with a leading axis E = 2.
      target_critic: the same for Q̄.
      opt: optimiser states.
      transform: of observations and rewards, constant.
      step: [] int32, updates so far.
    """

    actor: Params
    target_actor: Params
    critic: Params
    target_critic: Params
    opt: OptStates
    transform: Transform
    step: Array = counter()


def make_networks(
    config: TwinDelayed, spec: Spec, layer_norm: bool = False, layer_init: str = "orthogonal"
) -> Networks:
    """Makes modules and optimisers for a configuration and the sizes of an environment.

    Args:
      config: settings.
      spec: O and A.
      layer_norm: of the critics.
      layer_init: of all networks, as of `networks.Critic`.
    """
    return Networks(
        actor=networks.DeterministicActor(spec.action_dim, config.hidden, layer_init),
        critic=networks.Critics(config.critic_hidden, layer_norm, num_critics=2, layer_init=layer_init),
        first_critic=networks.Critic(config.critic_hidden, layer_norm, layer_init),
        actor_optimizer=optax.adam(config.actor_lr),
        critic_optimizer=optax.adam(config.critic_lr),
        spec=spec,
    )


def init(nets: Networks, config: TwinDelayed, key: Array, normalizer: Normalizer) -> State:
    """Makes the state before the first update: random networks, targets equal to them.

    Args:
      nets: of `make_networks`.
      config: settings.
      key: initialises the networks.
      normalizer: of the dataset's observations [..., O].

    Returns:
      The state of one seed, its `step` [] at 0.
    """
    actor_key, critic_key = jax.random.split(key)
    observation, action = jnp.zeros((1, nets.spec.observation_dim)), jnp.zeros((1, nets.spec.action_dim))
    actor = nets.actor.init(actor_key, observation)
    critic = nets.critic.init(critic_key, observation, action)
    return State(
        actor=actor,
        target_actor=actor,
        critic=critic,
        target_critic=critic,
        opt=OptStates(actor=nets.actor_optimizer.init(actor), critic=nets.critic_optimizer.init(critic)),
        transform=Transform(normalizer, config.reward_scale, config.reward_shift),
        step=jnp.zeros((), jnp.int32),
    )


def update(
    nets: Networks,
    config: TwinDelayed,
    state: State,
    batch: Transition,
    key: Array,
    actor_loss: Callable,
    penalty: Callable | None = None,
) -> tuple[State, Metrics]:
    """Updates the critics, Eq. (6); every `policy_delay`-th also moves the actor and all targets.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B].
      key: draws the smoothing noise of the target actions.
      actor_loss: (actor parameters, nets, config, critic parameters, batch) -> ([] loss, metrics with `cloning_loss`),
        the batch transformed.
      penalty: (config, batch, target actions [B, A]) -> [B] return units that the value of s' is lowered by; None for
        nothing.

    Returns:
      The state with `step` advanced, and metrics, [] each; those of the actor are NaN where it did not move.
    """
    batch = state.transform(batch)
    mode = nets.actor.apply(state.target_actor, batch.next_observation).mode()
    noise = jax.random.normal(key, mode.shape)
    next_action = smoothed_action(mode, noise, config.policy_noise, config.noise_clip)
    next_value = lowest_value(state.target_critic, nets.critic, batch.next_observation, next_action)
    if penalty is not None:
        next_value -= penalty(config, batch, next_action)
    target = td_target(batch.reward, batch.terminated, next_value, config.discount)
    return step_towards(nets, config, state, batch, target, actor_loss, config.polyak)


def step_towards(
    nets: Any,
    config: TwinDelayed,
    state: Any,
    batch: Transition,
    target: Array,
    actor_loss: Callable,
    actor_polyak: float,
) -> tuple[Any, Metrics]:
    """Steps the critics towards their target; every `policy_delay`-th time also the actor, and all targets.

    Args:
      nets: of `make_networks`, or of a method with these networks.
      config: settings, of which `policy_delay`, `polyak` and what `actor_loss` reads are needed.
      state: before the update: `State`, or one with its fields.
      batch: transformed transitions [B].
      target: [B] return units, constant.
      actor_loss: as of `update`.
      actor_polyak: share of the actor copied into its target per step of it.

    Returns:
      The state with `step` advanced, and metrics, [] each; those of the actor are NaN where it did not move.
    """
    (critic_loss, metrics), gradient = jax.value_and_grad(td_loss, has_aux=True)(
        state.critic, nets.critic, batch.observation, batch.action, target
    )
    critic, critic_opt = gradient_step(nets.critic_optimizer, gradient, state.opt.critic, state.critic)

    step = state.step + 1
    delayed = (state.actor, state.opt.actor, state.target_actor, state.target_critic)
    (actor, actor_opt, target_actor, target_critic), actor_metrics = jax.lax.cond(
        step % config.policy_delay == 0,
        functools.partial(_delayed_step, nets, config, actor_loss, actor_polyak, batch, critic),
        _no_step,
        delayed,
    )
    state = state.replace(
        actor=actor,
        target_actor=target_actor,
        critic=critic,
        target_critic=target_critic,
        opt=state.opt.replace(actor=actor_opt, critic=critic_opt),
        step=step,
    )
    return state, metrics | {"critic_loss": critic_loss} | actor_metrics


def _delayed_step(
    nets: Any,
    config: TwinDelayed,
    actor_loss: Callable,
    actor_polyak: float,
    batch: Transition,
    critic: Params,
    delayed: tuple,
) -> tuple:
    actor, actor_opt, target_actor, target_critic = delayed
    (loss, metrics), gradient = jax.value_and_grad(actor_loss, has_aux=True)(actor, nets, config, critic, batch)
    actor, actor_opt = gradient_step(nets.actor_optimizer, gradient, actor_opt, actor)
    target_actor = polyak_update(actor, target_actor, actor_polyak)
    target_critic = polyak_update(critic, target_critic, config.polyak)
    return (actor, actor_opt, target_actor, target_critic), metrics | {"actor_loss": loss}


def _no_step(delayed: tuple) -> tuple:
    nothing = jnp.full((), jnp.nan)  # left out by `training.run_updates`
    return delayed, {"actor_loss": nothing, "cloning_loss": nothing}


def actor_loss(
    actor_params: Params, nets: Networks, config: Config, critic_params: Params, batch: Transition
) -> tuple[Array, Metrics]:
    """Computes `losses.actor_loss` by the first critic, of a transformed batch [B]; arguments as `update` has them."""
    first = jax.tree.map(lambda leaf: leaf[0], critic_params)
    value = functools.partial(nets.first_critic.apply, first)
    return losses.actor_loss(actor_params, nets.actor, value, batch.observation, batch.action, config.alpha)


def policy(nets: Networks, state: State) -> Policy:
    """Returns the current actor with its normaliser: raw observations [..., O] to actions [..., A]."""
    return Policy(state.actor, state.transform.normalizer, nets.actor)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    return bind("td3_bc", make_networks(config, spec), config, actor_loss)


def bind(
    name: str,
    nets: Networks,
    config: TwinDelayed,
    actor_loss: Callable,
    penalty: Callable | None = None,
    prepare: Prepare | None = None,
) -> Algorithm:
    """Returns a method of this kind: twin delayed critics, and an actor that is held to the data.

    Args:
      name: of its folder.
      nets: of `make_networks`.
      config: settings.
      actor_loss: as of `update`.
      penalty: likewise.
      prepare: computes what `penalty` reads of every row; None for nothing.
    """
    bound = functools.partial(update, nets, config, actor_loss=actor_loss, penalty=penalty)
    return Algorithm(
        name=name,
        init=functools.partial(init, nets, config),
        phases=(Phase("offline", bound, config.updates, config.batch_size, prepare),),
        policy=functools.partial(policy, nets),
        critic=functools.partial(QFunction.of, network=nets.critic, discount=config.discount),
    )
