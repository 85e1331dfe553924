"""Decision transformer: likelihood of the data's actions given the return that followed, and an entropy floor."""

import functools
import math
from typing import Any, NamedTuple, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax import making, networks
from o2o_jax.data import history as histories
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Algorithm, Phase
from o2o_jax.offline.dt import losses
from o2o_jax.offline.dt.config import Config
from o2o_jax.ops.advantage import discounted_returns, steps_from_start, steps_to_end
from o2o_jax.policy import SequencePolicy
from o2o_jax.training import gradient_step
from o2o_jax.types import Annotated, Array, Extras, History, Metrics, Params, Rollout, Spec, counter, expect


class Networks(NamedTuple):
    """Modules and optimisers: everything static that the updates need.

    Attributes:
      actor: of π, histories [..., K] to a squashed normal over actions [..., K, A].
      actor_optimizer: of `State.actor`.
      temperature_optimizer: of `State.log_temperature`.
      spec: O and A.
    """

    actor: networks.DecisionTransformer
    actor_optimizer: optax.GradientTransformation
    temperature_optimizer: optax.GradientTransformation
    spec: Spec


@flax.struct.dataclass
class OptStates:
    """One optimiser state per trained part. The actor's counts its updates, by which its learning rate rises.

    Attributes:
      actor: of `State.actor`.
      temperature: of `State.log_temperature`.
    """

    actor: Any
    temperature: Any


@flax.struct.dataclass
class State:
    """Arrays only: vmaps over seeds, saves as it is.

    Attributes:
      actor: parameters of π.
      log_temperature: [] log τ, so that τ > 0.
      target_return: [] what an evaluated episode is asked for, raw; 0 until `prepare` has seen the data.
      opt: optimiser states.
      normalizer: of observations, constant.
      step: [] int32, updates so far.
    """

    actor: Params
    log_temperature: Array
    target_return: Array
    opt: OptStates
    normalizer: Normalizer
    step: Array = counter()


StateT = TypeVar("StateT", bound=State)  # or that of a method that adds to it


def make_networks(config: Config, spec: Spec) -> Networks:
    """Makes modules and optimisers for a configuration and the sizes of an environment."""
    return Networks(
        actor=networks.DecisionTransformer(spec.action_dim, config.width, config.layers, config.heads, config.dropout),
        actor_optimizer=optax.chain(
            optax.clip_by_global_norm(config.max_gradient_norm),
            optax.lamb(warmup(config.lr, config.warmup_updates), eps=1e-8, weight_decay=config.weight_decay),
        ),
        temperature_optimizer=optax.adam(config.temperature_lr),
        spec=spec,
    )


def warmup(lr: float, updates: int) -> optax.Schedule:
    """Returns the learning rate by updates done, n from 0: lr · min((n + 1) / updates, 1)."""
    return lambda count: lr * jnp.minimum((count + 1) / updates, 1.0)


def init(nets: Networks, config: Config, key: Array, normalizer: Normalizer) -> State:
    """Makes the state before the first update: a random network.

    Args:
      nets: of `make_networks`.
      config: settings.
      key: initialises the network.
      normalizer: of the dataset's observations [..., O].

    Returns:
      The state of one seed, its `step` [] at 0.
    """
    actor = nets.actor.init(key, histories.padding(nets.spec, 1, config.context))
    log_temperature = jnp.asarray(math.log(config.temperature_start), jnp.float32)
    return State(
        actor=actor,
        log_temperature=log_temperature,
        target_return=jnp.zeros(()),
        opt=OptStates(nets.actor_optimizer.init(actor), nets.temperature_optimizer.init(log_temperature)),
        normalizer=normalizer,
        step=jnp.zeros((), jnp.int32),
    )


def prepare(config: Config, state: StateT, dataset: Rollout) -> tuple[StateT, Extras]:
    """Writes down what every row's future holds, and settles what an evaluated episode is asked for.

    Args:
      config: settings.
      state: before or within training.
      dataset: [N] in order.

    Returns:
      The state with `target_return`; extras that seeds share: the return to go, undiscounted, and how many steps the
      episode continues, this one among them; both [N].
    """
    to_go = discounted_returns(dataset.reward, dataset.ended, 1.0)
    _, remaining = steps_to_end(dataset.ended)
    if config.target_return is None:
        first, _ = steps_from_start(dataset.ended)
        target = jnp.max(to_go[first])
    else:
        target = jnp.asarray(config.target_return, jnp.float32)
    return state.replace(target_return=target), Extras(shared={"return_to_go": to_go, "remaining": remaining})


def sample(config: Config, dataset: Annotated, key: Array, batch_size: int) -> History:
    """Draws histories [B, K]: an episode in proportion to its length, and in it a first step uniformly.

    Both together draw the first step uniformly among all rows. A history that would outlast its episode is shorter and
    has padding in front.
    """
    expect(dataset, Annotated, "dataset", "pass Annotated.of(rollout, extras) of what the phase's prepare returns")
    extras = dataset.extras.shared
    first = jax.random.randint(key, (batch_size,), 0, dataset.reward.shape[0])
    columns = histories.columns(dataset, extras["return_to_go"])
    return histories.following(columns, first, extras["remaining"][first], config.context)


def update(nets: Networks, config: Config, state: StateT, batch: History, key: Array) -> tuple[StateT, Metrics]:
    """Updates the network and the temperature; both gradients at the old parameters.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw histories [B, K] with the returns to go that followed.
      key: of the dropout and the sampled actions.

    Returns:
      The state with `step` advanced, and metrics, [] each.
    """
    history = histories.normalize(batch, state.normalizer, config.return_scale)
    temperature = jnp.exp(state.log_temperature)
    (loss, (entropy, metrics)), gradient = jax.value_and_grad(losses.sequence_loss, has_aux=True)(
        state.actor, nets.actor, history, key, temperature
    )
    temperature_gradient = jax.grad(losses.temperature_loss)(
        state.log_temperature, entropy, -float(nets.spec.action_dim)
    )
    actor, actor_opt = gradient_step(nets.actor_optimizer, gradient, state.opt.actor, state.actor)
    log_temperature, temperature_opt = gradient_step(
        nets.temperature_optimizer, temperature_gradient, state.opt.temperature, state.log_temperature
    )
    state = state.replace(
        actor=actor,
        log_temperature=log_temperature,
        opt=OptStates(actor_opt, temperature_opt),
        step=state.step + 1,
    )
    return state, metrics | {"actor_loss": loss, "temperature": temperature}


def policy(nets: Networks, config: Config, state: State) -> SequencePolicy:
    """Returns the current actor, which acts on histories [..., K], with its normaliser and what it asks for."""
    return SequencePolicy(
        state.actor, state.normalizer, state.target_return, nets.actor, config.return_scale, config.eval_context
    )


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets = make_networks(config, spec)
    training = Phase(
        "offline",
        functools.partial(update, nets, config),
        config.updates,
        config.batch_size,
        prepare=functools.partial(prepare, config),
        sample=functools.partial(sample, config),
    )
    return Algorithm(
        name="dt",
        init=functools.partial(init, nets, config),
        phases=(training,),
        policy=functools.partial(policy, nets, config),
    )
