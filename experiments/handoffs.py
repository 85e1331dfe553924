"""What runs leave for those that go on from them, read back from their folders. Impure: reads the disk."""

import dataclasses
from pathlib import Path
from typing import Any

import flax.struct
import jax
from jax.sharding import Mesh

from o2o_jax import envs, offline, online
from o2o_jax.critic import QFunction
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import OnlineAlgorithm, Task
from o2o_jax.policy import Handoff, Policy
from o2o_jax.runtime import seeds
from o2o_jax.runtime.checkpoint import Checkpoints, read_config
from o2o_jax.types import Spec

STAGES = "stages"  # folder of a fine-tuning run: what its phases without an environment ended with


@flax.struct.dataclass
class Stage:
    """An actor and its critic at the end of a phase, seeds stacked [S]."""

    policy: Policy
    critic: QFunction


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
      ValueError: see `load_offline`; or the run had no environment, or one of other sizes, and `env` names none that
        fits.
    """
    settings = offline_settings(run_dir, num_seeds)
    if not (env or settings["env"]):
        raise ValueError(f"{run_dir} was trained without an environment: pass --env, the task to go online in")
    task = envs.get_task(env or settings["env"])
    return load_offline(run_dir, num_seeds, task.spec)[0], task, settings


def offline_settings(run_dir: str | Path, num_seeds: int) -> dict[str, Any]:
    """Settings of an offline run with at least `num_seeds` seeds.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: the run isn't an offline one, or has fewer seeds.
    """
    settings = read_config(run_dir)
    if settings.get("script") != "offline":
        raise ValueError(f"{run_dir} holds no offline run: pass the --out of experiments.offline")
    if settings["seeds"] < num_seeds:
        raise ValueError(
            f"{run_dir} has {settings['seeds']} seeds, so it cannot start {num_seeds}: pass --seeds="
            f"{settings['seeds']}, or train more of them"
        )
    return settings


def load_offline(run_dir: str | Path, num_seeds: int, spec: Spec) -> tuple[Handoff, QFunction | None]:
    """What a finished offline run hands over, and its critic.

    Args:
      run_dir: the run's --out.
      num_seeds: S; the run's first S seeds are taken.
      spec: sizes of its observations and actions.

    Returns:
      The handoff and the critic with seeds stacked [S], as numpy arrays; None where there is no critic.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: see `offline_settings`; or the run hasn't finished, is of other sizes, or is of another version.
    """
    settings = offline_settings(run_dir, num_seeds)
    module = offline.load(settings["algorithm"])
    config = _rebuild(module.Config, settings["config"], run_dir)
    algorithm = module.make(config, spec)
    template = jax.eval_shape(
        seeds.over_seeds(algorithm.init, _one_device(), shared=(1,)),
        seeds.keys(range(settings["seeds"]), "offline"),
        Normalizer.identity(spec.observation_dim),
    )
    with Checkpoints(Path(run_dir) / "checkpoints", settings) as checkpoints:
        done = checkpoints.latest_step() or 0
        if done < config.updates:
            raise ValueError(
                f"{run_dir} is not finished: {done} of {config.updates} updates are saved; go on with it first, by "
                "the command that started it and --resume"
            )
        state, _ = checkpoints.restore(template)

    def outcome(state: Any) -> tuple[Handoff, QFunction | None]:
        return algorithm.handoff(state), algorithm.critic(state) if algorithm.critic else None

    state = seeds.take(jax.device_get(state), slice(num_seeds))
    return jax.device_get(seeds.over_seeds(outcome, _one_device())(state))


def stage_of(algorithm: OnlineAlgorithm, agent: Any) -> Stage:
    """Actor and critic of one seed's state; the algorithm must have a critic."""
    assert algorithm.critic is not None
    return Stage(algorithm.policy(agent), algorithm.critic(agent))


def keep_stage(stages: Checkpoints, step: int, algorithm: OnlineAlgorithm, agent: Any, mesh: Mesh) -> None:
    """Saves actor and critic at the end of a phase, `step` updates on; once, and nothing without a critic."""
    latest = stages.latest_step()
    if algorithm.critic is not None and (latest is None or step > latest):
        stages.save(step, jax.device_get(seeds.over_seeds(lambda agent: stage_of(algorithm, agent), mesh)(agent)))


def load_stages(run_dir: str | Path, spec: Spec) -> dict[str, Stage]:
    """What a fine-tuning run ended its re-evaluation and its alignment with, as far as it got.

    Args:
      run_dir: the --out of experiments.finetune.
      spec: sizes of its observations and actions.

    Returns:
      "reevaluate" and "align" -> seeds stacked [S], as numpy arrays.

    Raises:
      FileNotFoundError: there is no run, or it left nothing: it hasn't got so far, leaves both phases out, or has no
        values of actions.
    """
    settings = read_config(run_dir)
    module = online.load(settings["algorithm"])
    config = _rebuild(module.Config, settings["config"], run_dir)
    steps = {"reevaluate": config.reevaluate_updates}
    if config.align_updates:
        steps["align"] = config.reevaluate_updates + config.align_updates
    if hasattr(config, "critic_source"):  # the stages look alike wherever the critics came from
        config = dataclasses.replace(config, critic_source="random")
    algorithm = module.make(config, spec)
    found: dict[str, Stage] = {}
    with Checkpoints(Path(run_dir) / STAGES, settings, keep=2) as stages:
        for phase, step in steps.items():
            if step in stages.all_steps():
                template = jax.eval_shape(
                    seeds.over_seeds(lambda key: stage_of(algorithm, algorithm.init(key)), _one_device()),
                    seeds.keys(range(settings["seeds"]), "online"),
                )
                found[phase] = jax.device_get(stages.restore(template, step)[0])
    if not found:
        raise FileNotFoundError(
            f"{run_dir} has no re-evaluated or aligned critic to diagnose: diagnose the run that it started from, "
            f"--run={settings['policy']}"
        )
    return found


def _one_device() -> Mesh:
    return Mesh(jax.devices()[:1], (seeds.AXIS,))


def _rebuild(config_class: type, values: dict[str, Any], run_dir: str | Path) -> Any:
    """A Config from what JSON made of it."""
    try:
        return config_class(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
    except TypeError as error:
        raise ValueError(f"{run_dir} was made with another version of its algorithm: {error}") from None
