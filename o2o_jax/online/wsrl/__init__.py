"""WSRL: offline critics and policy are kept, the data are not; soft actor-critic with many critic steps."""

from o2o_jax.online.o2sac import State
from o2o_jax.online.wsrl.algorithm import make
from o2o_jax.online.wsrl.config import Config, Networks, Update
from o2o_jax.online.wsrl.cost import operations

__all__ = ["Config", "Networks", "State", "Update", "make", "operations"]
