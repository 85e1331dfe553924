"""AWAC: critics of the policy itself, and cloning weighted by their advantage."""

from o2o_jax.offline.awac.algorithm import State, make
from o2o_jax.offline.awac.config import Config
from o2o_jax.offline.awac.cost import operations

__all__ = ["Config", "State", "make", "operations"]
