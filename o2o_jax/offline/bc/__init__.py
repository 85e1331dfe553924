"""Behaviour cloning: the policy that made the data, or the best of its episodes."""

from o2o_jax.offline.bc.algorithm import State, make
from o2o_jax.offline.bc.config import Config
from o2o_jax.offline.bc.cost import operations

__all__ = ["Config", "State", "make", "operations"]
