"""Floating-point operations of behaviour cloning's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.operations import Count, cloning
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts the operations per update of behaviour cloning."""
    return {"update": cloning(config, spec, config.head)}
