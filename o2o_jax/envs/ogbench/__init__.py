"""OGBench's single tasks: mazes, a ball and an arm that moves cubes, drawers and buttons."""

from o2o_jax.envs.ogbench.behaviour import behaviours, benchmark
from o2o_jax.envs.ogbench.datasets import load_dataset
from o2o_jax.envs.ogbench.environments import make_collection_env, make_env, make_vector_env
from o2o_jax.envs.ogbench.tasks import tasks

__all__ = ["behaviours", "benchmark", "load_dataset", "make_collection_env", "make_env", "make_vector_env", "tasks"]
