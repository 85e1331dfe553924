"""O2TD3: sections 4.1 to 4.3 on twin delayed deterministic policy gradients."""

from o2o_jax.online.o2td3.algorithm import State, make
from o2o_jax.online.o2td3.config import Alignment, Config, Constraint, Finetuning, Smoothing
from o2o_jax.online.o2td3.cost import operations

__all__ = [
    "Alignment",
    "Config",
    "Constraint",
    "Finetuning",
    "Smoothing",
    "State",
    "make",
    "operations",
]
