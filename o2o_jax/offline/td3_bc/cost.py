"""Floating-point operations of TD3+BC's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.operations import Count, Network, actor_of, critics_of
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts the operations per update of TD3+BC, whose actor asks the first critic alone."""
    return {"update": twin_delayed(config, spec, critics_of(config, spec, 1))}


def twin_delayed(config: Any, spec: Spec, asked: Network) -> Count:
    """Counts an update of two critics and a delayed actor, as a mean over updates with and without the actor.

    Args:
      config: settings.
      spec: sizes.
      asked: the critics whose values the actor maximises.
    """
    rows, actions = config.batch_size, spec.action_dim
    actor, critic = actor_of(config, spec, actions), critics_of(config, spec, 2)
    delayed = actor.step(rows) + asked.forward(rows) + asked.input_gradient(rows, actions)
    every = actor.forward(rows) + critic.forward(rows) + critic.step(rows)
    return Count(every + delayed / config.policy_delay)
