"""RLPD: soft actor-critic from scratch on half of the data, with a large ensemble and many updates per step."""

from o2o_jax.online.rlpd.algorithm import State, make
from o2o_jax.online.rlpd.config import Config, Interaction, Networks, Update
from o2o_jax.online.rlpd.cost import operations

__all__ = [
    "Config",
    "Interaction",
    "Networks",
    "State",
    "Update",
    "make",
    "operations",
]
