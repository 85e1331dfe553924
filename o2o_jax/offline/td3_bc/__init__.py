"""TD3+BC: TD3 with a cloning term, the source policy of O2TD3."""

from o2o_jax.offline.td3_bc.algorithm import State, make
from o2o_jax.offline.td3_bc.config import Config
from o2o_jax.offline.td3_bc.cost import operations

__all__ = ["Config", "State", "make", "operations"]
