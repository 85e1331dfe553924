"""Behaviour of the datasets: none that could be repeated."""

from o2o_jax.envs.behaviour import Behaviour
from o2o_jax.interfaces import Task


def behaviours(task: Task) -> list[Behaviour]:
    """Refuses: the data comes from people, and from policies that were never published.

    Raises:
      ValueError: always.
    """
    raise ValueError(
        f"{task.name} can't be made here, since people and unpublished policies recorded the data of Adroit: it loads "
        f"from Minari (--dataset=D4RL/{task.robot}/human-v2, …); a dataset of your own takes --policy and --out"
    )
