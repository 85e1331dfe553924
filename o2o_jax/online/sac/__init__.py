"""Soft actor-critic: O2SAC without reconstruction and without constraint, the control of every comparison."""

from o2o_jax.online.o2sac.algorithm import State, make
from o2o_jax.online.o2sac.cost import operations
from o2o_jax.online.sac.config import Config

__all__ = ["Config", "State", "make", "operations"]
