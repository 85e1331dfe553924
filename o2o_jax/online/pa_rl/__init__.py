"""PA-RL: actions of any policy are improved by critics, acted on, backed up, and imitated by the policy."""

from o2o_jax.online.pa_rl.algorithm import State, make
from o2o_jax.online.pa_rl.config import Config, Critics, Networks, Optimization, Update
from o2o_jax.online.pa_rl.cost import operations

__all__ = ["Config", "Critics", "Networks", "Optimization", "State", "Update", "make", "operations"]
