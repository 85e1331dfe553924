"""Hopper, HalfCheetah and Walker2d of gymnasium, with datasets made by D4RL's protocol."""

from o2o_jax.envs.mujoco.behaviour import behaviours
from o2o_jax.envs.mujoco.tasks import benchmark, tasks
from o2o_jax.envs.pool import make_pool
from o2o_jax.envs.registered import load_dataset, make_env, make_vector_env

THREAD_SAFE = True

__all__ = [
    "THREAD_SAFE",
    "behaviours",
    "benchmark",
    "load_dataset",
    "make_env",
    "make_pool",
    "make_vector_env",
    "tasks",
]
