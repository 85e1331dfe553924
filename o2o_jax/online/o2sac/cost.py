"""Floating-point operations of O2SAC's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.operations import Count, actor_of, critics_of, reconstruction
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Operations per update of O2SAC's phases."""
    rows, actions = config.update.batch_size, spec.action_dim
    actor, critic = (
        actor_of(config.networks, spec, 2 * actions),
        critics_of(config.networks, spec, config.networks.num_critics),
    )
    # the probes of alignment are of the distribution that the actor's loss asks: one forward pass
    actor_step = actor.step(rows) + critic.forward(rows) + critic.input_gradient(rows, actions)
    finetune = actor_step + actor.forward(rows) + critic.forward(rows) + critic.step(rows)
    if config.constraint:
        finetune += 2 * actor.forward(rows)  # π_ref at s and s': it changes, and half of the rows are fresh
    return reconstruction(config, actor, critic, actor_step) | {"finetune": Count(finetune)}
