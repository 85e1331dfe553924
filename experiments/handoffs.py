"""What runs of experiments.offline leave for fine-tuning, read back from their folders. Impure: reads the disk."""

from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from o2o_jax import envs, offline
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Task
from o2o_jax.policy import Handoff
from o2o_jax.runtime import seeds
from o2o_jax.runtime.checkpoint import Checkpoints, read_config


def load_handoff(run_dir: str | Path, num_seeds: int, env: str | None = None) -> tuple[Handoff, Task, dict[str, Any]]:
    """The handoff of a finished offline run.

    Args:
      run_dir: the run's --out.
      num_seeds: S, of which the run must have at least as many; the first S are taken.
      env: name of the task to go online in; None for the one that the run was trained on.

    Returns:
      The handoff with seeds stacked [S], as numpy arrays; that task; the run's settings.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: the run isn't an offline one, hasn't finished, has fewer seeds, or is of another version; it had no
        environment, or one of other sizes, and `env` names none that fits.
    """
    settings = read_config(run_dir)
    if settings.get("script") != "offline":
        raise ValueError(f"{run_dir} holds no offline run: pass the --out of experiments.offline")
    if settings["seeds"] < num_seeds:
        raise ValueError(
            f"{run_dir} has {settings['seeds']} seeds, so it cannot start {num_seeds}: pass --seeds="
            f"{settings['seeds']}, or train more of them"
        )
    if not (env or settings["env"]):
        raise ValueError(f"{run_dir} was trained without an environment: pass --env, the task to go online in")
    module, task = offline.load(settings["algorithm"]), envs.get_task(env or settings["env"])
    config = _rebuild(module.Config, settings["config"], run_dir)
    algorithm = module.make(config, task.spec)
    mesh = Mesh(jax.devices()[:1], (seeds.AXIS,))
    template = jax.eval_shape(
        seeds.over_seeds(algorithm.init, mesh, shared=(1,)),
        seeds.keys(range(settings["seeds"]), "offline"),
        Normalizer.identity(task.spec.observation_dim),
    )
    with Checkpoints(Path(run_dir) / "checkpoints", settings) as checkpoints:
        done = checkpoints.latest_step() or 0
        if done < config.updates:
            raise ValueError(
                f"{run_dir} is not finished: {done} of {config.updates} updates are saved; go on with it first, by "
                "the command that started it and --resume"
            )
        state, _ = checkpoints.restore(template)
    state = seeds.take(jax.device_get(state), slice(num_seeds))
    return jax.device_get(seeds.over_seeds(algorithm.handoff, mesh)(state)), task, settings


def _rebuild(config_class: type, values: dict[str, Any], run_dir: str | Path) -> Any:
    """A Config from what JSON made of it."""
    try:
        return config_class(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
    except TypeError as error:
        raise ValueError(f"{run_dir} was made with another version of its algorithm: {error}") from None
