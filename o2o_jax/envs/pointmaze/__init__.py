"""A ball in gymnasium-robotics' mazes, with datasets made by D4RL's waypoint controller."""

from o2o_jax.envs.pointmaze.behaviour import behaviours
from o2o_jax.envs.pointmaze.datasets import load_dataset
from o2o_jax.envs.pointmaze.environments import make_collection_env, make_env, make_vector_env
from o2o_jax.envs.pointmaze.tasks import tasks

THREAD_SAFE = True

__all__ = ["THREAD_SAFE", "behaviours", "load_dataset", "make_collection_env", "make_env", "make_vector_env", "tasks"]
