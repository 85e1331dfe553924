"""TD3: O2TD3 without reconstruction and without constraint, the control of every comparison."""

from o2o_jax.online.o2td3.algorithm import State, make
from o2o_jax.online.o2td3.cost import operations
from o2o_jax.online.td3.config import Config

__all__ = ["Config", "State", "make", "operations"]
