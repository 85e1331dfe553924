"""CQL: soft actor-critic with conservative critics, the source policy of O2SAC."""

from o2o_jax.offline.cql.algorithm import State, make
from o2o_jax.offline.cql.config import Config
from o2o_jax.offline.cql.cost import operations

__all__ = ["Config", "State", "make", "operations"]
