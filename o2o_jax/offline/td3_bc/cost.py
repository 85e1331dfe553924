"""Floating-point operations of TD3+BC's updates, see `o2o_jax.operations`."""

import dataclasses
from typing import Any

from o2o_jax.operations import Count, actor_of, critics_of
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts the operations per update of TD3+BC, as a mean over updates with and without the actor."""
    rows, actions = config.batch_size, spec.action_dim
    actor, critic = actor_of(config, spec, actions), critics_of(config, spec, 2)
    first = dataclasses.replace(critic, copies=1)
    delayed = actor.step(rows) + first.forward(rows) + first.input_gradient(rows, actions)
    every = actor.forward(rows) + critic.forward(rows) + critic.step(rows)
    return {"update": Count(every + delayed / config.policy_delay)}
