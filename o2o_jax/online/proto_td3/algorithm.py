"""PROTO+TD3: TD3 on offline critics, each policy held to its own target, which follows slowly."""

import functools

import jax
import jax.numpy as jnp

from o2o_jax import making
from o2o_jax.interfaces import Algorithm
from o2o_jax.losses import draw_critics, lowest_value
from o2o_jax.offline import td3_bc
from o2o_jax.online import common, o2td3, rlpd
from o2o_jax.online.o2td3 import State
from o2o_jax.online.o2td3.algorithm import Networks, make_networks, policy
from o2o_jax.online.proto.algorithm import weight, with_moments_of_critics
from o2o_jax.online.proto_td3.config import Config, Update
from o2o_jax.ops.bellman import td_target
from o2o_jax.ops.smoothing import smoothed_action
from o2o_jax.policy import Handoff
from o2o_jax.types import Array, Metrics, Params, Spec, Transition


def init(start: Algorithm, config: Config, key: Array, handoff: Handoff | None = None) -> State:
    """Makes the state before the first environment step: policy and critics of offline training, π_k the same policy.

    Args:
      start: O2TD3, with the networks of these settings; its state's `target_actor` is π_k.
      config: settings.
      key: initialises what the handoff doesn't bring.
      handoff: with a deterministic policy and the critics of offline training; None for random networks.

    Returns:
      A `State`. The critics keep Adam's moments; those of the actor begin anew.

    Raises:
      ValueError: as O2TD3, if the policy's head or sizes differ, or there are no such critics.
    """
    state = start.init(key, handoff)
    return with_moments_of_critics(config, state.replace(target_actor=state.actor), handoff)


def finetune(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """Updates as TD3+BC does, with π_k's actions in the place of the data's.

    Args:
      nets: of `o2td3.algorithm.make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B].
      key: draws the critics of the target, and the noise on its actions.

    Returns:
      The state with `step` advanced, and metrics; those of the actor are NaN where it did not move.

    Source: Li et al. (arXiv:2305.15669), and its authors' code.
    """
    batch = state.transform(batch)
    price = weight(config, state.step)
    target = critic_target(nets, config, state, batch, key)
    loss = functools.partial(actor_loss, followed=state.target_actor, weight=price)
    state, metrics = td3_bc.algorithm.step_towards(
        nets, config.update, state, batch, target, loss, config.proximity.polyak
    )
    metrics["divergence"] = metrics.pop("cloning_loss")
    return state, metrics | {"weight": price}


def critic_target(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> Array:
    """Computes the target of all critics from the lowest of a few target critics, drawn for the whole batch.

        y = r + γ (1 − d) ( min_{i∈Z} Q̄_i(s', ã) − c mean (π(s') + ε − π_k(s'))² ),   ã = clip(π_k(s') + ε, −1, 1)

    ε is clipped noise; the mean runs over the batch and the dimensions. `update.target=official` has ã = π_k(s') where
    all critics count, and π(s') + ε where not. Without `update.backup_divergence` nothing is taken off Q̄.

    The arguments are those of `finetune`, the batch transformed.

    Returns:
      [B] constant.

    Source: Li et al. (arXiv:2305.15669), the authors' code; the action is that of Fujimoto et al. (arXiv:1802.09477).
    """
    subset_key, noise_key = jax.random.split(key)
    number = config.networks.num_target_critics
    drawn, critic = draw_critics(state.target_critic, subset_key, number), nets.critic.clone(num_critics=number)
    action, followed = (
        nets.actor.apply(params, batch.next_observation).mode() for params in (state.actor, state.target_actor)
    )
    noise = jax.random.normal(noise_key, action.shape)
    noisy = action + jnp.clip(config.smoothing.std * noise, -config.smoothing.clip, config.smoothing.clip)
    if config.update.target == "intended":
        next_action = smoothed_action(followed, noise, config.smoothing.std, config.smoothing.clip)
    else:
        next_action = followed if number == config.networks.num_critics else noisy
    value = lowest_value(drawn, critic, batch.next_observation, next_action)
    if config.update.backup_divergence:
        value -= weight(config, state.step) * jnp.mean(jnp.square(noisy - followed))
    return td_target(batch.reward, batch.terminated, value, config.update.discount)


def actor_loss(
    actor_params: Params,
    nets: Networks,
    config: Update,
    critic_params: Params,
    batch: Transition,
    followed: Params,
    weight: Array,
) -> tuple[Array, Metrics]:
    """Computes TD3+BC's loss by the first critic, with π_k's actions in the place of the data's, at a price.

        −l · mean Q₁(s, π(s)) / mean |Q₁(s, π(s))|  +  c · mean (π(s) − π_k(s))²

    Args:
      actor_params: differentiated.
      nets: of `o2td3.algorithm.make_networks`.
      config: settings, of which `q_weight` is l.
      critic_params: parameters with a leading axis E, constant.
      batch: transformed transitions [B].
      followed: parameters of π_k, constant.
      weight: [] c ≥ 0.

    Returns:
      [] loss, and metrics.

    Source: Li et al. (arXiv:2305.15669), the authors' code, which takes the second critic.
    """
    first = jax.tree.map(lambda leaf: leaf[0], critic_params)
    value = functools.partial(nets.first_critic.apply, first)
    action = nets.actor.apply(followed, batch.observation).mode()
    return td3_bc.losses.actor_loss(actor_params, nets.actor, value, batch.observation, action, config.q_weight, weight)


def act(nets: Networks, config: Config, state: State, observation: Array, key: Array) -> Array:
    """The policy's action [A] at a raw observation [O], with clipped exploration noise, in [-1, 1]."""
    action = policy(nets, state).distribution(observation).mode()
    noise = jax.random.normal(key, action.shape)
    return smoothed_action(action, noise, config.exploration.std, config.exploration.clip)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    start = o2td3.make(config.of_o2td3(), spec)
    assert start.online is not None
    nets = make_networks(config.of_o2td3(), spec)
    return start._replace(
        name="proto_td3",
        init=functools.partial(init, start, config),
        online=start.online._replace(
            begin=rlpd.algorithm.begin,
            act=common.memoryless(functools.partial(act, nets, config)),
            update=functools.partial(finetune, nets, config),
            replay=config.replay.rule(config.env_steps, config.update.batch_size),
        ),
    )
