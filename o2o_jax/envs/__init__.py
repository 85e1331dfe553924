"""Environment families: every folder here is one, found by name and imported on demand.

A family is a package that exports

- `tasks() -> dict[str, Task]`: the facts of each of its tasks by full name ("mujoco/hopper-medium");
- `make_env(task) -> gymnasium.Env`: one environment, actions in [-1, 1], the task's time limit;
- `make_vector_env(task, num_envs) -> gymnasium.vector.VectorEnv`: several, resetting on the step that ends an
  episode; `vector.last_observations` then gives the true last observations. `reset` takes a seed per environment and
  gymnasium's `options["reset_mask"]`, and a seed settles a whole episode up to its actions;
- `load_dataset(task, source=None) -> Dataset`: the task's dataset, or another one that fits its environment;
- `behaviours(task) -> list[Behaviour]`: who acts while the task's dataset is made, one after the other, each for its
  share (`o2o_jax.envs.behaviour`);
- optionally `make_collection_env(task, num_envs)`: like `make_vector_env`, with the rules under which the dataset is
  recorded where they differ from those of evaluation.

The normalized score is `Task.score`. Neither this module nor a family's `tasks` imports a simulator.
"""

from types import ModuleType
from typing import Any

from o2o_jax import registry
from o2o_jax.interfaces import Task


def families() -> list[str]:
    """Names of all families, sorted."""
    return registry.names(__name__)


def family(name: str) -> ModuleType:
    """The family's module, from its name ("mujoco") or a task's ("mujoco/hopper-medium").

    Raises:
      ValueError: no such family; the message lists those that exist.
    """
    return registry.load(__name__, name.split("/", maxsplit=1)[0], "environment family")


def get_task(name: str) -> Task:
    """Facts of the task called "<family>/<task>".

    Raises:
      ValueError: unknown family or task; the message lists the valid names and the nearest one.
    """
    tasks = family(name).tasks()
    if name not in tasks:
        raise ValueError(registry.unknown("task", name, tasks))
    return tasks[name]


def make_collection_env(task: Task, num_envs: int) -> Any:
    """The vector environment [N] that the task's dataset is recorded in: the family's own one, or that of the task."""
    module = family(task.name)
    return getattr(module, "make_collection_env", module.make_vector_env)(task, num_envs)
