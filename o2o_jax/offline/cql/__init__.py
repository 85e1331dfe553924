"""CQL: soft actor-critic with conservative critics, the source policy of O2SAC."""

from o2o_jax.offline.cql.algorithm import State, make
from o2o_jax.offline.cql.config import Config

__all__ = ["Config", "State", "make"]
