"""O2PPO: value regression on returns, then proximal policy optimisation with an auxiliary advantage."""

import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax import making, networks
from o2o_jax.data import replay
from o2o_jax.data.returns import ReturnsToGo
from o2o_jax.data.transform import Moments, RewardScale, Transform
from o2o_jax.interfaces import Algorithm, Online, Phase, Reference, Requires, Schedule
from o2o_jax.online import common
from o2o_jax.online.o2ppo import losses
from o2o_jax.online.o2ppo.config import Config
from o2o_jax.ops import advantage as ops
from o2o_jax.ops.distributions import normal_divergence
from o2o_jax.policy import Handoff, Policy
from o2o_jax.training import gradient_step, where
from o2o_jax.types import Annotated, Array, Extras, Metrics, Params, Rollout, Spec, counter

# Of the first mean actions of an agent from scratch: Andrychowicz et al., What Matters in On-Policy RL (2021)
FIRST_OUTPUT_SCALE = 0.01
# Of the cap on the target KL, nats: a policy that was rejected at no distance says nothing about distances; and before
# any rejection there is none, for which a number must do, since an infinite one means that a run has diverged
CAP_MIN, NO_CAP = 1e-3, 1e6


class Networks(NamedTuple):
    """Modules: what the updates need beside settings and state."""

    actor: networks.Actor
    critic: networks.Value
    spec: Spec


@flax.struct.dataclass
class OptStates:
    """One optimiser state per trained part; both begin anew with fine-tuning."""

    actor: Any
    critic: Any


@flax.struct.dataclass
class State:
    """Arrays only: vmaps over seeds, saves as it is.

    Attributes:
      actor: π; π_off, with its σ bounded, until fine-tuning.
      reference: π_ref; the same at first, then whatever `set_reference` accepted last.
      critic: parameters of V.
      opt: optimiser states.
      transform: of observations and rewards, constant unless `update.observation_scaling` is "running".
      reward_scale: running, see `update.reward_scaling`; unused without it.
      observations: moments [O] of the raw observations so far, for that normaliser; unused without it.
      leash: [] factor of β, 1 at first; see `auxiliary_weight`.
      divergence_cap: [] nats, above which the target KL never is; `NO_CAP` until a policy is rejected.
      step: [] int32, updates so far, of which a rollout is one; begins anew with fine-tuning.
    """

    actor: Params
    reference: Params
    critic: Params
    opt: OptStates
    transform: Transform
    reward_scale: RewardScale
    observations: Moments
    leash: Array
    divergence_cap: Array
    step: Array = counter()


class Samples(NamedTuple):
    """A rollout as the minibatches see it, all of [T] and constant while they last."""

    observation: Array
    action: Array
    log_prob: Array
    positive: Array
    negative: Array
    target: Array


def make_networks(config: Config, spec: Spec) -> Networks:
    """Modules for a configuration and the sizes of an environment."""
    return Networks(
        actor=networks.GaussianActor(spec.action_dim, config.networks.hidden),
        critic=networks.Value(config.networks.critic_hidden, activation=jnp.tanh, layer_init="fan_in"),
        spec=spec,
    )


def optimizer(config: Config, lr: Array | float) -> optax.GradientTransformation:
    """Adam behind a clip of the gradient's norm; its state doesn't depend on the learning rate, which may be traced."""
    return optax.chain(
        optax.clip_by_global_norm(config.finetune.max_grad_norm), optax.adam(lr, eps=config.finetune.adam_eps)
    )


def regression_optimizer(config: Config) -> optax.GradientTransformation:
    """Plain Adam for value regression; its state has the structure of `optimizer`'s."""
    return optax.chain(optax.identity(), optax.adam(config.reevaluate.lr))


def init(nets: Networks, config: Config, key: Array, handoff: Handoff | None = None) -> State:
    """The state before value regression: the offline policy, and a value function that knows nothing of it.

    Args:
      nets: of `make_networks`.
      config: settings.
      key: initialises what the handoff doesn't bring.
      handoff: with a Gaussian policy; None starts from a random one, whose mean actions are near 0.

    Returns:
      A `State`.

    Raises:
      ValueError: if the policy's head or sizes differ, or observations are to be scaled otherwise than it learnt.
    """
    if handoff is not None and config.update.observation_scaling == "running":
        raise ValueError(
            "update.observation_scaling=running is for agents from scratch: an offline policy has its own scale"
        )
    actor_key, critic_key = jax.random.split(key)
    observation = jnp.zeros((1, nets.spec.observation_dim))
    fresh = networks.scale_output(nets.actor.init(actor_key, observation), FIRST_OUTPUT_SCALE)
    actor = common.offline_actor(handoff, fresh, nets.actor.head)
    if config.networks.max_initial_std is not None:
        actor = networks.cap_std(actor, config.networks.max_initial_std)
    critic = nets.critic.init(critic_key, observation)
    return State(
        actor=actor,
        reference=actor,
        critic=critic,
        opt=OptStates(
            actor=optimizer(config, config.finetune.actor_lr).init(actor),
            critic=regression_optimizer(config).init(critic),
        ),
        transform=common.initial_transform(config.update, handoff, nets.spec.observation_dim),
        reward_scale=RewardScale.start(),
        observations=Moments.start((nets.spec.observation_dim,)),
        leash=jnp.ones(()),
        divergence_cap=jnp.full((), NO_CAP, jnp.float32),
        step=jnp.zeros((), jnp.int32),
    )


def prepare(config: Config, state: State, dataset: Rollout) -> tuple[State, Extras]:
    """Computes every row's return, and where rewards are scaled, their scale.

    Args:
      config: settings.
      state: before the phase, or amid it: nothing that the phase moves is read.
      dataset: raw steps [N].

    Returns:
      The state with the scale of the dataset's rewards, and `ReturnsToGo` as extras, which end as
      `reevaluate.return_boundary` says.

    Source: section 4.1; D-36, D-40.
    """
    reward = state.transform(dataset).reward
    ended = dataset.terminated if config.reevaluate.return_boundary == "terminals_only" else dataset.ended
    if config.update.reward_scaling == "running_std":
        state = state.replace(reward_scale=RewardScale.start().update(reward, ended, config.update.discount))
        reward = state.reward_scale(reward)
    if config.reevaluate.return_boundary == "bootstrap":
        return state, Extras(shared=ReturnsToGo.of(reward, dataset, config.update.discount))
    return state, Extras(shared=ReturnsToGo(ops.discounted_returns(reward, ended, config.update.discount)))


def reevaluate(nets: Networks, config: Config, state: State, batch: Annotated, key: Array) -> tuple[State, Metrics]:
    """One update of value regression: V approximates the value of the policy that gathered the data.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B] with the extras of `prepare`.
      key: unused, nothing is drawn.

    Returns:
      The state with the critic moved, and metrics.

    Source: section 4.1; D-37.
    """
    del key
    target = batch.extras.shared.bootstrapped(
        lambda observation: nets.critic.apply(state.critic, state.transform.normalizer(observation))
    )
    observation = state.transform.normalizer(batch.observation)
    loss, gradient = jax.value_and_grad(losses.value_loss)(state.critic, nets.critic, observation, target)
    critic, opt = gradient_step(regression_optimizer(config), gradient, state.opt.critic, state.critic)
    state = state.replace(critic=critic, opt=state.opt.replace(critic=opt), step=state.step + 1)
    return state, {"critic_loss": loss, "target": jnp.mean(target)}


def begin_finetuning(config: Config, state: State, accept: Array) -> State:
    """Fresh optimisers and counters; actor and reference are π_off in any case, no phase has moved them (D-58)."""
    del accept
    return state.replace(
        opt=OptStates(
            actor=optimizer(config, config.finetune.actor_lr).init(state.actor),
            critic=optimizer(config, config.finetune.critic_lr).init(state.critic),
        ),
        step=jnp.zeros_like(state.step),
    )


def finetune(nets: Networks, config: Config, state: State, rollout: Rollout, key: Array) -> tuple[State, Metrics]:
    """One update: all epochs on one rollout, Eq. (18) for its advantages, then Eq. (7) and (8) minibatch by minibatch.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      rollout: raw steps [T] that the current actor has taken.
      key: draws the order of the steps.

    Returns:
      The state with actor, critic and running scales moved, and metrics, those of minibatches as means.
    """
    state, samples, metrics = estimate(nets, config, state, rollout)
    state, terms = improve(nets, config, state, samples, key)
    if (
        config.update.observation_scaling == "running"
    ):  # from the next rollout on: this one was taken with the old scale
        observations = state.observations.update(rollout.observation)
        transform = state.transform.replace(normalizer=observations.normalizer)
        state = state.replace(observations=observations, transform=transform)
    return state, metrics | terms


def estimate(nets: Networks, config: Config, state: State, rollout: Rollout) -> tuple[State, Samples, Metrics]:
    """The first half of `finetune`: a rollout's advantages, value targets and densities at the current parameters.

    Returns:
      The state with the rewards' scale and the leash moved, what the minibatches are made of, and metrics.
    """
    steps = state.transform(rollout)
    if config.update.reward_scaling == "running_std":
        scale = state.reward_scale.update(steps.reward, steps.ended, config.update.discount)
        state, steps = state.replace(reward_scale=scale), steps.replace(reward=scale(steps.reward))
    observations = jnp.stack([steps.observation, steps.next_observation])
    value, next_value = nets.critic.apply(state.critic, observations)  # [T] each
    advantage = ops.generalized_advantage(
        steps.reward,
        value,
        next_value,
        steps.terminated,
        steps.ended,
        config.update.discount,
        config.rollout.gae_lambda,
    )
    # of the actor that took the rollout, at the clipped actions that were executed (D-43)
    acted, reference = (nets.actor.apply(params, steps.observation) for params in (state.actor, state.reference))
    log_prob = acted.log_prob(steps.action)
    divergence = jnp.mean(normal_divergence(acted, reference))
    metrics = {
        "value": jnp.mean(value),
        "advantage_std": jnp.std(advantage, ddof=1),
        "reference_divergence": divergence,
    }
    advantages, settings = advantage[:, None], config.auxiliary
    if settings is not None and settings.scale:
        if settings.weight == "target_divergence":
            target = jnp.minimum(settings.target_divergence_per_dim * nets.spec.action_dim, state.divergence_cap)
            state = state.replace(leash=ops.adapted_weight(state.leash, divergence, target))
            metrics |= {"target_divergence": target}
        weight = auxiliary_weight(config, state.step, state.leash)
        baseline = log_prob if settings.baseline == "policy" else -reference.entropy()
        log_ratio = ops.reference_advantage(reference.log_prob(steps.action), baseline)
        auxiliary = ops.auxiliary_advantage(log_ratio, nets.spec.action_dim, settings.scale)
        advantages = ops.combined_advantage(advantage, auxiliary, weight, settings.pairing)
        metrics |= {"auxiliary": jnp.mean(auxiliary), "auxiliary_weight": weight}
    advantages = ops.normalized(advantages)
    samples = Samples(
        observation=steps.observation,
        action=steps.action,
        log_prob=log_prob,
        positive=jnp.mean(jnp.maximum(advantages, 0.0), axis=1),
        negative=jnp.mean(jnp.minimum(advantages, 0.0), axis=1),
        target=advantage + value,
    )
    return state, samples, metrics


def improve(nets: Networks, config: Config, state: State, samples: Samples, key: Array) -> tuple[State, Metrics]:
    """The second half of `finetune`: every epoch goes through the samples in an order of its own.

    Steps that fill no minibatch are left out of the epoch. Both learning rates fall linearly with the rollouts.

    Returns:
      The state with actor and critic moved, and metrics as means over minibatches.
    """
    steps = samples.target.shape[0]
    size = min(config.rollout.minibatch_size, steps)
    orders = jnp.broadcast_to(jnp.arange(steps), (config.rollout.epochs, steps))
    orders = jax.random.permutation(key, orders, axis=1, independent=True)[:, : steps // size * size]
    share_left = jnp.maximum(1.0 - state.step * config.rollout.env_steps / max(config.env_steps, 1), 0.0)
    actor_optimizer = optimizer(config, config.finetune.actor_lr * share_left)
    critic_optimizer = optimizer(config, config.finetune.critic_lr * share_left)

    def update(carry: tuple[Params, Params, OptStates], rows: Array) -> tuple[Any, Metrics]:
        actor, critic, opt = carry
        batch = Samples(*(column[rows] for column in samples))
        (actor_loss, metrics), gradient = jax.value_and_grad(losses.actor_loss, has_aux=True)(
            actor,
            nets.actor,
            batch.observation,
            batch.action,
            batch.log_prob,
            batch.positive,
            batch.negative,
            config.finetune.clip,
            config.finetune.entropy_weight,
        )
        actor, actor_opt = gradient_step(actor_optimizer, gradient, opt.actor, actor)
        critic_loss, gradient = jax.value_and_grad(losses.value_loss)(
            critic, nets.critic, batch.observation, batch.target
        )
        critic, critic_opt = gradient_step(critic_optimizer, gradient, opt.critic, critic)
        metrics |= {"actor_loss": actor_loss, "critic_loss": critic_loss}
        return (actor, critic, OptStates(actor_opt, critic_opt)), metrics

    start = state.actor, state.critic, state.opt
    (actor, critic, opt), metrics = jax.lax.scan(update, start, orders.reshape(-1, size))
    state = state.replace(actor=actor, critic=critic, opt=opt, step=state.step + 1)
    return state, jax.tree.map(jnp.mean, metrics)


def auxiliary_weight(config: Config, step: Array, leash: Array) -> Array:
    """Weight of the auxiliary advantage.

    Args:
      config: settings, with `auxiliary`.
      step: [] rollouts before this one.
      leash: [] of the state.

    Returns:
      [] β at the end of the rollout: the leash itself, which a target KL moves; or the leash times what falls linearly
      from 1 to 0 in environment steps (section H.5).
    """
    assert config.auxiliary is not None
    if config.auxiliary.weight == "target_divergence":
        return leash
    env_steps = (step + 1) * config.rollout.env_steps
    return jnp.maximum(1.0 - env_steps / config.auxiliary.env_steps, 0.0) * leash


def set_reference(config: Config, state: State, accept: Array) -> State:
    """Makes the current actor π_ref where `accept` [] bool, and takes back half of what the last `roll_back` tightened.

    The cap on the target KL doubles. So does a leash halve that is longer than 1 where β falls linearly; a target KL
    moves it by itself.
    """
    cap, leash = jnp.minimum(2.0 * state.divergence_cap, NO_CAP), state.leash
    if config.auxiliary is None or config.auxiliary.weight == "linear":
        leash = jnp.maximum(0.5 * leash, 1.0)
    cap, leash = where(accept, (cap, leash), (state.divergence_cap, state.leash))
    return common.set_reference(state, accept).replace(divergence_cap=cap, leash=leash)


def roll_back(config: Config, state: State, reject: Array, divergence: Array) -> State:
    """Gives the actor up for π_ref, and holds what comes of it closer to π_ref than before.

    Actor ← π_ref with fresh moments, leash ← min(k leash, 10), cap ← min(cap, KL / k), k being `roll_back.tightening`.
    The critic stays: it has seen where the rejected policy led.

    Args:
      config: settings.
      state: before it.
      reject: [] bool; the state stays as it is without it.
      divergence: [] KL of the rejected policy from π_ref, nats, `reference_divergence` of the metrics; NaN where it is
        unknown, which leaves the cap.

    Returns:
      The state.
    """
    tightening = config.roll_back.tightening
    cap = jnp.fmin(state.divergence_cap, jnp.maximum(divergence / tightening, CAP_MIN))
    leash = jnp.minimum(tightening * state.leash, ops.WEIGHT_MAX)
    # only what moves: seeds that differ in `reject` share the counter
    leash, cap = where(reject, (leash, cap), (state.leash, state.divergence_cap))
    state = state.replace(leash=leash, divergence_cap=cap)
    return common.roll_back(optimizer(config, config.finetune.actor_lr), state, reject)


def act(nets: Networks, state: State, observation: Array, key: Array) -> Array:
    """A sampled action [A] at a raw observation [O], clipped to [-1, 1]."""
    return policy(nets, state).distribution(observation).sample(key)


def policy(nets: Networks, state: State) -> Policy:
    """The current actor with its normaliser."""
    return Policy(state.actor, state.transform.normalizer, nets.actor)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets = make_networks(config, spec)
    own_policy = functools.partial(policy, nets)

    def bind(function):
        return functools.partial(function, nets, config)

    phase = config.reevaluate
    regression = Phase(
        "reevaluate", bind(reevaluate), phase.updates, phase.batch_size, functools.partial(prepare, config)
    )
    return Algorithm(
        name="o2ppo",
        init=bind(init),
        phases=(regression,) if regression.updates else (),  # the auxiliary advantage takes the place of alignment
        policy=own_policy,
        requires=Requires(nets.actor.head),
        online=Online(
            schedule=Schedule(env_steps=config.rollout.env_steps),
            begin=functools.partial(begin_finetuning, config),
            act=common.memoryless(functools.partial(act, nets)),
            update=bind(finetune),
            replay=replay.rollout(config.rollout.env_steps),
            reference=None
            if config.reference is None
            else Reference(
                accept=functools.partial(set_reference, config),
                roll_back=functools.partial(roll_back, config),
                policy=functools.partial(common.reference_policy, own_policy),
                divergence_term="reference_divergence",
            ),
        ),
    )
