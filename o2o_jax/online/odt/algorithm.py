"""Online DT: the decision transformer goes on, on whole episodes of its own and on the data's best."""

import functools

import flax.struct
import jax.numpy as jnp

from o2o_jax import making
from o2o_jax.data import history as histories
from o2o_jax.data import replay
from o2o_jax.interfaces import Algorithm, Online, Requires, Schedule
from o2o_jax.offline import dt
from o2o_jax.offline.dt.algorithm import Networks
from o2o_jax.online import continued
from o2o_jax.online.odt.config import Config
from o2o_jax.policy import Handoff, SequencePolicy
from o2o_jax.training import where
from o2o_jax.types import Array, Extras, History, Metrics, Rollout, Spec, per_seed

REQUIRES = Requires(None, state=True, sources=("dt",))


@flax.struct.dataclass(kw_only=True)
class State(dt.State):
    """State of the decision transformer, whose updates a seed counts for itself: they follow its own episodes.

    The other attributes are those of the decision transformer's.

    Attributes:
      step: [] int32, updates so far.
    """

    step: Array = per_seed()


def init(nets: Networks, config: Config, key: Array, handoff: Handoff | None = None) -> State:
    """Makes the state before the first update: all that offline training left, optimisers and temperature included.

    Args:
      nets: of `offline.dt.algorithm.make_networks`.
      config: settings.
      key: initialises what the handoff doesn't bring.
      handoff: of the decision transformer, with its state; None for a random network.

    Raises:
      ValueError: see `continued.init`.
    """
    method = dt.make(config.update, nets.spec)._replace(name="odt")
    return State(**vars(continued.init(config, nets.spec, method, REQUIRES, key, handoff)))


def begin(state: State, accept: Array) -> State:
    """Begins fine-tuning; there is no aligned actor to accept. The rate's warm-up goes on where it was."""
    del accept
    return state.replace(step=jnp.zeros_like(state.step))


def prepare(config: Config, state: State, dataset: Rollout) -> tuple[State, Extras]:
    """Writes down what the data's rows hold, as offline, and the episodes that they are of.

    Args:
      config: settings.
      state: before or within fine-tuning.
      dataset: [N] in order, as the replay rule chose it.

    Returns:
      The state with its `target_return`, and shared extras of the rows, [N] each.
    """
    state, extras = dt.algorithm.prepare(config.update, state, dataset)
    return state, replay.queue_extras(extras, dataset)


def finetune(nets: Networks, config: Config, state: State, batch: History, key: Array) -> tuple[State, Metrics]:
    """Updates the network and the temperature as offline; arguments as of `offline.dt.algorithm.update`.

    The return to go of a history [B, K] is what its episode did receive, not what it was asked for.
    """
    return dt.algorithm.update(nets, config.update, state, batch, key)


def policy(nets: Networks, config: Config, state: State) -> SequencePolicy:
    """Returns the current actor, which acts on histories [..., K] by its modes."""
    return dt.algorithm.policy(nets, config.update, state)


def return_to_explore(target_return: Array, factor: float) -> Array:
    """Raises what an episode is asked for: beyond what the policy knows, where it explores.

        R̂ + (factor − 1) |R̂|,   factor · R̂ where R̂ ≥ 0

    Args:
      target_return: [] R̂ of evaluation, raw.
      factor: 1 for no more than that.

    Returns:
      [] raw return.

    Source: Zheng et al. (arXiv:2202.05607), who double it; a negative one, of which they have none, is this package's.
    """
    return target_return + (factor - 1.0) * jnp.abs(target_return)


def act(
    nets: Networks, config: Config, state: State, memory: History, observation: Array, reward: Array, key: Array
) -> tuple[Array, History]:
    """Draws an action by the episode so far, asked for more than in evaluation.

    Args:
      nets: of `offline.dt.algorithm.make_networks`.
      config: settings.
      state: at the moment.
      memory: [1, C] of the step before; all padding where an episode begins.
      observation: [O] raw.
      reward: [] of the step before, 0 in the first.
      key: draws the action.

    Returns:
      The action [A] in [-1, 1], and the memory [1, C] with this step.
    """
    asked = return_to_explore(state.target_return, config.interaction.return_factor)
    exploring = policy(nets, config, state).replace(target_return=asked)
    begun = memory.valid[0, -1] > 0  # what is asked for depends on the state, which an empty memory doesn't know
    memory = exploring.look(where(begun, memory, exploring.begin(1)), observation[None], reward[None])
    action = exploring.distribution(memory).sample(key)
    return action[0], histories.with_action(memory, action)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets = dt.algorithm.make_networks(config.update, spec)
    update, capacity = config.update, max(1, config.env_steps)
    return Algorithm(
        name="odt",
        init=functools.partial(init, nets, config),
        phases=(),
        policy=functools.partial(policy, nets, config),
        requires=REQUIRES,
        online=Online(
            schedule=Schedule(updates=config.interaction.updates_per_episode, per_episode=True),
            begin=begin,
            act=functools.partial(act, nets, config),
            update=functools.partial(finetune, nets, config),
            replay=replay.episodes(capacity, update.batch_size, update.context, config.replay.max_episodes),
            memory=functools.partial(histories.padding, spec, 1, update.eval_context),
            prepare=functools.partial(prepare, config),
        ),
    )
