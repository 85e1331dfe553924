"""Environment families: every folder here is one, found by name and imported on demand.

A family is a package that exports

- `tasks() -> dict[str, Task]`: the facts of each of its tasks by full name ("mujoco/hopper-medium");
- `make_env(task) -> gymnasium.Env`: one environment, actions in [-1, 1], the task's time limit;
- `make_vector_env(task, num_envs) -> gymnasium.vector.VectorEnv`: several, resetting on the step that ends an
  episode; `vector.last_observations` then gives the true last observations;
- `load_dataset(task, source=None) -> Dataset`: the task's dataset, or another one that fits its environment;
- `behaviours(task) -> list[Policy | None]`: the policies whose sampled actions make up the task's dataset, in equal
  shares one after the other; None acts uniformly.

The normalized score is `Task.score`. Neither this module nor a family's `tasks` imports a simulator.
"""

from types import ModuleType

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
