"""Online DT: the decision transformer goes on, on whole episodes of its own and on the data's best."""

from o2o_jax.online.odt.algorithm import State, make
from o2o_jax.online.odt.config import Config, Interaction, Replay

__all__ = ["Config", "Interaction", "Replay", "State", "make"]
