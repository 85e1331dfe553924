"""Soft actor-critic: O2SAC without reconstruction and without constraint, the control of every comparison."""

from o2o_jax import making
from o2o_jax.interfaces import Algorithm
from o2o_jax.online import o2sac
from o2o_jax.online.o2sac import State
from o2o_jax.online.sac.config import Config
from o2o_jax.operations import Count
from o2o_jax.types import Spec

__all__ = ["Config", "State", "make", "operations"]


def operations(config: Config, spec: Spec) -> dict[str, Count]:
    """Operations per update, those of `online.o2sac` without what is switched off."""
    return o2sac.operations(config.of_o2sac(), spec)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings as `online.o2sac` does."""
    return o2sac.make(config.of_o2sac(), spec)._replace(name="sac")
