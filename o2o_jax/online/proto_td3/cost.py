"""Floating-point operations of PROTO+TD3's updates, see `o2o_jax.operations`."""

import dataclasses
from typing import Any

from o2o_jax.operations import Count, actor_of, critics_of
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts an update as a mean over those with and without the actor, which asks the first critic alone."""
    rows, actions, sizes, update = config.update.batch_size, spec.action_dim, config.networks, config.update
    actor, critic = actor_of(sizes, spec, actions), critics_of(sizes, spec, sizes.num_critics)
    first, drawn = (dataclasses.replace(critic, copies=number) for number in (1, sizes.num_target_critics))
    # π and π_k at s': one of them alone where targets have neither divergence nor the other's action
    policies = 2 if update.backup_divergence else 1
    every = policies * actor.forward(rows) + drawn.forward(rows) + critic.step(rows)
    delayed = actor.step(rows) + actor.forward(rows) + first.forward(rows) + first.input_gradient(rows, actions)
    return {"finetune": Count(every + delayed / update.policy_delay)}
