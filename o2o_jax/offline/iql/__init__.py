"""IQL: expectile values and weighted cloning, the source policy of O2PPO."""

from o2o_jax.offline.iql.algorithm import State, make
from o2o_jax.offline.iql.config import Config

__all__ = ["Config", "State", "make"]
