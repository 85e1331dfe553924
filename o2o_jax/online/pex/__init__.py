"""PEX: IQL's values go on, its policy is kept, and a new one beside it learns; a softmax of Q chooses."""

from o2o_jax.online.pex.algorithm import State, make
from o2o_jax.online.pex.config import Config, Expansion, Update
from o2o_jax.online.pex.cost import operations

__all__ = ["Config", "Expansion", "State", "Update", "make", "operations"]
