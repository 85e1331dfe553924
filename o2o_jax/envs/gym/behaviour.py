"""Behaviour of datasets of environments that nothing else is known of."""

from o2o_jax.envs.behaviour import Behaviour, uniform
from o2o_jax.interfaces import Task


def behaviours(task: Task) -> list[Behaviour]:
    """Returns uniform actions, whatever the task."""
    del task
    return [uniform()]
