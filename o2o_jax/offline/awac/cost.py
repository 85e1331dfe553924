"""Floating-point operations of AWAC's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.operations import Count, actor_of, critics_of
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts the operations per update of AWAC; the advantage asks the new critics at two actions per state."""
    rows = config.batch_size
    actor, critic = actor_of(config, spec, spec.action_dim), critics_of(config, spec, 2)
    targets = actor.forward(rows) + critic.forward(rows)
    return {"update": Count(targets + critic.step(rows) + critic.forward(2 * rows) + actor.step(rows))}
