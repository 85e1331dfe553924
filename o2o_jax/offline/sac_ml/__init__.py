"""SAC+ML: soft actor-critic with maximum likelihood, and functions Z of the state that ACA makes its critics of."""

from o2o_jax.offline.sac_ml.algorithm import State, make
from o2o_jax.offline.sac_ml.config import Config
from o2o_jax.offline.sac_ml.cost import operations

__all__ = ["Config", "State", "make", "operations"]
