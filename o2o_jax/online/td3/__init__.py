"""TD3: O2TD3 without reconstruction and without constraint, the control of every comparison."""

from o2o_jax.interfaces import Algorithm
from o2o_jax.online import o2td3
from o2o_jax.online.o2td3 import State, operations
from o2o_jax.online.td3.config import Config
from o2o_jax.types import Spec

__all__ = ["Config", "State", "make", "operations"]


def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings as `online.o2td3` does."""
    return o2td3.make(config, spec)._replace(name="td3")
