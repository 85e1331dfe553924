"""Floating-point operations of ACA's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.operations import Count, actor_of, critics_of
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts a soft actor-critic's update, with π_0 at s and s', whose network no gradient goes through."""
    update = config.update
    rows, actions = update.batch_size, spec.action_dim
    actor = actor_of(update, spec, 2 * actions if update.head == "tanh_gaussian" else actions)
    critic = critics_of(update, spec, 2)
    actor_step = actor.step(rows) + critic.forward(rows) + critic.input_gradient(rows, actions)
    critic_step = actor.forward(rows) + critic.forward(rows) + critic.step(rows)
    return {"finetune": Count(critic_step + actor_step + 2 * actor.forward(rows))}
