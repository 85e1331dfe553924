"""PPO: O2PPO without its auxiliary advantage, the control of every comparison."""

from o2o_jax.online.o2ppo.algorithm import State, make
from o2o_jax.online.o2ppo.cost import operations
from o2o_jax.online.ppo.config import Config

__all__ = ["Config", "State", "make", "operations"]
