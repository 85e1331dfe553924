"""Environment families: every folder here is one, found by name and imported on demand.

A family is a package that exports

- `tasks() -> dict[str, Task]`: the facts of each of its tasks by full name ("mujoco/hopper-medium"), the same objects
  at every call;
- `make_env(task, **settings) -> gymnasium.Env`: one environment, actions in [-1, 1], the task's time limit, and
  settings of `gymnasium.make`, `render_mode` among them; an environment of one's own is registered by what this
  imports, with the text "module:Class";
- `make_vector_env(task, num_envs) -> gymnasium.vector.VectorEnv`: several, resetting on the step that ends an
  episode; `vector.last_observations` then gives the true last observations. `reset` takes a seed per environment and
  gymnasium's `options["reset_mask"]`, and a seed settles a whole episode up to its actions;
- `load_dataset(task, source=None, clip_actions=False) -> Dataset`: the task's dataset, or another one that fits its
  environment, read by `sources.load`;
- `behaviours(task) -> list[Behaviour]`: who acts while the task's dataset is made, one after the other, each for its
  share (`o2o_jax.envs.behaviour`);
- optionally `make_task(name) -> Task`: facts of a task that `tasks` doesn't list, where they are made on demand;
- optionally `benchmark() -> list[str]`: names of the tasks whose datasets make up its benchmark, if not all;
- optionally `make_collection_env(task, num_envs)`: like `make_vector_env`, with the rules under which the dataset is
  recorded where they differ from those of evaluation;
- optionally `make_pool(task, seeds)`: environments that envpool steps, for evaluation (`o2o_jax.envs.pool`);
- optionally `THREAD_SAFE = True`: environments share nothing, so that evaluation may step several at the same time.

What families whose tasks are registered environments share is in `o2o_jax.envs.registered`. The normalized score is
`Task.score`. Neither this module nor a family's `tasks` imports a simulator; `make_task` may.
"""

import contextlib
import contextvars
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from o2o_jax import registry
from o2o_jax.data import sources
from o2o_jax.envs import arguments
from o2o_jax.interfaces import Task

_trusted: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("trusted modules", default=frozenset())
EXPORTS = ("tasks", "make_env", "make_vector_env", "load_dataset", "behaviours")  # that no family is without


def families() -> list[str]:
    """Lists the names of all families, sorted."""
    return registry.names(__name__)


def family(name: str) -> ModuleType:
    """Imports a family, by its name ("mujoco") or a task's ("mujoco/hopper-medium").

    Raises:
      ValueError: no such family; the message lists those that exist. Or it lacks one of `EXPORTS`.
    """
    if sources.MINARI_ID.fullmatch(str(name)) and "/" not in str(name):  # as gymnasium's ids look
        raise ValueError(f"{name!r} names no environment family: gymnasium's environments are called gym/{name}")
    module = registry.load(__name__, str(name).split("/", maxsplit=1)[0], "environment family")
    missing = [export for export in EXPORTS if not hasattr(module, export)]
    if missing:
        raise ValueError(f"the environment family {module.__name__} lacks {', '.join(missing)}: see {__name__}")
    return module


def get_task(name: str) -> Task:
    """Returns the facts of the task called `<family>/<task>`.

    Raises:
      ValueError: unknown family or task; the message lists the valid names and the nearest one. Or what `make_task` of
        a family that makes its tasks on demand has against the name.
    """
    module = family(name)
    tasks = module.tasks()
    if name in tasks:
        return tasks[name]
    if hasattr(module, "make_task"):
        return module.make_task(name)
    raise ValueError(registry.unknown("task", name, tasks))


@contextlib.contextmanager
def trusting(modules: Iterable[str]) -> Iterator[None]:
    """Lets names that files hold import these modules, for as long as the context lasts."""
    token = _trusted.set(_trusted.get() | frozenset(modules))
    try:
        yield
    finally:
        _trusted.reset(token)


def recorded_task(name: str) -> Task:
    """Returns the facts of a task whose name a file holds; a module of that name runs only where someone trusts it.

    Args:
      name: as `get_task` takes it.

    Raises:
      ValueError: it would import a module that is neither imported yet nor trusted; or see `get_task`.
    """
    module = name.partition("/")[2].partition("?")[0].rpartition(":")[0]
    if module and module not in sys.modules and module not in _trusted.get():
        raise ValueError(
            f"the environment {name} is named by a file and would import the module {module}: if that is yours, pass "
            f"--env='{name}' or --trust_modules={module}"
        )
    return get_task(name)


def task_of_dataset(source: str) -> Task:
    """Finds the task that a dataset belongs to, for those who name nothing but the dataset.

    Its Minari id says so, where it is some task's, in whatever version. Else it is the environment that the dataset
    was recorded in: a task that is this environment alone, or one of the family "gym" made of its id.

    Args:
      source: what `sources.load` reads; a remote dataset whose id says nothing gets downloaded.

    Raises:
      ValueError: the dataset doesn't say where it was recorded, or no task can be made of that environment.
      FileNotFoundError: there is no such dataset.
    """
    tasks = [task for name in families() for task in family(name).tasks().values()]
    by_id = {
        sources.unversioned(dataset_id): task
        for task in tasks
        for dataset_id in (task.dataset_id, *task.remote_ids)
        if dataset_id
    }
    if sources.unversioned(source) in by_id:
        return by_id[sources.unversioned(source)]
    origin = sources.origin(source)
    if sources.unversioned(origin.dataset_id) in by_id:
        return by_id[sources.unversioned(origin.dataset_id)]
    env_id = origin.env_id
    if not env_id:
        raise ValueError(f"{source} doesn't say which environment it was recorded in; --env would")
    given, wrappers = arguments.recorded(origin)
    if wrappers:
        raise ValueError(
            f"{source} was recorded in {env_id} under {registry.listed(wrappers)}, which no task has; register the "
            "environment with it, keep the data as an npz file, and pass both"
        )
    alone = [task for task in tasks if not task.dataset_id and env_id in (task.env_id, *task.same_dynamics)]
    if alone and not given:
        return min(alone, key=lambda task: task.env_id != env_id)
    return recorded_task(f"gym/{arguments.join(env_id, given)}")


def no_dataset(task: Task, way_out: str) -> ValueError:
    """Returns the error for a task without a dataset; it names the family's tasks with one of that environment."""
    others = [other.name for other in family(task.name).tasks().values() if other.env_id == task.env_id]
    choice = f"choose {registry.listed(name for name in others if name != task.name)}, or " if others else ""
    return ValueError(f"{task.name} names no dataset: {choice}{way_out}")


def make_collection_env(task: Task, num_envs: int) -> Any:
    """Makes the `num_envs` environments that a task's dataset is recorded in: the family's own, or the task's."""
    module = family(task.name)
    return getattr(module, "make_collection_env", module.make_vector_env)(task, num_envs)


def benchmark(name: str) -> list[str]:
    """Lists the tasks whose datasets make up a family's benchmark: those that it says, or all with a dataset.

    Raises:
      ValueError: no such family; the message lists those that exist.
    """
    module = family(name)
    if hasattr(module, "benchmark"):
        return module.benchmark()
    return [task.name for task in module.tasks().values() if task.dataset_id]
