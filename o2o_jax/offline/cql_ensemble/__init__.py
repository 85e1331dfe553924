"""CQL, several agents side by side that act as one mixture: the offline half of Off2On."""

from o2o_jax.offline.cql_ensemble.algorithm import State, make
from o2o_jax.offline.cql_ensemble.config import Config
from o2o_jax.offline.cql_ensemble.cost import operations

__all__ = ["Config", "State", "make", "operations"]
