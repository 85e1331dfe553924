"""ACA: critics that are the log-density of the offline policy and what has to be added, so that both agree."""

from o2o_jax.online.aca.algorithm import State, make
from o2o_jax.online.aca.config import Config, Density
from o2o_jax.online.aca.cost import operations

__all__ = ["Config", "Density", "State", "make", "operations"]
