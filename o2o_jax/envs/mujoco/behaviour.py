"""Who makes the datasets: samples of policies whose weights, small files, ship with the package."""

import importlib.resources

from o2o_jax.envs.behaviour import Behaviour, load_behaviour, sampled, uniform
from o2o_jax.envs.mujoco.tasks import robot_and_quality
from o2o_jax.interfaces import Task
from o2o_jax.policy import Policy

SHIPPED = importlib.resources.files(__package__) / "policies"

# Quality of a dataset: qualities of the policies that made it, in equal shares.
POLICIES = {"medium": ("medium",), "medium-expert": ("medium", "expert"), "expert": ("expert",)}
QUALITIES = ("random", *POLICIES)  # of the datasets that can be made


def behaviours(task: Task) -> list[Behaviour]:
    """Who acts for the task's dataset, one after the other.

    Raises:
      ValueError: the task has no dataset that such policies could make.
      FileNotFoundError: a policy isn't shipped; the message lists those that are.
    """
    robot, quality = robot_and_quality(task)
    if quality not in QUALITIES:
        reason = "the replay buffer of a training run, which isn't shipped" if quality else "no dataset of its own"
        raise ValueError(
            f"{task.name} is {reason}; datasets can be made for "
            f"{', '.join(f'mujoco/{robot}-{quality}' for quality in QUALITIES)}"
        )
    if quality == "random":
        return [uniform()]
    parts = POLICIES[quality]
    return [sampled(shipped(f"{robot}-{part}"), task, 1 / len(parts), f"sampled {part} policy") for part in parts]


def shipped(name: str) -> Policy:
    """The shipped policy of that name, "hopper-medium".

    Raises:
      FileNotFoundError: no such policy; the message lists those that there are.
    """
    if name not in shipped_behaviours():
        raise FileNotFoundError(
            f"no behaviour policy {name!r}; shipped: {', '.join(shipped_behaviours()) or 'none'}; "
            "python -m experiments.behaviour trains one"
        )
    return load_behaviour(SHIPPED / f"{name}.npz")[0]


def shipped_behaviours() -> list[str]:
    """Names of the shipped policies, sorted."""
    if not SHIPPED.is_dir():
        return []
    return sorted(file.name.removesuffix(".npz") for file in SHIPPED.iterdir() if file.name.endswith(".npz"))
