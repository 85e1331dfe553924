"""Floating-point operations of SAC+ML's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.operations import Count, Network, actor_of, critics_of
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts the operations per update of SAC+ML; Z has no targets of its own, and log π at s is that of the actor."""
    rows, actions = config.batch_size, spec.action_dim
    actor = actor_of(config, spec, 2 * actions if config.head == "tanh_gaussian" else actions)
    critic = critics_of(config, spec, 2)
    baseline = Network(spec.observation_dim, config.critic_hidden, 1, 2)
    actor_step = actor.step(rows) + critic.forward(rows) + critic.input_gradient(rows, actions)
    targets = actor.forward(rows) + critic.forward(rows) + baseline.forward(rows)
    return {"update": Count(actor_step + targets + critic.step(rows) + baseline.step(rows))}
