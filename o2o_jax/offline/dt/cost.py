"""Floating-point operations of the decision transformer's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.operations import Count, Transformer
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts what an update costs: one gradient step on histories."""
    inputs = 1 + spec.observation_dim + spec.action_dim
    network = Transformer(inputs, config.width, config.layers, 2 * spec.action_dim, config.context)
    return {"update": Count(network.step(config.batch_size))}
