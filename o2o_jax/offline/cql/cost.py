"""Floating-point operations of CQL's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.operations import Count, actor_of, critics_of
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts the operations per update of CQL: its critics learn at 1 + 3 n actions per state."""
    rows, actions = config.batch_size, spec.action_dim
    actor, critic = actor_of(config, spec, 2 * actions), critics_of(config, spec, config.num_critics)
    actor_step = actor.step(rows) + critic.forward(rows) + critic.input_gradient(rows, actions)
    drawn = critics_of(config, spec, config.num_target_critics)
    targets = actor.forward(rows) + drawn.forward(rows * config.target_actions)
    return {"update": Count(actor_step + targets + critic.step(rows * (1 + 3 * config.num_actions)))}
