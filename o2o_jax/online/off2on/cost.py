"""Floating-point operations of Off2On's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.operations import Count, Network, actor_of, critics_of
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts an update of N actors, of all their critics, and of the network that tells rows apart."""
    update = config.update
    rows, actions, agents = update.batch_size, spec.action_dim, update.num_agents
    actor, critic = actor_of(update, spec, 2 * actions), critics_of(update, spec, agents * update.num_critics)
    ratio = Network(spec.observation_dim + actions, config.ratio.hidden, 1)
    actor_step = agents * actor.step(rows) + critic.forward(rows) + critic.input_gradient(rows, actions)
    critic_step = agents * actor.forward(rows) + critic.forward(rows) + critic.step(rows)
    return {"finetune": Count(actor_step + critic_step + ratio.step(2 * rows) + ratio.forward(rows))}
