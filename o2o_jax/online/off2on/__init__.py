"""Off2On: an ensemble of offline agents goes on as one, on replay balanced by how near to the policy rows are."""

from o2o_jax.online.off2on.algorithm import State, make
from o2o_jax.online.off2on.config import Config, Ratio, Replay
from o2o_jax.online.off2on.cost import operations

__all__ = ["Config", "Ratio", "Replay", "State", "make", "operations"]
