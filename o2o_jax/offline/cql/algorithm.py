"""CQL: soft actor-critic whose critics value unseen actions below the data's."""

import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax import making, networks
from o2o_jax.critic import QFunction
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.interfaces import Algorithm, Phase, Prepare
from o2o_jax.losses import draw_critics, next_value, soft_actor_loss
from o2o_jax.offline.cql import losses
from o2o_jax.offline.cql.config import Config, ConservativeConfig
from o2o_jax.ops.bellman import td_target
from o2o_jax.ops.conservative import gap_multiplier, gap_multiplier_loss
from o2o_jax.ops.lagrangian import temperature_loss
from o2o_jax.policy import Policy
from o2o_jax.training import gradient_step, mean_over_blocks, polyak_update
from o2o_jax.types import Annotated, Array, Metrics, Params, Spec, Transition, counter

# Pairs of state and action in a block of the critics' loss, which has 31 per state: 1 MB for a layer of one critic.
ACTIONS_AT_ONCE = 1_024


class Networks(NamedTuple):
    """Modules and optimisers: everything static that the updates need.

    Attributes:
      actor: of π, observations [..., O] to a squashed normal over actions [..., A].
      critic: all critics at once, [..., O] and [..., A] to values [E, ...].
      drawn_critics: as many of them as a target takes.
      actor_optimizer: of `State.actor`.
      critic_optimizer: of `State.critic`.
      alpha_optimizer: of `State.log_alpha`.
      alpha_prime_optimizer: of `State.log_alpha_prime`.
      spec: O and A.
    """

    actor: networks.Actor
    critic: networks.Critics
    drawn_critics: networks.Critics
    actor_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    alpha_optimizer: optax.GradientTransformation
    alpha_prime_optimizer: optax.GradientTransformation
    spec: Spec


@flax.struct.dataclass
class OptStates:
    """One optimiser state per trained part.

    Attributes:
      actor: of `State.actor`.
      critic: of `State.critic`.
      alpha: of `State.log_alpha`.
      alpha_prime: of `State.log_alpha_prime`.
    """

    actor: Any
    critic: Any
    alpha: Any
    alpha_prime: Any


@flax.struct.dataclass
class State:
    """Arrays only: vmaps over seeds, saves as it is.

    Attributes:
      actor: parameters of π.
      critic: parameters with a leading axis E.
      target_critic: the same for Q̄.
      log_alpha: [] log of the temperature α.
      log_alpha_prime: [] log of the penalty's multiplier α'; moves in the Lagrange version only.
      opt: optimiser states.
      transform: of observations and rewards, constant.
      step: [] int32, updates so far.
    """

    actor: Params
    critic: Params
    target_critic: Params
    log_alpha: Array
    log_alpha_prime: Array
    opt: OptStates
    transform: Transform
    step: Array = counter()


def make_networks(
    config: ConservativeConfig, spec: Spec, actor_init: str = "fan_in", critic_init: str = "orthogonal"
) -> Networks:
    """Makes modules and optimisers for a configuration and the sizes of an environment.

    Args:
      config: settings.
      spec: sizes of the environment, O and A.
      actor_init: of the actor's hidden layers, as of `networks.Actor`.
      critic_init: of the critics' layers, as of `networks.Critics`.
    """

    def critics(number: int) -> networks.Critics:
        return networks.Critics(config.critic_hidden, config.layer_norm, number, critic_init)

    return Networks(
        actor=networks.TanhGaussianActor(spec.action_dim, config.hidden, actor_init, config.actor_layer_norm),
        critic=critics(config.num_critics),
        drawn_critics=critics(config.num_target_critics),
        actor_optimizer=optax.adam(config.actor_lr),
        critic_optimizer=optax.adam(config.critic_lr),
        alpha_optimizer=optax.adam(config.alpha_lr),
        alpha_prime_optimizer=optax.adam(config.alpha_prime_lr),
        spec=spec,
    )


def init(nets: Networks, config: ConservativeConfig, key: Array, normalizer: Normalizer) -> State:
    """Makes the state before the first update: random networks, targets equal to them.

    Args:
      nets: of `make_networks`.
      config: settings.
      key: initialises the networks.
      normalizer: of the dataset's observations [..., O]; left out where `normalize_observations` is off.

    Returns:
      The state of one seed, its `step` [] at 0.
    """
    actor_key, critic_key = jax.random.split(key)
    observation, action = jnp.zeros((1, nets.spec.observation_dim)), jnp.zeros((1, nets.spec.action_dim))
    actor = nets.actor.init(actor_key, observation)
    critic = nets.critic.init(critic_key, observation, action)
    log_alpha = jnp.log(jnp.asarray(config.alpha, jnp.float32))
    log_alpha_prime = jnp.asarray(config.log_alpha_prime, jnp.float32)
    if not config.normalize_observations:
        normalizer = Normalizer.identity(nets.spec.observation_dim)
    return State(
        actor=actor,
        critic=critic,
        target_critic=critic,
        log_alpha=log_alpha,
        log_alpha_prime=log_alpha_prime,
        opt=OptStates(
            actor=nets.actor_optimizer.init(actor),
            critic=nets.critic_optimizer.init(critic),
            alpha=nets.alpha_optimizer.init(log_alpha),
            alpha_prime=nets.alpha_prime_optimizer.init(log_alpha_prime),
        ),
        transform=Transform(normalizer, config.reward_scale, config.reward_shift),
        step=jnp.zeros((), jnp.int32),
    )


def update(
    nets: Networks, config: ConservativeConfig, state: State, batch: Transition, key: Array
) -> tuple[State, Metrics]:
    """Updates the actor, the temperature and the critics; all gradients at the old parameters.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B]; where they are annotated with `data.returns.ReturnsToGo`, these are the floor under
        the values that the penalty lowers (Cal-QL).
      key: draws the actions at s and s', those of the penalty, and the critics of the target.

    Returns:
      The state with `step` advanced, and metrics, [] each.
    """
    batch = state.transform(batch)
    actor_key, target_key, penalty_key = jax.random.split(key, 3)
    alpha = jnp.exp(state.log_alpha)

    (actor_loss, (_, log_prob, distribution)), actor_gradient = jax.value_and_grad(soft_actor_loss, has_aux=True)(
        state.actor, nets.actor, state.critic, nets.critic, batch.observation, actor_key, alpha
    )
    alpha_loss, alpha_gradient = jax.value_and_grad(temperature_loss)(
        state.log_alpha, log_prob, -float(nets.spec.action_dim)
    )

    next_distribution = nets.actor.apply(state.actor, batch.next_observation)
    drawn = draw_critics(state.target_critic, jax.random.fold_in(target_key, 1), config.num_target_critics)
    value = next_value(
        drawn, nets.drawn_critics, next_distribution, batch.next_observation, target_key, config.target_actions
    )
    target = td_target(batch.reward, batch.terminated, value, config.discount)
    returns = batch.extras.shared.value if isinstance(batch, Annotated) else None
    sampled = losses.sampled_actions(distribution, next_distribution, penalty_key, config.num_actions, returns)
    lagrange = config.target_gap is not None
    alpha_prime = gap_multiplier(state.log_alpha_prime) if lagrange else 1.0
    target_gap = config.target_gap if lagrange else 0.0

    def critic_step(rows: Any) -> Any:
        return jax.value_and_grad(losses.critic_loss, has_aux=True)(
            state.critic,
            nets.critic,
            *rows,
            weight=alpha_prime * config.conservative_weight,
            target_gap=target_gap,
            temperature=config.gap_temperature,
            gap_min=config.gap_min,
        )

    rows = (batch.observation, batch.action, target, sampled)
    states_at_once = max(1, ACTIONS_AT_ONCE // (1 + sampled.log_density.shape[1]))
    (critic_loss, (gap, metrics)), critic_gradient = mean_over_blocks(critic_step, rows, states_at_once)

    log_alpha, alpha_opt = gradient_step(nets.alpha_optimizer, alpha_gradient, state.opt.alpha, state.log_alpha)
    actor, actor_opt = gradient_step(nets.actor_optimizer, actor_gradient, state.opt.actor, state.actor)
    critic, critic_opt = gradient_step(nets.critic_optimizer, critic_gradient, state.opt.critic, state.critic)
    metrics |= {
        "critic_loss": critic_loss,
        "actor_loss": actor_loss,
        "log_prob": jnp.mean(log_prob),
        "alpha": alpha,
        "alpha_loss": alpha_loss,
    }

    log_alpha_prime, alpha_prime_opt = state.log_alpha_prime, state.opt.alpha_prime
    if lagrange:
        loss, gradient = jax.value_and_grad(gap_multiplier_loss)(
            log_alpha_prime, gap, target_gap, config.conservative_weight
        )
        log_alpha_prime, alpha_prime_opt = gradient_step(
            nets.alpha_prime_optimizer, gradient, alpha_prime_opt, log_alpha_prime
        )
        metrics |= {"alpha_prime": alpha_prime, "alpha_prime_loss": loss}

    state = state.replace(
        actor=actor,
        critic=critic,
        target_critic=polyak_update(critic, state.target_critic, config.polyak),
        log_alpha=log_alpha,
        log_alpha_prime=log_alpha_prime,
        opt=OptStates(actor=actor_opt, critic=critic_opt, alpha=alpha_opt, alpha_prime=alpha_prime_opt),
        step=state.step + 1,
    )
    return state, metrics


def policy(nets: Networks, state: State) -> Policy:
    """Returns the current actor with its normaliser: raw observations [..., O] to actions [..., A]."""
    return Policy(state.actor, state.transform.normalizer, nets.actor)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    return bound("cql", make_networks(config, spec), config)


def bound(name: str, nets: Networks, config: ConservativeConfig, prepare: Prepare | None = None) -> Algorithm:
    """Binds networks and settings as the method `name`; `prepare` annotates the rows that its update learns from."""
    return Algorithm(
        name=name,
        init=functools.partial(init, nets, config),
        phases=(Phase("offline", functools.partial(update, nets, config), config.updates, config.batch_size, prepare),),
        policy=functools.partial(policy, nets),
        critic=functools.partial(QFunction.of, network=nets.critic, discount=config.discount),
    )
