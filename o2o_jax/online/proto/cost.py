"""Floating-point operations of PROTO's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.operations import Count, actor_of, critics_of
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts a soft actor-critic's update, with π_k at s, and at s' where targets contain it."""
    rows, actions, sizes = config.update.batch_size, spec.action_dim, config.networks
    actor = actor_of(sizes, spec, 2 * actions)
    critic, drawn = (critics_of(sizes, spec, number) for number in (sizes.num_critics, sizes.num_target_critics))
    actor_step = actor.step(rows) + critic.forward(rows) + critic.input_gradient(rows, actions)
    critic_step = actor.forward(rows) + drawn.forward(rows) + critic.step(rows)
    followed = actor.forward(rows) * (2 if config.update.backup_entropy else 1)
    return {"finetune": Count(critic_step + actor_step + followed)}
