"""Behaviours of the datasets: samples of policies whose weights, small files, ship with the package."""

import importlib.resources
from typing import Any

from o2o_jax import registry
from o2o_jax.envs.behaviour import Behaviour, load_behaviour, replay, sampled, uniform
from o2o_jax.envs.mujoco.tasks import robot_and_quality
from o2o_jax.interfaces import Task
from o2o_jax.policy import Policy

SHIPPED = importlib.resources.files(__package__) / "policies"

# Quality of a dataset: qualities of the policies that made it, in equal shares.
POLICIES = {"medium": ("medium",), "medium-expert": ("medium", "expert"), "expert": ("expert",)}


def behaviours(task: Task) -> list[Behaviour]:
    """Returns the behaviours of the task's dataset, one after the other.

    Policies trained in version 5 act in version 4 too, which differs little.

    Raises:
      ValueError: the task has no dataset of its own.
      FileNotFoundError: a policy isn't shipped; the message lists those that are.
    """
    robot, quality = robot_and_quality(task)
    if not quality:
        raise ValueError(f"{task.name} has no dataset of its own: choose a quality, as in {task.name}-medium")
    if quality == "random":
        return [uniform()]
    if quality == "medium-replay":
        return replay(*shipped(f"{robot}-{quality}"), task)
    parts = POLICIES[quality]
    return [sampled(shipped(f"{robot}-{part}")[0], task, 1 / len(parts), f"sampled {part} policy") for part in parts]


def shipped(name: str) -> tuple[Policy, dict[str, Any]]:
    """Reads the shipped policy of that name, "hopper-medium", and its metadata; snapshots have an axis [K].

    Raises:
      FileNotFoundError: no such policy; the message lists those that there are.
    """
    if name not in shipped_behaviours():
        raise FileNotFoundError(
            f"no behaviour policy {name!r}; shipped: {registry.listed(shipped_behaviours(), 12)}; "
            f"python -m experiments.behaviour --env=mujoco/{name.partition('-')[0]} trains one"
        )
    return load_behaviour(SHIPPED / f"{name}.npz")


def shipped_behaviours() -> list[str]:
    """Lists the names of the shipped policies, sorted."""
    if not SHIPPED.is_dir():
        return []
    return sorted(file.name.removesuffix(".npz") for file in SHIPPED.iterdir() if file.name.endswith(".npz"))
