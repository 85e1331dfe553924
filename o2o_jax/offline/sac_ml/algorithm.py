"""SAC+ML: soft actor-critic with maximum likelihood, and functions Z of the state that ACA makes its critics of."""

import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax import making, networks
from o2o_jax.critic import QFunction
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.interfaces import Algorithm, Phase
from o2o_jax.losses import next_value, td_loss
from o2o_jax.offline.sac_ml import losses
from o2o_jax.offline.sac_ml.config import Config
from o2o_jax.ops.bellman import td_target
from o2o_jax.ops.distributions import Gaussian, TanhGaussian
from o2o_jax.ops.lagrangian import temperature_loss
from o2o_jax.policy import Policy
from o2o_jax.training import gradient_step, polyak_update
from o2o_jax.types import Array, Metrics, Params, Spec, Transition, counter


class Networks(NamedTuple):
    """Modules and optimisers: everything static that the updates need.

    Attributes:
      actor: of π, observations [..., O] to a distribution over actions [..., A].
      critic: two critics at once, [..., O] and [..., A] to values [2, ...]; with actions [..., 0] the functions Z.
      actor_optimizer: of `State.actor`.
      critic_optimizer: of `State.critic`.
      baseline_optimizer: of `State.baseline`.
      alpha_optimizer: of `State.log_alpha`.
      spec: O and A.
    """

    actor: networks.Actor
    critic: networks.Critics
    actor_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    baseline_optimizer: optax.GradientTransformation
    alpha_optimizer: optax.GradientTransformation
    spec: Spec


@flax.struct.dataclass
class OptStates:
    """One optimiser state per trained part.

    Attributes:
      actor: of `State.actor`.
      critic: of `State.critic`.
      baseline: of `State.baseline`.
      alpha: of `State.log_alpha`.
    """

    actor: Any
    critic: Any
    baseline: Any
    alpha: Any


@flax.struct.dataclass
class State:
    """Arrays only: vmaps over seeds, saves as it is.

    Attributes:
      actor: parameters of π.
      critic: parameters with a leading axis E = 2.
      target_critic: the same for Q̄.
      baseline: parameters of the functions Z, with a leading axis E.
      log_alpha: [] log of the temperature α.
      opt: optimiser states.
      transform: of rewards, constant; observations stay as they are.
      step: [] int32, updates so far.
    """

    actor: Params
    critic: Params
    target_critic: Params
    baseline: Params
    log_alpha: Array
    opt: OptStates
    transform: Transform
    step: Array = counter()


def make_networks(config: Config, spec: Spec) -> Networks:
    """Makes modules and optimisers for a configuration and the sizes of an environment."""
    return Networks(
        actor=networks.HEADS[config.head](spec.action_dim, config.hidden, layer_init="fan_in"),
        critic=networks.Critics(config.critic_hidden, layer_norm=False, num_critics=2, layer_init="fan_in"),
        actor_optimizer=optax.adam(config.actor_lr),
        critic_optimizer=optax.adam(config.critic_lr),
        baseline_optimizer=optax.adam(config.baseline_lr),
        alpha_optimizer=optax.adam(config.alpha_lr),
        spec=spec,
    )


def init(nets: Networks, config: Config, key: Array, normalizer: Normalizer) -> State:
    """Makes the state before the first update: random networks, target critics equal to the critics.

    Args:
      nets: of `make_networks`.
      config: settings.
      key: initialises the networks.
      normalizer: of the dataset's observations [..., O], which stay as they are all the same.

    Returns:
      The state of one seed, its `step` [] at 0.
    """
    del normalizer
    actor_key, critic_key, baseline_key = jax.random.split(key, 3)
    observation, action = jnp.zeros((1, nets.spec.observation_dim)), jnp.zeros((1, nets.spec.action_dim))
    actor = nets.actor.init(actor_key, observation)
    critic = nets.critic.init(critic_key, observation, action)
    baseline = nets.critic.init(baseline_key, observation, action[:, :0])
    log_alpha = jnp.log(jnp.asarray(config.alpha, jnp.float32))
    return State(
        actor=actor,
        critic=critic,
        target_critic=critic,
        baseline=baseline,
        log_alpha=log_alpha,
        opt=OptStates(
            actor=nets.actor_optimizer.init(actor),
            critic=nets.critic_optimizer.init(critic),
            baseline=nets.baseline_optimizer.init(baseline),
            alpha=nets.alpha_optimizer.init(log_alpha),
        ),
        transform=Transform(Normalizer.identity(nets.spec.observation_dim), config.reward_scale, config.reward_shift),
        step=jnp.zeros((), jnp.int32),
    )


def update(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """Updates the temperature, the critics, the functions Z and the actor, each by what was just updated.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B].
      key: draws the policy's actions at s, at s' for each kind of target, and at s.

    Returns:
      The state with `step` advanced, and metrics, [] each.

    Source: Yu and Zhang (ICML 2023), the authors' code, whose order this is.
    """
    batch = state.transform(batch)
    alpha_key, critic_key, baseline_key, actor_key = jax.random.split(key, 4)
    state, metrics = temperature_step(nets, config, state, batch.observation, alpha_key)
    alpha = jnp.exp(state.log_alpha)
    next_distribution = nets.actor.apply(state.actor, batch.next_observation)

    value = next_value(
        state.target_critic, nets.critic, next_distribution, batch.next_observation, critic_key, 1, alpha
    )
    target = td_target(batch.reward, batch.terminated, value, config.discount)
    (critic_loss, critic_metrics), gradient = jax.value_and_grad(td_loss, has_aux=True)(
        state.critic, nets.critic, batch.observation, batch.action, target
    )
    critic, critic_opt = gradient_step(nets.critic_optimizer, gradient, state.opt.critic, state.critic)

    baseline, baseline_opt, baseline_metrics = baseline_step(
        nets, config, state, batch, next_distribution, baseline_key
    )

    (actor_loss, actor_metrics), gradient = jax.value_and_grad(losses.actor_loss, has_aux=True)(
        state.actor, nets.actor, critic, nets.critic, batch.observation, batch.action, actor_key, alpha,
        config.value_weight,
    )  # fmt: skip
    actor, actor_opt = gradient_step(nets.actor_optimizer, gradient, state.opt.actor, state.actor)

    state = state.replace(
        actor=actor,
        critic=critic,
        target_critic=polyak_update(critic, state.target_critic, config.polyak),
        baseline=baseline,
        opt=state.opt.replace(actor=actor_opt, critic=critic_opt, baseline=baseline_opt),
        step=state.step + 1,
    )
    own = {"critic_loss": critic_loss, "actor_loss": actor_loss}
    return state, metrics | critic_metrics | baseline_metrics | actor_metrics | own


def temperature_step(nets: Networks, config: Config, state: Any, observation: Array, key: Array) -> tuple[Any, Metrics]:
    """Steps log α by the entropy of the policy at normalised observations [B, O].

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the step: `State`, or one with its fields `actor`, `log_alpha` and `opt.alpha`.
      observation: [B, O] normalised.
      key: draws the policy's actions.

    Returns:
      The state with log α moved, and metrics; α [] is the new one.
    """
    _, log_prob = nets.actor.apply(state.actor, observation).sample_and_log_prob(key)
    loss, gradient = jax.value_and_grad(temperature_loss)(
        state.log_alpha, log_prob, config.target_entropy * nets.spec.action_dim
    )
    log_alpha, opt = gradient_step(nets.alpha_optimizer, gradient, state.opt.alpha, state.log_alpha)
    state = state.replace(log_alpha=log_alpha, opt=state.opt.replace(alpha=opt))
    return state, {"alpha": jnp.exp(log_alpha), "alpha_loss": loss}


def baseline_step(
    nets: Networks,
    config: Config,
    state: State,
    batch: Transition,
    next_distribution: Gaussian | TanhGaussian,
    key: Array,
) -> tuple[Params, Any, Metrics]:
    """Steps the functions Z, for which log π is as good as given.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the step.
      batch: transformed transitions [B].
      next_distribution: π(·|s').
      key: draws the actions at s'.

    Returns:
      Parameters and optimiser state of the functions, and metrics.
    """
    alpha = jnp.exp(state.log_alpha)
    value = losses.baseline_value(state.baseline, nets.critic, next_distribution, batch.next_observation, key, alpha)
    target = td_target(batch.reward, batch.terminated, value, config.discount)
    log_prob = nets.actor.apply(state.actor, batch.observation).log_prob(batch.action)
    (loss, metrics), gradient = jax.value_and_grad(losses.baseline_loss, has_aux=True)(
        state.baseline, nets.critic, batch.observation, log_prob, target
    )
    baseline, opt = gradient_step(nets.baseline_optimizer, gradient, state.opt.baseline, state.baseline)
    return baseline, opt, metrics | {"baseline_loss": loss}


def policy(nets: Networks, state: Any) -> Policy:
    """Returns the actor of a `State`, or of one with its fields: raw observations [..., O] to actions [..., A]."""
    return Policy(state.actor, state.transform.normalizer, nets.actor)


def critic(nets: Networks, config: Config, state: State) -> QFunction:
    """Returns the current critics, whose values contain the policy's entropy at the present temperature []."""
    return QFunction.of(state, nets.critic, config.discount, jnp.exp(state.log_alpha))


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets = make_networks(config, spec)
    return Algorithm(
        name="sac_ml",
        init=functools.partial(init, nets, config),
        phases=(Phase("offline", functools.partial(update, nets, config), config.updates, config.batch_size),),
        policy=functools.partial(policy, nets),
        critic=functools.partial(critic, nets, config),
    )
