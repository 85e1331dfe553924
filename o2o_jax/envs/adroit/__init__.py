"""Adroit, a hand with 24 joints, at four tasks, with the datasets that Minari has of them."""

from o2o_jax.envs.adroit.behaviour import behaviours
from o2o_jax.envs.adroit.environments import make_env, make_vector_env
from o2o_jax.envs.adroit.tasks import tasks
from o2o_jax.envs.registered import load_dataset

THREAD_SAFE = True

__all__ = ["THREAD_SAFE", "behaviours", "load_dataset", "make_env", "make_vector_env", "tasks"]
