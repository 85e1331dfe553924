"""Offline algorithms: every folder here is one.

A folder exports `Config` and `make(config, spec) -> interfaces.Algorithm`.
"""

from types import ModuleType

from o2o_jax import registry


def names() -> list[str]:
    """Lists the names of all offline algorithms, sorted."""
    return registry.names(__name__)


def load(name: str) -> ModuleType:
    """Imports the module of an offline algorithm.

    Raises:
      ValueError: unknown name; the message lists the valid ones.
    """
    return registry.load(__name__, name, "offline algorithm")
