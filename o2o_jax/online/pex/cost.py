"""Floating-point operations of PEX's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.offline import iql
from o2o_jax.operations import Count, Network, actor_of, critics_of
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts what an update costs: that of IQL, and both policies' actions, their values and the chosen one's."""
    update = config.update
    rows, actor, critic = update.batch_size, actor_of(update, spec, spec.action_dim), critics_of(update, spec, 2)
    value = Network(spec.observation_dim, update.critic_hidden, 1)
    drawn = actor.forward(rows) + critic.forward(2 * rows)  # the new policy's forward pass is in its step
    judged = critic.forward(rows) + value.forward(rows)
    return {"finetune": Count(iql.operations(update, spec)["update"].needed + drawn + judged)}
