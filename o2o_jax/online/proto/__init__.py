"""PROTO: soft actor-critic on offline critics, each policy held to a copy of itself that follows slowly."""

from o2o_jax.online.o2sac import State
from o2o_jax.online.proto.algorithm import make
from o2o_jax.online.proto.config import Config, Networks, Proximity, Replay, Update
from o2o_jax.online.proto.cost import operations

__all__ = ["Config", "Networks", "Proximity", "Replay", "State", "Update", "make", "operations"]
