"""An ensemble of CQL agents: each learns as if it were alone, and all act as one policy."""

import functools
from typing import Any

import jax

from o2o_jax import making, networks
from o2o_jax.critic import QFunction
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Algorithm, Phase
from o2o_jax.offline import cql
from o2o_jax.offline.cql import State
from o2o_jax.offline.cql.algorithm import Networks, make_networks
from o2o_jax.offline.cql_ensemble.config import Config
from o2o_jax.policy import Policy
from o2o_jax.types import Array, Metrics, Params, Spec, Transition


def agent_axes(state: State) -> Any:
    """Returns the axis of every leaf that counts agents: 0, or None for what they share, transform and step."""
    return jax.tree.map(lambda _: 0, state).replace(transform=None, step=None)


def init(nets: Networks, config: Config, key: Array, normalizer: Normalizer) -> State:
    """Makes the state before the first update: N random agents.

    Args:
      nets: of `cql.algorithm.make_networks`.
      config: settings.
      key: initialises the networks.
      normalizer: of the dataset's observations [..., O].

    Returns:
      CQL's state, leaves [N, ...] but for the transform and `step` [].
    """

    def one(key: Array) -> State:
        return cql.algorithm.init(nets, config, key, normalizer)

    keys = jax.random.split(key, config.num_agents)
    return jax.vmap(one, out_axes=agent_axes(jax.eval_shape(one, keys[0])))(keys)


def update(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """Updates every agent on rows of its own.

    Args:
      nets: of `cql.algorithm.make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [N B], B for each agent.
      key: draws all that the agents draw.

    Returns:
      The state with `step` advanced, and metrics, [] each, means over agents.
    """
    parts = jax.tree.map(lambda column: column.reshape(config.num_agents, -1, *column.shape[1:]), batch)
    axes = agent_axes(state)
    each = jax.vmap(functools.partial(cql.algorithm.update, nets, config), in_axes=(axes, 0, 0), out_axes=(axes, 0))
    state, metrics = each(state, parts, jax.random.split(key, config.num_agents))
    return state, jax.tree.map(lambda values: values.mean(), metrics)


def mixture(nets: Networks, config: Config) -> networks.MixtureActor:
    """Returns the network of all actors as one: observations [..., O] to a squashed normal over actions [..., A]."""
    own = nets.actor
    return networks.MixtureActor(own.action_dim, own.hidden, own.layer_init, own.layer_norm, config.num_agents)


def policy(nets: Networks, config: Config, state: State) -> Policy:
    """Returns the mixture of all actors: raw observations [..., O] to actions [..., A]."""
    network = mixture(nets, config)
    return Policy(network.of(state.actor), state.transform.normalizer, network)


def all_critics(critic: Params) -> Params:
    """Returns the critics of all agents [N, E, ...] as one ensemble [N E, ...], one agent's after the other's."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), critic)


def critic(nets: Networks, config: Config, state: State) -> QFunction:
    """Returns the critics of all agents, of which the lowest value counts."""
    network = nets.critic.clone(num_critics=config.num_agents * config.num_critics)
    return QFunction.of(state.replace(critic=all_critics(state.critic)), network, config.discount)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets = make_networks(config, spec)
    batch_size = config.num_agents * config.batch_size
    return Algorithm(
        name="cql_ensemble",
        init=functools.partial(init, nets, config),
        phases=(Phase("offline", functools.partial(update, nets, config), config.updates, batch_size),),
        policy=functools.partial(policy, nets, config),
        critic=functools.partial(critic, nets, config),
    )
