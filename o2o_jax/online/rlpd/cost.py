"""Floating-point operations of RLPD's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.operations import Count, actor_of, critics_of
from o2o_jax.types import Spec


def steps(config: Any, spec: Spec, rows: int) -> tuple[int, int]:
    """Counts a step of the critics on so many rows, and one of actor and temperature."""
    actions, sizes = spec.action_dim, config.networks
    actor, critic, drawn = (
        actor_of(sizes, spec, 2 * actions),
        critics_of(sizes, spec, sizes.num_critics),
        critics_of(sizes, spec, sizes.num_target_critics),
    )
    actor_step = actor.step(rows) + critic.forward(rows) + critic.input_gradient(rows, actions)
    targets = actor.forward(rows) + drawn.forward(rows * config.update.target_actions)
    return targets + critic.step(rows), actor_step


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Returns what an update costs, as a mean over those with and without the actor: 1/k of an environment step's."""
    critic_step, actor_step = steps(config, spec, config.update.batch_size)
    return {"finetune": Count(critic_step + actor_step / config.interaction.updates_per_env_step)}
