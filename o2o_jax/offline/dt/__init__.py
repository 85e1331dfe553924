"""Decision transformer with the stochastic head of Online DT: a model of actions given the return that they led to."""

from o2o_jax.offline.dt.algorithm import State, make
from o2o_jax.offline.dt.config import Config
from o2o_jax.offline.dt.cost import operations

__all__ = ["Config", "State", "make", "operations"]
