"""Cal-QL: CQL whose penalty stops at the data's returns, so that its critics have the scale that online ones need."""

from o2o_jax.offline.cal_ql.algorithm import make, recorded_returns
from o2o_jax.offline.cal_ql.config import Config
from o2o_jax.offline.cql import State, operations

__all__ = ["Config", "State", "make", "operations", "recorded_returns"]
