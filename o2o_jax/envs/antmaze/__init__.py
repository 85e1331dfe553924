"""An ant in gymnasium-robotics' mazes by D4RL's protocol, and the ant that learns to reach the goals of its data."""

from o2o_jax.envs.antmaze.behaviour import behaviours
from o2o_jax.envs.antmaze.datasets import load_dataset
from o2o_jax.envs.antmaze.environments import make_collection_env, make_env, make_vector_env
from o2o_jax.envs.antmaze.tasks import tasks

THREAD_SAFE = True

__all__ = ["THREAD_SAFE", "behaviours", "load_dataset", "make_collection_env", "make_env", "make_vector_env", "tasks"]
