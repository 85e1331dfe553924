"""PA-RL: actions of any policy are improved by critics, acted on, backed up, and imitated by the policy."""

import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax import making, networks
from o2o_jax.critic import QFunction
from o2o_jax.data import replay
from o2o_jax.data.returns import RecordedReturns, prepare
from o2o_jax.data.transform import Transform
from o2o_jax.interfaces import Algorithm, Online, Phase, Requires
from o2o_jax.losses import draw_critics, lowest_value
from o2o_jax.online import common
from o2o_jax.online.pa_rl import losses
from o2o_jax.online.pa_rl.config import Config
from o2o_jax.ops.action_optimization import drawn_action
from o2o_jax.ops.bellman import td_target
from o2o_jax.policy import Handoff, OptimizedPolicy, Policy, likelihood_loss
from o2o_jax.training import gradient_step, polyak_update
from o2o_jax.types import Annotated, Array, Metrics, Params, Spec, Transition, counter


class Networks(NamedTuple):
    """Modules and optimisers: everything static that the updates need."""

    actor: networks.Actor
    critic: networks.Critics | networks.HistogramCritics
    drawn_critics: networks.QNetwork  # as many as a target takes
    actor_optimizer: optax.GradientTransformation
    critic_optimizer: optax.GradientTransformation
    spec: Spec


@flax.struct.dataclass
class OptStates:
    """One optimiser state per trained part."""

    actor: Any
    critic: Any


@flax.struct.dataclass
class State:
    """Arrays only: vmaps over seeds, saves as it is.

    Attributes:
      actor: π, whose actions are improved.
      critic: parameters with a leading axis E.
      target_critic: the same for Q̄.
      opt: optimiser states.
      transform: of observations and rewards, constant.
      step: [] int32, updates so far.
    """

    actor: Params
    critic: Params
    target_critic: Params
    opt: OptStates
    transform: Transform
    step: Array = counter()


def make_networks(config: Config, spec: Spec) -> Networks:
    """Makes modules and optimisers for a configuration and the sizes of an environment."""
    sizes = config.networks

    def critics(number: int) -> networks.Critics | networks.HistogramCritics:
        found = networks.Critics(sizes.critic_hidden, True, number, "scaled_orthogonal", sizes.num_bins)
        histogram = sizes.num_bins > 1
        return networks.HistogramCritics(found, sizes.value_low, sizes.value_high) if histogram else found

    return Networks(
        actor=networks.HEADS[sizes.head](spec.action_dim, sizes.hidden),
        critic=critics(sizes.num_critics),
        drawn_critics=critics(sizes.num_target_critics),
        actor_optimizer=optax.adam(config.update.actor_lr),
        critic_optimizer=optax.adam(config.update.critic_lr),
        spec=spec,
    )


def init(nets: Networks, config: Config, key: Array, handoff: Handoff | None = None) -> State:
    """Makes the state before the first update: the offline policy and random critics.

    Args:
      nets: of `make_networks`.
      config: settings.
      key: initialises the networks.
      handoff: with a policy of `networks.head`; None for a random one.

    Raises:
      ValueError: the policy's head or its sizes differ.
    """
    actor_key, critic_key = jax.random.split(key)
    observation, action = jnp.zeros((1, nets.spec.observation_dim)), jnp.zeros((1, nets.spec.action_dim))
    actor = common.offline_actor(handoff, nets.actor.init(actor_key, observation), nets.actor.head)
    critic = nets.critic.init(critic_key, observation, action)
    return State(
        actor=actor,
        critic=critic,
        target_critic=critic,
        opt=fresh_moments(nets, actor, critic),
        transform=common.initial_transform(config.update, handoff, nets.spec.observation_dim),
        step=jnp.zeros((), jnp.int32),
    )


def fresh_moments(nets: Networks, actor: Params, critic: Params) -> OptStates:
    """Returns optimiser states before the first step, of parameters shaped like the actor's and the critics'."""
    return OptStates(actor=nets.actor_optimizer.init(actor), critic=nets.critic_optimizer.init(critic))


def begin(nets: Networks, state: State, accept: Array) -> State:
    """Counts updates from the first environment step, with fresh moments of Adam; no policy is to be accepted."""
    del accept
    opt = fresh_moments(nets, state.actor, state.critic)
    return state.replace(opt=opt, step=jnp.zeros_like(state.step))


def policy(nets: Networks, config: Config, state: State) -> OptimizedPolicy:
    """Returns the policy as it acts: the best of the actor's actions, improved by the critics."""
    base = Policy(state.actor, state.transform.normalizer, nets.actor)
    return OptimizedPolicy(base, state.critic, nets.critic, config.optimization.rule)


def act(nets: Networks, config: Config, state: State, observation: Array, key: Array) -> Array:
    """Returns an improved action [A] in [-1, 1] at a raw observation [O]; `key` draws what it is improved from."""
    return policy(nets, config, state).best(observation[None], key)[0]


def evaluate(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """Steps the critics alone, towards the values of the improved actions of a policy that stays as it is.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B], annotated with `data.returns.ReturnsToGo` where there is a penalty.
      key: of `critic_step`.

    Returns:
      The state with `step` advanced, and metrics.
    """
    state, metrics = critic_step(nets, config, state, batch, key)
    return state.replace(step=state.step + 1), metrics


def finetune(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """Steps the policy, then the critics, which see the policy just stepped.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B], annotated with `data.returns.ReturnsToGo` where there is a penalty.
      key: of `imitation_step` and `critic_step`.

    Returns:
      The state with `step` advanced, and metrics.

    Source: Mark et al. (arXiv:2412.06685), and its authors' code, whose order this is.
    """
    actor_key, critic_key = jax.random.split(key)
    state, metrics = imitation_step(nets, config, state, batch, actor_key)
    state, critic_metrics = evaluate(nets, config, state, batch, critic_key)
    return state, metrics | critic_metrics


def imitation_step(
    nets: Networks, config: Config, state: State, batch: Transition, key: Array
) -> tuple[State, Metrics]:
    """Steps the policy towards an improved action, drawn by value from its own ones and the batch's.

        −mean log π(â|s),   P(â = a_k) ∝ exp Q(s, a_k)

    No gradient passes from the critics to the policy.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the step.
      batch: raw transitions [B].
      key: draws what the policy proposes, and what it imitates.

    Returns:
      The state with the actor moved, and metrics; `candidate_q` is the mean value of what it may imitate.

    Source: Mark et al. (arXiv:2412.06685), the authors' code.
    """
    sample_key, draw_key, entropy_key = jax.random.split(key, 3)
    optimized = policy(nets, config, state)
    candidates, value = optimized.candidates(batch.observation, sample_key, batch.action)
    action = drawn_action(candidates, value, draw_key)
    (loss, (_, metrics)), gradient = jax.value_and_grad(likelihood_loss, has_aux=True)(
        state.actor, optimized.base, batch.observation, action, action, entropy_key, jnp.zeros(())
    )
    actor, actor_opt = gradient_step(nets.actor_optimizer, gradient, state.opt.actor, state.actor)
    named = {"actor_loss": loss, "candidate_q": jnp.mean(value)}
    return state.replace(actor=actor, opt=state.opt.replace(actor=actor_opt)), metrics | named


def critic_step(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """Steps the critics, and the targets that follow.

        y = r + γ (1 − d) min_{i∈Z} Q̄_i(s', a*'),   a*' the best improved action,   Z ⊂ {1 … E}

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the step.
      batch: raw transitions [B]; where they are annotated with `data.returns.ReturnsToGo`, these are the floor under
        the values that the penalty lowers.
      key: draws what the policy proposes at s' and s, the uniform actions, and the critics of the target.

    Returns:
      The state with critics and targets moved, and metrics.

    Source: Mark et al. (arXiv:2412.06685), and its authors' code.
    """
    next_key, subset_key, probe_key = jax.random.split(key, 3)
    optimized, update, rows = policy(nets, config, state), config.update, state.transform(batch)
    next_action = optimized.best(batch.next_observation, next_key)
    drawn = draw_critics(state.target_critic, subset_key, config.networks.num_target_critics)
    value = lowest_value(drawn, nets.drawn_critics, rows.next_observation, next_action)
    target = td_target(rows.reward, rows.terminated, value, update.discount)
    probes = None
    if update.conservative_weight:
        probes = make_probes(optimized, batch, next_action, update.num_actions, probe_key)
    (_, metrics), gradient = jax.value_and_grad(losses.critic_loss, has_aux=True)(
        state.critic, nets.critic, rows.observation, rows.action, target, probes, update.conservative_weight
    )
    critic, critic_opt = gradient_step(nets.critic_optimizer, gradient, state.opt.critic, state.critic)
    state = state.replace(
        critic=critic,
        target_critic=polyak_update(critic, state.target_critic, update.polyak),
        opt=state.opt.replace(critic=critic_opt),
    )
    return state, metrics


def make_probes(
    optimized: OptimizedPolicy, batch: Transition, next_action: Array, num_actions: int, key: Array
) -> losses.Probes:
    """Returns uniform actions, and the improved ones of s and of s', each of which counts as often as all uniform ones.

    Args:
      optimized: the policy as it acts.
      batch: raw transitions [B]; what they are annotated with is the floor under the improved actions.
      next_action: [B, A] improved action of s'.
      num_actions: n uniform ones.
      key: draws these, and what the policy proposes at s.

    Returns:
      n + 2 actions per state.
    """
    uniform_key, sample_key = jax.random.split(key)
    size, action_dim = batch.action.shape
    uniform = jax.random.uniform(uniform_key, (size, num_actions, action_dim), minval=-1.0, maxval=1.0)
    improved = jnp.stack([next_action, optimized.best(batch.observation, sample_key)], axis=1)
    copies = jnp.array([1.0] * num_actions + [float(num_actions)] * 2)
    unbounded = jnp.full(size, -jnp.inf)
    returns = batch.extras.shared.value if isinstance(batch, Annotated) else unbounded
    floor = jnp.stack([unbounded] * num_actions + [returns] * 2, axis=1)
    return losses.Probes(
        jnp.concatenate([uniform, improved], axis=1), jnp.broadcast_to(copies, (size, num_actions + 2)), floor
    )


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets, update = make_networks(config, spec), config.update
    annotate, rule = None, config.replay.rule(config.env_steps, update.batch_size)
    if update.conservative_weight:
        returns = RecordedReturns(update.discount, update.reward_scale, update.reward_shift, update.failure_reward)
        annotate, rule = (
            functools.partial(prepare, returns),
            replay.with_returns(rule, returns, config.schedule.num_envs),
        )
    training = Phase(
        "critics",
        functools.partial(evaluate, nets, config),
        config.critics.updates,
        update.batch_size,
        annotate,
        show=("critic_loss", "q"),
    )
    return Algorithm(
        name="pa_rl",
        init=functools.partial(init, nets, config),
        phases=(training,) if config.critics.updates else (),
        policy=functools.partial(policy, nets, config),
        critic=functools.partial(QFunction.of, network=nets.critic, discount=update.discount),
        requires=Requires(config.networks.head),
        online=Online(
            schedule=config.interaction.rule(config.schedule.num_envs),
            begin=functools.partial(begin, nets),
            act=common.memoryless(functools.partial(act, nets, config)),
            update=functools.partial(finetune, nets, config),
            replay=rule,
            prepare=annotate,
        ),
    )
