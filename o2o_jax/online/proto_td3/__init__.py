"""PROTO+TD3: TD3 on offline critics, each policy held to its own target, which follows slowly."""

from o2o_jax.online.o2td3 import State
from o2o_jax.online.proto_td3.algorithm import make
from o2o_jax.online.proto_td3.config import Config, Networks, Noise, Update
from o2o_jax.online.proto_td3.cost import operations

__all__ = ["Config", "Networks", "Noise", "State", "Update", "make", "operations"]
