"""PPO: O2PPO without its auxiliary advantage, the control of every comparison."""

from o2o_jax import making
from o2o_jax.interfaces import Algorithm
from o2o_jax.online import o2ppo
from o2o_jax.online.o2ppo import State
from o2o_jax.online.ppo.config import Config
from o2o_jax.operations import Count
from o2o_jax.types import Spec

__all__ = ["Config", "State", "make", "operations"]


def operations(config: Config, spec: Spec) -> dict[str, Count]:
    """Operations per update, those of `online.o2ppo` without what is switched off."""
    return o2ppo.operations(config.of_o2ppo(), spec)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings as `online.o2ppo` does."""
    return o2ppo.make(config.of_o2ppo(), spec)._replace(name="ppo")
