"""O2PPO: section 4 on proximal policy optimisation, with an auxiliary advantage in place of alignment."""

from o2o_jax.online.o2ppo.algorithm import State, make
from o2o_jax.online.o2ppo.config import Auxiliary, Config, Finetuning, Networks, Reevaluation, Rollouts, Update
from o2o_jax.online.o2ppo.cost import operations

__all__ = [
    "Auxiliary",
    "Config",
    "Finetuning",
    "Networks",
    "Reevaluation",
    "Rollouts",
    "State",
    "Update",
    "make",
    "operations",
]
