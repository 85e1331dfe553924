"""ACA: critics that are the log-density of the offline policy and what has to be added, so that both agree."""

import functools

import flax.struct
import jax
import jax.numpy as jnp

from o2o_jax import making, networks
from o2o_jax.critic import QFunction
from o2o_jax.interfaces import Algorithm, Requires
from o2o_jax.losses import next_value, soft_actor_loss
from o2o_jax.offline import sac_ml
from o2o_jax.offline.sac_ml.algorithm import Networks, make_networks, policy, temperature_step
from o2o_jax.online import continued, rlpd
from o2o_jax.online.aca import losses
from o2o_jax.online.aca.config import Config
from o2o_jax.online.aca.losses import AlignedCritics, AlignedParams
from o2o_jax.online.rlpd.algorithm import OptStates
from o2o_jax.ops.bellman import td_target
from o2o_jax.ops.lagrangian import linear_threshold
from o2o_jax.policy import Handoff
from o2o_jax.training import clip_gradient, gradient_step, polyak_update
from o2o_jax.types import Array, Metrics, Params, Spec, Transition


@flax.struct.dataclass(kw_only=True)
class State(rlpd.State):
    """State of a soft actor-critic, whose `critic` and `target_critic` are the residuals R, beside the offline policy.

    The other attributes are those of RLPD's.

    Attributes:
      reference: parameters of π_0, constant.
    """

    reference: Params


def init(nets: Networks, config: Config, requires: Requires, key: Array, handoff: Handoff | None = None) -> State:
    """Makes the state before the first update: the offline policy, and critics made of the functions Z.

        R_i(s, a) = Z_i(s)

    The offline critics go. Adam's moments of actor and temperature stay, those of the critics begin anew.

    Args:
      nets: of `make_networks`.
      config: settings.
      requires: what the handoff must be.
      key: initialises what the handoff doesn't bring.
      handoff: of SAC+ML, with its state; None for random networks.

    Raises:
      ValueError: see `continued.init`.

    Source: Yu and Zhang (ICML 2023), and its authors' code.
    """
    method = sac_ml.make(config.update, nets.spec)._replace(name="aca")
    start = continued.init(config, nets.spec, method, requires, key, handoff)
    critic = networks.append_inputs(start.baseline, nets.spec.action_dim)
    return State(
        actor=start.actor,
        reference=start.actor,
        critic=critic,
        target_critic=critic,
        log_alpha=jnp.log(jnp.asarray(config.update.alpha, jnp.float32)),
        opt=OptStates(actor=start.opt.actor, critic=nets.critic_optimizer.init(critic), alpha=start.opt.alpha),
        transform=start.transform,
        step=jnp.zeros((), jnp.int32),
    )


def weight(config: Config, step: Array) -> Array:
    """Returns w at update `step` [] of fine-tuning: max(1 − t / T, w_end), t environment steps, T `fall_env_steps`.

    Source: the code of Yu and Zhang (ICML 2023), which takes 1 / T off after every environment step.
    """
    density, env_steps = config.density, step // config.interaction.updates_per_env_step
    return jnp.maximum(linear_threshold(env_steps, 1.0, 0.0, density.fall_env_steps), density.weight_end)


def aligned(nets: Networks, config: Config) -> AlignedCritics:
    """Returns the critics, of which `nets.critic` is the residual: [..., O] and [..., A] to values [E, ...]."""
    return AlignedCritics(nets.critic, nets.actor, config.density.deviations)


def finetune(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """Steps temperature, critics and actor of a soft actor-critic with aligned critics, each by what was just stepped.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B].
      key: draws the policy's actions at s, at s', and at s.

    Returns:
      The state with everything but `reference` and the transform moved, and metrics.

    Source: Yu and Zhang (ICML 2023), and its authors' code, whose order this is.
    """
    batch, update = state.transform(batch), config.update
    alpha_key, target_key, actor_key = jax.random.split(key, 3)
    state, metrics = temperature_step(nets, update, state, batch.observation, alpha_key)
    alpha, network = jnp.exp(state.log_alpha), aligned(nets, config)
    params = AlignedParams(state.critic, state.reference, weight(config, state.step))

    next_distribution = nets.actor.apply(state.actor, batch.next_observation)
    target_params = params.replace(residual=state.target_critic)
    value = next_value(target_params, network, next_distribution, batch.next_observation, target_key, 1, alpha)
    target = td_target(batch.reward, batch.terminated, value, update.discount)
    (critic_loss, critic_metrics), gradient = jax.value_and_grad(losses.critic_loss, has_aux=True)(
        state.critic, network, params, batch.observation, batch.action, target
    )
    critic, critic_opt = gradient_step(nets.critic_optimizer, gradient, state.opt.critic, state.critic)

    (actor_loss, (_, log_prob, _)), gradient = jax.value_and_grad(soft_actor_loss, has_aux=True)(
        state.actor, nets.actor, params.replace(residual=critic), network, batch.observation, actor_key, alpha,
        losses.lowest_value,
    )  # fmt: skip
    gradient = clip_gradient(gradient, config.actor_grad_norm)
    actor, actor_opt = gradient_step(nets.actor_optimizer, gradient, state.opt.actor, state.actor)
    state = state.replace(
        actor=actor,
        critic=critic,
        target_critic=polyak_update(critic, state.target_critic, update.polyak),
        opt=state.opt.replace(actor=actor_opt, critic=critic_opt),
        step=state.step + 1,
    )
    own = {
        "critic_loss": critic_loss,
        "actor_loss": actor_loss,
        "log_prob": jnp.mean(log_prob),
        "weight": params.weight,
    }
    return state, metrics | critic_metrics | own


def act(nets: Networks, state: State, observation: Array, key: Array) -> Array:
    """Draws an action [A] in [-1, 1] of the policy at a raw observation [O]."""
    return policy(nets, state).distribution(observation).sample(key)


def critic(nets: Networks, config: Config, state: State) -> QFunction:
    """Returns the aligned critics, whose values contain the policy's entropy at the present temperature []."""
    params = AlignedParams(state.critic, state.reference, weight(config, state.step))
    return QFunction(params, state.transform, jnp.exp(state.log_alpha), aligned(nets, config), config.update.discount)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets = make_networks(config.update, spec)
    requires = Requires(config.update.head, state=True, sources=("sac_ml",))
    return Algorithm(
        name="aca",
        init=functools.partial(init, nets, config, requires),
        phases=(),
        policy=functools.partial(policy, nets),
        critic=functools.partial(critic, nets, config),
        requires=requires,
        online=continued.online_part(config, functools.partial(act, nets), functools.partial(finetune, nets, config)),
    )
