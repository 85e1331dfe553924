"""Floating-point operations of ReBRAC's updates, see `o2o_jax.operations`."""

from typing import Any

from o2o_jax.offline.td3_bc.cost import twin_delayed
from o2o_jax.operations import Count, critics_of
from o2o_jax.types import Spec


def operations(config: Any, spec: Spec) -> dict[str, Count]:
    """Counts the operations per update of ReBRAC, whose actor asks both critics."""
    return {"update": twin_delayed(config, spec, critics_of(config, spec, 2))}
