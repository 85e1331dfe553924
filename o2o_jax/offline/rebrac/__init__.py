"""ReBRAC: TD3+BC with its penalty in the critics' targets too, each with a weight of its own."""

from o2o_jax.offline.rebrac.algorithm import State, make
from o2o_jax.offline.rebrac.config import Config
from o2o_jax.offline.rebrac.cost import operations

__all__ = ["Config", "State", "make", "operations"]
