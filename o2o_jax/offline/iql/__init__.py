"""IQL: expectile values and weighted cloning, the source policy of O2PPO."""

from o2o_jax.offline.iql.algorithm import State, make
from o2o_jax.offline.iql.config import Config
from o2o_jax.offline.iql.cost import operations

__all__ = ["Config", "State", "make", "operations"]
