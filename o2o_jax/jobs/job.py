"""Jobs: what to run, as values."""

import contextlib
import dataclasses
import functools
import typing
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar, Self

import jax
import numpy as np
from jax.sharding import Mesh

from o2o_jax import envs, offline, online, registry
from o2o_jax.data import sources
from o2o_jax.data.dataset import Dataset
from o2o_jax.data.transform import STD_OFFSET
from o2o_jax.interfaces import Task
from o2o_jax.jobs.handoffs import check_offline_data, data_of, load_handoff, load_reconstruction
from o2o_jax.online.common import ScheduleName
from o2o_jax.policy import CloneConfig, Policy
from o2o_jax.reading import NULL, Record
from o2o_jax.runtime import limits
from o2o_jax.runtime.evaluate import AnyEvaluator, make_evaluator
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.setup import Setup
from o2o_jax.settings import Settings, check_types, from_dict
from o2o_jax.types import expect

JSON = "pass what to_json of a job returned, or a run's config.json"
FAST_CLONE_UPDATES = 10_000
MOST_BROKEN = 0.01  # share of rows that may not lead to the one after them, of data in order
NARROW_ACTIONS = 0.5  # data whose actions are all nearer to 0 may be in other units


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A method with its settings on a task, for some seeds: values alone, to be pickled, hashed and compared.

    Attributes:
      algorithm: its name.
      config: its settings, of its own class.
      env: name of the task; "" where there is none.
      dataset: Minari id or path; "" for the task's own.
      clip_actions: clip the data's actions to their bounds, where they go beyond.
      seeds: S.
      first_seed: number of the first of them, which the others follow.
      envpool: evaluate in envpool's environments, where it has the task's.
      eval_every: updates of phases between evaluations; 0 for none but that of an offline method at its end.
      eval_sampled: evaluate samples of the policy too, beside its modes, while phases run.
    """

    script: ClassVar[str]  # the command that makes such jobs
    methods: ClassVar[ModuleType]  # offline or online ones, by their names

    algorithm: str
    config: Any
    env: str = ""
    dataset: str = ""
    clip_actions: bool = False
    seeds: int = 1
    first_seed: int = 0
    envpool: bool = False
    eval_every: int = 0
    eval_sampled: bool = False

    @property
    def seed_list(self) -> range:
        """Numbers of the seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)

    def to_json(self) -> dict[str, Any]:
        """Returns the job as JSON takes it; `from_json` makes an equal one of it."""
        return {"script": self.script} | dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Returns a job from what `to_json` made of it, or from a run's config.json, whose other entries don't count.

        Raises:
          ValueError: it is of another kind of job, lacks something, or settings refuse a value.
          TypeError: settings that this version doesn't know, or no object at all.
        """
        expect(values, Mapping, "values", JSON)
        values = Record(values, "the job", JSON).check({"algorithm": str, "config": dict, "clone": (dict, NULL)})
        if values.get("script") != cls.script:
            raise ValueError(f"expected a job of {cls.script}, got one of {values.get('script')!r}")
        names = [
            field.name
            for field in dataclasses.fields(cls)
            if field.name in values or field.default is field.default_factory is dataclasses.MISSING
        ]
        kinds: dict[str, type[Settings]] = {
            "config": cls.methods.load(values["algorithm"]).Config,
            "clone": CloneConfig,
        }
        fields: dict[str, Any] = {
            name: from_dict(kinds[name], values[name]) if name in kinds and values[name] else values[name]
            for name in names
        }
        return cls(**fields)

    def __post_init__(self) -> None:
        module = self.methods.load(self.algorithm)
        if not isinstance(self.config, module.Config):
            raise ValueError(f"config must be a Config of {module.__name__}, got {type(self.config).__qualname__}")
        check_types(self)
        self._at_least(1, "seeds")
        self._at_least(0, "first_seed", "eval_every")

    def _at_least(self, least: int, *names: str) -> None:
        for name in names:
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def _evaluator(self, task: Task, episodes: int) -> AnyEvaluator | None:
        """Plays the evaluations' episodes; None where there are none. Impure: makes environments."""
        if not episodes:
            return None
        family = envs.family(task.name)
        try_environment(family, task)
        return make_evaluator(family, task, self.seed_list, episodes, self.envpool)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfflineJob(Job):
    """Offline training: what `Job` has, and how to evaluate.

    Attributes:
      eval_episodes: per seed and evaluation; 0 for none.
    """

    script: ClassVar[str] = "offline"
    methods: ClassVar[ModuleType] = offline

    eval_episodes: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(0, "eval_episodes")

    def plan(self, mesh: Mesh) -> Plan:
        """Reads and checks all that the job needs. Impure: reads files, makes environments.

        Args:
          mesh: devices that share the seeds.

        Raises:
          FileNotFoundError: there is no such dataset.
          ValueError: something doesn't fit, the machine's memory among it.
          TypeError: `mesh` is none.
        """
        expect(mesh, Mesh, "mesh", "pass o2o_jax.runtime.devices.seed_mesh(seeds)")
        task = envs.get_task(self.env) if self.env else None
        source = self.dataset or None
        clip = self.clip_actions
        dataset = (
            envs.family(task.name).load_dataset(task, source, clip)
            if task
            else sources.load(self.dataset, clip_actions=clip)
        )
        algorithm = self.methods.load(self.algorithm).make(self.config, dataset.spec)
        dataset = algorithm.select(dataset)
        facts = {
            "dataset": dataset.name,
            "transitions": dataset.size,
            "spec": dataclasses.asdict(dataset.spec),
            "task": task.to_json() if task else None,
        }
        plan = Plan(
            Setup(algorithm, self.config, task or dataset.spec, self.seed_list, mesh),
            dataset,
            eval_every=self.eval_every,
            eval_sampled=self.eval_sampled,
            settings=self.to_json() | facts,
            warnings=tuple(data_warnings(dataset, task)),
        )
        limits.check(plan)
        check_evaluation(plan)
        return dataclasses.replace(plan, evaluator=self._evaluator(task, self.eval_episodes) if task else None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineJob(Job):
    """Fine-tuning of the policies of an offline run: what `Job` has, and where they come from.

    Attributes:
      policy: output folder of the offline run, or of `save_policy`.
      schedule: that `config` comes from, "paper" or "fast".
      clone: settings of cloning, for a policy whose head doesn't fit; None for those of the schedule, `cloning`.
      reconstruction: output folder of another run, whose phases before the first environment step are taken.
      checkpoint_every: environment steps between checkpoints; what a run comes to doesn't depend on it.
    """

    script: ClassVar[str] = "finetune"
    methods: ClassVar[ModuleType] = online

    policy: str
    schedule: str
    clone: CloneConfig | None = None
    reconstruction: str | None = None
    checkpoint_every: int = dataclasses.field(default=1_000, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.policy, str):
            raise ValueError(
                f"policy must be a folder's path, got {type(self.policy).__name__}: save a policy with "
                "o2o_jax.save_policy, and pass its folder"
            )
        super().__post_init__()
        if self.schedule not in typing.get_args(ScheduleName):
            raise ValueError(registry.unknown("schedule", self.schedule, typing.get_args(ScheduleName)))
        self._at_least(1, "checkpoint_every")

    def to_json(self) -> dict[str, Any]:
        """Returns the job as JSON takes it; `from_json` makes an equal one of it."""
        return {name: value for name, value in super().to_json().items() if name != "checkpoint_every"}

    def plan(self, mesh: Mesh) -> Plan:
        """Reads and checks all that the job needs. Impure: reads files, makes environments.

        Args:
          mesh: devices that share the seeds.

        Raises:
          FileNotFoundError: there is no such run or dataset.
          ValueError: something doesn't fit, the machine's memory among it.
          TypeError: `mesh` is none.
        """
        expect(mesh, Mesh, "mesh", "pass o2o_jax.runtime.devices.seed_mesh(seeds)")
        handoff, task, source = load_handoff(self.policy, self.seed_list, self.env or None)
        algorithm = self.methods.load(self.algorithm).make(self.config, task.spec)
        setup = Setup(algorithm, self.config, task, self.seed_list, mesh)
        setup.requires.check_source(self.algorithm, handoff.source)
        check_discount(source, setup)
        fits = setup.requires.takes(handoff.policy.head)
        clone = None if fits else self.clone or cloning(self.config, self.schedule)
        family = envs.family(task.name)
        clip = self.clip_actions or (not self.dataset and source.get("clip_actions", False))  # as the offline run did
        with contextlib.nullcontext() if self.dataset else data_of(self.policy):
            dataset = family.load_dataset(task, self.dataset or source["dataset"], clip)
        if not self.dataset:
            check_offline_data(self.policy, source, dataset)
        facts = {
            "env": task.name,
            "task": task.to_json(),
            "dataset": dataset.name,
            "transitions": dataset.size,
            "source": {name: source[name] for name in ("algorithm", "config")},
            "clone": dataclasses.asdict(clone) if clone else None,
        }
        plan = Plan(
            dataclasses.replace(setup, dataset_rows=dataset.size),
            dataset,
            handoff,
            clone,
            eval_every=self.eval_every,
            eval_sampled=self.eval_sampled,
            checkpoint_every=self.checkpoint_every,
            settings=self.to_json() | facts,
            warnings=(*task.warnings, *data_warnings(dataset, task), *self.config.warnings(handoff.source)),
        )
        limits.check(plan)
        check_evaluation(plan)
        try_environment(family, task)
        vector_env = family.make_vector_env(task, self.seeds * setup.online.schedule.num_envs)
        evaluator = self._evaluator(task, self.config.evaluation.episodes)
        made = None
        if self.reconstruction:
            load = functools.partial(load_reconstruction, self.reconstruction, dict(plan.settings), plan)
            made = functools.cache(load)
        return dataclasses.replace(plan, reconstruction=made, envs=vector_env, evaluator=evaluator)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScratchJob(Job):
    """Training without data or a policy to start from, as those of datasets are trained."""

    script: ClassVar[str] = "behaviour"
    methods: ClassVar[ModuleType] = online

    def plan(self, mesh: Mesh) -> Plan:
        """Checks all that the job needs. Impure: makes environments.

        Args:
          mesh: devices that share the seeds.

        Raises:
          ValueError: no such task, settings that need data or an offline policy, or more memory than is free.
          TypeError: `mesh` is none.
        """
        expect(mesh, Mesh, "mesh", "pass o2o_jax.runtime.devices.seed_mesh(seeds)")
        task = envs.get_task(self.env)
        algorithm = self.methods.load(self.algorithm).make(self.config, task.spec)
        if algorithm.phases:
            name = algorithm.phases[0].name
            raise ValueError(f"the phase {name} learns from data, of which there is none: set its updates to 0")
        if getattr(getattr(self.config, "replay", None), "mode", "none") != "none":
            raise ValueError("replay draws from data, of which there is none: set replay.mode=none")
        plan = Plan(Setup(algorithm, self.config, task, self.seed_list, mesh), settings=self.to_json())
        limits.check(plan)
        family = envs.family(task.name)
        try_environment(family, task)
        return dataclasses.replace(
            plan,
            envs=family.make_vector_env(task, self.seeds * plan.setup.online.schedule.num_envs),
            evaluator=self._evaluator(task, self.config.evaluation.episodes),
        )


def cloning(config: Any, schedule: str, updates: int | None = None) -> CloneConfig:
    """Returns settings of cloning to a network as wide as a method's own.

    Args:
      config: of the method.
      schedule: "paper" or "fast", which says how many updates.
      updates: how many; None for those of the schedule.
    """
    of_schedule = FAST_CLONE_UPDATES if schedule == "fast" else CloneConfig().updates
    hidden = getattr(config.networks, "hidden", None)  # a transformer has none, and nothing is cloned to it
    return CloneConfig(hidden=hidden, updates=updates or of_schedule)


def data_warnings(dataset: Dataset, task: Task | None) -> list[str]:
    """Returns warnings for people who read the numbers that come of a dataset, a line each.

    Args:
      dataset: of N rows.
      task: that it is for; None without an environment.
    """
    warnings = []
    widest = float(np.abs(dataset.transitions.action).max())
    if widest < NARROW_ACTIONS:
        low, high = task.action_bounds if task and task.action_bounds else (-1, 1)
        warnings.append(
            f"the actions of {dataset.name} fill {widest:.0%} of [-1, 1], where -1 and 1 stand for the environment's "
            f"bounds, {low} and {high}: scale them first if they are in other units"
        )
    observations = dataset.transitions.observation
    constant = np.flatnonzero((observations == observations[0]).all(axis=0))
    if len(constant):
        warnings.append(
            f"of the observations of {dataset.name} the same in every row are numbers {registry.listed(constant)}: "
            f"where they are normalized, a difference from that counts {1 / STD_OFFSET:,.0f}-fold online, so leave "
            "out what the environment changes"
        )
    broken = dataset.broken_share()
    if broken > MOST_BROKEN:
        warnings.append(
            f"after {broken:.0%} of the rows of {dataset.name} comes another state than their next observation, where "
            "no episode ends: put rows in the order of their episodes or, if they are shuffled, set truncations in all "
            "of them"
        )
    return warnings


def check_evaluation(plan: Plan) -> None:
    """Makes sure that policies can be evaluated while phases run as the job asks.

    Raises:
      ValueError: evaluations would fall between two checks of a phase, or the policies have no samples.
    """
    algorithm = plan.setup.algorithm
    for phase in algorithm.phases:
        every = phase.stop.check_every_updates if phase.stop else 1
        if plan.eval_every % every:
            raise ValueError(
                f"eval_every must be a multiple of early_stopping.check_every_updates, {every}, got {plan.eval_every}"
            )
    if plan.eval_sampled:
        policy = jax.eval_shape(algorithm.policy, plan.shapes().agent)
        if not isinstance(policy, Policy) or policy.head == "deterministic":
            raise ValueError(f"policies of {plan.settings['algorithm']} have no samples: leave out --eval_sampled")


def check_discount(source: Mapping[str, Any], setup: Setup) -> None:
    """Refuses critics of an offline run, whose settings are `source`, that were trained with another discount.

    Raises:
      ValueError: they were, and the method reads them.
    """
    discount = source["config"].get("discount")
    if setup.requires.state and discount is not None and discount != setup.config.update.discount:
        raise ValueError(
            f"the critics of {source['algorithm']} were trained with another discount: set update.discount={discount}"
        )


def try_environment(family: ModuleType, task: Task) -> None:
    """Takes a step in an environment of a task: what can't work is said before hours of updates. Impure.

    Args:
      family: the task's environment family.
      task: the task.

    Raises:
      ValueError: the environment fails, or its observations or actions are of other sizes than the task says.
    """
    from o2o_jax.envs.border import Border  # where environments are made: it needs gymnasium

    env = Border(family.make_env(task))
    try:
        found = env.observation_space.shape, env.action_space.shape
        if found != ((task.spec.observation_dim,), (task.spec.action_dim,)):
            raise ValueError(
                f"{task.name} has observations of shape {found[0]} and actions of shape {found[1]}, but its task says "
                f"{task.spec.observation_dim} and {task.spec.action_dim}: mend the spec of its family"
            )
        env.reset(seed=0)
        env.step(np.zeros(task.spec.action_dim, np.float32))
    finally:
        env.close()
