"""PPO: O2PPO without its auxiliary advantage, the control of every comparison."""

from o2o_jax.interfaces import Algorithm
from o2o_jax.online import o2ppo
from o2o_jax.online.o2ppo import State, operations
from o2o_jax.online.ppo.config import Config
from o2o_jax.types import Spec

__all__ = ["Config", "State", "make", "operations"]


def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings as `online.o2ppo` does."""
    return o2ppo.make(config, spec)._replace(name="ppo")
