"""Floating-point operations of PA-RL's updates, see `o2o_jax.operations`."""

import dataclasses
from typing import Any

from o2o_jax.operations import Count, actor_of, critics_of
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts the critics' update with one improvement of actions, or two where there is a penalty, and the policy's."""
    update, sizes, rule = config.update, config.networks, config.optimization
    rows, actions = update.batch_size, spec.action_dim
    actor = actor_of(sizes, spec, 2 * actions if sizes.head == "tanh_gaussian" else actions)
    critic, drawn = (
        dataclasses.replace(critics_of(sizes, spec, copies), outputs=sizes.num_bins)
        for copies in (sizes.num_critics, sizes.num_target_critics)
    )
    moved = rows * rule.kept
    ascent = rule.steps * (critic.forward(moved) + critic.input_gradient(moved, actions)) + critic.forward(moved)
    proposed = critic.forward(rows * rule.samples)
    improved = actor.forward(rows) + proposed + ascent
    critic_step = improved + drawn.forward(rows) + critic.step(rows)
    if update.conservative_weight:
        critic_step += improved + critic.step(rows * (update.num_actions + 2))
    imitation = proposed + ascent + actor.step(rows)  # whose forward pass proposes, too
    counts = {"critics": Count(critic_step)} if config.critics.updates else {}
    return counts | {"finetune": Count(critic_step + imitation)}
