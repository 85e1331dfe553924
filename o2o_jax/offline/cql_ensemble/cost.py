"""Floating-point operations of an ensemble's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.offline import cql
from o2o_jax.operations import Count
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts an update of every agent."""
    return {"update": Count(config.num_agents * cql.operations(config, spec)["update"].executed)}
