"""Any environment that is registered with gymnasium: its tasks are made on demand, from the environment's id."""

from o2o_jax.envs.gym.behaviour import behaviours
from o2o_jax.envs.gym.tasks import make_task, tasks
from o2o_jax.envs.registered import load_dataset, make_env, make_vector_env

__all__ = ["behaviours", "load_dataset", "make_env", "make_task", "make_vector_env", "tasks"]
