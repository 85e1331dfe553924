"""Floating-point operations of IQL's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.operations import Count, Network, actor_of, critics_of
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts the operations per update of IQL."""
    rows = config.batch_size
    actor, critic = actor_of(config, spec, spec.action_dim), critics_of(config, spec, 2)
    value = Network(spec.observation_dim, config.critic_hidden, 1)
    values = value.step(rows) + value.forward(rows)  # at s and s'
    return {"update": Count(values + critic.forward(rows) + critic.step(rows) + actor.step(rows))}
