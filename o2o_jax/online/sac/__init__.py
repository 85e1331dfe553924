"""Soft actor-critic: O2SAC without reconstruction and without constraint, the control of every comparison."""

from o2o_jax.interfaces import Algorithm
from o2o_jax.online import o2sac
from o2o_jax.online.o2sac import State, operations
from o2o_jax.online.sac.config import Config
from o2o_jax.types import Spec

__all__ = ["Config", "State", "make", "operations"]


def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings as `online.o2sac` does."""
    return o2sac.make(config, spec)._replace(name="sac")
