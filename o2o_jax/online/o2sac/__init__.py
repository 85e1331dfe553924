"""O2SAC: sections 4.1 to 4.3 on soft actor-critic."""

from o2o_jax.online.o2sac.algorithm import State, make
from o2o_jax.online.o2sac.config import Alignment, Config, Constraint, Finetuning, Networks, Update
from o2o_jax.online.o2sac.cost import operations

__all__ = [
    "Alignment",
    "Config",
    "Constraint",
    "Finetuning",
    "Networks",
    "State",
    "Update",
    "make",
    "operations",
]
