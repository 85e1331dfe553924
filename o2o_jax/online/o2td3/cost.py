"""Floating-point operations of O2TD3's updates, see `o2o_jax.operations`."""

import dataclasses
from typing import Any

from o2o_jax.operations import Count, actor_of, critics_of, reconstruction
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Operations per update of O2TD3's phases; fine-tuning's as a mean over updates with and without the actor."""
    rows, actions = config.update.batch_size, spec.action_dim
    actor, critic = (
        actor_of(config.networks, spec, actions),
        critics_of(config.networks, spec, config.networks.num_critics),
    )
    first = dataclasses.replace(critic, copies=1)
    actor_step = actor.step(rows) + first.forward(rows) + first.input_gradient(rows, actions)
    finetune = actor.forward(rows) + critic.forward(rows) + critic.step(rows)
    delayed = actor_step
    if config.constraint:
        finetune += 2 * actor.forward(rows)  # π and π_ref at s', for the penalty of the target
        delayed += actor.forward(rows)  # π_ref at s
    count = Count(finetune + delayed / config.finetune.policy_delay)
    return reconstruction(config, actor, critic, actor_step) | {"finetune": count}
