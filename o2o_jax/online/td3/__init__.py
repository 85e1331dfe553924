"""TD3: O2TD3 without reconstruction and without constraint, the control of every comparison."""

from o2o_jax import making
from o2o_jax.interfaces import Algorithm
from o2o_jax.online import o2td3
from o2o_jax.online.o2td3 import State
from o2o_jax.online.td3.config import Config
from o2o_jax.operations import Count
from o2o_jax.types import Spec

__all__ = ["Config", "State", "make", "operations"]


def operations(config: Config, spec: Spec) -> dict[str, Count]:
    """Operations per update, those of `online.o2td3` without what is switched off."""
    return o2td3.operations(config.of_o2td3(), spec)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings as `online.o2td3` does."""
    return o2td3.make(config.of_o2td3(), spec)._replace(name="td3")
