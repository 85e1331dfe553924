"""Readers of what runs leave for those that continue from them. Impure: reads the disk."""

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import flax.struct
import jax
import numpy as np
from jax.sharding import Mesh

from o2o_jax import envs, offline, online, registry
from o2o_jax.critic import QFunction
from o2o_jax.data.dataset import Dataset
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Algorithm, Task
from o2o_jax.online.common import OnlineConfig
from o2o_jax.policy import AnyPolicy, Handoff, Policy, hand_over
from o2o_jax.reading import Record, brief
from o2o_jax.runtime import failures, log, provenance, saved, seeds
from o2o_jax.runtime.checkpoint import Checkpoints, compare_configs, has_checkpoint, read_config
from o2o_jax.runtime.events import Event
from o2o_jax.runtime.output import CHECKPOINTS, STAGES
from o2o_jax.runtime.plan import Plan, Reconstruction
from o2o_jax.runtime.run import Run, stage_of, start_clone, start_phases, start_seed
from o2o_jax.runtime.setup import Setup
from o2o_jax.runtime.snapshots import Snapshot
from o2o_jax.runtime.train import CLONE
from o2o_jax.settings import from_dict, paths, replaced
from o2o_jax.types import Array, Spec

OWN_SETTINGS = "Bring back the run's own config.json, which was changed since"


@flax.struct.dataclass
class Stage:
    """An actor and its critic at the end of a phase, seeds stacked [S]: what there is to diagnose."""

    policy: Policy
    critic: QFunction


def seeds_of(settings: dict[str, Any]) -> range:
    """Returns the numbers of a run's seeds; older versions wrote no first one, which was 0."""
    first = settings.get("first_seed", 0)
    return range(first, first + settings["seeds"])


def task_of(settings: Record) -> Task | None:
    """Returns the facts of a run's task that it wrote down, without a simulator; None where it has none.

    Raises:
      ValueError: the facts are none, or the run is of an older version, and its task is unknown by now.
    """
    if settings.get("task") is not None:
        with settings.blamed():
            return Task.from_json(settings["task"])
    return named_task(settings.name, settings)  # older versions wrote its name alone


def named_task(owner: str | os.PathLike, settings: Mapping[str, Any]) -> Task | None:
    """Returns the task whose name a run wrote down; None where it has none.

    Args:
      owner: how messages call the run: its folder.
      settings: of it.

    Raises:
      ValueError: see `envs.recorded_task`.
    """
    try:
        return envs.recorded_task(settings["env"]) if settings.get("env") else None
    except ValueError as error:
        raise ValueError(f"{owner}: {registry.clipped(str(error), 300)}") from None


def spec_of(settings: Record) -> Spec:
    """Returns the sizes of a run's observations and actions.

    Raises:
      ValueError: see `task_of`.
    """
    task = task_of(settings)
    with settings.blamed():
        return task.spec if task is not None else Spec(**settings["spec"])


def places(run_dir: str | os.PathLike, theirs: range, wanted: range) -> slice:
    """Returns the places of seeds among those of a run.

    Args:
      run_dir: the run's --out.
      theirs: numbers of its seeds.
      wanted: numbers of those to continue with.

    Raises:
      ValueError: the run lacks one of them.
    """
    both = range(max(theirs.start, wanted.start), min(theirs.stop, wanted.stop))
    if len(both) < len(wanted):
        start = both or theirs
        raise ValueError(
            f"{run_dir} has {_named(theirs)}, not {_named(wanted)}: pass --first_seed={start.start} "
            f"--seeds={len(start)}, or train the others"
        )
    return slice(both.start - theirs.start, both.stop - theirs.start)


def _named(seed_list: range) -> str:
    return f"the seeds {seed_list[0]} to {seed_list[-1]}" if len(seed_list) > 1 else f"the seed {seed_list[0]}"


def load_handoff(run_dir: str | Path, seed_list: range, env: str | None = None) -> tuple[Handoff, Task, dict[str, Any]]:
    """The handoff of a finished offline run, or of a saved policy.

    Args:
      run_dir: the run's --out; or a folder of `save_policy`, whose policy all seeds then start from.
      seed_list: numbers of the S seeds to take, which the run must have.
      env: name of the task to go online in; None for the one that the run was trained on.

    Returns:
      The handoff with seeds stacked [S], as numpy arrays; that task; the run's settings.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: see `load_offline`; or the run had no environment, or one of other sizes, and `env` names none that
        fits.
    """
    settings = start_settings(run_dir, seed_list)
    task = online_task(run_dir, settings, env)
    if saved.is_saved(run_dir):
        policy = jax.device_get(saved.read(run_dir).policy)
        # views: however many seeds there are, they share one copy until they are placed
        policies = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(seed_list), *np.shape(leaf))), policy)
        return Handoff(policies, source=settings["algorithm"]), task, settings
    return load_offline(run_dir, seed_list, task.spec)[0], task, settings


def online_task(run_dir: str | Path, settings: dict[str, Any], env: str | None = None) -> Task:
    """Returns the task in which the policies of an offline run go online.

    Args:
      run_dir: the run's --out.
      settings: of the run.
      env: name of the task; None for the one that the run was trained on.

    Raises:
      ValueError: the run had no environment, or one of other sizes, and `env` names none that fits.
    """
    if not (env or settings["env"]):
        # a saved policy knows no data either
        data = "" if settings["dataset"] else ", and --dataset, where it has no data of its own"
        raise ValueError(f"{run_dir} was trained without an environment: pass --env, the task to go online in{data}")
    task = envs.get_task(env) if env else named_task(run_dir, settings)
    assert task is not None
    trained, wanted = settings.get("spec"), dataclasses.asdict(task.spec)
    if trained not in (None, wanted):
        with Record(settings, f"{run_dir}/config.json", "pass a run whose settings are as they were written").blamed():
            sizes = Spec(**trained)
        raise ValueError(f"{run_dir} is of {sizes}, but {task.name} has {task.spec}: pass --env, a task that fits")
    return task


def _sizes(spec: dict[str, int]) -> str:
    numbers = (brief(spec.get(name), 20) for name in ("observation_dim", "action_dim"))
    return "{} observations and {} actions".format(*numbers)


def offline_settings(run_dir: str | os.PathLike, seed_list: range) -> Record:
    """Settings of an offline run that has the seeds.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: the run isn't an offline one, is of another version, or lacks a seed.
    """
    settings = read_config(run_dir)
    if settings.get("script") != "offline":
        raise ValueError(f"{run_dir} holds no offline run: pass the --out of experiments.offline")
    _rebuild(offline, settings, run_dir)
    places(run_dir, seeds_of(settings), seed_list)
    return settings


def start_settings(folder: str | Path, seed_list: range) -> dict[str, Any]:
    """Settings of what a fine-tuning run starts from: of an offline run, or of a saved policy as if it were one.

    Args:
      folder: of either.
      seed_list: numbers of the S seeds.

    Raises:
      FileNotFoundError: there is neither.
      ValueError: see `offline_settings` and `saved.describe`.
    """
    if not saved.is_saved(folder):
        return offline_settings(folder, seed_list)
    description = saved.describe(folder)
    policy = saved.read(folder)
    return {
        "script": "policy",
        "algorithm": policy.made.get("algorithm", ""),
        "config": {"digest": description["digest"]},  # a run is not resumed with another policy
        "env": policy.task.name if policy.task else "",
        "spec": dataclasses.asdict(policy.spec),
        "dataset": None,
    }


def online_settings(run_dir: str | os.PathLike) -> Record:
    """Settings of a fine-tuning run.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: the run isn't a fine-tuning one.
    """
    settings = read_config(run_dir)
    if settings.get("script") != "finetune":
        raise ValueError(f"{run_dir} holds no fine-tuning run: pass the --out of experiments.finetune")
    return settings


def load_offline(run_dir: str | os.PathLike, seed_list: range, spec: Spec) -> tuple[Handoff, QFunction | None]:
    """Returns what a finished offline run hands over, and its critic.

    Args:
      run_dir: the run's --out.
      seed_list: numbers of the S seeds to take, which the run must have.
      spec: sizes of its observations and actions.

    Returns:
      The handoff and the critic with seeds stacked [S], as numpy arrays; None where there is no critic.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: see `offline_settings`; or the run hasn't finished, is of other sizes, or is of another version.
    """
    settings = offline_settings(run_dir, seed_list)
    module, config = _rebuild(offline, settings, run_dir)
    algorithm = module.make(config, spec)
    setup = Setup(algorithm, config, spec, seeds_of(settings), _one_device(), settings.get("transitions", 0))
    run, done = None, 0
    if has_checkpoint(Path(run_dir) / CHECKPOINTS):
        run = _restore(run_dir, settings, setup, Normalizer.identity(spec.observation_dim))
        done = int(run.updates)
    if run is None or done < config.updates:
        raise ValueError(
            f"{run_dir} is not finished: {done} of {config.updates} updates are saved; resume it first: run "
            "the command that started it with --resume"
        )

    def outcome(state: Any) -> tuple[Handoff, QFunction | None]:
        return hand_over(algorithm, state), algorithm.critic(state) if algorithm.critic else None

    chosen = places(run_dir, seeds_of(settings), seed_list)
    for line in failures.summary(seed_list, run.failed[chosen]):
        print(f"{line}, in {run_dir}")
    state = seeds.take(jax.device_get(run.agent), chosen)
    return jax.device_get(seeds.over_seeds(outcome, _one_device())(state))


def _restore(run_dir: str | os.PathLike, settings: dict[str, Any], setup: Setup, start: Any) -> Run:
    """The newest run that was saved in a folder, on one device; `start` as of `start_run`, shared by all seeds.

    Raises:
      FileNotFoundError: nothing was saved yet.
    """
    begin = seeds.over_seeds(functools.partial(start_seed, setup), setup.mesh, shared=(1,))
    template = jax.eval_shape(begin, seeds.keys(setup.seeds, "any"), start)
    with Checkpoints(Path(run_dir) / CHECKPOINTS, settings, advice=OWN_SETTINGS) as checkpoints:
        return checkpoints.restore(template, free="episodes")


def networks_of(algorithm: Algorithm, agent: Any) -> Stage:
    """Actor and critic of one seed's state; the algorithm must have a critic."""
    assert algorithm.critic is not None
    return Stage(algorithm.policy(agent), algorithm.critic(agent))


def load_stages(run_dir: str | Path, spec: Spec) -> dict[str, Stage]:
    """Returns what a fine-tuning run ended its re-evaluation and its alignment with, as far as it got.

    Args:
      run_dir: the --out of experiments.finetune.
      spec: sizes of its observations and actions.

    Returns:
      "reevaluate" and "align" -> seeds stacked [S], as numpy arrays.

    Raises:
      FileNotFoundError: there is no run, or it left nothing: it has not reached that, leaves both phases out, or has no
        values of actions.
    """
    settings = online_settings(run_dir)
    module, config = _rebuild(online, settings, run_dir)
    algorithm = module.make(with_any_critics(config), spec)
    found = {}
    if algorithm.critic is not None:
        to_stage = seeds.over_seeds(functools.partial(networks_of, algorithm), _one_device())
        ends = _load_ends(run_dir, settings, algorithm)
        found = {phase: jax.device_get(to_stage(end["agent"])) for phase, end in ends.items()}
    if not found:
        raise FileNotFoundError(
            f"{run_dir} has no re-evaluated or aligned critic to diagnose: diagnose the run that it started from, "
            f"--run={settings['policy']}"
        )
    return found


def load_delivered(run_dir: str | Path, spec: Spec) -> Policy:
    """The policy that a finished fine-tuning run leaves: π_ref where it rolls back, else the last one.

    Args:
      run_dir: the --out of experiments.finetune.
      spec: sizes of its observations and actions.

    Returns:
      The policy with seeds stacked [S], as numpy arrays.

    Raises:
      FileNotFoundError: there is no run, or none that got to its first environment step.
      ValueError: the run hasn't finished, or is of another version.
    """
    setup, run = load_online(run_dir, spec)
    if int(run.env_steps) < setup.config.env_steps:
        raise ValueError(
            f"{run_dir} is not finished: {run.env_steps} of {setup.config.env_steps} environment steps are saved; "
            "resume it first: run the command that started it with --resume"
        )
    policy = setup.reference.policy if setup.reference and setup.rolls_back else setup.algorithm.policy
    return jax.device_get(seeds.over_seeds(policy, setup.mesh)(run.agent))


def load_online(run_dir: str | os.PathLike, spec: Spec) -> tuple[Setup, Run]:
    """Returns a fine-tuning run as it was saved last, and its setup, on one device.

    Args:
      run_dir: the --out of experiments.finetune.
      spec: sizes of its observations and actions.

    Raises:
      FileNotFoundError: there is no run, or nothing was saved yet.
      ValueError: it is of another version.
    """
    settings = online_settings(run_dir)
    module, config = _rebuild(online, settings, run_dir)
    algorithm = module.make(with_any_critics(config), spec)
    setup = Setup(algorithm, config, spec, seeds_of(settings), _one_device(), settings.get("transitions", 0))
    return setup, _restore(run_dir, settings, setup, None)


def load_kept(run_dir: str | os.PathLike, seed: int, which: str) -> tuple[AnyPolicy, Task | None, dict[str, Any]]:
    """Returns one of the policies that a run keeps.

    Args:
      run_dir: folder of a run, offline or online, maybe still under way.
      seed: number of its seed.
      which: as of `policies.load_policy`.

    Returns:
      The policy, facts of its task, and where it comes from, JSON-like.

    Raises:
      FileNotFoundError: there is no run, or it has not come as far as that policy.
      ValueError: it has no such policy or seed, or see `load_offline`.
    """
    settings = read_config(run_dir)
    if settings.get("script") not in ("offline", "finetune"):
        raise ValueError(f"{run_dir} holds no policies: pass the --out of experiments.offline or experiments.finetune")
    numbers = seeds_of(settings)
    if seed not in numbers:
        raise ValueError(f"{run_dir} has {_named(numbers)}, not {seed!r}: choose another --seed")
    made = {"run": os.fspath(run_dir), "algorithm": settings["algorithm"], "seed": seed, "which": which}
    task, spec = task_of(settings), spec_of(settings)
    if settings["script"] == "offline":
        if which in ("aligned", "lowest"):
            raise ValueError(f"{run_dir} is an offline run, which has no {which} policy: ask for its last one")
        return seeds.take(load_offline(run_dir, range(seed, seed + 1), spec)[0].policy, 0), task, made
    if not has_checkpoint(Path(run_dir) / CHECKPOINTS):
        raise FileNotFoundError(
            f"{run_dir} was stopped before anything of it was saved: resume it with --resume, or load the policy that "
            f"it starts from, {settings['policy']}"
        )
    setup, run = load_online(run_dir, spec)
    policy, facts = _kept(run_dir, setup, seeds.take(run, numbers.index(seed)), which)
    return policy, task, made | facts


def _kept(folder: str | os.PathLike, setup: Setup, run: Run, which: str) -> tuple[Any, dict[str, Any]]:
    """A policy of one seed's run, and facts about it."""
    snapshots, algorithm = run.snapshots, setup.algorithm
    assert snapshots is not None
    if which == "offline":
        return snapshots.offline, {"env_steps": 0}
    if not int(run.begun):
        raise FileNotFoundError(
            f"{folder} has not reached its first environment step, so that of its policies only the offline one, "
            'which="offline", can be loaded: ask for it, or resume the run with --resume'
        )
    if which == "aligned":
        if "align" not in [phase.name for phase in algorithm.phases]:
            raise ValueError(f"{folder} left alignment out, so that nothing is aligned: ask for its offline policy")
        return snapshots.aligned, {"env_steps": 0}
    env_steps = int(run.env_steps)
    if which == "last":
        return algorithm.policy(run.agent), {"env_steps": env_steps}
    if which == "best" and setup.reference is not None and setup.rolls_back:
        return setup.reference.policy(run.agent), {"run_env_steps": env_steps}  # since when, nobody has written down
    snapshot: Snapshot | None = snapshots.lowest if which == "lowest" else snapshots.highest
    if snapshot is None:
        raise ValueError(f"{folder} has no evaluations, which would tell its {which} policy: ask for its last one")
    if not abs(float(snapshot.score)) < float("inf"):
        raise FileNotFoundError(
            f"{folder} has not reached its first evaluation online: resume it with --resume, or ask for its last policy"
        )
    return snapshot.policy, {"env_steps": int(snapshot.env_steps), "score": float(snapshot.score)}


def load_reconstruction(run_dir: str | Path, settings: dict[str, Any], plan: Plan) -> Reconstruction:
    """Returns what the last phase without an environment of another fine-tuning run ended with.

    Args:
      run_dir: its --out.
      settings: of the run that is to continue there: all that matters before the first environment step must agree.
      plan: of it.

    Returns:
      What the run made, of the seeds of `settings`.

    Raises:
      FileNotFoundError: there is no run, or it has not reached that.
      ValueError: these settings have no such phase; or those of the run are others, or it lacks a seed.
    """
    config, spec = plan.setup.config, plan.setup.spec
    algorithm = online.load(settings["algorithm"]).make(with_any_critics(config), spec)
    if not algorithm.phases:
        raise ValueError(
            f"--reconstruction takes what {settings['algorithm']} doesn't have with these settings: phases before its "
            "first environment step"
        )
    theirs = online_settings(run_dir)
    _rebuild(online, theirs, run_dir)  # one line where it is of another version
    if plan.dataset is not None:
        provenance.check_data(run_dir, plan.dataset, "leave --reconstruction out")
    chosen = places(run_dir, seeds_of(theirs), seeds_of(settings))
    compare_configs(
        _before_first_step(theirs, type(config)),
        _before_first_step(settings, type(config)),
        f"{run_dir}, up to its first environment step,",
        "Use the same settings, or leave --reconstruction out",
    )
    phase = algorithm.phases[-1].name
    ends = _load_ends(run_dir, theirs, algorithm)
    if phase not in ends:
        raise FileNotFoundError(f"{run_dir} has not reached its first environment step: resume it first, with --resume")
    end = seeds.take(ends[phase], chosen)
    clone = None
    if plan.clone is not None:
        clone = seeds.take(_load_clone(run_dir, theirs, plan), chosen)
    names = [CLONE, *(phase.name for phase in algorithm.phases)]
    return Reconstruction(end, events=_logged(run_dir, names, seeds_of(settings)), clone=clone)


def _load_clone(run_dir: str | Path, settings: dict[str, Any], plan: Plan) -> Run:
    """The run of another run's cloning at its end, all its seeds stacked [S] as numpy arrays."""
    own = Path(run_dir) / CLONE
    if settings.get("reconstruction") and not has_checkpoint(own):
        source = settings["reconstruction"]
        theirs = read_config(source)
        clone = _load_clone(source, theirs, plan)
        return seeds.take(clone, places(source, seeds_of(theirs), seeds_of(settings)))
    assert plan.clone is not None
    assert plan.start is not None
    head = plan.setup.head_of(plan.start.policy)
    start = functools.partial(start_clone, plan.clone, head)
    keys = seeds.keys(seeds_of(settings), "any")
    teacher = seeds.take(plan.start.policy, 0)
    template = jax.eval_shape(seeds.over_seeds(start, _one_device(), shared=(2,)), keys, keys, teacher)
    with Checkpoints(own, settings, advice=OWN_SETTINGS) as checkpoints:
        return jax.device_get(checkpoints.restore(template, free="episodes"))


def _logged(run_dir: str | Path, phases: Sequence[str], seed_list: range) -> tuple[Event, ...]:
    """The rows that a run's phases logged of some seeds, as events."""
    events = []
    for phase in (f"{phase}{suffix}" for phase in phases for suffix in ("", "_measures")):
        with contextlib.suppress(FileNotFoundError):  # phases that were left out, or don't stop by measures
            columns = log.read(run_dir, phase)
            events.append(Event(phase, 0, cut={phase: -1}))
            for step in np.unique(columns["step"]):
                rows = (columns["step"] == step) & np.isin(columns["seed"], seed_list)
                terms = {name: values[rows] for name, values in columns.items() if name not in ("step", "seed")}
                events.append(Event(phase, int(step), {phase: terms}))
    return tuple(events)


@contextlib.contextmanager
def data_of(run_dir: str | os.PathLike) -> Iterator[None]:
    """Says, where data can't be found within, that a run was trained on them, and what to do.

    Args:
      run_dir: the run's --out.

    Raises:
      FileNotFoundError: they can't.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; {run_dir} was trained on it: bring it back, or say where it is now with --dataset"
        ) from error


def check_offline_data(run_dir: str | Path, settings: Mapping[str, Any], dataset: Dataset) -> None:
    """Refuses data that have changed since an offline run was trained on them.

    Args:
      run_dir: the run's --out.
      settings: the run's.
      dataset: of the same name.

    Raises:
      ValueError: they have, or the run is of another version.
    """
    if not settings["algorithm"]:  # a saved policy, which doesn't say what it was trained on
        return
    module, config = _rebuild(offline, settings, run_dir)
    algorithm = module.make(config, dataset.spec)
    provenance.check_data(run_dir, algorithm.select(dataset), "name the data to use with --dataset")


def _before_first_step(settings: dict[str, Any], config_class: type[OnlineConfig]) -> dict[str, Any]:
    """The settings of a run that what it does before its first environment step follows from."""
    read = {name: value for name, value in settings["config"].items() if name not in config_class.online_parts}
    names = ("algorithm", "env", "dataset", "transitions", "source", "clone")
    policy = str(Path(settings["policy"]).resolve())
    return {name: settings[name] for name in names} | {"policy": policy, "config": read}


def with_any_critics(config: Any) -> Any:
    """Settings that start without a handoff: states look alike wherever the critics came from."""
    source = "networks.critic_source"
    return replaced(config, {source: "random"}) if source in paths(config) else config


def _load_ends(run_dir: str | Path, settings: dict[str, Any], algorithm: Algorithm) -> dict[str, dict[str, Any]]:
    """Phase -> `run.stage_of` at its end, all seeds stacked [S] as numpy arrays, as far as a fine-tuning run got.

    A run that took these from another one leaves them there.
    """
    if settings.get("reconstruction"):
        source = settings["reconstruction"]
        theirs = read_config(source)
        chosen = places(source, seeds_of(theirs), seeds_of(settings))
        return {phase: seeds.take(end, chosen) for phase, end in _load_ends(source, theirs, algorithm).items()}
    ends = itertools.accumulate(phase.updates for phase in algorithm.phases)

    def start(key: Array) -> dict[str, Any]:
        return stage_of(start_phases(algorithm.phases, algorithm.init(key, None), key))

    template = jax.eval_shape(seeds.over_seeds(start, _one_device()), seeds.keys(seeds_of(settings), "any"))
    keep = max(1, len(algorithm.phases))
    with Checkpoints(Path(run_dir) / STAGES, settings, keep, OWN_SETTINGS) as stages:
        kept = stages.all_steps()
        return {
            phase.name: jax.device_get(stages.restore(template, step))
            for phase, step in zip(algorithm.phases, ends, strict=True)
            if step in kept
        }


def _one_device() -> Mesh:
    return Mesh(jax.devices()[:1], (seeds.AXIS,))


def _rebuild(methods: ModuleType, settings: Mapping[str, Any], run_dir: str | os.PathLike) -> tuple[ModuleType, Any]:
    """A run's method, offline or online, and its Config from what JSON made of it."""
    name, values = settings["algorithm"], settings["config"]
    try:
        module = methods.load(name)
        return module, from_dict(module.Config, values)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{run_dir} was made with another version of its algorithm, or its config.json by hand: {brief(error)}"
        ) from None
